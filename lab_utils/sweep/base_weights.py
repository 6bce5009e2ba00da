"""One base model whose weights are exchanged: the numbers differ, the arithmetic does not.

bfloat16, 8 bits and 4 bits are computed by different code, at different speeds and with different rounding on the way.
Here a quantized base is read once as the bfloat16 matrices that its codes mean, and everything is computed with
those: what is left of the difference is what the bits cost. Of LLM.int8 that leaves out the rounding of activations.
"""

from functools import cache

import torch

from ..errors import LabError
from ..finetune.fourbit import dequantize
from ..finetune.full import matrices
from ..models import load_base


@cache
def plain_base(model: str):
    """(model, tokenizer) with bfloat16 weights, loaded once."""
    return load_base(model, "none", verbose=False)


@cache
def weights_of(model: str, quantization: str) -> dict[str, torch.Tensor]:
    """name -> bfloat16 Tensor (out, in) of the layers' matrices, as a base means them; from its own base,
    for the one that is trained on is given other weights.
    """
    loaded, _ = load_base(model, quantization, verbose=False)
    return {name: as_floats(module).clone() for name, module in matrices(loaded).items()}


@torch.no_grad()
def as_floats(layer) -> torch.Tensor:
    """What a layer's weight means, a plain one or bitsandbytes' codes: bfloat16 Tensor (out, in)."""
    if layer.weight.is_floating_point():
        return layer.weight.detach().bfloat16()
    if hasattr(layer.weight, "quant_state"):
        return dequantize(layer.weight, torch.bfloat16)
    scale = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB  # (out,): absmax of each row
    return (layer.weight.data.float() * scale[:, None] / 127).bfloat16()


def put_weights(model, weights: dict[str, torch.Tensor]) -> None:
    """Give the base of `model`, with or without adapters on it, these weights.

    Raises
    ------
    LabError
        The model has no layer of a name in `weights`; then it is unchanged.
    """
    layers = {_plain_name(name): module for name, module in matrices(model).items()}
    if missing := sorted(weights.keys() - layers.keys()):
        raise LabError(
            f"{len(missing)} of {len(weights)} weights belong to no layer of the model, such as {missing[0]!r}. Take "
            "weights and model from the same base, without an adapter on it."
        )
    for name, weight in weights.items():
        layers[name].weight = torch.nn.Parameter(weight, requires_grad=False)


def _plain_name(name: str) -> str:
    """A layer's name as it is without an adapter."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")
