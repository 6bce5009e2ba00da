"""LoRA layers: laws that hold for every one, and equality with peft to the bit."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import assert_same_bits, peft, pefts_known_warnings
from one_layer import Net
from torch import nn
from torch.nn import functional as F

from lab_utils.errors import LabError
from lab_utils.lora.whole_model import LoRAConv1D, LoRAEmbedding, LoRALinear, inject

pytestmark = pefts_known_warnings
shapes = st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 5))  # out, in, batch


def conv1d(n_in: int, n_out: int) -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    return Conv1D(n_out, n_in)


LAYERS = {"linear": lambda: nn.Linear(12, 7), "conv1d": lambda: conv1d(12, 7), "embedding": lambda: nn.Embedding(12, 7)}


def twins(layer: nn.Module, seed: int = 1, dtype=torch.float32, **config):
    """(ours, peft's layer, peft's A, peft's B): the same base weights, each adapter drawn from the same seed."""
    values = {"r": 3, "lora_alpha": 8, "lora_dropout": 0.0, "use_rslora": False, **config}
    net = Net(layer).to(dtype)
    other = copy.deepcopy(net)
    torch.manual_seed(seed)
    inject(net, ["layer"], values["r"], values["lora_alpha"], values["lora_dropout"], values["use_rslora"])
    torch.manual_seed(seed)
    theirs = peft.get_peft_model(other, peft.LoraConfig(target_modules=["layer"], **values)).base_model.model.layer
    if hasattr(net.layer.base_layer, "num_embeddings"):
        A, B = theirs.lora_embedding_A["default"], theirs.lora_embedding_B["default"]
    else:
        A, B = theirs.lora_A["default"].weight, theirs.lora_B["default"].weight
    return net.layer.train(), theirs.train(), A, B


def randomise(ours, A, B) -> None:
    """The same random A and B in both: with B = 0 half of the maths would go untested."""
    with torch.no_grad():
        for mine, other in ((ours.lora_A, A), (ours.lora_B, B)):
            mine.copy_(torch.randn_like(mine))
            other.copy_(mine)


def example_input(layer: nn.Module, batch: int = 4) -> torch.Tensor:
    """Something that the base layer takes; floats require a gradient."""
    base = layer.base_layer
    if isinstance(base, nn.Embedding):
        return torch.randint(0, base.num_embeddings, (batch, 2))
    return torch.randn(batch, 2, layer.lora_A.shape[1], dtype=base.weight.dtype, requires_grad=True)


def run(layer, x, *parameters):
    """(output, gradients of the parameters and of a float x) for one random upstream gradient."""
    wanted = [*parameters, x] if x.is_floating_point() else list(parameters)
    torch.manual_seed(7)  # dropout's mask
    y = layer(x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
    return y.detach(), torch.autograd.grad(y, wanted, upstream)


# ---- the same numbers as peft

@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_initial_values_are_pefts(kind, dtype):
    ours, _, A, B = twins(LAYERS[kind](), dtype=dtype)
    assert_same_bits(ours.lora_A.data, A.data)
    assert_same_bits(ours.lora_B.data, B.data)
    assert ours.lora_A.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    zero, drawn = (ours.lora_A, ours.lora_B) if kind == "embedding" else (ours.lora_B, ours.lora_A)
    assert not zero.any() and drawn.all()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("config", [{}, {"lora_dropout": 0.4}, {"use_rslora": True}, {"r": 7, "lora_alpha": 3}])
def test_forward_and_gradients_are_pefts(kind, dtype, config):
    ours, theirs, A, B = twins(LAYERS[kind](), dtype=dtype, **config)
    randomise(ours, A, B)
    x = example_input(ours)
    y, gradients = run(ours, x, ours.lora_A, ours.lora_B)
    their_y, their_gradients = run(theirs, x, A, B)
    assert y.dtype == dtype
    for one, other in zip((y, *gradients), (their_y, *their_gradients), strict=True):
        assert_same_bits(one, other)


@given(shape=shapes, rank=st.integers(1, 24), alpha=st.floats(0.1, 64), rslora=st.booleans(), bias=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_linear_layer_is_pefts(shape, rank, alpha, rslora, bias):
    n_out, n_in, batch = shape
    rank = min(rank, n_out, n_in)
    layer = nn.Linear(n_in, n_out, bias=bias)
    ours, theirs, A, B = twins(layer, r=rank, lora_alpha=alpha, use_rslora=rslora)
    assert_same_bits(ours.lora_A.data, A.data)
    randomise(ours, A, B)
    x = example_input(ours, batch)
    y, gradients = run(ours, x, ours.lora_A, ours.lora_B)
    their_y, their_gradients = run(theirs, x, A, B)
    for one, other in zip((y, *gradients), (their_y, *their_gradients), strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize(
    ("kind", "dtype"),  # without a 16-bit embedding: there peft rounds the update before it adds it, and we do not
    [(kind, dtype) for kind in LAYERS for dtype in (torch.float32, torch.bfloat16)][:-1],
    ids=str,
)
def test_merged_and_unmerged_weights_are_pefts(kind, dtype):
    ours, theirs, A, B = twins(LAYERS[kind](), dtype=dtype)
    randomise(ours, A, B)
    assert_same_bits(ours.delta_weight().detach(), theirs.get_delta_weight("default").detach())
    ours.merge(), theirs.merge()
    assert_same_bits(ours.base_layer.weight.data, theirs.base_layer.weight.data)
    ours.unmerge(), theirs.unmerge()
    assert_same_bits(ours.base_layer.weight.data, theirs.base_layer.weight.data)


def test_an_embedding_that_scales_what_it_looks_up_is_pefts():
    class Scaled(nn.Embedding):
        embed_scale = 3.5

        def forward(self, x):
            return super().forward(x) * self.embed_scale

    ours, theirs, A, B = twins(Scaled(12, 7))
    randomise(ours, A, B)
    x = example_input(ours)
    before = ours(x).detach()
    assert_same_bits(before, theirs(x).detach())
    with torch.no_grad():
        ours.merge()
        torch.testing.assert_close(ours(x), before)


# ---- laws

def random_layer(kind="linear", rank=3, alpha=6.0, dtype=torch.float32, **changes) -> LoRALinear:
    classes = {"linear": LoRALinear, "conv1d": LoRAConv1D, "embedding": LoRAEmbedding}
    layer = classes[kind](LAYERS[kind]().to(dtype), rank, alpha, **changes)
    with torch.no_grad():
        layer.lora_A.normal_(), layer.lora_B.normal_()
    return layer


def test_a_worked_example():
    """W = [[1, 0], [0, 2]], A = [3, 1], B = [1, 2]ᵀ, alpha 4, x = (1, 1): W·x = (1, 2), A·x = 4, 4·B·4 = (16, 32)."""
    base = nn.Linear(2, 2, bias=False)
    base.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    layer = LoRALinear(base, rank=1, alpha=4)
    layer.lora_A.data, layer.lora_B.data = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0], [2.0]])
    assert layer(torch.ones(2)).tolist() == [17.0, 34.0]
    assert layer.delta_weight().tolist() == [[12.0, 4.0], [24.0, 8.0]]


@given(shape=shapes, rank=st.integers(1, 24), alpha=st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_laws_of_a_new_layer(shape, rank, alpha):
    n_out, n_in, batch = shape
    rank = min(rank, n_out, n_in)
    base = nn.Linear(n_in, n_out)
    x = torch.randn(batch, n_in)
    expected = base(x).detach()
    layer = LoRALinear(base, rank, alpha)
    assert_same_bits(layer(x).detach(), expected)  # B = 0 changes nothing
    assert layer.lora_A.shape == (rank, n_in) and layer.lora_B.shape == (n_out, rank)
    assert layer.scaling == alpha / rank
    assert LoRALinear(nn.Linear(n_in, n_out), rank, alpha, use_rslora=True).scaling == alpha / math.sqrt(rank)
    assert layer.lora_A.abs().max() <= 1 / math.sqrt(n_in)  # Kaiming-uniform with a = √5 is U(±1/√in)
    layer(x).square().sum().backward()
    assert base.weight.grad is None and base.bias.grad is None and not base.weight.requires_grad
    assert not layer.lora_A.grad.any()  # its gradient is a multiple of Bᵀ
    assert layer.lora_B.grad.any() or not layer.lora_A.any()


@given(shape=shapes, rank=st.integers(1, 24), alpha=st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_merging_moves_the_update_into_the_weight_and_back(shape, rank, alpha):
    n_out, n_in, batch = shape
    rank = min(rank, n_out, n_in)
    layer = LoRALinear(nn.Linear(n_in, n_out).double(), rank, alpha)
    layer.lora_B.data.normal_()
    weight, x = layer.base_layer.weight.detach().clone(), torch.randn(batch, n_in, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        layer.merge()
        torch.testing.assert_close(layer(x), before)
        torch.testing.assert_close(layer.base_layer.weight.data, weight + layer.scaling * layer.lora_B @ layer.lora_A)
        assert_same_bits(layer(x), layer.base_layer(x))
        layer.unmerge()
        torch.testing.assert_close(layer.base_layer.weight.data, weight)
        torch.testing.assert_close(layer(x), before)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_update_is_what_delta_weight_says_and_its_rank_is_low(kind):
    layer = random_layer(kind, rank=2)
    delta = layer.delta_weight().detach()
    assert delta.shape == layer.base_layer.weight.shape
    assert torch.linalg.matrix_rank(delta.double(), rtol=1e-5) == 2
    x = example_input(layer)
    expected = F.embedding(x, delta) if kind == "embedding" else x @ (delta if kind == "conv1d" else delta.T)
    torch.testing.assert_close(layer(x) - layer.base_layer(x), expected, atol=1e-5, rtol=1e-5)


def test_unmerging_in_16_bits_is_exact_to_rounding_only():
    """One bfloat16 has 8 bits of mantissa: adding and subtracting errs by at most 2⁻⁸ of the sum, each time."""
    layer = random_layer(dtype=torch.bfloat16)
    weight = layer.base_layer.weight.detach().clone()
    layer.merge()
    largest = layer.base_layer.weight.abs().max()
    layer.unmerge()
    error = (layer.base_layer.weight - weight).abs().max()
    assert 0 < error <= 2 * 2**-8 * largest + 2**-8


def test_dropout_zeroes_entries_of_the_adapters_input_while_training():
    base = nn.Linear(400, 5)
    layer = LoRALinear(base, 5, 5, dropout=0.25)
    layer.lora_B.data = torch.eye(5)
    x, seen = torch.ones(400), []
    layer.dropout.register_forward_hook(lambda module, inputs, output: seen.append(output))
    parameters = [layer.lora_A.clone(), layer.lora_B.clone()]
    y = layer(x)
    assert set(seen[0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()} and 60 < (seen[0] == 0).sum() < 140
    torch.testing.assert_close(y, base(x) + layer.lora_A @ seen[0])
    layer.eval()
    torch.testing.assert_close(layer(x), base(x) + layer.lora_A @ x)
    assert torch.equal(parameters[0], layer.lora_A) and torch.equal(parameters[1], layer.lora_B)


def test_train_and_eval_never_merge_and_a_copy_is_a_copy():
    layer = random_layer()
    weight = layer.base_layer.weight.detach().clone()
    layer.eval().train().eval()
    assert not layer.merged and torch.equal(layer.base_layer.weight, weight)
    twin = copy.deepcopy(layer)
    layer.merge()
    layer.train().eval()
    assert layer.merged and not twin.merged and torch.equal(twin.base_layer.weight, weight)
    assert "merged=True" in repr(layer)


# ---- a merged layer does not train, a broken one does not merge

def test_merging_twice_and_unmerging_an_unmerged_layer_are_errors_that_change_nothing():
    layer = random_layer()
    with pytest.raises(LabError, match="not merged"):
        layer.unmerge()
    layer.merge()
    weight = layer.base_layer.weight.detach().clone()
    with pytest.raises(LabError, match="merged already"):
        layer.merge()
    assert torch.equal(layer.base_layer.weight, weight)


@pytest.mark.parametrize("kind", LAYERS)
def test_training_a_merged_layer_is_refused(kind):
    layer = random_layer(kind)
    layer.merge()
    x = example_input(layer)
    y = layer(x)
    assert_same_bits(y.detach(), layer.base_layer(x).detach())
    with pytest.raises(LabError, match="Unmerge first"):
        y.sum().backward()
    layer.requires_grad_(False)
    assert_same_bits(layer(x).detach(), y.detach())
    if x.is_floating_point():  # a gradient for the input alone is fine
        layer(x).sum().backward()
        assert x.grad.any()


def test_a_merged_layer_allows_in_place_operations_after_it():
    layer = random_layer()
    layer.merge()
    assert F.relu(layer(torch.randn(3, 12)), inplace=True).min() >= 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_merged(value):
    layer = random_layer()
    layer.lora_B.data[0, 0] = value
    weight = layer.base_layer.weight.detach().clone()
    with pytest.raises(LabError, match="not finite"):
        layer.merge()
    assert not layer.merged and torch.equal(layer.base_layer.weight, weight)


def test_a_sum_beyond_the_range_of_the_base_is_not_merged():
    layer = random_layer(alpha=1e6, dtype=torch.float16)  # float16 ends at 65,504
    with pytest.raises(LabError, match="not finite"):
        layer.merge()


def test_a_4_bit_base_is_adapted_as_peft_does_and_not_merged():
    import bitsandbytes as bnb

    def base():
        torch.manual_seed(0)
        layer = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to("cpu")
        layer.support_avx512bf16_for_cpu = False
        return layer

    ours, theirs, A, B = twins_of_4_bits(base)
    randomise(ours, A, B)
    x = torch.randn(3, 64, requires_grad=True)
    y, gradients = run(ours, x, ours.lora_A, ours.lora_B)
    their_y, their_gradients = run(theirs, x, A, B)
    for one, other in zip((y, *gradients), (their_y, *their_gradients), strict=True):
        assert_same_bits(one, other)
    with pytest.raises(LabError, match="quantized"):
        ours.merge()


def twins_of_4_bits(base):
    net, other = Net(base()), Net(base())
    other.is_loaded_in_4bit = True
    inject(net, ["layer"], 3, 8)
    theirs = peft.get_peft_model(other, peft.LoraConfig(r=3, lora_alpha=8, target_modules=["layer"]))
    theirs = theirs.base_model.model.layer
    return net.layer, theirs, theirs.lora_A["default"].weight, theirs.lora_B["default"].weight


# ---- values out of range

@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rank": 0}, "rank=0"), ({"rank": -1}, "rank=-1"), ({"rank": True}, "rank=True"), ({"rank": 2.0}, "rank=2.0"),
        ({"rank": "4"}, "rank='4'"), ({"rank": 8}, "rank=8 is larger than this layer \\(7×12\\).*rank 1 to 7"),
        ({"alpha": 0}, "alpha=0"), ({"alpha": -2}, "alpha=-2"), ({"alpha": math.nan}, "alpha=nan"),
        ({"alpha": math.inf}, "alpha=inf"), ({"alpha": True}, "alpha=True"), ({"alpha": None}, "alpha=None"),
        ({"dropout": 1.0}, "dropout=1.0"), ({"dropout": -0.1}, "dropout=-0.1"), ({"dropout": True}, "dropout=True"),
        ({"dropout": math.nan}, "dropout=nan"), ({"use_rslora": 1}, "use_rslora=1"),
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_named(values, named):
    with pytest.raises(LabError, match=named):
        LoRALinear(nn.Linear(12, 7), **{"rank": 2, "alpha": 4, **values})
    net = Net(nn.Linear(12, 7))
    with pytest.raises(LabError, match=named.replace("this layer", "layer layer")):
        inject(net, ["layer"], **{"rank": 2, "alpha": 4, **values})
    assert type(net.layer) is nn.Linear and net.layer.weight.requires_grad


def test_full_rank_is_allowed():
    assert LoRALinear(nn.Linear(12, 7), 7, 7).lora_B.shape == (7, 7)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 3, 1), nn.LayerNorm(4), "a string"], ids=str)
def test_other_layers_are_refused_by_name(layer):
    with pytest.raises(LabError, match=f"LoRALinear cannot adapt a {type(layer).__name__}"):
        LoRALinear(layer, 1, 1)
    with pytest.raises(LabError, match="LoRAEmbedding cannot adapt"):
        LoRAEmbedding(nn.Linear(4, 4), 1, 1)
    with pytest.raises(LabError, match="cannot adapt a LoRALinear"):
        LoRALinear(LoRALinear(nn.Linear(4, 4), 1, 1), 1, 1)
