"""The sizes that decide the memory of a training step, read off a model's own matrices rather than its config."""

from ..models.registry import base_model
from .adapter import sides_of

HEAD_SIZE = 64  # where the config does not say how many heads there are
IN_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "query", "key", "value", "qkv")


def model_record(model) -> dict:
    """What `memory.estimates.step_estimate` needs to know of a causal language model of any family.

    Parameters
    ----------
    model : transformers model, quantized or not, or a peft model

    Returns
    -------
    dict: "layers", "hidden", "intermediate" (numbers inside of the MLP), "heads", "width" (numbers that attention hands
    back), "vocabulary", "tied", "gated" (the MLP multiplies two branches), and "modules": {name in a layer: {"out",
    "in", "count", "group", "source"}}. A size that differs from layer to layer is the largest.
    """
    base = base_model(model)
    embedding = base.get_input_embeddings()
    head = base.get_output_embeddings() or embedding
    layers, hidden = _layers(base), embedding.weight.shape[1]
    modules = _modules(layers)
    attention = [one for one in modules.values() if one["group"] == "attention"]
    mlp = [one for one in modules.values() if one["group"] == "mlp"]
    intermediate = mlp[-1]["in"] if mlp else 4 * hidden
    return {
        "layers": max(1, len(layers)),
        "hidden": hidden,
        "intermediate": intermediate,
        "heads": _heads(base) or max(1, hidden // HEAD_SIZE),
        "width": attention[-1]["in"] if attention else hidden,
        "vocabulary": max(embedding.weight.shape[0], head.weight.shape[0]),
        "tied": head.weight is embedding.weight,
        "gated": sum(one["out"] for one in mlp[:-1]) > intermediate,
        "modules": modules,
    }


def _modules(layers) -> dict[str, dict]:
    """The linear modules of the layers, each name once, in the order in which a layer has them."""
    found: dict[str, dict] = {}
    for layer in layers:
        for name, module in layer.named_modules():
            if "lora_" in name or sides_of(module) is None or _is_adapted(module):
                continue
            name = name.removesuffix(".base_layer")
            (into, out), one = sides_of(module), found.get(name, {"out": 0, "in": 0, "count": 0})
            found[name] = {"out": max(out, one["out"]), "in": max(into, one["in"]), "count": one["count"] + 1}
    for name, one in found.items():
        one["group"] = "attention" if "att" in name or name.rpartition(".")[2] in IN_ATTENTION else "mlp"
    last = {one["group"]: name for name, one in found.items()}  # reads what its group's others made
    for name, one in found.items():
        one["source"] = f"{one['group']} {'made' if name == last[one['group']] else 'given'}"
    return found


def _is_adapted(module) -> bool:
    """Is it a layer of peft, which has the sides of the one inside?"""
    return hasattr(module, "base_layer")


def _layers(base):
    """The decoder's layers: the outermost list of modules with linear layers in them."""
    import torch

    for module in base.modules():  # from the outside in
        if isinstance(module, torch.nn.ModuleList) and len(module) and any(map(sides_of, module[0].modules())):
            return module
    return ()


def _heads(base) -> int:
    """The config's number of attention heads, which no matrix tells; 0 if it has none."""
    config = base.config.get_text_config() if hasattr(base.config, "get_text_config") else base.config
    heads = getattr(config, "num_attention_heads", None) or 0
    return heads if isinstance(heads, int) else max(heads)  # a list: one for each layer
