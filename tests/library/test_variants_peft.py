"""The variants hold against peft, to the bit where nothing else is said: initial values, gradients, steps, merging."""

import copy

import pytest
import torch
from lora_models import TOKENS, assert_same_bits, build_gpt2, peft, pefts_known_warnings
from one_layer import Net
from torch import nn

from lab_utils.lora.whole_model import adapted_layers, merge, trainable_parameters
from lab_utils.variants import before_step, inject, optimizer_groups

pytestmark = pefts_known_warnings
TARGETS = "all-linear"


def lora_config(rank=4, targets=TARGETS, **changes):
    return peft.LoraConfig(r=rank, lora_alpha=8, target_modules=targets, **changes)


CONFIGS = {  # variant -> (our settings, peft's config for a rank, targets and dropout)
    "lora": ({}, lambda rank, targets, p: lora_config(rank, targets, lora_dropout=p)),
    "rslora": ({}, lambda rank, targets, p: lora_config(rank, targets, lora_dropout=p, use_rslora=True)),
    "dora": ({}, lambda rank, targets, p: lora_config(rank, targets, lora_dropout=p, use_dora=True)),
    "pissa": ({}, lambda rank, targets, p: lora_config(rank, targets, lora_dropout=p, init_lora_weights="pissa")),
    "vera": (
        {"seed": 7},
        lambda rank, targets, p: peft.VeraConfig(r=rank, target_modules=targets, vera_dropout=p, projection_prng_key=7),
    ),
}


def twins(model, variant: str, rank: int = 4, targets=TARGETS, dropout: float = 0.0):
    """(ours, peft's) on copies of `model`, both drawn from the same seed."""
    settings, config = CONFIGS[variant]
    other = copy.deepcopy(model)
    torch.manual_seed(3)
    ours = inject(model, variant, targets, rank, 8, dropout, **settings).train()
    torch.manual_seed(3)
    return ours, peft.get_peft_model(other, config(rank, targets, dropout)).train()


def trained(model) -> dict[str, nn.Parameter]:
    """What is trained, under our names."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            name = name.removeprefix("base_model.model.").replace(".default", "").replace("vera_", "")
            name = name.replace("lora_magnitude_vector", "magnitude").removesuffix(".weight")
            found[name] = parameter
    assert found
    return found


def assert_same(ours: dict, theirs: dict, variant: str = "") -> None:
    """The same bits; for DoRA the same to 5e-6 of the largest: B·A, and so the norm, is summed in another order."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        other = theirs[name].detach()
        if variant == "dora":
            bound = 5e-6 if other.dtype == torch.float32 else 2**-7  # one unit of bfloat16
            torch.testing.assert_close(tensor.detach(), other, atol=bound * float(other.abs().max()), rtol=0)
        else:
            assert_same_bits(tensor.detach(), other)


# ---- whole models

@pytest.mark.parametrize("variant", CONFIGS)
def test_three_steps_are_pefts(tiny_llama, variant):
    ours, theirs = twins(tiny_llama(), variant)
    mine, others = trained(ours), trained(theirs)
    assert_same(mine, others, variant)
    optimizers = [torch.optim.Adam(each.values(), lr=0.01) for each in (mine, others)]
    for _ in range(3):  # in the first step half of the gradients are zero
        losses = []
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            losses.append(model(TOKENS, labels=TOKENS).loss)
            losses[-1].backward()
        assert_same({"loss": losses[0]}, {"loss": losses[1]}, variant)
        assert_same(*({name: p.grad for name, p in each.items()} for each in (mine, others)), variant)
        for optimizer in optimizers:
            optimizer.step()
    assert_same(mine, others, variant)


@pytest.mark.parametrize("variant", CONFIGS)
def test_merged_weights_are_pefts(tiny_llama, variant):
    """DoRA's to one rounding: ours are W + ΔW, peft multiplies W + s·B·A by m / ‖·‖ at once."""
    ours, theirs = twins(tiny_llama(), variant)
    randomise(ours, theirs)
    merge(ours), theirs.merge_adapter()
    for name, layer in adapted_layers(ours).items():
        mine, other = layer.base_layer.weight, theirs.get_submodule(f"base_model.model.{name}").base_layer.weight
        if variant == "dora":
            torch.testing.assert_close(mine, other, atol=2e-6 * float(other.abs().max()), rtol=0)
        else:
            assert_same_bits(mine.detach(), other.detach())


def randomise(ours, theirs) -> None:
    """The same random values in both, the zeros of the start gone."""
    torch.manual_seed(5)
    for mine, other in zip(trained(ours).values(), trained(theirs).values(), strict=True):
        with torch.no_grad():
            other.copy_(mine.normal_(std=0.3))


# ---- one layer: dtypes, dropout

@pytest.mark.parametrize("variant", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_outputs_and_gradients_are_pefts(variant, dtype, dropout, bias):
    torch.manual_seed(1)
    ours, theirs = twins(Net(nn.Linear(12, 7, bias=bias)).to(dtype), variant, 3, ["layer"], dropout)
    randomise(ours, theirs)
    if variant == "pissa" and dtype == torch.bfloat16:  # peft rounds A and B to 16 bits, after the residual is made
        ours.layer.base_layer.weight.data = theirs.base_model.model.layer.base_layer.weight.data.clone()
    results = []
    for model in (ours, theirs):
        x = torch.randn(4, 2, 12, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
        torch.manual_seed(7)  # dropout's mask
        y = model(x)
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
        wanted = trained(model)
        results.append({"y": y, **dict(zip(["x", *wanted], torch.autograd.grad(y, [x, *wanted.values()], upstream),
                                           strict=True))})
    assert results[0]["y"].dtype == dtype
    assert_same(*results, variant)


def test_pissas_start_in_16_bits_is_nearer_to_the_base_than_pefts():
    """The residual is rounded to the base's dtype in both; A and B are rounded too in peft, and not in ours."""
    torch.manual_seed(1)
    base = Net(nn.Linear(48, 40)).bfloat16()
    weight = base.layer.weight.detach().float()
    ours, theirs = twins(base, "pissa", 4, ["layer"])
    layer, other = ours.layer, theirs.base_model.model.layer
    with torch.no_grad():
        errors = [
            float((one.base_layer.weight.float() + update - weight).norm() / weight.norm())
            for one, update in ((layer, layer.delta_weight()), (other, other.get_delta_weight("default").float()))
        ]
    assert errors[0] < errors[1] < 2**-7 and errors[0] < 2**-9  # half a unit of bfloat16's eight bits


def test_fast_pissa_is_pefts(tiny_llama):
    """The randomized SVD draws numbers: from the same seed just before it, the same start."""
    base = tiny_llama().model.layers[0].mlp.down_proj
    other = lora_config(4, ["layer"], init_lora_weights="pissa_niter_4")
    theirs = Net(copy.deepcopy(base))
    net = Net(base)
    torch.manual_seed(3)
    nn.Linear(128, 4, bias=False), nn.Linear(4, 64, bias=False)  # what peft draws first
    inject(net, "pissa", ["layer"], 4, 8, iterations=4)
    torch.manual_seed(3)
    theirs = peft.get_peft_model(theirs, other)
    assert_same(trained(net), trained(theirs))
    assert_same_bits(net.layer.base_layer.weight.detach(), theirs.base_model.model.layer.base_layer.weight.detach())


# ---- what optimizers get

@pytest.mark.parametrize("family", ["llama", "gpt2 with embeddings"])
def test_loraplus_step_is_pefts(tiny_llama, family):
    base, targets = (tiny_llama(), TARGETS) if family == "llama" else (build_gpt2(), ["c_attn", "wte"])
    other = copy.deepcopy(base)
    torch.manual_seed(3)
    ours = inject(base, "lora+", targets, 4, 8)
    torch.manual_seed(3)
    theirs = peft.get_peft_model(other, lora_config(4, targets))
    randomise(ours, theirs)
    from peft.optimizers import create_loraplus_optimizer

    optimizer = torch.optim.AdamW(optimizer_groups(ours, "lora+", 1e-3, ratio=8), weight_decay=0.0)
    their_optimizer = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8)
    for model, each in ((ours, optimizer), (theirs, their_optimizer)):
        model(TOKENS, labels=TOKENS).loss.backward()
        each.step()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in trained(ours).items():
        table = family != "llama" and "wte" in name
        assert rates[id(parameter)] == (1e-6 if table else 8e-3 if name.endswith("lora_B") else 1e-3)
    for one, other in zip(trained(ours).values(), trained(theirs).values(), strict=True):
        assert_same_bits(one.detach(), other.detach())


def test_lora_fas_corrected_step_is_pefts(tiny_llama, monkeypatch):
    """Gradient to 1e-5, which is float32 through an inverse; peft rounds it to bfloat16 where there is one: not here.

    peft adds eps before it corrects Adam's bias, torch after: at the first step 1e-6 there is 1e-6/√(1 − β₂) here.
    """
    from peft.optimizers import create_lorafa_optimizer, lorafa

    monkeypatch.setattr(lorafa, "is_bf16_available", lambda: False)
    torch.manual_seed(3)
    ours = inject(tiny_llama(), "lora-fa", TARGETS, 4, 8, corrected=True)
    torch.manual_seed(3)
    theirs = peft.get_peft_model(tiny_llama(), lora_config())
    their_optimizer = create_lorafa_optimizer(theirs, r=4, lora_alpha=8, lr=1e-2)
    randomise(ours, theirs)  # B alone: A is frozen in both
    assert all(name.endswith("lora_B") for name in trained(ours)) and trained(ours).keys() == trained(theirs).keys()
    optimizer = torch.optim.AdamW(optimizer_groups(ours, "lora-fa", 1e-2), weight_decay=0.0, eps=1e-6 / 0.001**0.5)
    for model in (ours, theirs):
        model(TOKENS, labels=TOKENS).loss.backward()
    assert_same(*({name: p.grad for name, p in trained(model).items()} for model in (ours, theirs)))
    plain = {name: parameter.grad.clone() for name, parameter in trained(ours).items()}
    before_step(ours)
    optimizer.step(), their_optimizer.step()
    others = trained(theirs)
    for name, parameter in trained(ours).items():
        state = their_optimizer.state[f"base_model.model.{name.removesuffix('_B')}"]
        corrected = state["exp_avg_B"] / 0.1  # Adam's first moment after one step is (1 − 0.9)·g
        torch.testing.assert_close(parameter.grad, corrected, atol=1e-5 * float(corrected.abs().max()), rtol=1e-4)
        assert not torch.allclose(parameter.grad, plain[name], rtol=0.1)
        torch.testing.assert_close(parameter.detach(), others[name].detach(), atol=1e-6, rtol=1e-5)


def test_plain_lora_fa_is_lora_with_a_frozen(tiny_llama):
    torch.manual_seed(3)
    ours = inject(tiny_llama(), "lora-fa", TARGETS, 4, 8)
    torch.manual_seed(3)
    theirs = peft.get_peft_model(tiny_llama(), lora_config())
    for name, parameter in theirs.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    randomise(ours, theirs)
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW(trainable_parameters(model), lr=0.01)
        model(TOKENS, labels=TOKENS).loss.backward()
        if model is ours:
            before_step(model)  # uncorrected: nothing
        optimizer.step()
    assert_same(*({name: p.grad for name, p in trained(model).items()} for model in (ours, theirs)))
    assert_same(trained(ours), trained(theirs))
