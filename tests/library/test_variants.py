"""What holds for every variant, Delta-LoRA worked by hand, and every refusal."""

import copy
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import TOKENS, assert_same_bits, build_gpt2, logits
from torch import nn

from lab_utils import variants
from lab_utils.errors import LabError
from lab_utils.lora import (
    LoRALinear,
    adapted_layers,
    adapter_state,
    load_adapter,
    merge,
    take_off,
    trainable_parameters,
    unmerge,
)
from lab_utils.lora.files import save_adapter
from lab_utils.memory.saved import saved_tensors
from lab_utils.variants import (
    VARIANTS,
    DeltaLoRALinear,
    DoRALinear,
    LoRAFALinear,
    PiSSALinear,
    SharedMatrices,
    VeRALinear,
    after_step,
    before_step,
    inject,
    learned_update,
    optimizer_groups,
)

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4))  # out, in, batch
every = pytest.mark.parametrize("variant", VARIANTS)
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def randomise(layer: LoRALinear) -> LoRALinear:
    """Random values for all that is trained."""
    with torch.no_grad():
        for name in layer.TRAINED:
            getattr(layer, name).normal_()
    return layer


def train(model, variant: str, steps: int = 3, learning_rate: float = 0.02) -> None:
    """A few optimizer steps with all that belongs around them."""
    optimizer = torch.optim.Adam(optimizer_groups(model, variant, learning_rate))
    for _ in range(steps):
        optimizer.zero_grad()
        model(TOKENS, labels=TOKENS).loss.backward()
        before_step(model)
        optimizer.step()
        after_step(model)


# ---- laws of a layer

@every
@given(shape=shapes, rank=st.integers(1, 20), alpha=st.floats(0.1, 64), bias=st.booleans())
@few
def test_a_new_layer_leaves_the_base_as_it_is_and_trains_what_it_says(variant, shape, rank, alpha, bias):
    n_out, n_in, batch = shape
    rank = rank if variant == "vera" else min(rank, n_out, n_in)
    base = nn.Linear(n_in, n_out, bias=bias)
    x = torch.randn(batch, n_in)
    expected = base(x).detach()
    layer = VARIANTS[variant].factory(base, rank, alpha)
    y = layer(x)
    if variant == "pissa":  # W_res and s·B·A are rounded apart
        torch.testing.assert_close(y.detach(), expected, atol=1e-5, rtol=1e-5)
    else:
        assert_same_bits(y.detach(), expected)
    assert learned_update(layer).abs().max() <= (1e-6 if variant == "pissa" else 0.0)
    trained = [p for p in layer.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == VARIANTS[variant].count(n_out, n_in, rank)
    assert {id(p) for p in trained} == {id(getattr(layer, name)) for name in layer.TRAINED}
    y.square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in layer.parameters())


@every
@given(shape=shapes, rank=st.integers(1, 20), alpha=st.floats(0.1, 8))
@few
def test_merging_moves_the_update_into_the_weight_and_back(variant, shape, rank, alpha):
    n_out, n_in, batch = shape
    rank = rank if variant == "vera" else min(rank, n_out, n_in)
    torch.manual_seed(n_out)
    layer = randomise(VARIANTS[variant].factory(nn.Linear(n_in, n_out).double(), rank, alpha)).eval()
    weight, x = layer.base_layer.weight.detach().clone(), torch.randn(batch, n_in, dtype=torch.float64)
    with torch.no_grad():
        before, delta = layer(x), layer.delta_weight()
        torch.testing.assert_close(before - layer.base_layer(x), x @ delta.T)  # forward and delta_weight agree
        layer.merge()
        torch.testing.assert_close(layer.base_layer.weight.data, weight + delta)
        torch.testing.assert_close(layer(x), before)
        assert_same_bits(layer(x), layer.base_layer(x))
        torch.testing.assert_close(layer.delta_weight(), delta)
        layer.unmerge()
        torch.testing.assert_close(layer.base_layer.weight.data, weight)
        torch.testing.assert_close(layer(x), before)


@every
def test_a_merged_layer_refuses_to_train_and_to_merge_again(variant):
    layer = randomise(VARIANTS[variant].factory(nn.Linear(12, 7), 3, 8))
    layer.merge()
    with pytest.raises(LabError, match="Unmerge first"):
        layer(torch.randn(2, 12)).sum().backward()
    with pytest.raises(LabError, match="merged already"):
        layer.merge()
    with torch.no_grad():
        assert layer(torch.randn(2, 12)).shape == (2, 7)


def test_doras_update_alone_exceeds_the_rank():
    """s·B·A has rank 2, and so has VeRA's product; DoRA also stretches W's rows, up to the layer's size."""
    ranks = {}
    for variant in VARIANTS:
        torch.manual_seed(0)
        layer = randomise(VARIANTS[variant].factory(nn.Linear(12, 7).double(), 2, 8))
        ranks[variant] = int(torch.linalg.matrix_rank(layer.delta_weight()))
    assert ranks == dict.fromkeys(VARIANTS, 2) | {"dora": 7}


# ---- laws of a model

@every
def test_a_model_is_trained_merged_and_given_back(tiny_llama, variant):
    base_logits, names = logits(tiny_llama()), list(tiny_llama().state_dict())
    torch.manual_seed(3)
    model = inject(tiny_llama(), variant, "all-linear", 4, 8)
    sizes = [layer.base_layer.weight.shape for layer in adapted_layers(model).values()]
    assert len(sizes) == 14
    assert sum(p.numel() for p in trainable_parameters(model)) == sum(
        VARIANTS[variant].count(n_out, n_in, 4) for n_out, n_in in sizes
    )
    torch.testing.assert_close(logits(model), base_logits, atol=0 if variant != "pissa" else 1e-5, rtol=0)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    train(model.train(), variant)
    moved = {name for name, value in frozen.items() if not torch.equal(model.get_parameter(name), value)}
    assert moved == ({name for name in frozen if "base_layer.weight" in name} if variant == "delta-lora" else set())
    assert all(model.get_parameter(name).grad is None for name in frozen)
    adapted = logits(model)
    assert (adapted - base_logits).abs().max() > 1e-3
    assert merge(model) == 14
    torch.testing.assert_close(logits(model), adapted, atol=2e-4, rtol=2e-4)
    assert unmerge(model) == 14
    torch.testing.assert_close(logits(model), adapted, atol=2e-4, rtol=2e-4)
    assert take_off(model) is model and list(model.state_dict()) == names
    torch.testing.assert_close(logits(model), base_logits, atol=2e-4, rtol=2e-4)  # unmerging rounds


@every
def test_taking_off_what_was_never_merged_restores_the_base_to_the_bit(tiny_llama, variant):
    model = tiny_llama()
    before = copy.deepcopy(model.state_dict())
    train(inject(model, variant, "all-linear", 4, 8).train(), variant)
    take_off(model)
    assert list(model.state_dict()) == list(before)
    for name, value in model.state_dict().items():
        assert_same_bits(value, before[name])
    inject(model, variant, ["q_proj"], 2, 4)  # and another one may follow


@every
def test_what_is_merged_stays_when_the_adapters_are_taken_off(tiny_llama, variant):
    model = inject(tiny_llama(), variant, "all-linear", 4, 8).train()
    train(model, variant)
    merge(model)
    merged = logits(model)
    assert_same_bits(logits(take_off(model)), merged)


@every
def test_learned_update_is_what_the_layer_computes_less_the_original_weight(tiny_llama, variant):
    original = tiny_llama().get_submodule("model.layers.1.mlp.up_proj").weight.detach()
    model = inject(tiny_llama(), variant, ["up_proj"], 4, 8).train()
    train(model, variant)
    layer = model.get_submodule("model.layers.1.mlp.up_proj")
    with torch.no_grad():
        computed = layer(torch.eye(64)).T
        torch.testing.assert_close(learned_update(layer), computed - original, atol=1e-5, rtol=1e-4)
        layer.merge()
        torch.testing.assert_close(learned_update(layer), computed - original, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "delta-lora"])
def test_a_state_is_taken_out_and_loaded(tiny_llama, variant):
    torch.manual_seed(3)
    model = inject(tiny_llama(), variant, "all-linear", 4, 8)
    fresh = adapter_state(model)
    train(model.train(), variant)
    state, trained_logits = adapter_state(model), logits(model)
    assert len(state) == 14 * len(model.model.layers[0].mlp.up_proj.SAVED)
    load_adapter(model, fresh)
    torch.testing.assert_close(logits(model), logits(tiny_llama()), atol=1e-5, rtol=0)
    assert_same_bits(logits(load_adapter(model, state)), trained_logits)


def test_optimizer_groups_hold_each_trained_parameter_once(tiny_llama):
    for variant in VARIANTS:
        model = inject(tiny_llama(), variant, "all-linear", 4, 8)
        groups = optimizer_groups(model, variant, 1e-3, ratio=8)
        held = [id(p) for group in groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in trainable_parameters(model))
        assert [group["lr"] for group in groups] == ([1e-3, 8e-3] if variant == "lora+" else [1e-3])


def test_rslora_is_lora_scaled_by_the_root(tiny_llama):
    for rank in (1, 4, 9):
        assert VARIANTS["rslora"].factory(nn.Linear(12, 12), rank, 6.0).scaling == 6.0 / math.sqrt(rank)
    assert inject(build_gpt2(), "rslora", ["wte"], 4, 6.0).transformer.wte.scaling == 3.0  # embeddings too


# ---- LoRA-FA

def kept_for_backward(layer, x) -> list[tuple[int, ...]]:
    """Shapes of the tensors that the forward pass keeps, weights not counted."""
    return [tuple(tensor.shape) for tensor in saved_tensors(layer, lambda: layer(x))]


def test_lora_fa_keeps_the_inner_activation_and_not_the_input():
    x = torch.randn(5, 12, requires_grad=True)
    assert set(kept_for_backward(LoRALinear(nn.Linear(12, 7), 3, 6), x)) == {(5, 12), (5, 3)}
    assert set(kept_for_backward(LoRAFALinear(nn.Linear(12, 7), 3, 6), x)) == {(5, 3)}


def test_the_corrected_gradient_brings_w_nearest_to_the_full_step():
    """s·g·A is the least-squares fit of the full gradient G in the rows of A: the error is orthogonal to A."""
    torch.manual_seed(0)
    layer = LoRAFALinear(nn.Linear(12, 7).double(), 3, 6, corrected=True)
    full = torch.randn(7, 12, dtype=torch.float64)
    layer.lora_B.grad = layer.scaling * full @ layer.lora_A.T  # the chain rule
    layer.before_step()
    error = layer.scaling * layer.lora_B.grad @ layer.lora_A - full
    torch.testing.assert_close(error @ layer.lora_A.T, torch.zeros(7, 3).double(), atol=1e-6, rtol=0)


# ---- VeRA

def test_veras_layers_share_one_pair_of_matrices_and_a_copy_shares_its_own(tiny_llama):
    model = inject(tiny_llama(), "vera", "all-linear", 256, 8)  # more than any side of a layer
    twin = copy.deepcopy(model)
    for each in (model, twin):
        shared = {id(layer.shared) for layer in adapted_layers(each).values()}
        assert len(shared) == 1
    layer = model.model.layers[0].mlp.down_proj
    assert layer.shared.A.shape == (256, 128) and layer.shared.B.shape == (128, 256)
    assert layer.lora_A.data_ptr() == model.model.layers[1].self_attn.k_proj.lora_A.data_ptr()
    assert layer.lora_A.shape == (256, 128) and layer.lora_B.shape == (64, 256)
    assert not any("shared" in name for name in model.state_dict())
    assert layer.shared is not twin.model.layers[0].mlp.down_proj.shared


def test_vera_worked_by_hand():
    """A = (1 2), B = (1 1)ᵀ, d = 0.5, b = (2 4): A·x = 3 at x = (1, 1), 0.5·3 = 1.5, B gives (1.5, 1.5), b (3, 6)."""
    shared = SharedMatrices(2, 2, 1, torch.zeros(1))
    shared.A, shared.B = torch.tensor([[1.0, 2.0]]), torch.ones(2, 1)
    base = nn.Linear(2, 2, bias=False)
    base.weight.data = torch.eye(2)
    layer = VeRALinear(base, 1, 99, shared=shared, d_initial=0.5)
    layer.lambda_b.data = torch.tensor([2.0, 4.0])
    assert layer(torch.ones(2)).tolist() == [4.0, 7.0] and layer.scaling == 1.0
    assert layer.delta_weight().tolist() == [[1.0, 2.0], [2.0, 4.0]]


def test_the_seed_decides_veras_matrices(tiny_llama):
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(drawn))  # of no importance
        model = inject(tiny_llama(), "vera", ["q_proj"], 4, 8, seed=seed)
        drawn.append(model.model.layers[0].self_attn.q_proj.shared)
    assert torch.equal(drawn[0].A, drawn[1].A) and torch.equal(drawn[0].B, drawn[1].B)
    assert not torch.equal(drawn[0].A, drawn[2].A) and not torch.equal(drawn[0].B, drawn[2].B)


# ---- DoRA

def test_doras_rows_have_the_magnitudes_as_norms():
    layer = randomise(DoRALinear(nn.Linear(12, 7).double(), 3, 6))
    layer.magnitude.data.abs_()
    weight = layer.base_layer.weight + layer.delta_weight()
    torch.testing.assert_close(weight.norm(dim=1), layer.magnitude)
    direction = layer.base_layer.weight + layer.scaling * layer.lora_B @ layer.lora_A
    torch.testing.assert_close(nn.functional.normalize(weight), nn.functional.normalize(direction))


def test_no_gradient_flows_through_doras_norm():
    """d y / d B = m / ‖·‖ · s · A·x with the norm as a constant: worked out for one output and one input."""
    base = nn.Linear(1, 1, bias=False).double()
    base.weight.data.fill_(2.0)
    layer = DoRALinear(base, 1, 3.0)
    layer.lora_A.data.fill_(0.5), layer.lora_B.data.fill_(4.0), layer.magnitude.data.fill_(10.0)
    y = layer(torch.ones(1, 1, dtype=torch.float64))
    y.backward()
    direction = 2.0 + 3.0 * 4.0 * 0.5  # 8, and its norm too
    assert y.item() == pytest.approx(10.0 * direction / 8.0)
    assert layer.magnitude.grad.item() == pytest.approx(direction / 8.0)
    assert layer.lora_B.grad.item() == pytest.approx(10.0 / 8.0 * 3.0 * 0.5)  # through the norm too it would be 0


# ---- PiSSA

@given(shape=shapes, rank=st.integers(1, 20), alpha=st.floats(0.1, 8))
@few
def test_pissa_starts_as_the_best_fit_of_its_rank(shape, rank, alpha):
    n_out, n_in, _ = shape
    rank = min(rank, n_out, n_in)
    base = nn.Linear(n_in, n_out).double()
    weight = base.weight.detach().clone()
    layer = PiSSALinear(base, rank, alpha)
    U, S, Vt = torch.linalg.svd(weight, full_matrices=False)
    torch.testing.assert_close(layer.delta_weight().detach(), (U[:, :rank] * S[:rank]) @ Vt[:rank])
    torch.testing.assert_close(layer.lora_A.norm(dim=1), layer.lora_B.norm(dim=0))  # the root on either side
    left = torch.linalg.svdvals(layer.base_layer.weight.detach())
    torch.testing.assert_close(left[: len(S) - rank], S[rank:])


def test_fast_pissa_comes_near_the_best_fit_and_leaves_the_base_unchanged():
    torch.manual_seed(0)
    base = nn.Linear(96, 64)
    x, weight = torch.randn(3, 96), base.weight.detach().clone()
    expected, exact = base(x).detach(), PiSSALinear(copy.deepcopy(base), 8, 16).delta_weight()
    layer = PiSSALinear(base, 8, 16, iterations=16)
    torch.testing.assert_close(layer(x).detach(), expected, atol=1e-5, rtol=1e-5)
    assert (weight - layer.delta_weight()).norm() < 1.01 * (weight - exact).norm()


# ---- Delta-LoRA

@pytest.mark.parametrize("start_step", [0, 2])
def test_delta_lora_is_the_papers_algorithm(start_step):
    """Algorithm 1, in float64 beside ours: step t, from 0 on, moves W if t > K, by λ·(α/r)·(B'A' − BA)."""
    torch.manual_seed(0)
    base = nn.Linear(6, 5, bias=False).double()
    W = base.weight.detach().clone()
    layer = DeltaLoRALinear(base, 2, 6.0, strength=2.0, start_step=start_step)
    A, B = layer.lora_A.detach().clone().requires_grad_(), layer.lora_B.detach().clone().requires_grad_()
    W_start = W.clone()
    ours, by_hand = (torch.optim.AdamW(pair, lr=0.1) for pair in ([layer.lora_A, layer.lora_B], [A, B]))
    products = []
    for t in range(6):
        x, wanted = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
        ours.zero_grad(), by_hand.zero_grad()
        (layer(x) - wanted).square().sum().backward()
        ours.step()
        layer.after_step()
        (x @ (W + 3.0 * B @ A).T - wanted).square().sum().backward()
        before = (B @ A).detach()
        products.append(before)
        by_hand.step()
        if t > start_step:
            W = W + 2.0 * 3.0 * ((B @ A).detach() - before)
        torch.testing.assert_close(layer.base_layer.weight.detach(), W, atol=1e-12, rtol=0)
    telescoped = 2.0 * 3.0 * ((B @ A).detach() - products[start_step + 1])
    torch.testing.assert_close(W - W_start, telescoped, atol=1e-12, rtol=0)
    assert telescoped.abs().max() > 0.01


def test_delta_loras_state_goes_on_where_it_was(tiny_llama):
    """Saved and loaded between two steps, W goes the same way as without."""
    torch.manual_seed(3)
    model = inject(tiny_llama(), "delta-lora", ["q_proj"], 4, 8).train()
    train(model, "delta-lora")
    other = inject(tiny_llama(), "delta-lora", ["q_proj"], 4, 8).train()
    other.load_state_dict(model.state_dict())
    for each in (model, other):
        train(each, "delta-lora")
    for name, value in model.state_dict().items():
        assert_same_bits(value, other.state_dict()[name])


# ---- refusals

@pytest.mark.parametrize("variant", ["delta-lora", "vera", "dora", "pissa"])
def test_only_plain_lora_becomes_a_file(tiny_llama, variant, tmp_path):
    model = inject(tiny_llama(), variant, ["q_proj"], 2, 4)
    with pytest.raises(LabError, match="Only plain LoRA"):
        save_adapter(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    save_adapter(inject(tiny_llama(), "lora-fa", ["q_proj"], 2, 4), tmp_path / "adapter")


def test_delta_loras_adapter_alone_is_not_taken_out(tiny_llama):
    with pytest.raises(LabError, match="moves the base weights"):
        adapter_state(inject(tiny_llama(), "delta-lora", ["q_proj"], 2, 4))


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("lroa", {}, "Unknown variant 'lroa'.*lora, lora-fa, delta-lora"),
        ("dora", {"strength": 2}, "DoRA has no setting 'strength'. It takes: nothing but rank"),
        ("lora", {"seed": 2}, "LoRA has no setting 'seed'"),
        ("pissa", {"iteration": 2}, "PiSSA has no setting 'iteration'. It takes: iterations"),
        ("dora", {"rank": 0}, "rank=0"), ("vera", {"rank": 0}, "rank=0"), ("vera", {"alpha": -1}, "alpha=-1"),
        ("dora", {"rank": 33}, r"rank=33 .*layer model\.layers\.0\.self_attn\.k_proj \(32×64\)"),
        ("dora", {"target_modules": ["embed_tokens"]}, "embed_tokens is a Embedding.*DoRA adapts only nn.Linear"),
        ("pissa", {"target_modules": ["q_porj"]}, "no layer 'q_porj'"),
        ("pissa", {"target_modules": ["lm_head"]}, "embed_tokens.weight and lm_head.weight are one tensor: PiSSA"),
        ("delta-lora", {"target_modules": ["lm_head"]}, "are one tensor: Delta-LoRA"),
        ("delta-lora", {"dropout": 0.1}, "dropout=0.1"), ("delta-lora", {"strength": 0}, "strength=0"),
        ("delta-lora", {"start_step": -1}, "start_step=-1"), ("pissa", {"iterations": 0}, "iterations=0"),
        ("pissa", {"iterations": True}, "iterations=True"), ("dora", {"dropout": 1.0}, "dropout=1.0"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_named_and_changes_nothing(tiny_llama, variant, changes, message):
    model = tiny_llama()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(LabError, match=message):
        inject(model, variant, **{"target_modules": "all-linear", "rank": 4, "alpha": 8, **changes})
    assert list(model.state_dict()) == list(before) and not any(isinstance(m, LoRALinear) for m in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_start_that_fails_half_way_gives_back_what_it_had_changed(tiny_llama):
    model = tiny_llama()
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = math.nan  # the last of 14
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(LabError, match="NaN or infinity"):
        inject(model, "pissa", "all-linear", 4, 8)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0, equal_nan=True)


def test_bases_that_a_variant_cannot_take():
    with pytest.raises(LabError, match="float32"):
        DeltaLoRALinear(nn.Linear(4, 4).bfloat16(), 2, 4)
    zero = nn.Linear(4, 4)
    zero.weight.data[1] = 0
    with pytest.raises(LabError, match="row of this layer's weight is zero"):
        DoRALinear(zero, 2, 4)
    codes = nn.Linear(4, 4)
    codes.weight = nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    for kind in (DoRALinear, PiSSALinear, DeltaLoRALinear):
        with pytest.raises(LabError, match="quantized"):
            kind(codes, 2, 4)
    with pytest.raises(LabError, match="use_rslora=True"):
        VeRALinear(nn.Linear(4, 4), 2, 4, use_rslora=True)
    with pytest.raises(LabError, match="do not fit rank 2 and a layer of 4×4"):
        VeRALinear(nn.Linear(4, 4), 2, 4, shared=SharedMatrices(3, 4, 2, torch.zeros(1)))


def test_a_merged_delta_lora_does_not_move():
    layer = randomise(DeltaLoRALinear(nn.Linear(4, 4), 2, 4))
    layer.merge()
    with pytest.raises(LabError, match="merged"):
        layer.after_step()


@pytest.mark.parametrize("ratio", [0.5, math.nan, math.inf, True, "16"])
def test_ratios_out_of_range_are_named(tiny_llama, ratio):
    with pytest.raises(LabError, match=f"ratio={re.escape(repr(ratio))}"):
        optimizer_groups(inject(tiny_llama(), "lora+", ["q_proj"], 2, 4), "lora+", 1e-3, ratio=ratio)


def test_optimizer_groups_refuse_what_they_cannot_group(tiny_llama):
    model = inject(tiny_llama(), "dora", ["q_proj"], 2, 4)
    for rate in (0, -1, math.nan, True, "fast"):
        with pytest.raises(LabError, match="learning_rate="):
            optimizer_groups(model, "dora", rate)
    for variant in VARIANTS:
        with pytest.raises(LabError, match="no adapters"):
            optimizer_groups(tiny_llama(), variant, 1e-3)


# ---- the catalogue

def test_variants_are_in_the_order_of_their_papers_and_say_all():
    published = [variant.published for variant in VARIANTS.values()]
    assert published == sorted(published) and len(VARIANTS) == 8
    for name, variant in VARIANTS.items():
        identifier = re.fullmatch(r"https://arxiv\.org/abs/(\d\d)(\d\d)\.\d{5}", variant.paper)
        assert variant.published == f"20{identifier[1]}-{identifier[2]}"
        assert all((variant.title, variant.rule, variant.trains, variant.saves))
        assert name == variant.title.lower()
    assert set(variants.__all__) <= set(dir(variants))
