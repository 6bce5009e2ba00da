"""What a study found: its best rates, comparisons that are refused where recipes differ, and differences."""

import json
import shutil
from dataclasses import replace

import made_up_runs
import numpy as np
import pytest
from made_up_runs import find_arm

from lab_utils.errors import LabError
from lab_utils.sweep.differences import compare
from lab_utils.sweep.evidence import Recorded, Run, add_row, table_of
from lab_utils.sweep.rate_search import rate
from lab_utils.sweep.recording import record
from lab_utils.sweep.studies import STUDIES
from lab_utils.sweep.study_results import difference, holm, load_study

FULL, EIGHT, SIXTY_FOUR = (f"{name}, 100 steps" for name in ("full", "LoRA r=8", "LoRA r=64"))


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """Everything of three studies, made up: the valley lies at 1e-4 · 2 for full fine-tuning, at 1e-4 · 2⁴ for LoRA."""
    folder = tmp_path_factory.mktemp("evidence")
    record(folder, lambda arm, run: made_up_runs.results(run), studies=["rates", "scaling", "base"],
           say=lambda line: None)
    return folder


@pytest.fixture
def folder(made_up, tmp_path):
    """A copy of that, to be changed."""
    return shutil.copytree(made_up, tmp_path / "evidence")


def recorded(run: Run, **changes) -> Recorded:
    return Recorded.from_row(made_up_runs.row(run, **changes))


def test_the_best_rate_is_that_of_the_lowest_validation_loss(folder):
    rates = load_study("rates", folder)
    assert rates.arms == [arm.name for arm in STUDIES["rates"].arms]
    assert rates.best_rate(FULL) == rate(1) and rates.best_rate(EIGHT) == rate(4) == 8 * rates.best_rate(FULL)
    assert all(rates.inside(arm) for arm in rates.arms)
    assert [one.run.recipe.seed for one in rates.at(EIGHT)] == [0, 1, 2]
    assert {one.run.recipe.learning_rate for one in rates.at(EIGHT)} == {rate(4)}
    assert [one.run.recipe.seed for one in rates.at(EIGHT, rate(5))] == [0, 1, 2]
    assert list(rates.rates(FULL)) == [rate(exponent) for exponent in range(-1, 4)]


def test_an_end_of_the_grid_is_not_inside(folder):
    table = table_of(folder, "rates")
    lines = [line for line in table.read_text().splitlines() if json.loads(line)["choices"]["learning_rate"] <= 1.7e-3]
    table.write_text("\n".join(lines) + "\n")
    assert not load_study("rates", folder).inside(EIGHT) and load_study("rates", folder).inside(FULL)


def test_a_study_takes_the_arms_that_it_shares(folder):
    scaling = load_study("scaling", folder)
    assert EIGHT in scaling.arms and "r=64, α=16, α/r" in scaling.arms and FULL not in scaling.arms
    assert scaling.difference(EIGHT, "r=64, α=16, α/r").seeds == 3


def test_what_is_unknown_or_missing_is_named(folder, tmp_path):
    with pytest.raises(LabError, match="Unknown study 'speed'"):
        load_study("speed", folder)
    with pytest.raises(LabError, match=r"Nothing of the study 'update'.*--only update"):
        load_study("update", folder)
    rates = load_study("rates", folder)
    with pytest.raises(LabError, match="Unknown arm 'LoRA r=9'"):
        rates.at("LoRA r=9")
    with pytest.raises(LabError, match=r"no run at learning rate 0\.1\. It has 5e-05, 0.0001"):
        rates.at(FULL, 0.1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"warmup": 0.5}, "warmup: 0.06, 0.5"), ({"batch_size": 8}, "batch_size: 4, 8"),
     ({"train_examples": 30, "dropout": 0.1}, "dropout: 0.0, 0.1; train_examples: None, 30")],
)  # fmt: skip
def test_a_table_whose_recipes_differ_in_what_is_not_compared_is_refused(folder, changes, said):
    run = find_arm(f"rates: {EIGHT}").at(rate(4), 5).changed(**changes)
    add_row(table_of(folder, "rates"), made_up_runs.row(run, arm=EIGHT))
    with pytest.raises(LabError, match=said):
        load_study("rates", folder)


def test_losses_on_other_messages_are_refused(folder):
    run = find_arm(f"rates: {EIGHT}").at(rate(4), 5)
    add_row(table_of(folder, "rates"), made_up_runs.row(run, arm=EIGHT, data="ba9876543210"))
    with pytest.raises(LabError, match="messages: 0123456789ab, ba9876543210"):
        load_study("rates", folder)


@pytest.mark.parametrize("study", ["rates", "scaling", "base"])
def test_no_study_compares_what_it_does_not_say(folder, study):
    """Each planned arm, and those shared, differ in `compared`, in learning rate and in seed only."""
    assert load_study(study, folder).runs


@pytest.mark.parametrize("study", STUDIES)
def test_what_is_compared_does_differ(study):
    names = [f"{study}: {arm.name}" for arm in STUDIES[study].arms] + list(STUDIES[study].shared)
    choices = [find_arm(name).run.choices for name in names]
    differing = {name for name in choices[0] if any(one[name] != choices[0][name] for one in choices)}
    assert differing - {"learning_rate", "seed"} == set(STUDIES[study].compared)


def test_layers_have_equally_many_trained_numbers():
    """The embedded model: hidden size 576, keys and values 192, MLP 1536."""
    of_rank = {"q": 1152, "k": 768, "v": 768, "o": 1152, "gate": 2112, "up": 2112, "down": 2112}
    parts = {"qv": "q v", "attention": "q k v o", "mlp": "gate up down", "all-linear": " ".join(of_rank)}
    arms = [*STUDIES["layers"].arms, find_arm(STUDIES["layers"].shared[0])]
    recipes = {arm.run.recipe.target_modules: arm.run.recipe for arm in arms}
    counts = {name: one.rank * sum(of_rank[part] for part in parts[name].split()) for name, one in recipes.items()}
    assert set(counts) == set(parts) and max(counts.values()) / min(counts.values()) < 1.025


def test_batches_have_equally_many_examples_and_scaling_is_two_at_rank_eight():
    arms = [*STUDIES["batch"].arms, *map(find_arm, STUDIES["batch"].shared)]
    assert {arm.run.recipe.steps * arm.run.recipe.batch_size for arm in arms} == {1600}
    root = [arm.run.recipe for arm in STUDIES["scaling"].arms if arm.run.recipe.use_rslora]
    assert len(root) == 2 and all(replace(one, rank=8).scaling == pytest.approx(2) for one in root)


def test_a_difference_is_that_of_the_losses_paired_by_seed_and_message(folder):
    rates = load_study("rates", folder)
    a, b = rates.at(FULL), rates.at(EIGHT)
    found = rates.difference(FULL, EIGHT)
    assert found == compare(np.stack([one.losses["test"] for one in a]), np.stack([one.losses["test"] for one in b]))
    right = rates.difference(FULL, EIGHT, "right", "validation")
    shares = [[one.right["validation"].astype(float) for one in side] for side in (a, b)]
    assert right == compare(*shares)
    family = holm({arm: rates.difference(FULL, arm) for arm in (EIGHT, SIXTY_FOUR)})
    assert all(one.family == 2 for one in family.values())


def test_a_difference_needs_to_be_told_what_is_compared(folder):
    rates = load_study("rates", folder)
    with pytest.raises(LabError, match=r"differ in what is not compared \(method: full, adapter; quantization"):
        difference(rates.at(FULL), rates.at(EIGHT))
    with pytest.raises(LabError, match="steps: 100, 400"):
        difference(rates.at(FULL), rates.at("full, 400 steps"), compared=("method",))


def test_a_side_is_one_setting(folder):
    rates = load_study("rates", folder)
    with pytest.raises(LabError, match="its runs differ in learning_rate"):
        difference(rates.of_arm(FULL), rates.at(FULL))
    with pytest.raises(LabError, match="no runs"):
        difference(rates.at(FULL), [])
    with pytest.raises(LabError, match="each once"):
        difference(rates.at(FULL), rates.at(FULL) * 2)


def test_runs_without_losses_are_named():
    run = find_arm(f"rates: {FULL}").at(rate(1), 0)
    fine = [recorded(run), recorded(run.changed(seed=1))]
    failed = [recorded(run, losses={}, right={}, problem="The loss is nan at step 3"), recorded(run.changed(seed=1))]
    with pytest.raises(LabError, match="blew up and has no losses: The loss is nan at step 3"):
        difference(fine, failed)
    with pytest.raises(LabError, match="not measured on 'trained', but on validation, test"):
        difference(fine, fine, split="trained")


def test_the_frame_has_a_row_a_run(folder):
    rates = load_study("rates", folder)
    frame = rates.frame()
    assert len(frame) == len(rates.runs) and frame["best"].sum() == 3 * len(rates.arms)
    best = frame[(frame["arm"] == EIGHT) & frame["best"]]
    assert best["test_loss"].tolist() == [one.loss() for one in rates.at(EIGHT)]
    assert set(best["learning_rate"]) == {rate(4)} and set(best["rank"]) == {8}
