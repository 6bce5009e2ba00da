"""merging: a plain copy answers as the model with its adapter does, the model stays what it was, and `merge` lets no
other result pass."""

import copy

import pytest
import torch
from merge_models import IDS, adapt, error, everything, four_bit, logits, same

from lab_utils.errors import LabError
from lab_utils.merging import checked, places
from lab_utils.merging.checked import ROUNDING_FACTOR, distance, merge, rounding, unmerged
from lab_utils.merging.places import (
    can_repack,
    dequantized_copy,
    into_dequantized,
    into_four_bits,
    into_original,
    is_repacked,
    repacked,
)


@pytest.fixture
def ids():
    return IDS


@pytest.fixture
def tiny_nf4(tiny_llama):
    """The tiny model in nf4, computing in float32, so that copies can be held to float32's precision."""
    return four_bit(tiny_llama())


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj"]}])
def test_the_copy_has_the_adapted_models_logits(tiny_nf4, ids, changes):
    without = logits(tiny_nf4, ids)
    model = adapt(tiny_nf4, **changes)
    expected = logits(model, ids)
    assert error(without, expected) > 0.05  # the adapter does something
    assert error(logits(dequantized_copy(model), ids), expected) < 1e-4


def test_the_copy_of_a_bare_four_bit_model(tiny_nf4, ids):
    assert error(logits(dequantized_copy(tiny_nf4), ids), logits(tiny_nf4, ids)) < 1e-4


def test_only_the_active_adapter_is_merged(tiny_nf4, ids):
    model = adapt(tiny_nf4, names=("first", "second"))
    seen = {}
    for name in ("first", "second"):
        model.set_adapter(name)
        seen[name] = logits(model, ids)
        assert error(logits(dequantized_copy(model), ids), seen[name]) < 1e-4
    assert error(seen["first"], seen["second"]) > 0.05
    with model.disable_adapter():
        bare = logits(model, ids)
        assert error(logits(dequantized_copy(model), ids), bare) < 1e-4
    assert error(seen["second"], bare) > 0.05


def test_the_copy_is_plain_and_in_eval_mode(tiny_nf4):
    model = adapt(tiny_nf4).train()
    plain = dequantized_copy(model)
    kinds = {type(module).__name__ for module in plain.modules()}
    assert "Linear4bit" not in kinds and not any("lora" in name for name, _ in plain.named_modules())
    assert not any(module.training for module in plain.modules())
    assert not any(parameter.requires_grad for name, parameter in plain.named_parameters() if "proj" in name)
    assert not hasattr(plain, "peft_config")
    shapes = {name: tuple(module.weight.shape) for name, module in plain.named_modules() if name.endswith("proj")}
    assert shapes["model.layers.1.mlp.down_proj"] == (64, 128) and len(shapes) == 14
    assert len(list(plain.parameters())) == 14 + 2 * 2 + 2  # matrices, norms of two layers, embedding (tied), last norm


def test_embeddings_and_norms_are_shared_not_copied(tiny_nf4):
    model = adapt(tiny_nf4)
    base, plain = model.get_base_model(), dequantized_copy(model)
    for name in ("model.embed_tokens", "lm_head", "model.norm", "model.layers.0.input_layernorm"):
        mine, theirs = plain.get_submodule(name).weight, base.get_submodule(name).weight
        assert mine.untyped_storage().data_ptr() == theirs.untyped_storage().data_ptr(), name


def test_the_model_itself_stays_as_it_was_and_trainable(tiny_nf4, ids):
    model = adapt(tiny_nf4).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    modules = dict(model.named_modules())
    config = copy.deepcopy(model.get_base_model().config.to_dict())
    implementation = model.get_base_model().config._attn_implementation
    plain = dequantized_copy(model)
    logits(plain, ids)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert dict(model.named_modules()) == modules  # the very same modules
    assert model.get_base_model().config.to_dict() == config
    assert model.get_base_model().config._attn_implementation == implementation
    assert model.training and "default" in model.peft_config
    model(input_ids=ids, labels=ids).loss.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(grads) == 2 * 14 and all(grad is not None and bool(grad.any()) for grad in grads.values())


def test_the_real_model_in_its_compute_dtype(tokenizer):
    """bfloat16 has 8 bits: a few per cent on logits, and the same likeliest word nearly everywhere."""
    from lab_utils.finetune.adapter import attach_adapter
    from lab_utils.finetune.recipe import Recipe
    from lab_utils.models.registry import load_base

    model, _ = load_base("smollm2-135m", "nf4", verbose=False)
    text = "Good afternoon, may I have two drones on Sunday? Half past three suits me best. Kind regards, Astrid"
    batch = tokenizer(text, return_tensors="pt")["input_ids"]
    without = logits(model, batch)
    model = attach_adapter(model, Recipe(rank=4)).eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    expected, found = logits(model, batch), logits(dequantized_copy(model), batch)
    assert error(without, expected) > 0.2
    assert error(found, expected) < 0.05
    agree = (found.argmax(-1) == expected.argmax(-1)).float().mean()
    assert float(agree) > 0.85
    shared = dequantized_copy(model).get_input_embeddings().weight
    assert shared.data_ptr() == model.get_base_model().get_input_embeddings().weight.data_ptr()


CONFIGS = [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj", "down_proj"], "r": 1}]


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("changes", CONFIGS, ids=str)
def test_a_merge_is_the_unmerged_model_within_rounding(tiny_llama, changes, quantized):
    base = tiny_llama()
    model = adapt(four_bit(base) if quantized else base, **changes)
    with model.disable_adapter():
        without = logits(model)
    expected = logits(model)
    merged = merge(model, IDS)
    assert error(logits(merged), expected) < 1e-5 < 0.05 < error(without, expected)
    assert merged.dtype == torch.float32 and not any("lora" in name for name, _ in merged.named_modules())


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_merge_in_sixteen_bits_lies_within_their_rounding(tiny_llama, quantized, dtype):
    base = tiny_llama().to(dtype)
    model = adapt(four_bit(base, dtype) if quantized else base)
    merged = merge(model, IDS)
    assert merged.dtype == dtype == next(merged.parameters()).dtype
    exact = unmerged(model, torch.float32)
    assert distance(merged, exact, IDS) <= ROUNDING_FACTOR * rounding(model, IDS, dtype)
    assert distance(merge(model, IDS, dtype=torch.float32), exact, IDS) < 0.02 * rounding(model, IDS, dtype)


def test_against_pefts_own_merge(tiny_llama):
    """On an unquantized base peft merges rightly: the same weights, bit for bit."""
    ours = into_dequantized(adapt(tiny_llama()))
    theirs = adapt(tiny_llama()).merge_and_unload(safe_merge=True)
    assert all(torch.equal(one, theirs.state_dict()[name]) for name, one in ours.state_dict().items())


def test_into_four_bits_is_what_peft_makes_of_it(tiny_llama):
    ours = into_four_bits(adapt(four_bit(tiny_llama())))
    theirs = adapt(four_bit(tiny_llama())).merge_and_unload()
    assert type(ours.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert torch.equal(logits(ours), logits(theirs))


def test_rounding_is_measured_on_the_unmerged_model(tiny_nf4):
    model = adapt(tiny_nf4)
    in_bf16, in_float32 = (logits(unmerged(model, dtype)) for dtype in (torch.bfloat16, torch.float32))
    by_hand = (in_bf16 - in_float32).square().mean().sqrt().item()
    assert rounding(model, IDS, torch.bfloat16) == pytest.approx(by_hand)
    assert error(in_float32, logits(model)) < 1e-5
    assert rounding(model, IDS, torch.float32) < 1e-3 * by_hand  # 16 bits more


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_traps_raise_and_say_what_to_do(tiny_llama, dtype):
    original = tiny_llama().to(dtype)
    model = adapt(four_bit(original, dtype))
    with pytest.raises(LabError, match=r"lie [\d.e+-]+ from the adapter's.*into='dequantized', or train"):
        merge(model, IDS, into="original", original=original)
    with pytest.raises(LabError, match=r"lie [\d.e+-]+ from the adapter's.*Rounding back to the levels"):
        merge(model, IDS, into="4-bit")


def test_an_adapter_of_an_unquantized_base_may_go_into_it(tiny_llama):
    model = adapt(tiny_llama())
    merged = merge(model, IDS, into="original", original=tiny_llama())
    assert error(logits(merged), logits(model)) < 1e-5


@pytest.mark.parametrize("part", ["weight of one layer", "norm", "embedding"])
def test_a_merge_that_went_wrong_anywhere_does_not_pass(tiny_nf4, monkeypatch, part):
    """One weight in a thousand parts, or one norm: less would be rounding."""
    model = adapt(tiny_nf4)
    right = into_dequantized

    def wrong(*arguments):
        merged = right(*arguments)
        inner = merged.model
        at = {"norm": inner.norm, "embedding": inner.embed_tokens}.get(part, inner.layers[1].mlp.down_proj)
        at.weight.data *= 1.001
        return merged

    monkeypatch.setattr(checked, "into_dequantized", wrong)
    with pytest.raises(LabError, match="Not merged: the merged model's logits"):
        merge(model, IDS)


def test_weights_that_are_not_what_the_model_computes_with_do_not_pass(tiny_nf4):
    """A replaced forward, as any patch could set."""
    model = adapt(tiny_nf4)
    layer = model.get_base_model().model.layers[0].mlp.down_proj
    layer.forward = lambda x, forward=layer.forward: 1.01 * forward(x)
    with pytest.raises(LabError, match="Not merged: the model's own logits"):
        merge(model, IDS)


def test_the_fast_layers_of_fourbit_merge_like_pefts_own(tiny_nf4):
    from lab_utils.finetune.fourbit import speed_up

    model = adapt(tiny_nf4)
    expected = logits(model)
    assert speed_up(model) == 14
    assert error(logits(merge(model, IDS)), expected) < 1e-5
    assert all("forward" in layer.__dict__ for layer in model.modules() if hasattr(layer, "lora_A"))


@pytest.mark.parametrize("quantized", [True, False])
def test_no_way_to_merge_changes_the_model(tiny_llama, quantized):
    original = tiny_llama()
    model = adapt(four_bit(original) if quantized else tiny_llama(), use_dora=True).train()
    before, source = everything(model), everything(original)
    config, peft_config = model.get_base_model().config.to_dict(), copy.deepcopy(model.peft_config)
    ways = [lambda: merge(model, IDS), lambda: into_dequantized(model, torch.bfloat16), lambda: dequantized_copy(model)]
    ways += [lambda: into_original(model, original), lambda: rounding(model, IDS, torch.bfloat16)]
    if quantized:
        ways.append(lambda: into_four_bits(model))
        ways.append(lambda: repacked(model) if can_repack() else None)
    results = [way() for way in ways]
    for merged in results[:2]:  # what is done to a result stays there
        for tensor in (*merged.parameters(), *merged.buffers()):
            tensor.data.zero_()
    for into in ("original", "4-bit") if quantized else ():
        with pytest.raises(LabError):
            merge(model, IDS, into=into, original=original if into == "original" else None)
    assert same(everything(model), before) and same(everything(original), source)
    assert model.get_base_model().config.to_dict() == config and model.peft_config == peft_config


def test_repacking_is_shown_on_a_copy(tiny_llama):
    model = adapt(four_bit(tiny_llama().bfloat16(), torch.bfloat16))
    if not can_repack():
        pytest.skip("this processor has no AVX512-BF16: nothing repacks")
    expected = logits(model)
    twin = repacked(model)
    assert is_repacked(twin) and not is_repacked(model)
    assert error(logits(twin), expected) < 0.1  # it answers as before
    assert error(logits(into_dequantized(twin)), expected) > 0.5  # but what is read from it is garbage
    with pytest.raises(LabError, match="repacked this model's 4-bit weights"):
        merge(twin, IDS)


def test_an_unguarded_model_is_not_repacked_by_looking_at_it(tiny_llama):
    """Loaded by plain transformers: the merge's own forward passes must not do what it warns of."""
    model = adapt(four_bit(tiny_llama().bfloat16(), torch.bfloat16, guarded=False))
    before = everything(model)
    merged = merge(model, IDS)
    assert same(everything(model), before)
    guarded = adapt(four_bit(tiny_llama().bfloat16(), torch.bfloat16))
    assert torch.equal(logits(merged), logits(into_dequantized(guarded)))


def test_where_nothing_repacks_the_trap_says_so(tiny_nf4, tiny_llama, monkeypatch):
    monkeypatch.setattr(places, "can_repack", lambda: False)
    with pytest.raises(LabError, match="no AVX512-BF16"):
        repacked(adapt(tiny_nf4))
    with pytest.raises(LabError, match="no 4-bit layers"):
        repacked(adapt(tiny_llama()))


def test_an_adapted_tied_head_is_untied(tiny_llama):
    model = adapt(tiny_llama(), target_modules=["lm_head", "v_proj"], ensure_weight_tying=False)
    merged = merge(model, IDS)
    assert merged.config.tie_word_embeddings is False and model.get_base_model().config.tie_word_embeddings is True
    assert torch.equal(merged.get_input_embeddings().weight, model.get_base_model().get_input_embeddings().weight)


def test_what_cannot_be_merged_is_named(tiny_llama):
    from peft import LoraConfig, VeraConfig, get_peft_model

    with pytest.raises(LabError, match="no active adapter"):
        merge(tiny_llama(), IDS)
    model = adapt(tiny_llama())
    with model.disable_adapter(), pytest.raises(LabError, match="no active adapter"):
        merge(model, IDS)
    with pytest.raises(LabError, match="Unknown way to merge 'somewhere'"):
        merge(model, IDS, into="somewhere")
    with pytest.raises(LabError, match="give both, or neither"):
        merge(model, IDS, into="original")
    with pytest.raises(LabError, match="no 4-bit layers"):
        merge(model, IDS, into="4-bit")
    with pytest.raises(LabError, match=r"another model.*\(64, 64\).*\(96, 96\)"):
        merge(model, IDS, into="original", original=tiny_llama(hidden_size=96, num_attention_heads=4))
    with pytest.raises(LabError, match="no such layer"):
        into_original(model, tiny_llama(num_hidden_layers=1))
    with pytest.raises(LabError, match="4-bit layers or adapters"):
        into_original(model, four_bit(tiny_llama()))
    model.merge_adapter()
    with pytest.raises(LabError, match="merged already"):
        merge(model, IDS)
    with pytest.raises(LabError, match="Embedding"):
        merge(adapt(tiny_llama(), target_modules=["embed_tokens"]), IDS)
    with pytest.raises(LabError, match="no bias"):
        merge(adapt(tiny_llama(), lora_bias=True), IDS)
    with pytest.raises(LabError, match="vera"):
        merge(get_peft_model(tiny_llama(), VeraConfig(r=2, target_modules=["q_proj"])), IDS)
    saved = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(LabError, match="ModulesToSaveWrapper"):
        merge(get_peft_model(tiny_llama(), saved), IDS)


def test_padding_is_left_out_of_the_probe(tiny_llama):
    model, mask = tiny_llama(), torch.ones_like(IDS)
    mask[1, 8:] = 0
    found = checked.logits(model, {"input_ids": IDS, "attention_mask": mask})
    assert found.shape == (20, 61)
    assert torch.allclose(found[12:], logits(model, IDS[1:, :8])[0], atol=1e-5)
