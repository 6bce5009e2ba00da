"""Keras' LoRA and int8 against the lab's own arithmetic, and which order of `quantize` and `enable_lora` learns.

One base is trained for all tests (a second), and one adapter on each kind of quantized base (two to four seconds each).
"""

import os
import re
import subprocess
import sys
from functools import cache
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn
from unfolded import unfolded

from lab_utils.beyond_text import keras_gemma, keras_lora, keras_presets
from lab_utils.beyond_text.keras_gemma import (
    WORDS,
    accuracy,
    copy_of,
    head_gradient,
    lines,
    not_embedding,
    parts,
    quantize,
    recite,
    train,
)
from lab_utils.beyond_text.keras_lora import channels, dequantized, int8_codes, lora_layers, taken_apart
from lab_utils.counts.architectures import ARCHITECTURES
from lab_utils.counts.parameters import lora_parameters
from lab_utils.device import GIB, Device
from lab_utils.errors import LabError
from lab_utils.folders import ROOT
from lab_utils.lora.whole_model import LoRALinear
from lab_utils.notebook.extras import missing
from lab_utils.quantize import dequantize_absmax, quantize_absmax


def keras_and_hub():
    """Not by importorskip: that would import Keras before `load_keras` has chosen its backend."""
    problem = missing("keras")
    if problem:
        pytest.skip(problem)
    return keras_gemma.load_keras()


@pytest.fixture(scope="module")
def base():
    """A tiny Gemma that recites forwards."""
    keras_and_hub()
    model = keras_gemma.tiny_gemma()
    train(model, lines(1), 60, 5e-3)
    return model


@pytest.fixture(scope="module")
def learned(base):
    """An adapter on an int8 base that keeps its embedding, as the page trains it."""
    model = copy_of(base)
    quantize(model, "int8", filters=not_embedding)
    model.backbone.enable_lora(rank=4)
    train(model, lines(-1), 80, 4e-2)
    return model


@pytest.fixture(scope="module")
def adapted(base):
    """A function from a quantization, or None, to a copy of the base with an adapter of rank 4 whose B is not zero."""

    @cache
    def make(mode: str | None):
        model = copy_of(base)
        if mode:
            quantize(model, mode, filters=not_embedding)
        model.backbone.enable_lora(rank=4)
        generator = torch.Generator().manual_seed(1)
        for layer in lora_layers(model).values():
            layer.lora_kernel_b.assign(0.1 * torch.randn(layer.lora_kernel_b.shape, generator=generator))
        return model

    return make


def some_input(*shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


# What the tiny model learns.


def test_the_lines_go_round_both_ways():
    forwards, backwards = lines(1), lines(-1)
    assert forwards.shape == backwards.shape == (19, 9)
    friday = keras_gemma.sentences(forwards)[4]
    assert friday == "Friday Saturday Sunday Monday Tuesday Wednesday Thursday Friday Saturday"
    assert keras_gemma.sentences(backwards)[7].startswith("January December November")
    assert (backwards[:, 0] == forwards[:, 0]).all() and set(forwards.flat) == set(range(1, len(WORDS)))


def test_the_base_recites_forwards_and_the_adapter_backwards(base, learned):
    assert accuracy(base, lines(1)) == 1 and recite(base, "Friday", 2) == "Friday Saturday Sunday"
    assert accuracy(learned, lines(-1)) > 0.95 and recite(learned, "Friday", 2) == "Friday Thursday Wednesday"


def test_the_same_seed_gives_the_same_losses(base):
    """And a copy starts with the base's answers: its adapter's B is zero."""
    both = []
    for _ in range(2):
        model = copy_of(base)
        model.backbone.enable_lora(rank=4)
        assert accuracy(model, lines(1)) == 1
        both.append(train(model, lines(-1), 2, 1e-2))
    assert both[0] == both[1]


# Which order learns.


def test_only_query_and_value_are_trained_in_float32(learned):
    adapter = {str(part.dtype) for part in parts(learned) if part.name == "adapter"}
    trained = {part.name: part.trainable for part in parts(learned) if part.trainable}
    assert adapter == {"float32"} and list(trained) == ["adapter"]
    assert set(lora_layers(learned)) == {f"decoder_block_{i}/{name}" for i in (0, 1) for name in ("query", "value")}
    before = [variable.numpy().copy() for variable in learned.weights]
    train(learned, lines(-1), 1, 1e-3)
    moved = [v.path for v, old in zip(learned.weights, before, strict=True) if (v.numpy() != old).any()]
    assert len(moved) == 8 and all("/lora_kernel_" in path for path in moved)


def test_int8_stores_a_byte_a_weight_and_a_scale_a_channel(base, learned):
    """Two blocks: query 2·64·32, key and value 64·32 each, output 64·64; feed-forward 2 · 64·64 and 64·64."""
    sizes = {(part.name, part.dtype): part.value_bytes for part in parts(learned)}
    assert sizes["attention", "int8"] == 2 * (4096 + 2048 + 2048 + 4096) == sizes["feed-forward", "int8"]
    assert sizes["attention", "float32"] == 2 * 4 * (64 + 32 + 32 + 64)
    assert sizes["embedding and head", "float32"] == 4 * keras_gemma.VOCABULARY * 64
    whole = {(part.name, part.dtype): part.value_bytes for part in parts(base)}
    assert whole["attention", "float32"] == 4 * sizes["attention", "int8"]


def test_through_an_int8_output_one_number_of_64_gets_a_gradient(base, adapted):
    """The activation's absmax is the only one that is not rounded away; the article's recipe is stuck behind it."""
    given = copy_of(base)
    quantize(given, "int8")
    assert (head_gradient(base, lines(-1)) != 0).all()
    assert (head_gradient(adapted("int8"), lines(-1)) != 0).all()
    gradient = head_gradient(given, lines(-1))
    assert ((gradient != 0).sum(-1) == 1).all()
    hidden = given.backbone({"token_ids": lines(-1)[:, :-1], "padding_mask": np.ones((19, 8), "int32")})
    assert (gradient.abs().argmax(-1) == hidden.detach().cpu().abs().argmax(-1)).all()


def test_the_articles_recipe_learns_nothing_and_int4_learns(base):
    results = {}
    for mode in ("int8", "int4"):
        model = copy_of(base)
        quantize(model, mode)
        model.backbone.enable_lora(rank=4)
        train(model, lines(-1), 60, 4e-2)
        results[mode] = accuracy(model, lines(-1))
    assert results["int8"] < 0.05 and results["int4"] > 0.8


def test_a_second_adapter_is_refused_and_leaves_one_layer_trainable_its_frozen_weight_too(base):
    """Why a page makes its model again in the function that puts the adapter on."""
    model = copy_of(base)
    model.backbone.enable_lora(rank=4)
    assert len(model.trainable_variables) == 8
    with pytest.raises(ValueError, match="already enabled"):
        model.backbone.enable_lora(rank=4)
    names = ("kernel", "lora_kernel_a", "lora_kernel_b")
    assert {v.path for v in model.trainable_variables} == {f"decoder_block_0/attention/value/{name}" for name in names}


# Keras' arithmetic is the lab's.


def test_keras_kernel_is_w_plus_scaling_a_b_bit_for_bit(base):
    """With its own alpha, which `backbone.enable_lora` has no argument for."""
    model = copy_of(base)
    layer = model.backbone.transformer_layers[1].attention.query_dense
    layer.enable_lora(4, lora_alpha=32)
    layer.lora_kernel_b.assign(some_input(4, 32))
    lora = taken_apart(layer)
    assert lora.scaling == 8 and lora.weight.shape == (2, 64, 32)
    assert torch.equal(lora.effective(), layer.kernel.detach().cpu())
    assert not torch.equal(lora.effective(), lora.weight)


def test_a_value_layer_is_the_labs_lora_linear(adapted):
    """One head: Keras' A is (1, in, rank) and its B (rank, out), the papers' (rank, in) and (out, rank)."""
    layer = lora_layers(adapted(None))["decoder_block_0/value"]
    lora, x = taken_apart(layer), some_input(3, 5, 64)
    linear = nn.Linear(64, 32, bias=False)
    linear.weight.data = lora.weight[0].T.contiguous()
    ours = LoRALinear(linear, rank=4, alpha=4)
    with torch.no_grad():
        ours.lora_A.copy_(lora.lora_A[0].T)
        ours.lora_B.copy_(lora.lora_B.T)
        torch.testing.assert_close(layer(x).cpu()[:, :, 0], ours(x), rtol=0, atol=2e-6)


def test_a_query_layers_update_has_rank_times_heads(learned):
    """An A for each head and one B: the heads' updates share B's rows, not A's columns."""
    query = channels(taken_apart(lora_layers(learned)["decoder_block_0/query"]).delta_weight())
    value = channels(taken_apart(lora_layers(learned)["decoder_block_0/value"]).delta_weight())
    assert query.shape == (64, 64) and value.shape == (32, 64)
    assert int(torch.linalg.matrix_rank(query)) == 8 and int(torch.linalg.matrix_rank(value)) == 4


def test_what_keras_trains_on_a_gemma_is_counted(learned):
    """Gemma 2B by hand: 18 · (8·2048·4 + 4·256 + 2048·4 + 4·256)."""
    gemma = ARCHITECTURES["Gemma-2B"]
    assert keras_lora.keras_lora_parameters(gemma, 4) == 18 * 75_776 == 1_363_968
    assert lora_parameters(gemma, 4, ["q_proj", "v_proj"]) == 18 * (4 * (2048 + 2048) + 4 * (2048 + 256)) == 460_800
    tiny = sum(part.trainable for part in parts(learned))
    assert tiny == 2 * (2 * 64 * 4 + 4 * 32 + 64 * 4 + 4 * 32)


@pytest.mark.parametrize("mode", [None, "int4"])
def test_a_layer_computes_with_the_effective_weight(adapted, mode):
    for layer in lora_layers(adapted(mode)).values():
        x = some_input(3, 5, 64)
        ours = torch.einsum("btd,ndh->btnh", x, taken_apart(layer).effective())
        torch.testing.assert_close(layer(x).detach().cpu(), ours, rtol=0, atol=5e-6)


def test_an_int8_layer_rounds_its_input_and_hands_the_effective_weights_gradient_back(adapted):
    """Forwards each token's numbers go to 8 bits too; backwards Keras computes as if they had not."""
    for layer in lora_layers(adapted("int8")).values():
        x, upstream = some_input(3, 5, 64).requires_grad_(True), some_input(3, 5, layer.kernel.shape[0], 32)
        y, lora = layer(x), taken_apart(layer)
        (gradient,) = torch.autograd.grad(y, x, upstream.to(y.device))
        ours = torch.einsum("btnh,ndh->btd", upstream, lora.effective())
        torch.testing.assert_close(gradient.cpu(), ours, rtol=0, atol=5e-6)
        rounded = dequantize_absmax(quantize_absmax(x.detach().reshape(15, 64), axis=0)).reshape(3, 5, 64)
        exact = torch.einsum("btd,ndh->btnh", rounded, lora.weight)
        exact += torch.einsum("btd,ndh->btnh", x.detach(), lora.delta_weight())
        torch.testing.assert_close(y.detach().cpu(), exact, rtol=0, atol=2e-4)


def test_keras_int8_is_the_labs_absmax_by_channel(base, adapted):
    """Keras adds 1e-7 to absmax: a code may differ where the two land on either side of a half, and by one only."""
    differing, total = 0, 0
    for ours, theirs in zip(base.backbone.transformer_layers, adapted("int8").backbone.transformer_layers, strict=True):
        for name in ("query_dense", "key_dense", "value_dense"):
            quantized = getattr(theirs.attention, name)
            mine = quantize_absmax(channels(dequantized(getattr(ours.attention, name))), axis=0)
            codes = channels(int8_codes(quantized))
            assert (codes.int() - mine.indices.int()).abs().max() <= 1
            same = codes == mine.indices
            differing, total = differing + int((~same).sum()), total + same.numel()
            difference = (channels(dequantized(quantized)) - dequantize_absmax(mine)).abs()[same]
            assert difference.max() < 2e-6 * float(mine.absmax.max())
    assert total == 2 * (4096 + 2048 + 2048) and differing <= total / 1000


def test_int8_kernels_with_an_adapter_are_no_weights(adapted):
    """`layer.kernel` adds the update to the whole numbers: the trap that `taken_apart` is there for."""
    layer = lora_layers(adapted("int8"))["decoder_block_0/value"]
    wrong = layer.kernel.detach().cpu()
    assert wrong.abs().max() > 100 and taken_apart(layer).effective().abs().max() < 2


def test_the_adapters_file_holds_the_adapter(base, learned, tmp_path):
    file = str(tmp_path / "backwards.lora.h5")
    learned.backbone.save_lora_weights(file)
    other = copy_of(base)
    quantize(other, "int8", filters=not_embedding)
    other.backbone.load_lora_weights(file)
    inputs = {"token_ids": lines(-1), "padding_mask": np.ones((19, 9), "int32")}
    assert torch.equal(other(inputs), learned(inputs))


def test_computing_in_bfloat16_as_the_presets_do_learns_too(base):
    model = keras_gemma.tiny_gemma(dtype="mixed_bfloat16")
    model.set_weights(base.get_weights())
    quantize(model, "int8", filters=not_embedding)
    model.backbone.enable_lora(rank=4)
    losses = train(model, lines(-1), 30, 4e-2)
    assert losses[-1] < losses[0] / 3
    assert {part.dtype for part in parts(model) if part.name == "adapter"} == {"float32"}


# What is said to the reader.


def test_bad_values_are_named(base):
    with pytest.raises(LabError, match="Unknown word 'Fryday'"):
        recite(base, "Fryday")
    with pytest.raises(LabError, match="steps=0"):
        train(base, lines(1), 0, 1e-3)
    query = base.backbone.transformer_layers[0].attention.query_dense
    with pytest.raises(LabError, match=r"query is stored in float, not in int8"):
        int8_codes(query)
    with pytest.raises(LabError, match="query has no adapter"):
        taken_apart(query)


def test_without_keras_the_command_is_named(monkeypatch):
    monkeypatch.setattr("lab_utils.notebook.extras.missing", lambda name: f"{name} is not installed: run this")
    with pytest.raises(LabError, match=r"^keras is not installed: run this\.$"):
        keras_gemma.load_keras()


def test_torch_it_is_whatever_the_environment_says(tmp_path):
    """In a separate process, with another backend in the environment; nothing of TensorFlow is loaded for it."""
    keras_and_hub()
    code = "from lab_utils.beyond_text.keras_gemma import load_keras; print(load_keras()[0].config.backend())"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout.strip() == "torch", done.stderr


def test_a_keras_that_has_another_backend_is_an_error(monkeypatch):
    keras, _ = keras_and_hub()
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(LabError, match=r"imported before with the backend 'jax'.*restart the kernel"):
        keras_gemma.load_keras()


# Presets.


@pytest.mark.parametrize(
    ("kind", "total_gib", "reachable", "preset", "reason"),
    [
        ("cpu", 64, True, None, "no GPU"),
        ("cuda", 80, False, None, "Kaggle.*does not answer"),
        ("cuda", 3.9, True, None, r"3\.9 GiB, and the smallest preset wants 4\.0"),
        ("cuda", 4.1, True, "gemma3_270m", r"4\.1 GiB"),
        ("cuda", 7.9, True, "gemma3_1b", "largest"),
        ("cuda", 14.7, True, "gemma_2b_en", "largest"),
    ],
)
def test_the_preset_is_the_largest_that_fits(kind, total_gib, reachable, preset, reason):
    chosen, why = keras_presets.decide_preset(kind, int(total_gib * GIB), reachable)
    assert chosen == preset
    assert re.search(reason, why), why


def test_a_preset_is_taken_by_one_explicit_line_only(monkeypatch, capsys):
    """The line says download, memory, dtype and learning rate."""
    monkeypatch.setattr(keras_presets, "answers", lambda host: True)
    monkeypatch.setattr(keras_presets, "total_memory_bytes", lambda: int(14.7 * GIB))
    t4, l4 = Device("cuda", "T4", "float16", "no bfloat16"), Device("cuda", "L4", "bfloat16", "it multiplies bfloat16")
    assert keras_presets.larger_preset(device=t4) == "gemma_2b_en"
    said = unfolded(capsys.readouterr().out)
    assert "download: 5.0 GB" in said and "memory: about 12.3 GiB, computing in float32" in said
    assert "leaves the range of float16" in said and "learning rate: 0.0001 (Keras' own" in said
    assert keras_presets.larger_preset("gemma3_270m", l4) == "gemma3_270m"
    assert "computing in mixed_bfloat16" in capsys.readouterr().out
    assert keras_presets.larger_preset(device=Device("cpu", "x", "float32", "y")) is None
    with pytest.raises(LabError, match="Unknown preset 'gemma-9'"):
        keras_presets.larger_preset("gemma-9")


def test_a_preset_computes_in_the_devices_own_dtype(monkeypatch):
    _, keras_hub = keras_and_hub()
    taken = []
    keep = lambda name, dtype: taken.append(dtype) or MagicMock()  # noqa: E731
    monkeypatch.setattr(keras_hub.models.CausalLM, "from_preset", keep)
    for dtype in ("bfloat16", "float16", "float32"):
        monkeypatch.setattr(keras_presets, "find_device", lambda dtype=dtype: Device("cuda", "x", dtype, "y"))
        keras_presets.load_preset("gemma3_270m")
    assert taken == ["mixed_bfloat16", "float32", "float32"]


def test_the_presets_are_keras_hubs_own_and_its_gemma_2b_is_the_labs():
    _, keras_hub = keras_and_hub()
    listed = keras_hub.models.GemmaCausalLM.presets | keras_hub.models.Gemma3CausalLM.presets
    sizes = {name: listed[name]["metadata"]["params"] for name in keras_presets.PRESETS}
    assert sizes == dict(keras_presets.PRESETS)
    assert sizes["gemma_2b_en"] == ARCHITECTURES["Gemma-2B"].total_parameters()
    assert not hasattr(keras_hub.models, "GemmaLM")


def test_a_preset_that_cannot_be_loaded_says_what_to_do(monkeypatch):
    _, keras_hub = keras_and_hub()

    def refuse(name, **settings):
        raise ConnectionError(f"403 for {name}\nand more")

    monkeypatch.setattr(keras_hub.models.CausalLM, "from_preset", refuse)
    what = r"gemma3_270m could not be loaded \(ConnectionError: 403 for gemma3_270m\).*KAGGLE_KEY"
    with pytest.raises(LabError, match=what):
        keras_presets.load_preset("gemma3_270m")
    with pytest.raises(LabError, match="Unknown preset 'gemma'"):
        keras_presets.load_preset("gemma")
