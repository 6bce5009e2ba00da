"""The report card: whole, self-contained, nothing in it is a command, and its program loads what was trained."""

import html.parser
import math
import re
from pathlib import Path

import mistune
import pytest
import torch
import yaml
from tiny_runs import save_tiny

from lab_utils import decoding, report_card, tasks
from lab_utils.errors import LabError
from lab_utils.evaluate import answer_losses
from lab_utils.finetune import Recipe, attach_adapter
from lab_utils.finetune.runs import Run
from lab_utils.models import load_base
from lab_utils.report_card import comparing
from lab_utils.report_card.blocks import Code, Items, Section, Table, Text
from lab_utils.report_card.curve import curve
from lab_utils.report_card.html_page import block as as_html
from lab_utils.report_card.html_page import html_page
from lab_utils.report_card.markdown_page import block as as_markdown
from lab_utils.report_card.markdown_page import markdown_page
from lab_utils.report_card.writing import MARK, UNFILLED

NASTY = [
    "<script>alert(1)</script>", "</code></pre><b>", "a | b | c", "`x` ``y``", "```\nend", "--> <!-- x", "$x$ **b** _i",
    "![x](http://example.org/x.png)", "[x](javascript:alert(1))", "# head", "- item\n- item", "1. one", "0.00",
    "12) x", "-1", "=====", "<img src=x onerror=alert(1)>", 'quote " and \' too', "line\nbreak", "~~x~~",
    "\\ back \\| slash", "&lt;b&gt; & c",
]  # fmt: skip


class Reader(html.parser.HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts = set(), set(), []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


# Nothing in a card is a command.


@pytest.mark.parametrize("text", NASTY)
def test_html_says_every_text_as_it_is(text):
    for made, tags in ((Text(text), {"p"}), (Items((text,)), {"ul", "li"}), (Code(text), {"pre", "code"}),
                       (Table(("a",), ((text,),)), {"table", "thead", "tbody", "tr", "th", "td"})):  # fmt: skip
        read = Reader(as_html(made))
        assert read.tags == tags and text in read.text


@pytest.mark.parametrize("text", NASTY)
def test_markdown_says_every_text_as_it_is(text):
    render = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "math"])
    flat = " ".join(text.split())
    for made, tags in ((Text(text), {"p"}), (Items((text,)), {"ul", "li"}), (Code(text), {"pre", "code"}),
                       (Table(("a", "b"), ((text, "x"),)), {"table", "thead", "tbody", "tr", "th", "td", "br"})):
        read = Reader(render(as_markdown(made)))
        assert read.tags <= tags, as_markdown(made)
        said = "".join(read.text.split())
        assert (re.sub(r"^ab|x$", "", said) if isinstance(made, Table) else said) == flat.replace(" ", "")


def test_a_page_asks_for_nothing():
    drawn = curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1}])
    page = html_page("<b>", [Section("<i>", (Text("<script>"), drawn))])
    read = Reader(page)
    assert not read.tags & {"script", "link", "img", "iframe", "object", "b", "i"}
    assert not read.attributes & {"src", "href", "srcset", "onerror", "onload"}
    assert not re.search(r"url\(|@import|https?:", page)


def test_the_curve_is_drawn_inside_its_frame():
    rows = [{"step": n, "loss": 3 / n} for n in range(1, 1200)]
    rows[99]["validation_loss"], rows[199]["validation_loss"], rows[5]["loss"] = 1.5, 0.5, float("nan")
    picture = curve(rows)
    numbers = [tuple(map(float, pair.split(","))) for line in re.findall(r'points="([^"]*)"', picture.svg)
               for pair in line.split()]  # fmt: skip
    assert all(0 <= x <= 720 and 0 <= y <= 300 for x, y in numbers) and len(numbers) < 1300
    assert "on validation lowest at step 200, 0.500" in picture.said
    assert curve([]) is None and curve([{"step": 1, "loss": 0.0}]).svg


# A card of a run.

LABELS = ("login", "billing")
ROWS = [{"text": f"ticket {n} <b>{NASTY[n % len(NASTY)]}", "label": LABELS[n % 2]} for n in range(40)]


@pytest.fixture(scope="module")
def own():
    return tasks.own(ROWS, system="Sort <it>.", split=(0.5, 0.1, 0.4), name="tickets")


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("card")
    save_tiny(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    recipe = Recipe(model=str(folder / "tiny"), quantization="none", rank=2, steps=2)
    base, tokens = load_base(folder / "tiny", verbose=False)
    model = attach_adapter(base, recipe)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.05)
    history = [{"step": n, "loss": 3.0 - n, "tokens": 10, "seconds": 0.5, "learning_rate": 1e-3} for n in (1, 2)]
    model.save_pretrained(folder / "run" / "adapter")
    return Run(recipe, folder / "run", history, model, tokens)


def answered(own, right: int):
    """Two ways to answer: one right `right` times, the other never."""
    rows = comparing.first_rows(own, "test", 100)
    good = [row["answer"] if n < right else "<script>no</script> | `x`" for n, row in enumerate(rows)]
    return [comparing.scored("the adapter", own, rows, good), comparing.scored("nothing", own, rows, [""] * len(rows))]


def test_a_card_is_whole_and_says_no_more_than_was_measured(run, own):
    readme = run.output_dir / "adapter" / "README.md"
    assert UNFILLED in readme.read_text(), "peft leaves fields empty"
    card = report_card.report_card(run, own, answers=answered(own, 12))
    page, text = card.html.read_text(), card.markdown.read_text()
    assert readme.read_text() == text and UNFILLED not in text and card.model_card == readme
    read = Reader(page)
    for said in ("label accuracy 75%", "16 held-out examples", "better", "rank 2 on tiny", "tickets",
                 own.data_digest, "Sort <it>.", "Loss in nats per token", "<script>no</script>", "transformers",
                 "The 4 worst answers", "What this card cannot know", "Nothing found"):  # fmt: skip
        assert said in read.text, said
    assert "script" not in read.tags and str(run.output_dir.parent) not in page + text
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "peft" and head["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.75
    assert "base_model" not in head  # a folder has no address on the hub


def test_what_is_not_clear_is_called_that(run, own):
    rows = comparing.first_rows(own, "test", 100)
    one, other = answered(own, 2)[0], comparing.scored("the base", own, rows, [rows[0]["answer"]] + [""] * 15)
    card = report_card.report_card(run, own, answers=[one, other])
    assert "not clear" in str(card) and "not clear" in card.html.read_text()


def test_a_persons_own_model_card_is_kept(run, own):
    readme = run.output_dir / "adapter" / "README.md"
    readme.write_text("# Mine")
    card = report_card.report_card(run, own, answers=answered(own, 1))
    assert readme.read_text() == "# Mine" and card.model_card is None and "left as it is" in str(card)
    readme.write_text(f"{MARK} old")
    assert report_card.report_card(run, own, answers=answered(own, 1)).model_card == readme


def test_a_run_of_the_pages_has_a_card_too(run):
    card = report_card.report_card(run)
    assert "Nothing was scored" in card.html.read_text() and card.scored == ()
    with pytest.raises(LabError, match="run=7 is out of range"):
        report_card.report_card(7)


def test_its_program_loads_base_and_adapter(run, own, capsys):
    text = report_card.report_card(run, own, answers=answered(own, 1)).markdown.read_text()
    program = re.search(r"```python\n(.*?)\n```", text, re.S)[1]
    assert "'path/to/tiny'" in program and "'run/adapter'" in program
    program = program.replace("path/to", str(run.output_dir.parent)).replace("run/adapter", f"{run.output_dir}/adapter")
    names = {}
    exec(program, names)
    ids = names["inputs"]["input_ids"]
    with torch.no_grad():
        assert torch.allclose(names["model"](ids).logits, run.model.eval()(ids).logits, atol=1e-4)


def test_baselines_leave_the_adapter_out_and_on(run, own, monkeypatch):
    asked, answers = [], decoding.answers

    def watched(model, tokenizer, task, rows, shots=()):
        asked.append((model, len(shots)))
        return answers(model, tokenizer, task, rows, shots=shots)

    monkeypatch.setattr(decoding, "answers", watched)
    ids = run.tokenizer("hello there", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        before = run.model.eval()(ids).logits
        card = report_card.report_card(run, own, limit=4, shots=2)
        base, _ = load_base(run.output_dir.parent / "tiny", verbose=False)
        assert torch.equal(asked[1][0](ids).logits, base(ids).logits) and asked[0][0] is run.model
        assert torch.equal(run.model(ids).logits, before)
    assert [one.name for one in card.scored] == ["the adapter", comparing.MAJORITY, comparing.WORDS,
                                                 "the base with a prompt", "the base with 2 shots"]  # fmt: skip
    assert [shots for _, shots in asked] == [0, 0, 2]
    surprise = [one.perplexity and one.perplexity.value for one in card.scored]
    assert surprise[1:3] == [None, None] and surprise[3] == pytest.approx(
        math.exp(answer_losses(base, run.tokenizer, comparing.first_rows(own, "test", 4), own).loss), rel=1e-4
    )
    assert surprise[0] != surprise[3] and f"{surprise[3]:.3g}" in Reader(card.html.read_text()).text


def test_conversations_have_a_card(run):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
             {"role": "user", "content": "and?"}, {"role": "assistant", "content": "bye then"}]  # fmt: skip
    own = tasks.own([{"messages": turns}] * 8, split=(0.5, 0, 0.5), max_new_tokens=4)
    card = report_card.report_card(run, own, limit=2, shots=1)
    assert [one.name for one in card.scored] == ["the adapter", "the base with a prompt", "the base with 1 shot"]
    assert card.scored[0].prompts == ("and?", "and?") and card.scored[0].answers == ("bye then", "bye then")
    assert "token F1" in card.html.read_text()


def test_answers_to_other_examples_are_not_compared(own):
    one = answered(own, 1)[0]
    rows = comparing.first_rows(own, "test", 3)
    with pytest.raises(LabError, match="answered other examples"):
        one.better_than(comparing.scored("b", own, rows, [""] * 3))


def test_a_head_for_machines_is_yaml_whatever_is_in_it():
    text = markdown_page("x", [], {"a": 'quote " : # -', "b": [1, {"c": "ü\n---\n"}]})
    head = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert head == {"a": 'quote " : # -', "b": [1, {"c": "ü\n---\n"}]}


def test_paths_of_this_machine_stay_out(run, own):
    text = report_card.report_card(run, own, answers=answered(own, 1)).markdown.read_text()
    assert str(Path.home()) not in text


def test_a_lead_in_exact_matches_counts_whole_answers_alone():
    """Of two answers that are both wrong, the one with more right fields is no better."""
    rows = [{"prompt": f"p{n}", "answer": f'{{"a": {n}, "b": {n}}}'} for n in range(12)]
    task = tasks.own(rows)
    half = comparing.scored("half", task, rows, [f'{{"a": {n}, "b": 99}}' for n in range(12)])
    none = comparing.scored("none", task, rows, ["nothing"] * 12)
    assert half.measured.main.value == none.measured.main.value == 0
    assert half.better_than(none).value == 0


def test_a_split_that_is_not_there_is_named():
    task = tasks.own([{"prompt": "p", "answer": "a"}])
    with pytest.raises(LabError, match=r"has no test rows \(it has: train\). Give split="):
        comparing.first_rows(task, "test", 4)
