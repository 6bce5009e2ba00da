"""The widgets as plain objects: what they show is read as text, no browser needed."""

import html
import importlib
import re

import pytest
from chat_tokenizers import FAMILIES, family
from contrast import brightness, contrast

from lab_utils.errors import LabError
from lab_utils.evaluate import grade
from lab_utils.finetune.supervision import encode
from lab_utils.scores import measure
from lab_utils.tasks.registry import TASKS
from lab_utils.widgets.before_after import before_after
from lab_utils.widgets.label_microscope import label_microscope, picture, tokens_html
from lab_utils.widgets.live_loss import LiveLoss
from lab_utils.widgets.tables import answers_table, report_table, shares_table
from lab_utils.widgets.try_it import try_it


@pytest.fixture
def examples(tokenizer):
    pairs = [("Two <b>drums</b> for Ann, fri 3pm", '{"name":"Ann"}'), ("One saw for Bo, mon noon", '{"name":"Bo"}')]
    return [encode(tokenizer, TASKS["bookings"], prompt, answer) for prompt, answer in pairs]


def history(steps):
    """A made-up run: the loss halves every step, half a second each."""
    return [
        {"step": i + 1, "loss": 2.0**-i, "learning_rate": 1e-3, "tokens": 100, "supervised_tokens": 40, "seconds": 0.5}
        for i in range(steps)
    ]


def test_microscope_counts_what_is_trained(tokenizer, examples):
    box = label_microscope(tokenizer, examples)
    trained = len(examples[0].input_ids) - examples[0].prompt_length
    assert box.view.value.count('class="trained"') == trained
    assert f"{trained} of {len(examples[0].input_ids)} tokens are trained" in box.view.value
    assert "hidden-end" not in box.view.value.split("</style>")[1]


def test_microscope_switch_hides_the_last_token_only(tokenizer, examples):
    box = label_microscope(tokenizer, examples)
    with_end = re.findall(r'<span class="([\w-]+)"', box.view.value)
    box.end.value = False
    without = re.findall(r'<span class="([\w-]+)"', box.view.value)
    assert without[:-1] == with_end[:-1]
    assert (with_end[-1], without[-1]) == ("trained", "hidden-end")


def test_microscope_slider_and_outputs(tokenizer, examples):
    box = label_microscope(tokenizer, examples, outputs={True: ["stops", "halts"], False: ["runs on", "rambles"]})
    box.index.value = 1
    assert "halts" in box.view.value and "Bo" in box.view.value
    box.end.value = False
    assert "rambles" in box.view.value and "halts" not in box.view.value


@pytest.mark.parametrize("end", [True, False])
def test_microscope_and_its_picture_show_the_same(tokenizer, examples, end):
    outputs = {True: ["<b>stops</b>", "halts"], False: ["runs on", "rambles"]}
    for written in (None, outputs):
        box = label_microscope(tokenizer, examples, outputs=written)
        box.end.value = end
        shown = picture(tokenizer, examples[0], supervise_end=end, written=written and written[end][0])
        assert shown.data == box.view.value and "<b>stops" not in shown.data


@pytest.mark.parametrize("name", ["Llama 3", "Gemma", "Phi-3"])
def test_microscope_shows_the_templates_end_of_turn(name):
    tokenizer, end = family(name), FAMILIES[name][-1]
    example = encode(tokenizer, TASKS["style"], "hi", "Arr")
    shown = tokens_html(tokenizer, example)
    assert shown.endswith(f">{html.escape(end)}</span>") and 'trained">' in shown.rpartition("<span")[2]
    assert tokens_html(tokenizer, example, supervise_end=False).rpartition("<span")[2].startswith(' class="hidden-end"')


def test_microscope_without_examples_or_with_too_few_outputs_says_so(tokenizer, examples):
    with pytest.raises(LabError, match="no examples"):
        label_microscope(tokenizer, [])
    for outputs in ({True: ["a", "b"]}, {True: ["a", "b"], False: ["a"]}):
        with pytest.raises(LabError, match="2 texts for True and as many for False"):
            label_microscope(tokenizer, examples, outputs=outputs)


def test_microscope_escapes_what_people_write(tokenizer, examples):
    assert "<b>" not in tokens_html(tokenizer, examples[0])


def test_live_loss_redraws_one_image():
    live = LiveLoss(steps=3, every_seconds=0)
    pictures = [bytes(live.image.value)]
    for count in (1, 2, 3):
        live(history(count))
        pictures.append(bytes(live.image.value))
    assert [type(child).__name__ for child in live.widget.children] == ["Image", "HTML", "HTML"]  # never a second image
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(set(pictures)) == 4
    assert "Step 3 of 3, loss of this batch 0.250, 200 tokens/s, 0 s left" in live.text.value


def test_live_loss_is_throttled_but_shows_the_end():
    live = LiveLoss(steps=3, every_seconds=1000)
    first = live.image.value
    live(history(1))
    assert live.image.value == first  # drawn when made, a moment ago
    assert "lab-figure" in live.image._dom_classes and ".lab-figure" in live.widget.children[-1].value  # for the dark
    live(history(3))
    assert "Step 3 of 3" in live.text.value


def test_answers_table_marks_right_and_wrong():
    task = TASKS["bookings"]
    example = {"prompt": "a & b", "answer": '{"name":"Ann"}'}
    columns = {
        "before": grade(task, [example], ["<i>no</i>" + "x" * 300]),
        "after": grade(task, [example], ['{"name": "Ann"}']),
    }
    page = answers_table(columns).data
    assert page.count('class="wrong"') == page.count('class="right"') == 1
    assert "✗" in page and "✓" in page and "<i>" not in page and "a &amp; b" in page and "x" * 230 not in page


def test_shares_table_has_counts_out_of_n_and_wilsons_intervals():
    answers, outputs = ['{"name":"Ann"}'] * 20, ['{"name":"Ann"}'] * 16 + ["no"] * 4
    right, wrong = (measure(TASKS["bookings"], answers, some) for some in (outputs, ["no"] * 20))
    page = shares_table({"<before>": wrong, "after": right}).data
    assert "<td>exact match</td><td>0 of 20 · 0% (0% to 16%)</td><td>16 of 20 · 80% (58% to 92%)</td>" in page
    assert "&lt;before&gt;" in page and page.count("<tr>") == 1 + 2 + len(TASKS["bookings"].fields)


CONTRASTS = {  # sheet -> pairs of what is written and what it is written on
    "tables": ("text back", "text head", "text right", "text wrong"),
    "label_microscope": ("text back", "dim read", "#fff learned", "hidden back"),
    "try_it": ("text back",),
    "before_after": ("text back", "text soft", "faint back", "faint soft", "accent back"),
}


@pytest.mark.parametrize("name, pairs", CONTRASTS.items(), ids=CONTRASTS)
def test_tables_and_tokens_are_readable_in_the_light_and_in_the_dark(name, pairs):
    style = importlib.import_module(f"lab_utils.widgets.{name}").STYLE
    blocks = [dict(re.findall(r"--lab-(\w+): (#\w+)", block)) for block in re.findall(r"\{([^}]+)\}", style)]
    light, dark = [block for block in blocks if block]
    assert light.keys() == dark.keys() and '[data-jp-theme-light="false"]' in style
    assert brightness(light["back"]) > 0.9 and brightness(dark["back"]) < 0.05  # no white slab in the dark
    for colors in (light, dark):
        for pair in pairs:
            assert contrast(*(colors.get(part, part) for part in pair.split())) >= 4.5, pair


def test_report_table_shows_advice():
    rows = [{"what": "disk", "found": "full", "ok": False, "advice": "tidy <up>"}]
    text = report_table(rows).data
    assert "tidy &lt;up&gt;" in text and "<caption>To fix: disk.</caption>" in text


@pytest.mark.parametrize("advice, shown", [
    ("run `make lab` or `pip <x>`.", "run <code>make lab</code> or <code>pip &lt;x&gt;</code>."),
    ("a ` alone", "a ` alone"), ("`a` b ` c", "<code>a</code> b ` c"), ("``", "<code></code>"), ("", ""),
])  # fmt: skip
def test_what_is_in_backticks_is_code_in_a_report(advice, shown):
    text = report_table([{"what": "disk", "found": "", "ok": True, "advice": advice}]).data
    assert text.endswith(f"<td>{shown}</td></tr></table>")
    assert "<caption>Everything the course needs is here.</caption>" in text


def test_before_and_after_are_read_in_order_and_hold_nothing_of_the_models_html():
    page = before_after("Ann & <b>Bo</b>", " x<y ", '{"a":1,"b":2}', names=("then", "now")).data.split("</style>")[1]
    assert re.findall(r"<p class=.[^>]*>(.*?)</p>", page) == [
        "message", "Ann &amp; &lt;b&gt;Bo&lt;/b&gt;", "then", "x&lt;y", "now", "{&quot;a&quot;:1,<wbr>&quot;b&quot;:2}",
    ]  # fmt: skip


def test_try_it_asks_both_and_survives_an_error():
    def fails(text):
        raise RuntimeError("no")

    box = try_it(str.upper, str.lower, "Hello <You>")
    assert "HELLO &lt;YOU&gt;" in box.view.value and "hello &lt;you&gt;" in box.view.value
    box.message.value = "  "
    box.button.click()
    assert box.view.value == "Type a message first."
    with pytest.raises(RuntimeError):
        try_it(fails, str.lower, "x")
    assert not box.button.disabled
