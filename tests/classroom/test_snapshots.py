"""What is in a page in the place of widgets, read as text; real browsers are in test_browser_pages.py."""

import base64
import copy
import json
import re

import ipywidgets
import pytest
from ipywidgets.embed import dependency_state
from toys import MARK, Asking, Toy, notebook_of, png

from lab_utils.classroom.snapshots import NOTE, STATE, asks_python, replace_widgets, snapshot, works_in_a_page
from lab_utils.folders import ROOT

WIDGETS = ROOT / "lab_utils" / "widgets"
NO_EXPLORERS = {  # shared, and scripts of whole pages
    "differences", "digit_reader", "explorer", "levels", "memory_estimate", "page", "present", "site",
}  # fmt: skip


def still(widget) -> str:
    """The snapshot of one widget."""
    return snapshot(widget.model_id, dependency_state([widget], drop_defaults=False))


def words(text: str) -> str:
    """What is read of HTML: no tags, single blanks."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def html_of(notebook, index: int) -> str:
    """The first output of cell `index`, which must be HTML only."""
    data = notebook.cells[index].outputs[0].data
    assert list(data) == ["text/html"]
    return data["text/html"]


@pytest.mark.parametrize(
    "widget, shown",
    [
        (lambda w: w.IntSlider(3, description="rank"), "rank: 3"),
        (lambda w: w.FloatSlider(0.125, max=1, readout_format=".1%", description="part"), "part: 12.5%"),
        (lambda w: w.FloatSlider(0.5, readout_format="$.2f"), "0.5"),  # a format of d3 that Python does not know
        (lambda w: w.FloatLogSlider(2e-4, min=-5, max=0, readout_format=".1e", description="rate"), "rate: 2.0e-04"),
        (lambda w: w.IntRangeSlider(value=(2, 7), description="ranks"), "ranks: 2 to 7"),
        (lambda w: w.Dropdown(options=[("one", 1), ("two", 2)], value=2, description="which"), "which: two"),
        (lambda w: w.Dropdown(options=["a"], value=None, description="which"), "which:"),
        (lambda w: w.SelectMultiple(options="abc", value=("a", "c"), description="layers"), "layers: a, c"),
        (lambda w: w.SelectionRangeSlider(options="abcd", index=(1, 3), description="from"), "from: b to d"),
        (lambda w: w.Checkbox(False, description="double"), "double: off"),
        (lambda w: w.Text("<b> & c", description="say"), "say: &lt;b&gt; &amp; c"),
        (lambda w: w.Password("hush", description="token"), ""),
        (lambda w: w.Button(description="Ask both"), "button: Ask both"),
        (lambda w: w.IntProgress(3, max=10, description="steps"), "steps: 3 of 10"),
        (lambda w: w.HTML("<b>bold</b>", description="note"), "note: bold"),
        (lambda w: w.Label("plain"), "plain"),
        (lambda w: w.Image(value=b"", format="png"), ""),
        (lambda w: w.Image(value=b"https://a.b/c.png", format="url"), ""),
        (lambda w: w.HBox(), ""),
        (lambda w: w.VBox([w.Label("seen"), w.Label("not", layout=w.Layout(display="none"))]), "seen"),
        (lambda w: w.Tab([w.Label("a"), w.Label("b")], titles=["First", "Last"]), "First a Last b"),
    ],
)
def test_a_widget_in_words(widget, shown):
    assert words(still(widget(ipywidgets))) == shown


def test_a_tree_keeps_its_order_and_its_picture():
    picture = ipywidgets.Image(value=png(), format="png", tooltip='Loss "falls"')
    row = ipywidgets.HBox([ipywidgets.IntSlider(1), ipywidgets.Label("x")])
    tree = ipywidgets.VBox([row, picture, ipywidgets.HTML("<i>y</i>")])
    text = still(tree)
    data = base64.b64encode(png()).decode()
    assert text.index("lab-row") < text.index(">1<") < text.index(">x<") < text.index("<img") < text.index("<i>y</i>")
    assert f'<img alt="Loss &quot;falls&quot;" src="data:image/png;base64,{data}">' in text
    assert "IPY_MODEL" not in text and "<script" not in text


def test_an_unknown_widget_shows_nothing():
    assert snapshot("gone", {}) == ""


def test_a_page_without_widgets_is_left_alone():
    notebook = notebook_of()
    page, head, scripts = replace_widgets(notebook)
    assert page == notebook and page is not notebook and head == scripts == ""


def test_other_widgets_are_still_pictures_with_a_note():
    slider = ipywidgets.IntSlider(4, description="rank")
    notebook = notebook_of(ipywidgets.VBox([slider]))
    before = copy.deepcopy(notebook)
    page, head, scripts = replace_widgets(notebook)
    assert words(html_of(page, 0)) == f"rank: 4 {NOTE}"
    assert notebook == before  # only a copy was changed
    assert "widgets" not in page.metadata and head.startswith("<style>") and scripts == ""


def test_where_nothing_can_be_moved_no_note_speaks_of_controls():
    bar = ipywidgets.HBox([ipywidgets.HTML("steps"), ipywidgets.IntProgress(3, max=10)])
    box = ipywidgets.VBox([ipywidgets.Image(value=png()), bar, ipywidgets.Label("x")])
    page, _, _ = replace_widgets(notebook_of(box))
    assert words(html_of(page, 0)) == "steps 3 of 10 x"


def test_a_widget_without_a_saved_state_shows_its_picture_else_its_text():
    notebook = notebook_of(Toy(rank=5), ipywidgets.IntSlider(4))
    del notebook.metadata["widgets"]
    page, _, scripts = replace_widgets(notebook)
    assert '<img alt="A &quot;toy&quot; of rank 5" src="data:image/png;base64,' in html_of(page, 0)
    assert NOTE in html_of(page, 1) and scripts == ""


def test_the_picture_beside_a_widget_is_used_where_its_state_has_none():
    box = ipywidgets.VBox([ipywidgets.Label("words")])
    notebook = notebook_of(box)
    notebook.cells[0].outputs[0].data["image/png"] = base64.b64encode(png()).decode()
    text = html_of(replace_widgets(notebook)[0], 0)
    assert text.count("<img") == 1 and text.index("<img") < text.index("words")


def test_explorers_get_one_module_a_class_and_one_state_each():
    first, second = Toy(name="A"), Toy(name=f"B {MARK}", rank=7)
    page, head, scripts = replace_widgets(notebook_of(first, second, first))
    places = [re.search(r'data-model="(\w+)" data-module="(\d+)"', html_of(page, index)).groups() for index in range(3)]
    assert places == [(first.model_id, "0"), (second.model_id, "0"), (first.model_id, "0")]
    assert scripts.count("function render(") == 1 and scripts.count("showExplorers(0, render);") == 1
    assert head.count(".toy-text {") == 1
    states = json.loads(re.search(r'type="application/json">(.*?)</script>', scripts)[1])
    assert states == {first.model_id: {"name": "A", "rank": 3}, second.model_id: {"name": f"B {MARK}", "rank": 7}}
    assert all('<img alt="A &quot;toy&quot; of rank' in html_of(page, index) for index in range(3))


def test_no_text_ends_its_own_element():
    """Whatever is between the tags, the only ones that a browser sees are ours."""
    toy = Toy(name=f"{MARK}</SCRIPT>")
    _, head, scripts = replace_widgets(notebook_of(toy))
    assert len(re.findall("</style", head, flags=re.IGNORECASE)) == 1
    assert len(re.findall("</script", scripts, flags=re.IGNORECASE)) == 3
    assert len(re.findall("<script (id|type)=", scripts)) == 3
    assert "<!--" not in scripts


@pytest.mark.parametrize(
    "module, living",
    [
        ("function render() {}\nexport default { render };", True),
        ("function render() {}\nexport default { render };\n  ", True),
        ('import * as d3 from "https://esm.sh/d3";\nfunction render() {}\nexport default { render };', False),
        ('const d3 = await import("https://esm.sh/d3");\nfunction render() {}\nexport default { render };', False),
        ("export function render() {}", False),
        ("", False),
    ],
)
def test_only_self_contained_modules_live(module, living):
    assert works_in_a_page({"state": {"_esm": module}}) is living
    assert not works_in_a_page({"state": {"_esm": module}, "buffers": [{"path": ["data"], "data": ""}]})
    assert not works_in_a_page({})


@pytest.mark.parametrize("name", sorted({path.stem for path in WIDGETS.glob("*.js")} - NO_EXPLORERS))
def test_every_explorer_of_the_lab_lives_without_a_network(name):
    from lab_utils.widgets.explorer import STYLE, script

    assert works_in_a_page({"state": {"_esm": script(name)}})
    assert set(re.findall(r"https?://[^\"'\s]*", script(name) + STYLE)) <= {"http://www.w3.org/2000/svg"}  # a name
    assert not re.search(r"@import|url\(", STYLE)


def test_explorers_that_ask_python_are_marked():
    """The chat runs a model; the others compute here."""
    from lab_utils.widgets.explorer import script

    names = {path.stem for path in WIDGETS.glob("*.js")} - NO_EXPLORERS
    assert {name for name in names if asks_python(script(name))} == {"chat"}
    page, _, _ = replace_widgets(notebook_of(Toy(), Asking()))
    assert ['data-asks="python"' in html_of(page, index) for index in (0, 1)] == [False, True]


@pytest.mark.parametrize("damage", [
    lambda models, model: models.pop(model), lambda models, model: models[model].pop("state"),
    lambda models, model: models[model].update(state=[]), lambda models, model: models.update({model: None}),
    lambda models, model: models[model]["state"].update(_options_labels=["a"], index=7),
    lambda models, model: models[model]["state"].update(children=[3]),
    lambda models, model: models[model]["state"].update(children=["IPY_MODEL_" + model]),
    lambda models, model: models[model].update(buffers=[{}], state={"_model_name": "ImageModel"}),
    lambda models, model: models[model]["state"].update(_model_name="HTMLModel", value=None, _options_labels=None),
], ids=range(9))  # fmt: skip
def test_a_widget_whose_saved_state_is_damaged_leaves_the_page_whole(damage):
    """As a notebook that another program, or a merge, has changed."""
    slider = ipywidgets.IntSlider(3, description="rank")
    models = json.loads(json.dumps(dependency_state([slider], drop_defaults=False)))
    damage(models, slider.model_id)
    notebook = notebook_of(slider)
    state = {STATE: {"state": models}}
    notebook.metadata["widgets"] = state
    page, _, _ = replace_widgets(notebook)
    shown = [output.data for cell in page.cells for output in cell.get("outputs", []) if "text/html" in output.data]
    assert shown and all("Traceback" not in data["text/html"] for data in shown)


@pytest.mark.parametrize("widgets", [{}, {STATE: {}}, {STATE: {"state": []}}, {STATE: None}, [], None])
def test_metadata_of_another_shape_leave_the_page_whole(widgets):
    notebook = notebook_of(ipywidgets.IntSlider(3))
    notebook.metadata["widgets"] = widgets
    page, _, _ = replace_widgets(notebook)
    assert "widgets" not in page.metadata
