"""The trainer of page 04: what the browser computes is what Python computes, and the lock on alpha."""

import json
import subprocess

import pytest
from shown import node, shown

from lab_utils.errors import LabError
from lab_utils.lora import digits
from lab_utils.widgets import explorer
from lab_utils.widgets.rank_alpha_trainer import RankAlphaTrainer, _packed

needs_node = pytest.mark.skipif(node() is None, reason="no node and no Playwright")
RUN = """
let text = "";
for await (const part of process.stdin) text += part;
const { state, wasm, runs } = JSON.parse(text), network = reader(state, wasm), found = [];
for (const run of runs) {
  const losses = [], steps = network.fit(run);
  let step;
  while (!(step = steps.next()).done) losses.push(step.value);
  found.push([losses, step.value, network.untrained(run.task)]);
}
console.log(JSON.stringify(found));
"""


def in_javascript(runs: list[dict], wasm: bool, folder) -> list:
    """(losses, accuracy, accuracy before training) of each run, by the explorer's arithmetic."""
    file = folder / "reader.mjs"
    file.write_text((explorer.FOLDER / "digit_reader.js").read_text(encoding="utf-8") + RUN, encoding="utf-8")
    given = json.dumps({"state": _packed(), "wasm": wasm, "runs": runs})
    done = subprocess.run([node(), str(file)], input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def in_python(task, rank, scaling, learning_rate, steps, seed) -> tuple:
    x, y, new_x, new_y = digits.split(task)
    model = digits.adapted(rank, scaling * rank, seed=seed)
    before = digits.accuracy(model, new_x, new_y)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = digits.fit(model, trained, x, y, steps=steps, learning_rate=learning_rate)
    return losses, digits.accuracy(model, new_x, new_y), before


@needs_node
@pytest.mark.parametrize("wasm", [True, False], ids=["WebAssembly", "JavaScript"])
def test_the_browser_trains_to_the_losses_of_torch(wasm, tmp_path):
    """Relative differences are those of float32 sums in another order: at most 7e-7 was seen at these settings."""
    names = ("task", "rank", "scaling", "learning_rate", "steps", "seed")
    settings = [("mirrored", 1, 2.0, 0.005, 40 if wasm else 4, 1), ("turned", 3, 0.5, 0.01, 30 if wasm else 3, 7)]
    runs = [dict(zip(names, values, strict=True)) for values in settings]
    for run, (losses, accuracy, before) in zip(runs, in_javascript(runs, wasm, tmp_path), strict=True):
        wanted = in_python(**run)
        assert losses == pytest.approx(wanted[0], rel=5e-6)
        assert accuracy == pytest.approx(wanted[1], abs=1.01 / 597) and before == pytest.approx(wanted[2], abs=1e-6)


@needs_node
def test_the_sentence_says_what_python_says():
    """The lock on alpha holds in both; 50 steps are the fewest."""
    trainer = RankAlphaTrainer(steps=50)
    [first, second, third] = shown(trainer, [{}, {"rank": 2}, {"locked": False, "alpha": 1.0}])
    for one, moves in ((first, {}), (second, {"rank": 2}), (third, {"locked": False, "alpha": 1.0})):
        trainer.train(**moves)
        assert one["sentence"] == trainer.summary().partition("digits. ")[2].replace("%", " %")


def test_a_locked_alpha_follows_the_rank_and_a_moved_one_opens_the_lock():
    trainer = RankAlphaTrainer(rank=4, alpha=8)
    assert trainer.locked
    trainer.rank = 16
    assert trainer.alpha == 32
    trainer.alpha = 8.0
    assert not trainer.locked
    trainer.rank = 2
    assert trainer.alpha == 8
    trainer.locked = True
    assert trainer.alpha == 4
    assert not RankAlphaTrainer(rank=4, alpha=4).locked


def test_train_is_one_call_for_several_settings_and_runs_are_kept():
    trainer = RankAlphaTrainer(steps=50)
    run = trainer.train(rank=2, alpha=1.0, task="mirrored", rule="alpha / √rank")
    assert (run["rank"], run["alpha"], run["task"], run["trained"]) == (2, 1.0, "mirrored", 2 * 2 * (64 + 64))
    assert run["scaling"] == pytest.approx(1 / 2**0.5) and len(run["losses"]) == 50
    assert trainer.log == [run] and trainer.run is run
    assert trainer.train() == run and len(trainer.log) == 1  # the same settings are one run
    with pytest.raises(LabError, match="ranks"):
        trainer.train(ranks=4)
    trainer.reset()
    assert trainer.log == [] and trainer.rank == 4 and trainer.locked


def test_another_seed_is_another_run():
    trainer = RankAlphaTrainer(steps=50)
    assert trainer.train()["losses"] != trainer.train(seed=2)["losses"]


def test_a_diverging_run_stays_drawable():
    trainer = RankAlphaTrainer(rank=1, alpha=1e30, learning_rate=0.5, steps=50)
    json.dumps(trainer.run, allow_nan=False)
    assert max(trainer.run["losses"]) <= 1e3
