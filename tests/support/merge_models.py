"""Tiny models with adapters that the tests of merging, merge_costs and export share."""

import tempfile

import torch

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.randint(3, 61, (2, 12), generator=torch.Generator().manual_seed(0))


def four_bit(model, dtype: torch.dtype = torch.float32, guarded: bool = True):
    """The model in nf4 with double quantization, computing in `dtype`; `guarded` as `load_base` would return it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from lab_utils.models.registry import keep_weights_trainable
    from lab_utils.quiet import quiet

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    with quiet(), tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config, dtype=dtype, device_map={"": "cpu"}, attn_implementation="eager"
        )
    if guarded:
        keep_weights_trainable(found)
    return found


def adapt(model, names=("default",), **changes):
    """A peft model with random adapters, whose B is not zero."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": 4, "lora_alpha": 12, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **changes}
    model = get_peft_model(model, LoraConfig(**settings), adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, LoraConfig(**settings))
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def logits(model, ids: torch.Tensor = IDS) -> torch.Tensor:
    """float32 logits, without gradients."""
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative difference, Frobenius."""
    return float((found - expected).norm() / expected.norm())


def everything(model) -> dict:
    """Clones of all that a model holds: tensors, quantization constants, modes, flags, and its modules by id."""
    found = {name: one.detach().clone() for name, one in (*model.named_parameters(), *model.named_buffers())}
    for name, module in model.named_modules():
        found[f"{name} module"] = (id(module), module.training, getattr(module, "support_avx512bf16_for_cpu", None))
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            found[f"{name} absmax"] = state.absmax.clone()
            found[f"{name} state"] = (id(state), id(getattr(module, "quant_state", None)), state.nested, state.dtype)
    return found


def same(one: dict, other: dict) -> bool:
    """Are two of `everything` equal to the last bit?"""
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )
