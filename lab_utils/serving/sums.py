"""Sums of adapters in a peft model, layer by layer: ΔW of one, and the finish of a combination that peft made."""

from collections.abc import Mapping

import torch

from ..errors import LabError
from ..finite import nonfinite_in_words


def matrices(layer, name: str) -> tuple[torch.nn.Parameter, torch.nn.Parameter] | None:
    """A and B of an adapter in a peft layer, of an embedding too; None if it has none there."""
    if name in layer.lora_A:
        return layer.lora_A[name].weight, layer.lora_B[name].weight
    if name in layer.lora_embedding_A:
        return layer.lora_embedding_A[name], layer.lora_embedding_B[name]
    return None


def delta(layer, name: str) -> torch.Tensor:
    """ΔW = scaling · B·A of an adapter in a peft layer, zeros where it has none; float32, shaped as the weight."""
    is_embedding = isinstance(layer.get_base_layer(), torch.nn.Embedding)
    pair = matrices(layer, name)
    if not pair:
        product = torch.zeros(layer.out_features, layer.in_features)
    else:
        product = layer.scaling[name] * pair[1].float() @ pair[0].float()
    return (product.T if is_embedding or getattr(layer, "fan_in_fan_out", False) else product).detach()


def finish_sum(base, name: str, weights: Mapping[str, float], exact: bool) -> None:
    """Give a combination that peft made its scaling, and look whether it is finite.

    Parameters
    ----------
    base : transformers model with peft's layers in it
    name : str, the combination
    weights : dict adapter -> float, what it is made of
    exact : bool, write the stacked A's and B's in float32

    Raises
    ------
    LabError
        ΔW is not finite in some layer.
    """
    for layer_name, layer in base.named_modules():
        if hasattr(layer, "lora_A") and matrices(layer, name):
            layer.scaling[name] = 1.0  # the weights hold it; peft would scale a combination of rsLoRAs by √rank
            if exact:
                _stack(layer, name, weights)
            problem = nonfinite_in_words(f"ΔW of {layer_name}", delta(layer, name))
            if problem:
                raise LabError(f"The combination {name} is not finite: {problem}. Take smaller weights.")


def _stack(layer, name: str, weights: Mapping[str, float]) -> None:
    """Put the stacked A's and B's into a layer in float32; peft writes them in the base's dtype."""
    parts = {one: matrices(layer, one) for one in weights if matrices(layer, one)}
    A = torch.cat([weights[one] * layer.scaling[one] * A.data.float() for one, (A, _) in parts.items()])
    B = torch.cat([B.data.float() for _, B in parts.values()], dim=1)
    sum_A, sum_B = matrices(layer, name)
    unused = sum_A.shape[0] - len(A)  # ranks of adapters that have none here
    sum_A.data = torch.nn.functional.pad(A, (0, 0, 0, unused))
    sum_B.data = torch.nn.functional.pad(B, (0, unused))
