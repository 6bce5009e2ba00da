"""What an explorer shows at a setting equals what its page computes there, at random settings.

Another explorer is added by its page's entry in `PAGES`: what can be set, and how the page computes what is said there.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import nbformat
import pytest
import torch
from shown import node, shown
from torch.nn import functional as F

from lab_utils import nf4
from lab_utils.folders import NOTEBOOKS
from lab_utils.lora import digits
from lab_utils.notebook.cells import needed

SETTINGS = 5


@dataclass(frozen=True)
class Shown:
    """An explorer's page.

    Attributes
    ----------
    choices : function(names) -> dict trait -> the values it can take; `names` is what the page's cells leave
    computed : function(names, setting) -> dict pattern -> number. The pattern's group is found in the explorer's
        sentence, and the number is computed another way than the explorer does
    tolerance, relative : float, what rounding in the sentence may take away: the larger of the two
    """

    choices: Callable
    computed: Callable
    tolerance: float
    relative: float = 0.0


def lora_choices(names) -> dict:
    return {"step": names["STEPS"], "alpha": names["ALPHAS"]}


def lora_computed(names, setting) -> dict:
    """A plain model into which the recorded A and B are multiplied by hand."""
    state, scaling = names["history"][names["STEPS"].index(setting["step"])], setting["alpha"] / 4
    model = digits.pretrained()
    sizes = {}
    for name in ("first", "second"):
        A, B = (state[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        weight = model.get_submodule(name).weight
        sizes[name] = float(scaling * (B @ A).norm() / weight.detach().norm())
        with torch.no_grad():
            weight += scaling * (B @ A)
    loss = F.cross_entropy(model(names["train_x"]), names["train_y"]).item()
    read = {task: 100 * digits.accuracy(model, *digits.split(task)[2:]) for task in ("mirrored", "upright")}
    return {
        r"loss ([\d.]+)": loss, r"update is ([\d.]+) %": 100 * sizes["first"],
        **{rf"{task} ([\d.]+) %": share for task, share in read.items()},
    }


def layer_choices(names) -> dict:
    """Models of several families, and all matrices or some."""
    return {
        "model": ["GPT-2", "Llama-3-8B", "Gemma-2B", "Falcon-180B"], "rank": [1, 8, 48, 256],
        "targets": [["attention", "mlp"], ["attention"], ["mlp"]],
    }  # fmt: skip


def layer_computed(names, setting) -> dict:
    """The adapters of a model, matrix by matrix."""
    one = names["ARCHITECTURES"][setting["model"]]
    shapes = {name: one.linear_shapes()[name] for name in one.select(setting["targets"])}
    trained = setting["rank"] * one.n_layers * sum(map(sum, shapes.values()))
    largest = max(setting["rank"] * (out + into) / (out * into) for out, into in shapes.values())
    return {
        r"([\d,]+) of [\d,]+ numbers": trained, r"of ([\d,]+) numbers": one.total_parameters(),
        r"trained \(([\d.]+) %\)": 100 * trained / one.total_parameters(),
        r"largest B and A: ([\d.]+) %": 100 * largest,
    }


def rank_choices(names) -> dict:
    matrices = {"picture": names["photo"], "noise": names["noise"], "rounded prices": names["rounded"]}
    names["matrices"] = matrices | {"update of layers.15.self_attn.v_proj": names["delta"]}
    return {"matrix": list(names["matrices"]), "rank": [0, 1, 3, 5]}


def rank_computed(names, setting) -> dict:
    """The best fit of that rank, and how far off it is."""
    weight, rank = names["matrices"][setting["matrix"]], setting["rank"]
    B, A = names["lowrank"].best_rank_r(weight, rank)
    error = names["lowrank"].relative_error(weight, B @ A)
    return {
        r"([\d,]+) numbers instead": B.numel() + A.numel(), r"instead of ([\d,]+)": weight.numel(),
        r"relative error ([\d.]+) %": 100 * error, r"energy kept ([\d.]+) %": 100 * (1 - error**2),
    }  # fmt: skip


SIGNED = r"[-+][\d.]+"
SWEPT = {  # settings of page 09, as its cells pick them
    "centre": {}, "dropout 0.1": {"dropout": 0.1}, "48 messages": {"train_examples": 48}, "r = 64": {"rank": 64},
    "bfloat16 base": {"quantization": "none"}, "q and v, r = 8": {"target_modules": "qv"},
    "α = 64, lr 0.0005": {"scaling": 8.0, "learning_rate": 5e-4},
    "full fine-tune, lr 0.0002": {"method": "full", "learning_rate": 2e-4},
}  # fmt: skip


def sweep_choices(names) -> dict:
    """The places of these settings."""
    settings = [one["name"] for one in names["explorer"].settings]
    places = [settings.index(name) + 1 for name in SWEPT]
    return {"first": places, "second": places}


def sweep_computed(names, setting) -> dict:
    """`difference` of the runs that the page's `pick` finds."""
    settings = [one["name"] for one in names["explorer"].settings]
    sides = [names["pick"](names["runs"], **SWEPT[settings[setting[at] - 1]]) for at in ("first", "second")]
    wanted = {}
    for words, column in (("validation", "validation_loss"), ("test", "test_loss"), ("both sets", "loss")):
        found = names["difference"](*sides, column)
        ends = rf"\((?:{SIGNED}) to ({SIGNED})\)", rf"\(({SIGNED}) to "
        wanted |= {rf"{words} ({SIGNED}) \(": found.mean, rf"{words} {SIGNED} {ends[0]}": found.high}
        wanted |= {rf"{words} {SIGNED} {ends[1]}": found.low}
    return wanted


def code_choices(names) -> dict:
    """Any weights, any blocks, random levels."""
    chance = random.Random(6)
    levels = [sorted(chance.uniform(-1, 1) for _ in range(16)) for _ in range(4)]
    return {
        "weight": list(names["in_blocks"]), "blocksize": [16, 64, 256, 1024, 4096], "compared": [True],
        "levels": [*levels, nf4.nf4_code().tolist()],
    }  # fmt: skip


def code_computed(names, setting) -> dict:
    """Each of the weights that are shown, beside the nearest of all levels: as sections 3 and 4 do it."""
    blocks = names["in_blocks"][setting["weight"]].flatten()[:32768].reshape(-1, setting["blocksize"])
    absmax, low, high = blocks.abs().amax(1, keepdim=True), blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    steps = torch.linspace(0, 1, 16)
    levels = {
        "relative error": torch.tensor(setting["levels"]) * absmax, "NF4": nf4.nf4_code() * absmax,
        "AF4": nf4.af4_code() * absmax, "E2M1": nf4.e2m1_code() * absmax, "zero-point": low + (high - low) * steps,
    }  # fmt: skip
    missed = {name: (blocks[..., None] - of_block[:, None]).abs().amin(-1) for name, of_block in levels.items()}
    return {rf"{name} ([\d.]+) %": 100 * float(one.norm() / blocks.norm()) for name, one in missed.items()}


PAGES = {
    "01_rank_one": Shown(rank_choices, rank_computed, 0.051),
    "02_counting_parameters": Shown(layer_choices, layer_computed, 0.0, 0.005),
    "03_lora_from_scratch": Shown(lora_choices, lora_computed, 0.2),
    "06_nf4": Shown(code_choices, code_computed, 0.02),  # float16 scales and whole steps
    "09_choosing_hyperparameters": Shown(sweep_choices, sweep_computed, 6e-5),
}


def run_page(stem: str) -> dict:
    """The names that the cells of a page leave which its first explorer needs."""
    cells = nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    last = next(index for index, source in enumerate(sources) if "Explorer(" in source)
    names = {"display": print}
    for index in [*needed(sources, last), last]:
        lines = [line for line in sources[index].splitlines() if not line.startswith("%")]
        exec(compile("\n".join(lines), f"{stem}, code cell {index + 1}", "exec"), names)
    return names


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
@pytest.mark.parametrize("stem", PAGES)
def test_what_is_shown_is_what_the_page_computes(stem, monkeypatch):
    monkeypatch.setenv("LORA_LAB_FAST", "1")
    page, names = PAGES[stem], run_page(stem)
    choices, chance = page.choices(names), random.Random(0)
    settings = [{name: chance.choice(values) for name, values in choices.items()} for _ in range(SETTINGS)]
    for setting, seen in zip(settings, shown(names["explorer"], settings), strict=True):
        for pattern, number in page.computed(names, setting).items():
            found = re.search(pattern, seen["sentence"])
            assert found, (pattern, seen["sentence"])
            value = float(found[1].replace(",", ""))
            near = pytest.approx(number, abs=page.tolerance, rel=page.relative)
            assert value == near, (setting, pattern, seen["sentence"])
