"""LoRA on whole models: the same as peft to the bit, nothing but the adapters moves, and every refusal."""

import math

import pytest
import torch
from lora_models import CASES, TOKENS, assert_same_bits, builder, logits, peft, pefts_known_warnings, randomise_adapters
from torch import nn

from lab_utils.errors import LabError
from lab_utils.lora.states import adapter_state, load_adapter
from lab_utils.lora.whole_model import adapted_layers, freeze, inject, merge, take_off, trainable_parameters, unmerge

pytestmark = pefts_known_warnings


@pytest.mark.parametrize(("family", "targets"), CASES.values(), ids=CASES)
def test_the_same_layers_and_initial_values_as_peft(request, family, targets):
    build = builder(request, family)
    torch.manual_seed(3)
    ours = adapter_state(inject(build(), targets, 4, 8))
    torch.manual_seed(3)
    model = peft.get_peft_model(build(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    theirs = {k: v for k, v in peft.get_peft_model_state_dict(model).items() if ".base_layer." not in k}
    assert list(ours) == list(theirs)
    for key in ours:
        assert_same_bits(ours[key], theirs[key])


@pytest.mark.parametrize(("family", "targets"), CASES.values(), ids=CASES)
def test_one_training_step_is_pefts(request, family, targets):
    """Loss, gradients and the weights after one step of Adam, through the whole model."""
    build = builder(request, family)
    torch.manual_seed(3)
    ours = inject(build(), targets, 4, 8).train()
    torch.manual_seed(3)
    theirs = peft.get_peft_model(build(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets)).train()
    results = []
    for model in (ours, theirs):
        parameters = trainable_parameters(model)
        torch.manual_seed(9)
        optimizer = torch.optim.Adam(parameters, lr=0.01)
        for _ in range(2):  # in the first step A's gradient is zero
            optimizer.zero_grad()
            loss = model(TOKENS, labels=TOKENS).loss
            loss.backward()
            optimizer.step()
        results.append([loss.detach(), *(p.detach() for p in parameters), *(p.grad for p in parameters)])
    assert len(results[0]) == len(results[1]) > 3
    for one, other in zip(*results, strict=True):
        assert_same_bits(one, other)


def test_only_adapters_are_trainable_and_only_they_move(tiny_llama):
    model = inject(tiny_llama(), ["q_proj"], 4, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = trainable_parameters(model)
    assert sum(p.numel() for p in parameters) == 2 * 4 * (64 + 64)  # 2 layers, 64 × 64, rank 4
    for _ in range(2):
        model(TOKENS, labels=TOKENS).loss.backward()
        torch.optim.SGD(parameters, lr=0.1).step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == ("lora_" not in name), name
    assert all(p.grad is None for name, p in model.named_parameters() if "lora_" not in name)


def test_freeze_undoes_what_was_switched_on(tiny_llama):
    model = inject(tiny_llama(), ["q_proj"], 4, 8)
    wanted = [name for name, p in model.named_parameters() if p.requires_grad]
    model.requires_grad_(True)
    assert freeze(model) is model
    assert [name for name, p in model.named_parameters() if p.requires_grad] == wanted
    with pytest.raises(LabError, match="no adapters"):
        freeze(nn.Linear(2, 2))


def test_injecting_keeps_the_mode_of_each_layer(tiny_llama):
    assert not any(module.training for module in inject(tiny_llama(), "all-linear", 2, 4, dropout=0.5).modules())
    assert all(module.training for module in inject(tiny_llama().train(), "all-linear", 2, 4, dropout=0.5).modules())


def test_model_wide_merge_and_unmerge(tiny_llama):
    model = randomise_adapters(inject(tiny_llama(), "all-linear", 4, 8))
    before = logits(model)
    assert merge(model) == 14 and all(layer.merged for layer in adapted_layers(model).values())
    torch.testing.assert_close(logits(model), before, atol=2e-4, rtol=2e-4)
    merged = logits(model)
    with pytest.warns(UserWarning, match="merged already"):
        assert merge(model) == 0
    assert torch.equal(logits(model), merged)
    assert unmerge(model) == 14
    torch.testing.assert_close(logits(model), before, atol=2e-4, rtol=2e-4)
    with pytest.warns(UserWarning, match="No adapter is merged"):
        assert unmerge(model) == 0


def test_one_layer_that_cannot_be_merged_keeps_the_model_unmerged(tiny_llama):
    model = randomise_adapters(inject(tiny_llama(), "all-linear", 4, 8))
    list(adapted_layers(model).values())[-1].lora_A.data[0, 0] = math.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(LabError, match="not finite"):
        merge(model)
    assert not any(layer.merged for layer in adapted_layers(model).values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if "base" in name)


def test_tied_weights_are_not_merged_behind_the_back_of_the_head(tiny_llama):
    model = inject(tiny_llama(), ["embed_tokens"], 4, 8)
    with pytest.raises(LabError, match=r"embed_tokens\.base_layer\.weight and lm_head\.weight are one tensor"):
        merge(model)
    untied = inject(tiny_llama(tie_word_embeddings=False), ["embed_tokens"], 4, 8)
    assert merge(untied) == 1


def test_take_off_returns_the_base_model_and_keeps_what_is_merged(tiny_llama):
    base = logits(tiny_llama())
    names = list(tiny_llama().state_dict())
    model = randomise_adapters(inject(tiny_llama(), "all-linear", 4, 8))
    adapted = logits(model)
    assert_same_bits(logits(take_off(model)), base)
    assert list(model.state_dict()) == names
    model = randomise_adapters(inject(model, "all-linear", 4, 8))  # no longer "twice"
    merge(model)
    merged = logits(model)
    assert_same_bits(logits(take_off(model)), merged)
    torch.testing.assert_close(merged, adapted, atol=2e-4, rtol=2e-4)


def test_adapters_are_swapped_on_one_base(tiny_llama):
    model = inject(tiny_llama(), ["q_proj"], 4, 8)
    zero = adapter_state(model)
    base = logits(model)
    one = adapter_state(randomise_adapters(model))
    with_one = logits(model)
    assert_same_bits(logits(load_adapter(model, zero)), base)
    assert_same_bits(logits(load_adapter(model, one)), with_one)
    model.model.layers[0].self_attn.q_proj.lora_A.data.zero_()
    assert one["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].all()  # the state is a copy


# ---- errors on whole models

def changed(model) -> bool:
    return any("lora_" in name for name, _ in model.named_parameters()) or not all(
        p.requires_grad for p in model.parameters()
    )


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_porj"], "no layer 'q_porj'. It has: down_proj, embed_tokens, gate_proj, k_proj, lm_head, o_proj"),
        (["q_proj", "nothing"], "no layer 'nothing'"), (["proj"], "no layer 'proj'"),
        ("q_proj", r"no layer 'q_proj'.*write a list: \['q_proj'\]"), ([], "target_modules=\\[\\]"),
        ("", "target_modules=''"), ([3], "target_modules=\\[3\\]"), (["self_attn"], "self_attn is a LlamaAttention"),
        (["norm"], "norm is a LlamaRMSNorm"),
    ],
    ids=str,
)  # fmt: skip
def test_targets_that_do_not_fit_are_named(tiny_llama, targets, message):
    model = tiny_llama()
    with pytest.raises(LabError, match=message):
        inject(model, targets, 2, 4)
    assert not changed(model)


def test_rank_above_a_layers_smaller_side_names_the_layer(tiny_llama):
    model = tiny_llama()
    with pytest.raises(LabError, match=r"rank=33 .*layer model\.layers\.0\.self_attn\.k_proj \(32×64\).*rank 1 to 32"):
        inject(model, "all-linear", 33, 4)
    assert not changed(model)


def test_injecting_twice_is_an_error_that_says_so(tiny_llama):
    model = inject(tiny_llama(), ["q_proj"], 2, 4)
    before = list(model.state_dict())
    with pytest.raises(LabError, match=r"adapters already.*take_off"):
        inject(model, ["v_proj"], 2, 4)
    assert list(model.state_dict()) == before
    theirs = peft.get_peft_model(tiny_llama(), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(LabError, match="adapters already"):
        inject(theirs, ["v_proj"], 2, 4)


def test_a_model_without_layers_inside_is_refused():
    with pytest.raises(LabError, match="no linear layer inside"):
        inject(nn.Linear(3, 3), "all-linear", 1, 1)
    for function in (merge, unmerge, take_off, adapter_state, adapted_layers):
        with pytest.raises(LabError, match="no adapters"):
            function(nn.Linear(3, 3))


def test_states_that_do_not_fit_are_named_and_change_nothing(tiny_llama):
    model = randomise_adapters(inject(tiny_llama(), ["q_proj"], 4, 8))
    state = adapter_state(model)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    cases = [
        ({name: value for name, value in state.items() if name != key}, f"missing {key}"),
        ({**state, "base_model.model.x.lora_A.weight": torch.ones(1)}, r"unexpected base_model\.model\.x\.lora_A"),
        ({**state, key: torch.ones(2, 64)}, r"shape \(2, 64\) and not \(4, 64\)"),
        ({**state, key.replace("lora_A", "base_layer"): torch.ones(64, 64)}, "another base model"),
        ({}, "missing.*missing"),
    ]
    for wrong, message in cases:
        wrong = {name: value + 1 for name, value in wrong.items()}
        with pytest.raises(LabError, match=message):
            load_adapter(model, wrong)
        assert all(torch.equal(value, state[name]) for name, value in adapter_state(model).items())
    many = inject(tiny_llama(), "all-linear", 2, 4)
    with pytest.raises(LabError, match="and 22 more"):  # 28 matrices of A and B, 6 of them named
        load_adapter(many, {})


def test_loading_into_a_merged_model_is_refused(tiny_llama):
    model = randomise_adapters(inject(tiny_llama(), ["q_proj"], 4, 8))
    state = adapter_state(model)
    merge(model)
    with pytest.raises(LabError, match="merged"):
        load_adapter(model, state)


Q_PROJ = "model.layers.1.self_attn.q_proj"


def test_our_own_layers_name_the_culprit(tiny_llama):
    def made():
        model = inject(tiny_llama(), ["q_proj"], 4, 8)
        return model, model.get_submodule(Q_PROJ)

    for matrix, place, blame in (
        ("base_layer.weight", (5, 2), "load the base again"), ("lora_A", (1, 2), "adapter is to blame"),
        ("lora_B", (6, 3), "adapter is to blame"),
    ):  # fmt: skip
        model, layer = made()
        dict(layer.named_parameters())[matrix].data[place] = math.nan
        with pytest.raises(LabError, match=rf"{Q_PROJ}: Not merged.*\[{place[0]}, {place[1]}\] is nan; .*{blame}"):
            merge(model)
    model, layer = made()
    layer.lora_A.data.fill_(1e30), layer.lora_B.data.fill_(1e30)
    with pytest.raises(LabError, match=r"ΔW = scaling·B·A\[0, 0\] is inf, for A and B are that large"):
        merge(model)


def test_loading_names_the_culprit_and_changes_nothing(tiny_llama):
    model = inject(tiny_llama(), ["q_proj"], 4, 8)
    state, key = adapter_state(model), f"base_model.model.{Q_PROJ}.lora_B.weight"
    before = {name: one.clone() for name, one in state.items()}
    for value in (math.nan, math.inf, 1e300):
        wrong = {name: one.double() for name, one in state.items()}
        wrong[key][2, 1] = value
        with pytest.raises(LabError, match=r"lora_B\.weight\[2, 1\] is (nan|inf): the adapter is damaged"):
            load_adapter(model, wrong)
    with pytest.raises(LabError, match="not floating-point numbers"):
        load_adapter(model, {name: one.to(torch.int8) for name, one in state.items()})
    with pytest.raises(LabError, match="is a list and no Tensor"):
        load_adapter(model, {**state, key: [1.0]})
    model.model.norm.weight.data[3] = math.inf
    with pytest.raises(LabError, match=r"model\.norm\.weight\[3\] is inf: the base model is damaged, not the adapter"):
        load_adapter(model, {name: one + 1 for name, one in state.items()})
    assert all(torch.equal(one, before[name]) for name, one in adapter_state(model).items())


def test_loading_maps_every_spelling_of_the_keys(tiny_llama):
    model = inject(tiny_llama(), ["q_proj"], 4, 8)
    state = {key: one + 1 for key, one in adapter_state(model).items()}
    for spell in (
        lambda key: key.removeprefix("base_model.model."), lambda key: key.replace(".weight", ".default.weight"),
        lambda key: f"module.{key}", lambda key: f"_orig_mod.{key}",
    ):  # fmt: skip
        fresh = load_adapter(inject(tiny_llama(), ["q_proj"], 4, 8), {spell(key): one for key, one in state.items()})
        assert all(torch.equal(one, state[key]) for key, one in adapter_state(fresh).items())
    table = tiny_llama().model.embed_tokens.weight.detach()
    load_adapter(model, {**state, "base_model.model.model.embed_tokens.weight": table})
    with pytest.raises(LabError, match="is not the model's own: it belongs to another base model, or was trained too"):
        load_adapter(model, {**state, "base_model.model.model.embed_tokens.weight": table + 1})


def test_a_compiled_models_adapter_is_saved_under_pefts_names(tiny_llama):
    model = inject(tiny_llama(), ["q_proj"], 4, 8)
    assert adapter_state(torch.compile(model)).keys() == adapter_state(model).keys()
