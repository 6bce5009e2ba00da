"""What page 08 says in its prose and does in its cells, without a model: its command, its schedule, its counts."""

import dataclasses
import json
import math
import re
import sys
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from lab_utils import counts, memory, scores
from lab_utils.classroom.course import NOTEBOOKS
from lab_utils.finetune import Recipe
from lab_utils.finetune.command import read_command
from lab_utils.finetune.training_rows import training_rows
from lab_utils.models import MODELS
from lab_utils.sweep import load_study

CELLS = nbformat.read(NOTEBOOKS / "08_qlora_finetune.ipynb", as_version=4).cells


def cell_with(text: str) -> str:
    """The only code cell that has `text`."""
    (found,) = [cell.source for cell in CELLS if cell.cell_type == "code" and text in cell.source]
    return found


@pytest.mark.parametrize("changes", [
    {},
    {"learning_rate": 0.00031, "alpha": 12.5, "seed": 1, "rank": 4, "quantization": "none"},
    {"target_modules": ("q_proj", "up_proj"), "use_rslora": True, "supervise_end": False, "train_examples": 100},
    {"target_modules": "qv", "validate_every": 2, "patience": 3, "keep_best": True, "gradient_checkpointing": True},
])  # fmt: skip
def test_the_command_that_is_killed_trains_the_pages_recipe(changes, tmp_path):
    """Whatever a reader changed: another recipe would have another fingerprint, and the page could not resume."""
    source = cell_with("process.kill()").partition("process = ")[0]
    assert "lab_utils.finetune" in source
    names = {
        "dataclasses": dataclasses,
        "recipe": Recipe(**changes),
        "base_name": "smollm2-135m",
        "FAST": False,
        "finetune": SimpleNamespace(run_folder=lambda recipe: tmp_path / "run"),
    }
    exec(source, names)
    assert names["command"][:3] == [sys.executable, "-m", "lab_utils.finetune"]
    recipe, options = read_command(names["command"][3:])
    assert recipe == names["short"] == Recipe(**changes | {"model": "smollm2-135m", "steps": 8, "checkpoint_every": 2})
    assert Path(options["output_dir"]) == tmp_path / "run"


@pytest.mark.parametrize("limit", [None, 2, 9])
def test_the_loop_by_hand_learns_from_the_rows_that_the_library_takes(limit):
    (line,) = [line for line in cell_with("train_examples = ").splitlines() if line.startswith("learned_from = ")]
    data = {"train": [{"prompt": f"prompt {number}", "answer": "{}"} for number in range(5)]}
    exec(line, names := {"data": data, "recipe": Recipe(train_examples=limit)})
    assert names["learned_from"] == list(training_rows(data, limit))


@pytest.mark.parametrize("steps", [2, 12])
def test_trls_rates_are_ours_after_its_first_step(steps):
    torch = pytest.importorskip("torch")
    from transformers import TrainingArguments, get_cosine_schedule_with_warmup

    shared = Recipe(steps=steps, warmup=0.1)
    (setting,) = re.findall(r'"warmup_steps": (.+?),\n', cell_with("SFTConfig("))
    warmup = TrainingArguments.get_warmup_steps(SimpleNamespace(warmup_steps=eval(setting)), steps)
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=shared.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    theirs = []
    for _ in range(steps):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert theirs[0] == 0
    assert theirs[1:] == pytest.approx([shared.learning_rate_at(step) for step in range(1, steps)])


def test_embedding_and_head_weigh_what_the_page_says():
    said = next(cell.source for cell in CELLS if "look-up table" in cell.source)
    for name in ("Llama-2-7B", "Qwen2.5-7B"):
        shape, weights = counts.ARCHITECTURES[name], memory.estimate(name, "qlora").weights_bytes
        kept = 2 * (shape.total_parameters() - sum(
            shape.copies(module) * one.out_features * (one.in_features + one.bias)
            for module, one in shape.linears().items() if one.plain
        ))  # fmt: skip
        assert re.search(rf"{kept / 1e9:.2f} of {weights / 1e9:.2f} GB, {kept / weights:.0%}".replace("%", " ?%"), said)


def test_handwritten_messages_are_harder_by_newcombes_interval():
    said = next(cell.source for cell in CELLS if "handwritten messages are harder" in cell.source)
    easy, hard = scores.wilson(93, 100), scores.wilson(71, 100)
    names = {"after": {"test": easy, "handwritten": hard}, "measured": lambda one: {"exact match": one}}
    lines = cell_with("handwritten minus test").split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("easy, hard"))
    exec("\n".join(lines[start:-1]), names | {"math": math}, scope := {})
    low, high = (100 * (scope["gap"] + one) for one in (-scope["down"], scope["up"]))
    assert (round(100 * scope["gap"]), round(low), round(high)) == (-22, -32, -12)
    assert "22 points\nfewer, 95 % interval 12 to 32" in said


def test_the_differences_that_the_prose_reports_are_newcombes():
    """With and without the blank before name and item; five and 32 examples; 32 examples and training."""
    said = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
    for one, other, n, text in (
        (176, 160, 200, "8 points, 95 % interval 1 to 15"),
        (77, 70, 100, "7 points, interval −5 to 19, not clear"),
        (7, 6, 40, "+2 points, 95 % interval −14 to 19, not clear"),
        (10, 2, 40, "+20 points, 4 to 36, clear"),
        (38, 7, 40, "+78 points, 59 to 87"),
        (33, 10, 40, "+58 points, 37 to 71"),
    ):
        more, fewer = scores.wilson(one, n), scores.wilson(other, n)
        gap = more.value - fewer.value
        low = gap - math.hypot(more.value - more.low, fewer.high - fewer.value)
        high = gap + math.hypot(more.high - more.value, fewer.value - fewer.low)
        numbers = [int(number.replace("−", "-")) for number in re.findall(r"−?\d+", text.replace("95 %", ""))]
        assert [round(100 * value, 9) for value in (gap, low, high)] == pytest.approx(numbers, abs=0.51)
        assert text.replace("\n", " ") in said.replace("\n", " ")


def test_seeds_differ_by_what_the_prose_says():
    """Page 09's record of nearly this recipe, counted by hand."""
    said = next(cell.source for cell in CELLS if "one pair of three is called clear" in cell.source)
    near = load_study("rates").at("LoRA r=8, 100 steps")
    assert [one.run.recipe.seed for one in near] == [0, 1, 2]
    page = Recipe(model="smollm2-135m", learning_rate=MODELS["smollm2-135m"].learning_rate)
    differs = {
        field.name for field in dataclasses.fields(page)
        if getattr(page, field.name) != getattr(near[0].run.recipe, field.name)
    }  # fmt: skip
    assert differs == {"steps", "learning_rate"}
    assert (page.steps, near[0].run.recipe.steps) == (175, 100) and "100 steps instead of 175, and a higher" in said
    rows = list(zip(*(one.right["test"] for one in near), strict=True))
    counts_of = [sum(sum(row) == right for row in rows) for right in range(4)]
    assert len(rows) == 200 and (counts_of[3], counts_of[0], counts_of[1] + counts_of[2]) == (129, 24, 47)
    assert "129 of 200 are right with every seed, 24 with none, and 47, almost one in\nfour" in said
    shares = [sum(column) / 2 for column in zip(*rows, strict=True)]
    assert max(shares) - min(shares) == 5 and "within five points" in said
    found = [scores.difference(*pair) for pair in combinations(zip(*rows, strict=True), 2)]
    assert [one.clear for one in found] == [False, False, True] and 0 < found[2].low < 0.005


def test_form_and_content_of_an_answer():
    """Letters of a value are content; braces, names of fields, quotation marks and the end are form."""
    source = cell_with("def in_a_value(").partition("def in_a_value(")
    names = {"json": json, "tokenizer": lambda text, **_: SimpleNamespace(offset_mapping=cut(text))}
    exec("".join(source[1:]).partition("def costs_of(")[0], names)
    text = '{"name":" Q1","qty":1,"time":"1:05"}'
    pieces = ['{"', "name", '":"', " Q1", '","', "qty", '":', "1", ',"', "time", '":"', "1", ":05", '"}']

    def cut(whole):
        ends = [len("".join(pieces[:count])) for count in range(len(pieces) + 1)]
        assert ends[-1] == len(whole)
        return list(pairwise(ends))

    wanted = [piece in (" Q1", "1", ":05") for piece in pieces]
    assert names["in_a_value"](text) == [*wanted, False]


@pytest.mark.parametrize("name, found, kind", [
    ("qty", {"qty": "2"}, "a number of another type"), ("qty", {"qty": 2.0}, "a number of another type"),

    ("qty", {"qty": 3}, "another number"), ("item", {"item": "Drums"}, "upper or lower case"),
    ("item", {"item": "two drums"}, "a part of it, or too much"),
    ("item", {"item": "saw"}, "other words of the message"),
    ("item", {"item": "drvms"}, "misspelt"), ("item", {"qty": 2}, "missing, or no JSON"),
])  # fmt: skip
def test_wrong_fields_by_kind(name, found, kind):
    source = cell_with("def kind(").partition("wrong = ")[0]
    names = {}
    exec(source, names)
    assert names["kind"](name, found, {"qty": 2, "item": "drums"}, "two drums, not the saw") == kind
