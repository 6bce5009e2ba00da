"""Turning a 4-bit model with adapters into plain weights."""


def dequantized_copy(model):
    """A plain copy of a 4-bit model on CPU, with its active LoRA adapter merged in: same answers, faster decoding.

    The copy's weights are the dequantized ones, so it is as good or bad as the 4-bit model, not as the original.
    Merging into the dequantized weights and rounding to the compute dtype moves the logits less than bfloat16
    arithmetic does. The model itself is left as it is.

    Parameters
    ----------
    model : transformers model or peft model with bitsandbytes 4-bit layers on the CPU

    Returns
    -------
    transformers model in eval mode; embeddings, norms and head are shared with `model`, linear layers are new
    """
    import copy

    import torch

    from .fourbit import dequantize

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = {name: module for name, module in base.named_modules() if _base_of(module) is not None}
    shared = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    # deepcopy takes what the memo holds as already copied: so no weight is copied, and no 4-bit layer either.
    memo = {**shared, **{id(module): module for module in layers.values()}}
    plain = copy.deepcopy(base, memo)
    plain.__dict__.pop("peft_config", None)
    for name, module in layers.items():
        layer = _base_of(module)
        weight = dequantize(layer.weight, torch.float32)
        for adapter in _active_adapters(module):
            weight += module.scaling[adapter] * (
                module.lora_B[adapter].weight.detach().float() @ module.lora_A[adapter].weight.detach().float()
            )
        linear = torch.nn.Linear(1, 1, bias=layer.bias is not None, device="meta")
        linear.in_features, linear.out_features = weight.shape[1], weight.shape[0]
        linear.weight = torch.nn.Parameter(weight.to(base.dtype), requires_grad=False)
        if layer.bias is not None:
            linear.bias = torch.nn.Parameter(layer.bias.detach().to(base.dtype), requires_grad=False)
        plain.set_submodule(name, linear)
    plain.config = copy.deepcopy(base.config)
    plain.config._attn_implementation = "sdpa"
    return plain.eval()


def _base_of(module):
    """The bitsandbytes 4-bit layer that a module is, or wraps as peft does; None for any other module."""
    layer = getattr(module, "base_layer", module)
    return layer if type(layer).__name__ == "Linear4bit" and hasattr(layer, "weight") else None


def _active_adapters(module) -> list[str]:
    """Names of the adapters that a peft layer applies; none on a plain layer."""
    if not hasattr(module, "lora_A") or module.disable_adapters:
        return []
    return [name for name in module.active_adapters if name in module.lora_A]
