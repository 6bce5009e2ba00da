"""data/record_evidence.py: what a line holds, bases that differ in their numbers alone, and going on after a kill."""

import json
from dataclasses import replace

import pytest
import torch
from data_scripts import load
from datasets import DatasetDict
from made_up_runs import find_arm

from lab_utils.errors import LabError
from lab_utils.evaluate import answer_losses
from lab_utils.finetune.adapter import attach_adapter, take_off_adapter
from lab_utils.finetune.fourbit import speed_up
from lab_utils.finetune.full import matrices, train_full
from lab_utils.sweep import base_weights
from lab_utils.sweep.base_weights import as_floats, put_weights
from lab_utils.sweep.evidence import Recorded, read_table, unpacked
from lab_utils.sweep.recorded_training import Checkpoint, train
from lab_utils.sweep.studies import STUDIES, Arm, adapter, full
from lab_utils.tasks.registry import load_task
from lab_utils.variants import VARIANTS

record = load("record_evidence")
SHORT = {"steps": 5, "batch_size": 2, "rank": 4, "alpha": 8.0, "train_examples": 12}


@pytest.fixture
def tiny(tiny_llama, tokenizer, monkeypatch, tmp_path):
    """The embedded model's place taken by a tiny one, its bases by noisy copies; few messages; no tests to wait for."""
    build = lambda: tiny_llama(49152)  # noqa: E731
    task = load_task("bookings")
    few = DatasetDict({split: rows.select(range(min(len(rows), 60 if split == "train" else 7)))
                       for split, rows in task.items()})  # fmt: skip

    def weights(model: str, quantization: str) -> dict:
        noise = {"none": 0.0, "int8": 0.01, "nf4": 0.1, "fp4": 0.2}[quantization]
        torch.manual_seed(1)
        return {name: module.weight.detach() * (1 + noise * torch.randn_like(module.weight))
                for name, module in matrices(build()).items()}  # fmt: skip

    def load_full(recipe):
        model = build().requires_grad_(False)
        for module in matrices(model).values():
            module.weight.requires_grad_(True)
        return model, tokenizer

    base, floats = build(), build()
    monkeypatch.setattr(record, "plain_base", lambda model: (base, tokenizer))
    monkeypatch.setattr(record, "float_base", lambda model: (floats, tokenizer))
    monkeypatch.setattr(record, "weights_of", weights)
    monkeypatch.setattr(record, "load_full", load_full)
    monkeypatch.setattr(record, "task", lambda name: few)
    monkeypatch.setenv("LORA_LAB_TESTS_LOCK", str(tmp_path / "tests.lock"))
    return load_full


def line(folder, arm: Arm, learning_rate: float = 1e-3, seed: int = 0, **changes) -> tuple[dict, Recorded]:
    """What is measured for an arm, shortened."""
    run = arm.at(learning_rate, seed).changed(**SHORT | changes)
    results = record.measure(folder, arm, run)
    row = {"key": run.key, "study": "rates", "arm": arm.name, "choices": run.choices} | results
    return row, Recorded.from_row(json.loads(json.dumps(row)))


def test_every_method_of_every_study_gives_a_whole_line(tiny, tmp_path):
    kinds = {}
    for study in STUDIES.values():
        for arm in study.arms:
            kinds.setdefault((arm.run.method, arm.run.variant, arm.run.adapter_dtype, arm.run.labels, arm.reads), arm)
    assert {kind[0] for kind in kinds} == {"adapter", "full", "variant"}
    for arm in kinds.values():
        row, done = line(tmp_path, arm, 1e-3)
        assert row["problem"] == "", arm.name
        other = [f"test@{'bf16' if base == 'none' else base}" for base in arm.reads]
        trained = ["trained"] if arm.trained else []
        assert list(done.losses) == ["validation", "test", *trained, *other]
        assert all(len(losses) == 7 for split, losses in done.losses.items() if split != "trained")
        assert len(done.training_losses) == 5 and row["trained_parameters"] > 0
        assert row["cpu_seconds"] >= row["training_cpu_seconds"] > 0 and row["threads"] and row["versions"]["torch"]


def test_the_variants_are_all_there():
    assert [arm.run.variant for arm in STUDIES["variants"].arms] == list(VARIANTS)


def test_full_fine_tuning_is_train_fulls_with_bfloat16_arithmetic(tiny, tokenizer, tmp_path):
    arm = find_arm("rates: full, 100 steps")
    _, done = line(tmp_path, arm)
    model, _ = tiny(None)
    rows = record.training_rows(arm.at(1e-3, 0).changed(**SHORT))
    with torch.autocast("cpu", torch.bfloat16):
        losses = train_full(model, tokenizer, arm.at(1e-3, 0).changed(**SHORT).recipe, rows)
        expected = answer_losses(model, tokenizer, record.task("bookings")["test"])
    assert done.training_losses == pytest.approx(losses, rel=0.02)
    assert done.losses["test"] == pytest.approx(expected.losses, rel=0.03)


def test_an_adapter_is_read_on_other_weights_than_it_was_trained_on(tiny, tmp_path):
    arm = replace(find_arm("base: bf16, float32 adapter"), reads=("none", "nf4"))
    _, done = line(tmp_path, arm)
    assert done.losses["test@bf16"] == pytest.approx(done.losses["test"], rel=2**-10)
    assert abs(done.losses["test@nf4"] - done.losses["test"]).max() > 0.01
    again = line(tmp_path, arm)[1]
    assert again.training_losses.tolist() == done.training_losses.tolist(), "the next run starts from its own base"


def test_adapters_in_bfloat16_are_in_bfloat16(tiny, tmp_path):
    wide, narrow = (line(tmp_path, find_arm(f"base: bf16, {dtype} adapter"))[0] for dtype in ("float32", "bfloat16"))
    assert wide["optimizer_bytes"] == 2 * narrow["optimizer_bytes"] == 2 * 4 * wide["trained_parameters"]


def test_a_run_that_blows_up_says_so(tiny, tmp_path, monkeypatch):
    def explode(*_):
        raise LabError("The loss is nan at step 2")

    monkeypatch.setitem(record.MEASURES, "full", explode)
    row, done = line(tmp_path, find_arm("rates: full, 100 steps"))
    assert row["problem"] == "The loss is nan at step 2" and row["losses"] == {} and done.loss() == float("inf")


def test_losses_that_float16_cannot_hold_are_a_problem(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "scored", lambda *_: ([1.0, float("nan")], [True, False]))
    row, _ = line(tmp_path, find_arm("rates: full, 100 steps"))
    assert "The losses of validation, test are not finite" in row["problem"]


def test_shuffled_labels_are_other_messages_labels():
    arm = find_arm("update: shuffled labels")
    run = arm.at(1e-4, 3)
    true, shuffled = record.training_rows(replace(run, labels="true")), record.training_rows(run)
    assert [row["prompt"] for row in true] == [row["prompt"] for row in shuffled]
    assert sorted(row["answer"] for row in true) == sorted(row["answer"] for row in shuffled)
    kept = sum(a["answer"] == b["answer"] for a, b in zip(true, shuffled, strict=True))
    assert len(true) == 1000 and kept < 5  # two messages with one answer
    assert record.training_rows(run) == shuffled != record.training_rows(run.changed(seed=4))


def test_a_weight_update_is_taken_apart(tiny, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    monkeypatch.setattr(record, "SHORT", 0)
    row, done = line(tmp_path, find_arm("update: true labels"))
    tensors = load_file(tmp_path / row["spectra"])
    names = list(matrices(tiny(None)[0]))
    assert {f"singular_values/{name}" for name in names} < set(tensors) and len(tensors) == 2 * len(names)
    cut = row["loss_by_rank"]["test"]
    assert list(cut) == [str(rank) for rank in record.RANKS]
    assert cut["64"] == pytest.approx(done.loss("test"), rel=0.02)  # rank 64 is all that a tiny matrix has
    assert abs(cut["0"] - done.loss("test")) > 0.02


class Stopped(Exception):
    """Where a test stops a run."""


@pytest.mark.parametrize("arm", ["rates: full, 400 steps", "rates: LoRA r=8, 400 steps"])
def test_killed_in_the_middle_a_long_run_goes_on_to_the_same_numbers(tiny, tmp_path, monkeypatch, arm):
    arm = find_arm(arm)
    monkeypatch.setattr(record, "SHORT", 0)
    monkeypatch.setattr(record, "KEEP_EVERY", {"adapter": 2, "full": 2})
    _, whole = line(tmp_path / "a", arm)
    times = []

    def stop():
        times.append(1)
        if len(times) == 3:
            raise Stopped

    monkeypatch.setattr(record, "wait_for_tests", stop)
    with pytest.raises(Stopped):
        line(tmp_path / "b", arm)
    partial = list((tmp_path / "b" / ".partial").iterdir())
    assert len(partial) == 1 and len(torch.load(partial[0])["losses"]) == 2
    _, resumed = line(tmp_path / "b", arm)
    assert resumed.training_losses.tolist() == whole.training_losses.tolist()
    assert resumed.losses["test"].tolist() == whole.losses["test"].tolist()
    assert list((tmp_path / "b" / ".partial").iterdir()) == []


def test_a_checkpoint_that_cannot_be_read_is_begun_again(tiny, tokenizer, tmp_path):
    run = full(**SHORT | {"rank": 8, "alpha": 16.0})
    rows = record.training_rows(run)
    found = []
    for content in (None, b"", b"half a file"):
        path = tmp_path / "run.pt"
        if content is not None:
            path.write_bytes(content)
        model, _ = tiny(None)
        optimizer = torch.optim.AdamW([m.weight for m in matrices(model).values()], run.recipe.learning_rate)
        found.append(train(model, tokenizer, run, rows, optimizer, Checkpoint(path, 2))["training_losses"])
    assert len(set(found)) == 1 and len(unpacked(found[0])) == 5


def test_it_waits_while_tests_run(tiny, tmp_path, monkeypatch):
    """It looks before each step and each part of the messages."""
    looks = []
    monkeypatch.setattr(record, "wait_for_tests", lambda: looks.append(1))
    monkeypatch.setattr(record, "CHUNK", 3)
    line(tmp_path, find_arm("rates: full, 100 steps"))
    assert len(looks) == 5 + 2 * 3


def test_the_script_records_lists_and_merges(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "take_little", lambda: None)
    made = {"full": lambda arm, run, rows, checkpoint: {"losses": {"validation": "", "test": ""}, "right": {}}}
    monkeypatch.setattr(record, "MEASURES", made)
    monkeypatch.setattr(record, "record", lambda folder, measure, **options: options["say"](f"{folder} {options}") or 3)
    record.main(["--output", str(tmp_path), "--only", "layers", "--runs", "3"])
    said = capsys.readouterr().out
    assert str(tmp_path) in said and "'runs': 3" in said and "3 runs recorded." in said
    record.main(["--output", str(tmp_path), "--list"])
    assert "rates: 0 runs recorded, 88 missing" in capsys.readouterr().out
    (tmp_path / "other").mkdir()
    record.main(["--output", str(tmp_path), "--merge", str(tmp_path / "other")])
    assert f"0 new runs from {tmp_path / 'other'}" in capsys.readouterr().out
    with pytest.raises(LabError, match="Unknown study 'speed'"):
        record.main(["--only", "speed"])
    assert read_table(tmp_path / "rates.jsonl") == []


# The bases.


def test_the_arithmetic_is_that_of_the_labs_4_bit_layers(trainable_base, tokenizer):
    """The same numbers whether a base holds codes, or the matrices that they encode."""
    from lab_utils.models.registry import load_base

    model = take_off_adapter(trainable_base[0])  # another test may have left one
    recipe = adapter(rank=4, alpha=8.0).recipe
    weights = {name: as_floats(module).clone() for name, module in matrices(model).items()}
    coded = attach_adapter(model, recipe)
    with pytest.raises(LabError, match=r"630 of 630 weights belong to no layer of the model, such as '.*base_layer'"):
        put_weights(coded, {name: as_floats(module) for name, module in matrices(coded).items()})
    assert speed_up(coded) == 210
    plain, _ = load_base("smollm2-135m", "none", verbose=False)
    put_weights(plain, weights)
    plain = attach_adapter(plain, recipe)
    assert speed_up(plain) == 210
    batch = tokenizer(["two drones for Ada on Monday"], return_tensors="pt")
    gradients = []
    for one in (coded, plain):
        logits = one(**batch).logits
        logits.float().logsumexp(-1).sum().backward()
        gradients.append([p.grad for name, p in one.named_parameters() if "lora_B" in name])
    assert torch.equal(coded(**batch).logits, plain(**batch).logits)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True)) and len(gradients[0]) == 210


def test_a_base_of_its_own_gives_the_weights(monkeypatch, tiny_llama, tokenizer):
    """Not the one that is trained on: that one is given other weights, and would hand those back."""
    built = []

    def load_base(model, quantization, verbose):
        built.append(tiny_llama(49152).bfloat16())
        return built[-1], tokenizer

    monkeypatch.setattr(base_weights, "load_base", load_base)
    base_weights.plain_base.cache_clear()
    base_weights.weights_of.cache_clear()
    try:
        base, _ = base_weights.plain_base("smollm2-135m")
        before = {name: module.weight.clone() for name, module in matrices(base).items()}
        put_weights(base, {name: weight * 2 for name, weight in before.items()})
        found = base_weights.weights_of("smollm2-135m", "none")
        assert len(built) == 2 and all(torch.equal(found[name], before[name]) for name in before)
        assert not any(weight.requires_grad for weight in found.values())
    finally:
        base_weights.plain_base.cache_clear()
        base_weights.weights_of.cache_clear()


def test_eight_bits_are_read_as_bitsandbytes_stores_them():
    import bitsandbytes as bnb

    torch.manual_seed(0)
    weight = torch.randn(6, 32, dtype=torch.bfloat16)
    layer = bnb.nn.Linear8bitLt(32, 6, bias=False, has_fp16_weights=False)
    layer.weight = bnb.nn.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False)
    layer = layer.to("cpu")
    layer(torch.zeros(1, 32, dtype=torch.bfloat16))
    found = as_floats(layer)
    step = weight.float().abs().amax(dim=1, keepdim=True) / 127
    assert found.dtype == torch.bfloat16
    assert ((found.float() - weight.float()).abs() <= step * 0.5 + weight.float().abs() * 2**-8).all()


