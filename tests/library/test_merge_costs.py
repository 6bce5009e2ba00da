"""merge_costs: every number against its formula, and the traps seen for what they are."""

import pytest
import torch
from merge_models import IDS, adapt, everything, four_bit, logits, same

from lab_utils.errors import LabError
from lab_utils.merging import costs as merge_costs
from lab_utils.merging import places
from lab_utils.merging.checked import unmerged
from lab_utils.merging.costs import adapted_layers, compare_merges, probe_batch, survival
from lab_utils.nf4.codec import quantize_4bit

LAYER = "model.layers.1.mlp.down_proj"  # 64 × 128


@pytest.fixture
def batch():
    """Two rows, the second one shorter; the last tokens of each are the answer."""
    mask, labels = torch.ones_like(IDS), torch.full_like(IDS, -100)
    labels[0, 7:], labels[1, 5:9], mask[1, 9:] = IDS[0, 7:], IDS[1, 5:9], 0
    return {"input_ids": IDS, "attention_mask": mask, "labels": labels}


@pytest.fixture
def model(tiny_llama):
    return adapt(four_bit(tiny_llama()))


def answers(model, batch):
    """(logits, right tokens) at the answers, by plain indexing: token t is predicted by the logits before it."""
    found = logits(model, batch["input_ids"])  # what is on the right of a token, padding too, cannot change it
    at = [(row, t) for row in range(2) for t in range(1, 12) if batch["labels"][row, t] >= 0]
    rows = torch.stack([found[row, t - 1] for row, t in at])
    return rows, torch.tensor([int(batch["input_ids"][row, t]) for row, t in at])


def test_a_merge_on_a_gpu_is_waited_for_before_its_time_is_taken(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for kind in ("cpu", "cuda"):
        assert merge_costs._timed(lambda kind=kind: kind, torch.device(kind))[0] == kind
    assert waited == [torch.device("cuda")]


def test_the_rows_hold_what_they_say(model, tiny_llama, batch):
    original = tiny_llama()
    rows = {row["way"]: row for row in compare_merges(model, batch, original)}
    assert list(rows)[:4] == [
        "base, no adapter", "adapter, unmerged", "into dequantized, float32", "into original, float32",
    ]  # fmt: skip
    expected, targets = answers(model, batch)
    assert len(targets) == 5 + 4
    with model.disable_adapter():
        without, _ = answers(model, batch)
    from_original, _ = answers(places.into_original(model, original), batch)
    found = {"base, no adapter": without, "adapter, unmerged": expected, "into original, float32": from_original}
    for way, theirs in found.items():
        row, chances = rows[way], expected.softmax(-1)
        kl = (chances * (expected.log_softmax(-1) - theirs.log_softmax(-1))).sum(-1).mean()
        assert row["loss"] == pytest.approx(-theirs.log_softmax(-1)[range(9), targets].mean().item(), rel=1e-4)
        assert row["kl"] == pytest.approx(kl.item(), rel=1e-3, abs=1e-7)
        assert row["max_difference"] == pytest.approx((theirs - expected).abs().max().item(), rel=1e-3, abs=1e-4)
        assert row["top1"] == pytest.approx((theirs.argmax(-1) == expected.argmax(-1)).float().mean().item())
    assert rows["into dequantized, float32"]["kl"] < 1e-8 < 1e-3 < rows["back onto its own 4 bits"]["kl"]
    assert rows["base, no adapter"]["seconds"] == 0 < rows["back onto its own 4 bits"]["seconds"]


def test_what_is_skipped_is_left_out_and_costs_nothing(model, batch, monkeypatch):
    whole = compare_merges(model, batch)
    monkeypatch.setattr(places, "into_four_bits", None)
    monkeypatch.setattr(places, "repacked", None)
    ways = ("back onto its own 4 bits", "repacked, then merged")
    rows = compare_merges(model, batch, skip=ways)
    assert [(row["way"], row["loss"]) for row in rows] == [(row["way"], row["loss"]) for row in whole[: len(rows)]]
    assert tuple(row["way"] for row in whole[len(rows) :]) == ways
    with pytest.raises(LabError, match=r"'into original, float32'.*back onto its own 4 bits"):
        compare_merges(model, batch, skip=["into original, float32"])


def test_the_sizes_are_those_of_the_tensors(model, batch):
    rows = {row["way"]: row["size_bytes"] for row in compare_merges(model, batch)}
    norms, embedding, matrices = 5 * 64, 61 * 64, 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    rank_4 = 4 * 2 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    assert rows["into dequantized, float32"] >= 4 * (norms + embedding + matrices)
    assert rows["adapter, unmerged"] - rows["base, no adapter"] == 4 * rank_4
    assert rows["back onto its own 4 bits"] == rows["base, no adapter"]
    saved = rows["into dequantized, float32"] - rows["back onto its own 4 bits"]
    assert 3.4 * matrices < saved < 3.5 * matrices  # 4 bytes become half a byte, and a block's absmax


def test_a_model_in_sixteen_bits_is_also_merged_in_float32(tiny_llama, batch):
    rows = compare_merges(adapt(tiny_llama().bfloat16()), batch)
    assert [row["way"] for row in rows] == [
        "base, no adapter", "adapter, unmerged", "into dequantized, float32", "into dequantized, bfloat16",
    ]  # fmt: skip
    assert rows[2]["kl"] < 1e-8 < rows[3]["kl"] < 0.01


def test_the_repacked_merge_is_garbage_or_skipped_and_said(tiny_llama, batch, monkeypatch):
    model = adapt(four_bit(tiny_llama().bfloat16(), torch.bfloat16))
    rows = compare_merges(model, batch)
    if places.can_repack():
        by_way = {row["way"]: row for row in rows}
        assert by_way["repacked, then merged"]["kl"] > 100 * by_way["into dequantized, bfloat16"]["kl"]
    monkeypatch.setattr(places, "can_repack", lambda: False)
    skipped = compare_merges(model, batch)[-1]
    assert skipped["way"] == "repacked, then merged" and "AVX512-BF16 only" in skipped["note"]
    assert [key for key, value in skipped.items() if value is not None] == ["way", "note"]


def test_comparing_changes_nothing(model, tiny_llama, batch):
    original = tiny_llama()
    before, source = everything(model.train()), everything(original)
    compare_merges(model, batch, original)
    survival(model, LAYER)
    assert same(everything(model), before) and same(everything(original), source)


def test_comparing_needs_an_adapter_and_answers(model, tiny_llama, batch):
    with pytest.raises(LabError, match="no active adapter"):
        compare_merges(tiny_llama(), batch)
    with pytest.raises(LabError, match="no answers"):
        compare_merges(model, batch | {"labels": torch.full_like(IDS, -100)})


@pytest.mark.parametrize("scale", [0.05, 1.0, 4.0])
def test_survival_against_the_labs_own_nf4(model, scale):
    """Codes do not depend on double quantization: they come from the exact absmax."""
    layer = model.get_base_model().get_submodule(LAYER)
    weight = unmerged(model, torch.float32).get_submodule(LAYER).base_layer.weight.detach()
    delta = scale * 3 * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach()  # alpha 12, rank 4
    old, new = layer.base_layer.weight.data.flatten(), quantize_4bit(weight + delta, 64, "nf4").packed.flatten()
    changed = ((old >> 4 != new >> 4).sum() + (old & 15 != new & 15).sum()).item()
    found = survival(model, LAYER, scale)
    assert found.layer == LAYER and found.codes == 64 * 128
    assert found.changed == pytest.approx(changed / found.codes)
    assert found.relative_size == pytest.approx((delta.norm() / weight.norm()).item(), rel=1e-5)
    arrived = places.into_four_bits(model).get_submodule(LAYER) if scale == 1 else None
    if arrived is not None:
        from lab_utils.finetune.fourbit import dequantize

        moved = dequantize(arrived.weight, torch.float32) - weight
        assert found.kept == pytest.approx(((moved * delta).sum() / delta.square().sum()).item(), rel=1e-4)
        cosine = (moved * delta).sum() / (moved.norm() * delta.norm())
        assert found.cosine == pytest.approx(cosine.item(), rel=1e-4)


def test_small_updates_vanish_and_large_ones_arrive(model):
    small, large = survival(model, LAYER, 1e-4), survival(model, LAYER, 30.0)
    assert small.changed == 0 and abs(small.cosine) < 0.1
    assert large.changed > 0.5 and large.kept == pytest.approx(1, abs=0.05) and large.cosine > 0.98


def test_survival_names_mistakes(model, tiny_llama):
    assert len(adapted_layers(model)) == 14 and LAYER in adapted_layers(model)
    with pytest.raises(LabError, match="Unknown layer"):
        survival(model, "lm_head")
    with pytest.raises(LabError, match="is zero"):
        survival(model, LAYER, 0.0)
    with pytest.raises(LabError, match="not in 4 bits"):
        survival(adapt(tiny_llama()), LAYER)


def test_a_probe_is_a_padded_batch_with_labels_on_the_answers(tokenizer):
    rows = [{"prompt": "two drones, Sunday", "answer": "{}"}, {"prompt": "one", "answer": '{"qty":1}'}]
    batch = probe_batch(tokenizer, rows)
    assert {one.shape for one in batch.values()} == {batch["input_ids"].shape} and len(batch["input_ids"]) == 2
    for row, example in enumerate(rows):
        supervised = batch["labels"][row][batch["labels"][row] >= 0]
        assert tokenizer.decode(supervised) == example["answer"] + "<|im_end|>"
    with pytest.raises(LabError, match="Unknown task"):
        probe_batch(tokenizer, rows, "poems")
    with pytest.raises(LabError, match="fits into max_length=8"):
        probe_batch(tokenizer, rows, max_length=8)


def test_the_divergence_does_not_depend_on_the_chunks(model, batch, monkeypatch):
    whole = compare_merges(model, batch)[0]["kl"]
    monkeypatch.setattr(merge_costs, "CHUNK", 2)
    assert compare_merges(model, batch)[0]["kl"] == pytest.approx(whole)
