"""Small explorers, and notebooks that show widgets, for the tests of pages."""

import base64
import io

import anywidget
import ipywidgets
import nbformat
import traitlets
from ipywidgets.embed import dependency_state
from PIL import Image

MARK = "</script><!--<script>"  # ends a script element, or keeps one open, unless it is written differently


def png(width: int = 40, height: int = 20) -> bytes:
    """A grey picture."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), 150).save(buffer, format="png")
    return buffer.getvalue()


class Toy(anywidget.AnyWidget):
    """A slider for a rank, and a sentence about it."""

    _esm = """
    const MARK = "MARKED";
    function render({ model, el }) {
      const slider = document.createElement("input");
      Object.assign(slider, { type: "range", min: 0, max: 10 });
      slider.setAttribute("aria-label", "rank");
      const text = document.createElement("output");
      text.className = "toy-text";
      const show = () => {
        slider.value = model.get("rank");
        text.textContent = `${model.get("name")} has rank ${model.get("rank")} ${MARK}`;
      };
      slider.addEventListener("input", () => {
        model.set("rank", Number(slider.value));
        model.save_changes();
      });
      model.on("change:rank", show);
      show();
      el.append(slider, text);
    }
    export default { render };
    """.replace("MARKED", MARK)
    _css = '.toy-text { border-left: 3px solid #0b5fa5; } .toy-text::after { content: "</style>"; }'
    name = traitlets.Unicode().tag(sync=True)
    rank = traitlets.Int(3).tag(sync=True)

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        picture = base64.b64encode(png()).decode()
        return {**data, "image/png": picture, "text/plain": f'A "toy" of rank {self.rank}'}, metadata


class Broken(Toy):
    """One whose drawing fails, after it has begun."""

    _esm = 'function render({ el }) { el.textContent = "half"; throw new Error("toy failure"); }\n'
    _esm += "export default { render };"


class Asking(Toy):
    """One that would ask Python."""

    _esm = "function rest() {}\nfunction render({ model }) { rest({ model }); }\nexport default { render };"


class Listener(Toy):
    """One that writes down which events its model sends."""

    _esm = """
    function render({ model, el }) {
      const heard = [];
      const named = (name) => () => heard.push(name);
      const gone = named("gone");
      model.on("change:ranks", (sender, value) => heard.push(sender === model, value));
      model.on("change:ranks", gone);
      model.on("change", named("any"));
      model.on("change:name", named("name"));
      model.off("change:ranks", gone);
      model.set("ranks", [1, 2]);
      model.set("ranks", [1, 2]);
      model.save_changes();
      model.off("change");
      model.set("name", "new");
      model.off();
      model.set("rank", 9);
      model.set("ranks", []);
      el.className = "heard";
      el.textContent = JSON.stringify([heard, model.get("name"), model.get("rank"), model.get("ranks")]);
    }
    export default { render };
    """
    ranks = traitlets.List().tag(sync=True)


def notebook_of(*widgets: ipywidgets.Widget):
    """A notebook as if it had been executed, each widget shown by its own cell."""
    new = nbformat.v4
    notebook = new.new_notebook(metadata={"language_info": {"name": "python"}})
    for widget in widgets:
        bundle = widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        output = new.new_output("display_data", data=data, metadata=metadata)
        notebook.cells.append(new.new_code_cell("widget", outputs=[output]))
    if widgets:
        state = dependency_state(widgets, drop_defaults=False)
        notebook.metadata["widgets"] = {
            "application/vnd.jupyter.widget-state+json": {"version_major": 2, "version_minor": 0, "state": state}
        }
    return nbformat.from_dict(notebook)
