"""What a page without a kernel shows of its widgets, from the state that the notebook saved.

An explorer that computes in the browser keeps working: its module and its state are embedded in the page. Any other
widget becomes static: its pictures, its texts, and the values of its controls.
"""

import copy
import html
import json
import re
from pathlib import Path

from ..files import read_text

VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
LAST_LINE = "export default { render };"  # of a module that works in a page
NOTE = "The controls need a running kernel: open this notebook in JupyterLab."
STYLE = """
.lab-still img, .lab-snapshot img { max-width: 100%; height: auto; background: #fff; }
.lab-still[hidden] { display: none; }
.lab-snapshot { font: var(--jp-content-font-size1)/1.5 var(--jp-content-font-family); }
.lab-snapshot { color: var(--jp-content-font-color1); }
.lab-snapshot .lab-row { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
.lab-snapshot :is(.lab-control-value, .lab-text) { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0; }
.lab-snapshot .lab-no-kernel { color: var(--jp-content-font-color2); font-style: italic; margin: .4rem 0; }
"""
_CONTROL = 'class="lab-control-value"'
_HIDDEN_TRAITS = {"layout", "tabbable", "tooltip"}


def replace_widgets(notebook):
    """Replace a notebook's widgets by HTML.

    Parameters
    ----------
    notebook : NotebookNode, executed, with its widgets' state in the metadata (where it has any)

    Returns
    -------
    (NotebookNode, str, str)
        A copy whose widget outputs are `text/html` (marked in their metadata with `lab_widget`) and whose metadata
        has no widgets; HTML for the page's head (styles); HTML for the end of its body (scripts). Both are empty
        where no output is a widget.
    """
    page = copy.deepcopy(notebook)
    models = page.metadata.pop("widgets", {})
    for part in (STATE, "state"):
        models = models.get(part, {}) if isinstance(models, dict) else {}
    modules, shown, found = [], {}, False
    for output in (output for cell in page.cells for output in cell.get("outputs", [])):
        view = output.get("data", {}).pop(VIEW, None)
        if view is None:
            continue
        model = _model(view, models)
        if works_in_a_page(model):
            state = model["state"]
            module = (state["_esm"], state.get("_css", ""))
            modules += [module] if module not in modules else []
            shown[view["model_id"]] = state
            asks = ' data-asks="python"' if asks_python(state["_esm"]) else ""
            body = (
                f'<div class="lab-place" data-model="{html.escape(view["model_id"])}" '
                f'data-module="{modules.index(module)}"{asks}><div class="lab-still">{_still(output)}</div></div>'
            )
        else:
            tree = _static(view, models)
            note = f'<p class="lab-no-kernel">{NOTE}</p>' if not tree or _CONTROL in tree else ""
            body = (tree if "<img" in tree else _picture(output) + tree) or _still(output)
            body = f'<div class="lab-snapshot">{body}{note}</div>'
        found = True
        output.data = type(output.data)({"text/html": body})
        output.metadata["lab_widget"] = True
    return page, _styles(modules) if found else "", _scripts(modules, shown) if shown else ""


def explorers(notebook) -> list[tuple]:
    """The (output, state) of each widget of a notebook that answers without Python, in the order of the page."""
    models = notebook.metadata.get("widgets", {})
    for part in (STATE, "state"):
        models = models.get(part, {}) if isinstance(models, dict) else {}
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [(output, _model(output.get("data", {}).get(VIEW), models)) for output in outputs]
    return [
        (output, model["state"]) for output, model in shown
        if works_in_a_page(model) and not asks_python(model["state"]["_esm"])
    ]  # fmt: skip


def _model(view, models) -> dict:
    """The saved model of a view; empty if the notebook's metadata are not as JupyterLab writes them."""
    found = models.get(view.get("model_id"), {}) if isinstance(view, dict) and isinstance(models, dict) else {}
    return found if isinstance(found, dict) and isinstance(found.get("state"), dict) else {}


def _static(view, models) -> str:
    """A widget as static HTML; empty if its state is incomplete, so that the page is still written."""
    if not _model(view, models):
        return ""
    try:
        return snapshot(view["model_id"], models)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return ""


def works_in_a_page(model: dict) -> bool:
    """Whether a saved model is an anywidget whose module needs nothing but its plain state."""
    module = str(model.get("state", {}).get("_esm", ""))
    imports = re.search(r"^\s*import\b|\bimport\(", module, flags=re.MULTILINE)
    return module.rstrip().endswith(LAST_LINE) and not imports and not model.get("buffers")


def asks_python(module: str) -> bool:
    """Whether an explorer needs the kernel for its answers; in a page it is then inactive, and says so."""
    return bool(re.search(r"(?<!function )\brest\(|\bmodel\.send\(", module))


def snapshot(model_id: str, models: dict) -> str:
    """A widget, with the widgets inside it, as HTML without scripts.

    Parameters
    ----------
    model_id : str
    models : dict model id -> {"state": dict, "buffers": list}, as a notebook's metadata keeps them

    Returns
    -------
    str, empty for a widget that shows nothing or is unknown
    """
    model = models.get(model_id, {})
    state = model.get("state", {})
    layout = models.get(str(state.get("layout", ""))[10:], {}).get("state", {})  # less "IPY_MODEL_"
    if layout.get("display") == "none" or layout.get("visibility") == "hidden":
        return ""
    kind = str(state.get("_model_name", "")).removesuffix("Model")
    if "children" in state:
        parts = [snapshot(child.removeprefix("IPY_MODEL_"), models) for child in state["children"]]
        titles = [f"<b>{html.escape(title)}</b>" for title in state.get("titles", [])]
        titles += [""] * (len(parts) - len(titles))
        inside = "".join(f"<div>{title}{part}</div>" for title, part in zip(titles, parts, strict=True) if part)
        return f'<div class="{"lab-row" if kind == "HBox" else "lab-column"}">{inside}</div>' if inside else ""
    if kind == "Image":
        return _image(state, model.get("buffers", []))
    if kind in ("HTML", "HTMLMath"):
        title = html.escape(state["description"] + ": ") if state.get("description") else ""
        return f"<div>{title}{state['value']}</div>"
    return _readout(kind, state)


def _image(state: dict, buffers: list) -> str:
    """An Image widget with its picture embedded; empty if it has none, or only the address of one."""
    data = next((buffer["data"] for buffer in buffers if buffer["path"] == ["value"]), "")
    if not data or state.get("format", "png") == "url":
        return ""
    text = html.escape(state.get("tooltip") or "Picture that the notebook drew", quote=True)
    return f'<img alt="{text}" src="data:image/{html.escape(state.get("format", "png"))};base64,{data.strip()}">'


def _readout(kind: str, state: dict) -> str:
    """The value of a control or a progress bar, as `description: value`; empty for a widget without one."""
    labels, chosen = state.get("_options_labels"), state.get("index")
    if kind == "Password":
        return ""
    if kind == "Button":
        name, value = "button", state["description"]
    elif labels is None and "value" not in state:
        return ""
    else:
        name = state.get("description", "")
        if labels is None:
            value = state["value"]
        else:
            value = [] if chosen is None else chosen
        values = [_shown(part, state) for part in (value if isinstance(value, (list, tuple)) else [value])]
        value = (" to " if "Range" in kind else ", ").join(values)
        if "Progress" in kind:
            value += f" of {_shown(state['max'], state)}"
    mark = 'class="lab-text"' if kind in ("Label", "IntProgress", "FloatProgress", "Valid") else _CONTROL
    return f'<div {mark}>{html.escape(f"{name}: {value}" if name else value)}</div>'


def _shown(value, state: dict) -> str:
    """A value as its control shows it: the label of a choice, a number in the control's format, on or off."""
    if "_options_labels" in state:
        return state["_options_labels"][value]
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        try:
            return format(value, state.get("readout_format") or "g")
        except ValueError:  # one of d3's formats that Python lacks
            return f"{value:g}"
    return "" if value is None else str(value)


def _summary(output) -> str:
    """The output's plain text; empty if that is only Python's `<object at …>` or `VBox(children=…`."""
    text = str(output.data.get("text/plain", "")).strip()
    return "" if re.match(r"<|\w+\(", text) else text


def _picture(output) -> str:
    """The picture that an output has beside its widget, or an empty text."""
    kind = next((kind for kind in ("image/png", "image/jpeg") if kind in output.data), None)
    if kind is None:
        return ""
    text = output.metadata.get(kind, {}).get("alt") or _summary(output) or "Picture of this explorer"
    return f'<img alt="{html.escape(text, quote=True)}" src="data:{kind};base64,{output.data[kind].strip()}">'


def _still(output) -> str:
    """What an output shows if its widget cannot be drawn: its picture, else its HTML, else its text."""
    return _picture(output) or output.data.get("text/html") or f"<pre>{html.escape(_summary(output) or NOTE)}</pre>"


def _styles(modules: list) -> str:
    """A style element: the page's own rules and those of each explorer, once."""
    css = "\n".join(dict.fromkeys([STYLE, *(css for _, css in modules)]))
    css = re.sub("</(?=style)", r"<\\/", css, flags=re.IGNORECASE)  # a backslash changes nothing in a CSS string
    return f"<style>{css}</style>"


def _scripts(modules: list, states: dict) -> str:
    """The states as JSON, then a model for each, then every explorer's module, once."""
    plain = {
        model_id: {name: value for name, value in state.items() if name[0] != "_" and name not in _HIDDEN_TRAITS}
        for model_id, state in states.items()
    }
    data = json.dumps(plain, ensure_ascii=False).replace("<", "\\u003c")
    texts = [read_text(Path(__file__).parent / "assets" / "page.js")]
    texts += [f"{module.rstrip()}\nshowExplorers({number}, render);\n" for number, (module, _) in enumerate(modules)]
    scripts = "".join(f'<script type="module">\n{_in_script(text)}</script>\n' for text in texts)
    return f'<script id="lab-states" type="application/json">{data}</script>\n{scripts}'


def _in_script(text: str) -> str:
    """JavaScript that cannot end its own script element: both marks occur only in strings and comments."""
    return re.sub("<(?=/script|!--)", r"\\x3c", text, flags=re.IGNORECASE)
