"""What a loaded model weighs, part by part, and how its layers are stored."""


def footprint(model) -> dict[str, int]:
    """Bytes of a model's tensors by part, tied tensors counted once.

    Returns
    -------
    dict of int: "4-bit linears" (packed codes and their absmax, as quantized), "8-bit linears", "other linears",
    "embeddings and head", "norms and buffers", "adapter"; parts that the model lacks are left out
    """
    parts = dict.fromkeys(
        ("4-bit linears", "8-bit linears", "other linears", "embeddings and head", "norms and buffers", "adapter"), 0
    )
    seen = set()
    for name, module in model.named_modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            parts[_part(name, module, tensor)] += tensor.numel() * tensor.element_size() + _state_bytes(tensor)
    return {part: count for part, count in parts.items() if count}


def stored_as(model) -> str | None:
    """How a model's linear layers are stored, as `load_base` calls it: "none", "nf4", "fp4" or "int8".

    Layers that are left whole, such as the head, do not count beside quantized ones, nor does an adapter.

    Returns
    -------
    str; None of a model that something else has quantized
    """
    found = set()
    for _, one in model.named_parameters():
        state = getattr(one, "quant_state", None)
        if state is not None or type(one).__name__ == "Int8Params":
            found.add("int8" if state is None else state.quant_type)
    if found:
        return found.pop() if len(found) == 1 else None
    return None if getattr(getattr(model, "config", None), "quantization_config", None) else "none"


def _part(name: str, module, tensor) -> str:
    """Which part of `footprint` a tensor belongs to."""
    kind = type(module).__name__
    if "lora_" in name:
        return "adapter"
    if hasattr(tensor, "quant_state"):
        return "4-bit linears"
    if kind == "Linear8bitLt":
        return "8-bit linears"
    if kind == "Embedding" or name.endswith("lm_head"):
        return "embeddings and head"
    return "other linears" if "Linear" in kind else "norms and buffers"


def _state_bytes(tensor) -> int:
    """Bytes of a 4-bit tensor's absmax, its double quantization included; 0 for any other tensor."""
    state = getattr(tensor, "quant_state", None)
    if state is None:
        return 0
    held = [state.absmax] + ([state.state2.absmax] if state.nested else [])
    return sum(one.numel() * one.element_size() for one in held)
