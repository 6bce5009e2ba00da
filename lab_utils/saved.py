"""What a forward pass keeps for the backward pass, seen by autograd's own hooks.

`lab_utils.activations` computes the same for a language model before there is one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def quantized_state(model: nn.Module) -> list[Tensor]:
    """What bitsandbytes keeps beside the packed bytes of 4-bit weights."""
    found = []
    for state in (one.quant_state for one in model.parameters() if getattr(one, "quant_state", None) is not None):
        found += [state.absmax, state.code]
        if state.nested:
            found += [state.offset, state.state2.absmax, state.state2.code]
    return found


def own_storages(model: nn.Module) -> set[int]:
    """Addresses of the model's own memory: parameters, buffers and what belongs to 4-bit weights."""
    held = [*model.parameters(), *model.buffers(), *quantized_state(model)]
    return {tensor.untyped_storage()._cdata for tensor in held}


def saved_bytes(model: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that autograd saves while `forward()` runs, the model's own weights not counted.

    Parameters
    ----------
    model : module whose memory is left out
    forward : function without arguments that calls it; what it returns is dropped

    Returns
    -------
    int. Tensors that share memory count once, each with all the memory behind it.

    Source: https://docs.pytorch.org/tutorials/intermediate/autograd_saved_tensors_hooks_tutorial.html
    """
    own, kept = own_storages(model), {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes(), tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(count for count, _ in kept.values())
