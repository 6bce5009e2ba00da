"""What pages 09 and 11 say about the recorded runs is so: each sentence is on its page and holds on the table.

A new recording that breaks a sentence fails here; then the sentence is to be rewritten, not the check.
"""

from functools import cache

import nbformat
import numpy as np
import pytest

from lab_utils.folders import NOTEBOOKS
from lab_utils.recorded.bits import perplexity_by_bits
from lab_utils.recorded.variants import load_variants
from lab_utils.sweep.summary import difference, load_sweep, pick, summarize

SWEEP, VARIANTS = "09_choosing_hyperparameters.ipynb", "11_lora_variants.ipynb"


@cache
def prose(notebook: str) -> str:
    """All Markdown of a page, in one line."""
    cells = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    return " ".join(" ".join(cell.source.split()) for cell in cells if cell.cell_type == "markdown")


@cache
def runs():
    """The recorded sweep."""
    return load_sweep()


def loss(**settings) -> float:
    """Mean validation loss over the seeds of one setting."""
    (found,) = summarize(pick(runs(), **settings), ["method"])["mean"]
    return found


def differ(first: dict, second: dict):
    """Second minus first, in validation loss, seed by seed."""
    return difference(pick(runs(), **first), pick(runs(), **second))


BF16, FULL = {"quantization": "none"}, {"method": "full", "learning_rate": 2e-4}
ALPHA = [{"scaling": 0.5}, {"scaling": 8.0}]  # a quarter, and four times
RATE = [{"learning_rate": 5e-4}, {"learning_rate": 8e-3}]
PRODUCT = [{"scaling": 8.0, "learning_rate": 5e-4}, {"scaling": 0.5, "learning_rate": 8e-3}]
RULES = [{"rank": 64, "alpha": 16.0}, {"rank": 64, "use_rslora": True, "scaling": ...}]  # α/r, α/√r
CLAIMS = {
    "Rank 1 is not nearly as good here: it costs more than twice the loss of r = 8, and no three seeds could hide that":
        lambda: loss(rank=1) > 2 * loss(rank=8) and differ({}, {"rank": 1}).clear,
    "From r = 8 to r = 64 less is gained than from r = 1 to r = 2":
        lambda: loss(rank=8) - loss(rank=64) < loss(rank=1) - loss(rank=2),
    "Between neighbours from r = 4 to r = 32 three seeds cannot tell; the step from 32 to 64 is clear again":
        lambda: [differ({"rank": r}, {"rank": 2 * r}).clear for r in (4, 8, 16, 32)] == [False] * 3 + [True],
    "one falling line, steep from r = 1 to r = 8 and much flatter from there to r = 64":
        lambda: loss(rank=1) - loss(rank=8) > 3 * (loss(rank=8) - loss(rank=64)) > 0,
    "At the same rank, fewer layers are clearly worse":
        lambda: all(differ({}, {"target_modules": t}).clear and loss(target_modules=t) > loss()
                    for t in ("qv", "attention")),
    "q and v at r = 64 reach what all linear layers reach at r = 8, with half as many parameters again":
        lambda: not differ({}, {"target_modules": "qv", "rank": 64}).clear
        and round(trained(target_modules="qv", rank=64) / trained(), 1) == 1.5,
    "q and v at r = 1, the cheapest choice of all, has hardly begun to learn: not one right answer in 80":
        lambda: pick(runs(), target_modules="qv", rank=1)["validation_exact"].max() == 0,
    "Full fine-tuning, with 43 times as many numbers as r = 8, has the lowest mean of all; but three seeds cannot "
    "tell it from r = 64":
        lambda: round(106_168_320 / trained()) == 43 and loss(**FULL) < min(adapter_means())
        and not differ({"rank": 64}, FULL).clear,
    "At the same number of parameters the lines are within a tenth of each other":
        lambda: all(abs(own / line - 1) < 0.1 for own, line in at_equal_parameters()),
    "in percent of a loss as small as this task's it is more than a quarter":
        lambda: loss() / loss(**BF16) > 1.25,
    "it costs something, 0.013 nats here":
        lambda: round(differ(BF16, {}).mean, 3) == 0.013,
    "a rate four times too small costs more here than rank 1":
        lambda: loss(**RATE[0]) > loss(rank=1),
    "NF4 is clear of the noise, and so is int8, by a third of that":
        lambda: differ(BF16, {}).clear and differ(BF16, {"quantization": "int8"}).clear
        and 0.25 < differ(BF16, {"quantization": "int8"}).mean / differ(BF16, {}).mean < 0.4,
    "In nats it is less than a tenth of what NF4 costs on running text before any fine-tuning":
        lambda: differ(BF16, {}).mean < perplexity_by_bits().formats["nf4 double"].loss_change / 10,
    "FP4 is the coarser code (page 06), yet its mean lies below NF4's; its runs scatter, and three seeds cannot tell "
    "the two apart":
        lambda: loss(quantization="fp4") < loss() and not differ({}, {"quantization": "fp4"}).clear,
    "With the product kept the loss moves far less than with one of them changed":
        lambda: 2 * spread(PRODUCT) < min(spread(ALPHA), spread(RATE)),
    "Alpha's line falls, the learning rate's is a valley, and the third is the flattest":
        lambda: loss(**ALPHA[0]) > loss() > loss(**ALPHA[1]) and loss() < min(loss(**one) for one in RATE),
    "Four times the alpha helps; four times the learning rate does not":
        lambda: loss(**ALPHA[1]) < loss() < loss(**RATE[1]),
    "alpha four times smaller costs here nearly as much as going from r = 8 to r = 2":
        lambda: abs(loss(**ALPHA[0]) - loss(rank=2)) < 0.1 * loss(rank=2),
    "The winner is r = 8 with four times the alpha: no more parameters than the centre, and level with r = 64":
        lambda: loss(**ALPHA[1]) == min(adapter_means()) and not differ({"rank": 64}, ALPHA[1]).clear,
    "On the messages it was chosen by, it is several times as large as on the test messages":
        lambda: lead("validation_loss") > 3 * lead("test_loss") > 0,
    "Sixteen messages, seen eight times each, are learned by heart: twice the validation loss":
        lambda: loss(train_examples=16) > 2 * loss() and differ({}, {"train_examples": 16}).clear
        and pick(runs(), train_examples=16)["training_loss"].mean() < 0.005,
    "With 48 three seeds cannot tell the difference from 128":
        lambda: not differ({}, {"train_examples": 48}).clear,
    "all adapters stand in one narrow column, whatever their loss; full fine-tuning stands apart at nearly twice the "
    "time":
        lambda: seconds(rank=64) < 1.3 * seconds(rank=1) and 1.6 < seconds(**FULL) / seconds() < 2.1,
    "four rows; only the last, α = 2r, lies clearly left of the first":
        lambda: differ({}, {"rank": 64}).clear and not any(differ({}, one).clear for one in RULES),
    "α/√r lies between":
        lambda: loss(**RULES[0]) > loss(**RULES[1]) > loss(rank=64),
    "One solved example takes most of the loss away, and still not one validation answer is right to the "
    "last token":
        lambda: prompt(1)["validation_loss"].mean() < prompt(0)["validation_loss"].mean() / 2
        and prompt(1)["validation_exact"].max() == 0,
    "Three seeds see no difference. Each of 128 messages was shown once":
        lambda: not differ({}, {"dropout": 0.1}).clear and pick(runs())["train_examples"].tolist() == [128] * 3,
}  # fmt: skip


def at_equal_parameters() -> list[tuple[float, float]]:
    """(loss of q and v or of attention, loss of all linear layers with as many parameters, read off their curve)."""
    def curve(targets):
        found = summarize(pick(runs(), target_modules=targets, rank=...), ["rank"])
        return np.log(found["trainable_parameters"]), np.log(found["mean"])

    line = curve("all-linear")
    return [
        (np.exp(own), np.exp(np.interp(numbers, *line))) for targets in ("qv", "attention")
        for numbers, own in zip(*curve(targets), strict=True) if numbers >= line[0].min()
    ]  # fmt: skip


def prompt(shots: int):
    """The runs without training."""
    return pick(runs(), method="prompt", shots=shots)


def lead(column: str) -> float:
    """By how much the winner is better than the centre."""
    return pick(runs())[column].mean() - pick(runs(), **ALPHA[1])[column].mean()


def seconds(**settings) -> float:
    """Median processor seconds of training."""
    return pick(runs(), **settings)["training_cpu_seconds"].median()


def spread(settings: list[dict]) -> float:
    """From the lowest to the highest mean of some settings and the centre."""
    means = [loss(), *(loss(**one) for one in settings)]
    return max(means) - min(means)


def adapter_means() -> list[float]:
    """Mean validation losses of all settings with adapters that have three seeds."""
    setting = ["quantization", "target_modules", "rank", "scaling", "use_rslora", "learning_rate", "dropout",
               "train_examples"]
    groups = summarize(runs()[runs()["method"] == "adapter"], setting)
    return groups[groups["n"] >= 3]["mean"].tolist()


def trained(**settings) -> int:
    """Trainable parameters of one setting."""
    return pick(runs(), **settings)["trainable_parameters"].iloc[0]


@cache
def variants():
    """The recorded variants at their chosen learning rates: one row a variant, means over seeds."""
    found = load_variants()[0]
    return found[found["chosen"]].groupby("variant").mean(numeric_only=True)


def ratio(variant: str, column: str) -> float:
    """A variant's number over LoRA's."""
    return variants().loc[variant, column] / variants().loc["lora", column]


VARIANT_CLAIMS = {
    "There is one seed each":
        lambda: set(load_variants()[0].groupby("variant")["seed"].nunique()) == {1},
    "There are one or two rates each":
        lambda: set(load_variants()[0].groupby("variant")["learning_rate"].nunique()) == {1, 2},
    "so it is with VeRA, the worst of this table, with a twelfth of LoRA's numbers":
        lambda: variants()["test_loss"].idxmax() == "vera" and round(1 / ratio("vera", "trainable_parameters")) == 12
        and variants().loc["vera", "learning_rate"]
        == load_variants()[0].groupby("variant")["learning_rate"].max()["vera"],
    "LoRA-FA keeps three quarters of LoRA's activations and half of its optimizer's state":
        lambda: abs(ratio("lora-fa", "saved_activation_bytes") - 0.75) < 0.03
        and abs(ratio("lora-fa", "optimizer_bytes") - 0.5) < 0.03,
    "VeRA trains the least by far, and saves neither activations nor time":
        lambda: variants()["trainable_parameters"].idxmin() == "vera"
        and min(ratio("vera", "saved_activation_bytes"), ratio("vera", "cpu_seconds_a_step")) > 1.1,
    "DoRA keeps nearly twice the activations":
        lambda: 1.75 < ratio("dora", "saved_activation_bytes") < 2,
    "rsLoRA, LoRA+ and PiSSA cost what LoRA costs":
        lambda: all(
            ratio(name, column) == 1
            for name in ("rslora", "lora+", "pissa")
            for column in ("trainable_parameters", "optimizer_bytes", "saved_activation_bytes")
        ) and all(abs(ratio(name, "cpu_seconds_a_step") - 1) < 0.15 for name in ("rslora", "lora+", "pissa")),
}  # fmt: skip
ALL = [*((SWEEP, *claim) for claim in CLAIMS.items()), *((VARIANTS, *claim) for claim in VARIANT_CLAIMS.items())]
NAMES = [sentence for _, sentence, _ in ALL]


@pytest.mark.parametrize(("notebook", "sentence", "_"), ALL, ids=NAMES)
def test_the_sentence_is_on_its_page(notebook, sentence, _):
    assert sentence in prose(notebook)


@pytest.mark.parametrize(("_notebook", "_sentence", "holds"), ALL, ids=NAMES)
def test_the_sentence_holds(_notebook, _sentence, holds):
    assert holds()
