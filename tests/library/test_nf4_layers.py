"""nf4_layers: Linear4bit computes what bitsandbytes' own computes, keeps no dense weight, and carries an adapter."""

import copy

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from lab_utils.errors import LabError
from lab_utils.lora.layers import LoRALinear
from lab_utils.nf4 import linear as nf4_layers
from lab_utils.nf4.codec import dequantize_4bit, quantize_4bit
from lab_utils.nf4.linear import Linear4bit

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
COMPUTE = (torch.float32, torch.bfloat16)


def linear(n_in=128, n_out=48, bias=True, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(n_in, n_out, bias=bias).to(dtype)


def theirs(layer, quant_type, double_quant, compute_dtype=None):
    """bitsandbytes' Linear4bit with the same weight; it may not repack it for inference (that breaks its gradient)."""
    bnb = pytest.importorskip("bitsandbytes")
    other = bnb.nn.Linear4bit(
        layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=compute_dtype,
        quant_type=quant_type, compress_statistics=double_quant,
    )  # fmt: skip
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    other.weight = bnb.nn.Params4bit(
        layer.weight.detach().clone(), requires_grad=False, quant_type=quant_type, compress_statistics=double_quant
    )
    if layer.bias is not None:
        other.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    other.support_avx512bf16_for_cpu = False
    return other.to("cpu")


def run(layer, x, grad):
    """(output, gradient for x)"""
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(grad)
    return y.detach(), x.grad


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("compute", COMPUTE, ids=str)
@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_output_and_gradient_equal_bitsandbytes_bit_for_bit(dtype, compute, double_quant, quant_type):
    """Whatever the dtype of the original weight and of the input."""
    layer = linear(dtype=dtype)
    ours = Linear4bit(layer, quant_type=quant_type, double_quant=double_quant)
    other = theirs(layer, quant_type, double_quant)
    x, grad = torch.randn(3, 5, 128, dtype=compute), torch.randn(3, 5, 48, dtype=compute)
    for mine, their in zip(run(ours, x, grad), run(other, x, grad), strict=True):
        assert mine.dtype == their.dtype == compute and torch.equal(mine, their)


@pytest.mark.parametrize("bias", [False, True])
def test_a_compute_dtype_of_its_own(bias):
    layer = linear(bias=bias)
    ours = Linear4bit(layer, compute_dtype=torch.bfloat16)
    other = theirs(layer, "nf4", True, torch.bfloat16)
    x, grad = torch.randn(7, 128), torch.randn(7, 48)
    for mine, their in zip(run(ours, x, grad), run(other, x, grad), strict=True):
        assert mine.dtype == torch.float32 and torch.equal(mine, their)
    assert not torch.equal(ours(x), Linear4bit(layer)(x))


def test_output_and_gradient_are_those_of_the_dequantized_matrix():
    """Also where rows end inside a block, which bitsandbytes 0.50.2 gets wrong."""
    layer = linear(n_in=96, n_out=10)
    ours = Linear4bit(layer, blocksize=256)
    dense = dequantize_4bit(quantize_4bit(layer.weight, 256, double_quant=True))
    x, grad = torch.randn(4, 96), torch.randn(4, 10)
    y, grad_x = run(ours, x, grad)
    torch.testing.assert_close(y, x @ dense.T + layer.bias)
    torch.testing.assert_close(grad_x, grad @ dense)
    assert torch.equal(ours.dequantize(), dense)


def test_no_dense_weight_is_kept(monkeypatch):
    """Neither beside the layer nor for the backward pass, which makes it again."""
    made = []

    def spy(*arguments):
        dense = dequantize_4bit(*arguments)
        made.append(StorageWeakRef(dense.untyped_storage()))
        return dense

    monkeypatch.setattr(nf4_layers, "dequantize_4bit", spy)
    layer = linear()
    ours = Linear4bit(layer)
    held = StorageWeakRef(layer.weight.untyped_storage())
    del layer
    y = ours(torch.randn(2, 128, requires_grad=True))
    assert held.expired() and len(made) == 1 and made[0].expired()
    y.sum().backward()
    assert len(made) == 2 and made[1].expired()


def test_size_of_the_layer():
    """Half as many entries as weights, and 4.13 bits per weight in all."""
    ours = Linear4bit(linear(1024, 1024, bias=False))
    assert sum(p.numel() for p in ours.parameters()) == 1024 * 1024 // 2
    stored = sum(t.numel() * t.element_size() for t in [*ours.parameters(), *ours.buffers()])
    assert 8 * stored / 1024**2 == ours.quantized.bits_per_parameter == pytest.approx(4.127, abs=5e-4)
    assert not any(p.requires_grad for p in ours.parameters())


@pytest.mark.parametrize("double_quant", [False, True])
def test_saved_and_loaded(double_quant):
    first, second = (Linear4bit(linear(seed=seed), double_quant=double_quant) for seed in (1, 2))
    x = torch.randn(2, 128)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x)) and torch.equal(copy.deepcopy(first)(x), first(x))


@pytest.mark.parametrize("double_quant", [False, True])
def test_a_change_of_dtype_leaves_the_quantized_state_alone(double_quant):
    ours = Linear4bit(linear(), double_quant=double_quant)
    before = copy.deepcopy(ours.state_dict())
    for change in (lambda m: m.half(), lambda m: m.to(torch.bfloat16), lambda m: m.double()):
        change(nn.Sequential(ours))
        for name, tensor in ours.state_dict().items():
            assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])
    moved = ours.to("meta")
    assert {t.device.type for t in [*moved.parameters(), *moved.buffers()]} == {"meta"}


def test_it_carries_an_adapter():
    """B = 0 changes nothing; A and B learn, the base stays; merging into 4 bits is refused."""
    ours = Linear4bit(linear())
    before = copy.deepcopy(ours.state_dict())
    adapted = LoRALinear(ours, 4, 8)
    x = torch.randn(6, 128)
    assert torch.equal(adapted(x), ours(x))
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    adapted(x).square().mean().backward()
    optimizer.step()
    assert not torch.equal(adapted(x), ours(x)) and adapted.lora_B.any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())
    with pytest.raises(LabError, match="quantized"):
        adapted.merge()


def test_the_original_layer_stays_as_it_was():
    layer = linear()
    before = copy.deepcopy(layer.state_dict())
    Linear4bit(layer).bias.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_what_is_printed():
    text = repr(Linear4bit(linear(bias=False), double_quant=False))
    assert text == "Linear4bit(in_features=128, out_features=48, bias=False, nf4, blocksize=64, double_quant=False)"


def test_what_is_refused():
    with pytest.raises(LabError, match=r"nn\.Linear; this is Embedding"):
        Linear4bit(nn.Embedding(4, 64))
    with pytest.raises(LabError, match=r"nn\.Linear; this is Linear4bit"):
        Linear4bit(Linear4bit(linear()))
    with pytest.raises(LabError, match="quant_type 'int4'"):
        Linear4bit(linear(), quant_type="int4")
