"""An explorer on its own page, without Jupyter and without a kernel: what it draws, JavaScript computed."""

import contextlib
import json

import browser

PAGE = """<!doctype html><meta charset="utf-8"><style>{css}</style><body data-jp-theme-light="{light}">
<main style="width: 1000px; background: {back}"></main>
<script type="module">
{module}
const state = {state}, listeners = [];
const tell = (name) => listeners.filter(([event]) => event === `change:${{name}}`).forEach(([, draw]) => draw());
const model = {{
  get: (name) => state[name], on: (event, draw) => listeners.push([event, draw]), off: () => {{}},
  save_changes: () => {{}},
  set: (name, value) => {{
    if (JSON.stringify(state[name]) !== JSON.stringify(value)) {{ state[name] = value; tell(name); }}
  }},
}};
render({{ model, el: document.querySelector("main") }});
globalThis.model = model;
</script>"""


@contextlib.contextmanager
def shown(explorer, dark: bool = False):
    """Draw an explorer in Chromium; yields Playwright's page, with `page.errors` and, in its window, `model`."""
    state = {name: value for name, value in explorer.get_state().items() if name[0] != "_" and name != "layout"}
    text = PAGE.format(
        css=explorer._css, light=str(not dark).lower(), back="#111" if dark else "#fff", state=json.dumps(state),
        module=explorer._esm.replace("export default { render };", ""),
    )  # fmt: skip
    if dark:  # what JupyterLab's dark theme sets
        text = text.replace("<main", "<style>:root{--jp-layout-color1:#111;--jp-ui-font-color0:#fff}</style><main", 1)
    with browser.chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1040, "height": 1100})
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.set_content(text)
        page.wait_for_selector(".lab-summary", state="attached")
        yield page


def sentences(page, states: list[dict]) -> list[str]:
    """Set traits as the reader would, one dict after the other, and read what the explorer says each time."""
    return page.evaluate(
        """states => states.map(traits => {
          for (const [name, value] of Object.entries(traits)) model.set(name, value);
          return document.querySelector('.lab-summary').textContent;
        })""",
        states,
    )
