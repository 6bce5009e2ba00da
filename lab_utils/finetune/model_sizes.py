"""The sizes that decide the memory of a training step, read off a model's own matrices rather than its config."""

from ..models.registry import base_model
from .adapter import sides_of

HEAD_SIZE = 64  # where the config does not say how many heads there are


def model_sizes(model) -> dict[str, int]:
    """Layers, hidden, intermediate, heads and vocabulary of a causal language model of any family.

    Parameters
    ----------
    model : transformers model, quantized or not, or a peft model

    Returns
    -------
    dict of int: "layers", "hidden", "intermediate" (the longest side of a matrix in a layer), "heads", "vocabulary"
    """
    base = base_model(model)
    embedding = base.get_input_embeddings()
    head = base.get_output_embeddings() or embedding
    layers = _layers(base)
    sides = [max(sides) for module in layers[0].modules() if (sides := sides_of(module))] if layers else []
    hidden = embedding.weight.shape[1]
    return {
        "layers": max(1, len(layers)),
        "hidden": hidden,
        "intermediate": max(sides, default=4 * hidden),
        "heads": _heads(base) or max(1, hidden // HEAD_SIZE),
        "vocabulary": max(embedding.weight.shape[0], head.weight.shape[0]),
    }


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
