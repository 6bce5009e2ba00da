"""data/record_variants.py: which runs come in what order, what a row holds, and going on after a kill."""

import json

import pytest
import torch
from data_scripts import load

from lab_utils.errors import LabError
from lab_utils.lora.whole_model import LoRALinear
from lab_utils.variants import VARIANTS, inject

record = load("record_variants")


def row(variant: str, rate: float, seed: int, loss: float | None = None) -> dict:
    return {"variant": variant, "learning_rate": rate, "seed": seed, "validation_loss": loss}


def test_the_runs_come_seed_by_seed_and_the_better_rate_goes_on():
    both = record.LEARNING_RATES["dora"]
    assert set(record.LEARNING_RATES) == set(VARIANTS)
    first = record.missing([], ["lora", "dora"])
    assert [seed for *_, seed in first] == sorted(seed for *_, seed in first) and len(first) == 2 * 2 + 2 * 2
    assert first[4:] == [("lora", None, 1), ("dora", None, 1), ("lora", None, 2), ("dora", None, 2)]
    rows = [row("dora", both[0], 0, 0.4), row("dora", both[1], 0, 0.3)]
    assert record.missing(rows, ["dora"]) == [("dora", both[1], 1), ("dora", both[1], 2)]
    rows += [row("dora", both[1], 1), row("dora", both[1], 2)]
    assert record.missing(rows, ["dora"]) == []
    assert record.best(rows, "dora") is rows[1] and record.best(rows, "lora") is None


def test_what_is_kept_for_the_backward_pass_is_counted_without_weights(tiny_llama):
    """LoRA keeps the layers' inputs too, LoRA-FA does not: one for q, k, v, for o, for gate and up, for down."""
    torch.manual_seed(0)
    kept = {name: record.batch_bytes(inject(tiny_llama(), name, "all-linear", 4, 8), 4) for name in ("lora", "lora-fa")}
    inputs = 2 * (64 + 64 + 64 + 128)  # two layers: normed input, attention's output, normed again, gated product
    assert kept["lora"] - kept["lora-fa"] == 4 * 80 * 4 * inputs


@pytest.fixture(scope="module")
def data():
    from lab_utils.tasks.registry import load_task

    return load_task("bookings")


@pytest.fixture
def quick(monkeypatch):
    """Three steps, few messages."""
    for name, value in {"STEPS": 3, "MESSAGES": 12, "EVALUATED": 4}.items():
        monkeypatch.setattr(record, name, value)
    monkeypatch.setattr(record, "SETTINGS", record.SETTINGS | {"vera": {"rank": 16}})


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_says_what_was_trained_and_the_model_is_given_back(tiny_llama, tokenizer, data, quick, variant):
    model = tiny_llama(49152)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rate = record.LEARNING_RATES[variant][0]
    found = record.run(model, tokenizer, data, [], variant, rate, 0)
    rank = 16 if variant == "vera" else 8
    sizes = [(64, 64), (32, 64), (32, 64), (64, 64), (128, 64), (128, 64), (64, 128)] * 2
    trained = sum(VARIANTS[variant].count(n_out, n_in, rank) for n_out, n_in in sizes)
    assert found["trainable_parameters"] == trained and found["optimizer_bytes"] == 2 * 4 * trained
    assert len(found["training_losses"]) == 3 and found["relative_update"] > 0
    assert found["validation_loss"] > 0 and found["test_loss"] > 0  # the first rate is the best until then
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_run_again_is_the_same_and_a_worse_rate_is_not_tested(tiny_llama, tokenizer, data, quick):
    model = tiny_llama(49152)
    found = record.run(model, tokenizer, data, [], "pissa", 1e-3, 0)
    again = record.run(model, tokenizer, data, [found | {"validation_loss": 0.0}], "pissa", 1e-3, 0)
    assert found["test_loss"] > 0 and again["test_loss"] is None
    for key in ("training_losses", "validation_loss", "relative_update", "saved_activation_bytes"):
        assert again[key] == found[key]
    other = record.run(model, tokenizer, data, [found], "pissa", 1e-3, 1)
    assert other["test_loss"] > 0 and other["validation_loss"] > 0  # of every seed: page 11 compares by it
    assert other["training_losses"] != found["training_losses"]


def test_the_file_is_written_whole_and_read_back(tmp_path):
    file = tmp_path / "new" / "variants.json"
    assert record.read(file) == []
    rows = [row("dora", 4e-3, 0, 0.5), row("dora", 2e-3, 0, 0.25)]
    record.write(file, rows)
    assert record.read(file) == rows and [path.name for path in file.parent.iterdir()] == ["variants.json"]
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["chosen"] == {"dora": 2e-3} and written["recipe"]["steps"] == 32
    assert sum(line.startswith('{"variant"') for line in file.read_text(encoding="utf-8").splitlines()) == 2


def test_the_command_line_lists_and_refuses(tmp_path, capsys):
    record.main(["--list", "--only", "vera", "--output", str(tmp_path / "none.json")])
    listed = capsys.readouterr().out.splitlines()
    assert listed[0] == "vera, seed 0, learning rate 0.01" and len(listed) == 4
    assert listed[-1] == "vera, seed 2, learning rate the better one"
    with pytest.raises(LabError, match="Unknown variant 'lroa'"):
        record.main(["--list", "--only", "lroa"])
