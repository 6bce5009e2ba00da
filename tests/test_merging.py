"""merging: a plain copy answers as the 4-bit model with its adapter does, and the model stays what it was."""

import copy

import pytest
import torch

from lab_utils.merging import dequantized_copy

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def ids():
    return torch.randint(3, 61, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tiny_nf4(tiny_llama, tmp_path):
    """The tiny model in nf4, computing in float32, so that copies can be held to float32's precision."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from lab_utils.models import keep_weights_trainable
    from lab_utils.quiet import quiet

    with quiet():
        tiny_llama().save_pretrained(tmp_path)
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        model = AutoModelForCausalLM.from_pretrained(
            tmp_path, quantization_config=config, dtype=torch.float32, device_map={"": "cpu"}
        )
    keep_weights_trainable(model)
    return model


def adapt(model, names=("default",), **changes):
    """A peft model with random adapters, whose B is not zero."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": 4, "lora_alpha": 12, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **changes}
    model = get_peft_model(model, LoraConfig(**settings), adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, LoraConfig(**settings))
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def logits(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"target_modules": ["q_proj"]}])
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
    from lab_utils.adapter import attach_adapter
    from lab_utils.models import load_base
    from lab_utils.recipe import Recipe

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
