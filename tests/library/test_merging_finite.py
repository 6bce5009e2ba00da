"""Merging what is not finite is refused, and the message names tensor, place and who is to blame."""

import math

import pytest
import torch
from merge_models import IDS, adapt, four_bit

from lab_utils.errors import LabError
from lab_utils.merging.checked import logits, merge
from lab_utils.merging.costs import adapted_layers, compare_merges, survival
from lab_utils.merging.finite_weights import refuse_nonfinite
from lab_utils.merging.places import dequantized_copy, into_dequantized, into_four_bits, into_original

LAYER = "model.layers.1.self_attn.q_proj"
INTO = {
    "merge": lambda model: merge(model, IDS), "dequantized_copy": dequantized_copy,
    "into_dequantized": into_dequantized,
}  # fmt: skip


def damage(model, name, place, value):
    """Put a number into the parameter of a peft model's base whose name that is."""
    dict(model.get_base_model().named_parameters())[name].data[place] = value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("quantized", [False, True])
def test_a_damaged_adapter_is_named_and_its_base_is_not_blamed(tiny_llama, value, into, quantized):
    model = adapt(four_bit(tiny_llama()) if quantized else tiny_llama())
    damage(model, f"{LAYER}.lora_B.default.weight", (3, 1), value)
    with pytest.raises(LabError, match=r"adapter 'default' is damaged, not its base: .*lora_B\.weight\[3, 1\] is"):
        INTO[into](model)


@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("name", [f"{LAYER}.base_layer.weight", "model.embed_tokens.weight"])
def test_a_damaged_base_is_named_and_the_adapter_is_not_blamed(tiny_llama, into, name):
    model = adapt(tiny_llama())
    damage(model, name, (5, 2), math.inf)
    with pytest.raises(LabError, match=r"base model is damaged, not the adapter: model\..*\.weight\[5, 2\] is inf"):
        INTO[into](model)


@pytest.mark.parametrize("into", [*INTO, "into_four_bits"])
def test_a_damaged_block_of_a_four_bit_base_is_named(tiny_llama, into):
    model = adapt(four_bit(tiny_llama()))
    state = model.get_base_model().get_submodule(f"{LAYER}.base_layer").weight.quant_state
    state.state2.absmax[0] = math.nan
    with pytest.raises(LabError, match=rf"base model is damaged.*{LAYER}\.weight\[0, 0\] is nan"):
        (INTO | {"into_four_bits": into_four_bits})[into](model)


def test_the_other_ways_to_merge(tiny_llama):
    model, original = adapt(four_bit(tiny_llama())), tiny_llama()
    original.model.norm.weight.data[7] = math.nan
    with pytest.raises(LabError, match=r"`original` is damaged, not the adapter: model\.norm\.weight\[7\] is nan"):
        into_original(model, original)
    damage(model, f"{LAYER}.lora_A.default.weight", (0, 9), math.nan)
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}
    for way in (
        lambda: into_original(model, tiny_llama()), lambda: into_four_bits(model), lambda: compare_merges(model, batch),
        lambda: survival(model, adapted_layers(model)[0]),
    ):  # fmt: skip
        with pytest.raises(LabError, match=r"lora_A\.weight\[0, 9\] is nan"):
            way()


def test_only_adapters_in_use_are_looked_at(tiny_llama):
    model = adapt(tiny_llama(), names=("sound", "damaged"))
    damage(model, f"{LAYER}.lora_B.damaged.weight", (0, 0), math.nan)
    model.set_adapter("sound")
    into_dequantized(model)
    with model.disable_adapter():
        dequantized_copy(model)
    model.set_adapter("damaged")
    with pytest.raises(LabError, match="adapter 'damaged' is damaged"):
        into_dequantized(model)


def test_magnitudes_of_dora_are_looked_at(tiny_llama):
    model = adapt(tiny_llama(), use_dora=True)
    damage(model, f"{LAYER}.lora_magnitude_vector.default.weight", 4, math.nan)
    with pytest.raises(LabError, match=r"lora_magnitude_vector\[4\] is nan"):
        into_dequantized(model)


def test_a_dtype_that_cannot_hold_the_weights_is_named(tiny_llama):
    base = tiny_llama()
    base.model.embed_tokens.weight.data[2, 3] = 1e5  # float16 ends at 65,504
    model = adapt(base)
    with pytest.raises(LabError, match=r"embed_tokens\.weight\[2, 3\] is too large for float16, which ends at 65504"):
        into_dequantized(model, torch.float16)
    into_dequantized(model, torch.bfloat16)
    merge(model, IDS)
    with pytest.raises(LabError, match="in float16 the model's logits on the probe are not finite"):
        merge(model, torch.full((1, 4), 2), dtype=torch.float16)


def test_a_product_beyond_float32_names_its_layer(tiny_llama):
    model = adapt(tiny_llama())
    for part in "AB":
        damage(model, f"{LAYER}.lora_{part}.default.weight", slice(None), 1e30)
    with pytest.raises(LabError, match=f"on {LAYER}"):
        into_dequantized(model)


@pytest.mark.parametrize("model", ["plain", "4-bit", "bfloat16", "float16"])
def test_sound_models_pass(tiny_llama, model):
    made = {
        "plain": lambda: adapt(tiny_llama()), "4-bit": lambda: adapt(four_bit(tiny_llama())),
        "bfloat16": lambda: tiny_llama().bfloat16(), "float16": lambda: adapt(tiny_llama().half()),
    }[model]()  # fmt: skip
    refuse_nonfinite(made)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (torch.zeros(0, 4, dtype=torch.int64), "no token"), (torch.zeros(4, dtype=torch.int64), r"shape \(4,\)"),
        (torch.zeros(1, 4), "float32"), (torch.full((1, 4), 10**6), "token 1000000, and the model knows 0 to"),
        (torch.full((1, 4), -1), "token -1"), ({}, "is None"),
        ({"input_ids": IDS, "attention_mask": torch.zeros_like(IDS)}, "no token"),
    ],
    ids=str,
)  # fmt: skip
def test_a_probe_that_the_model_cannot_read(tiny_llama, probe, message):
    with pytest.raises(LabError, match=f"probe.*{message}"):
        logits(tiny_llama(), probe)
