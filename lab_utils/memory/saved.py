"""What a forward pass keeps for the backward pass, seen by autograd's hooks.

`lab_utils.memory.activations` computes the same for a language model that does not exist yet.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def quantized_state(model: nn.Module) -> list[Tensor]:
    """What bitsandbytes keeps beside the packed bytes of 4-bit weights, on the weight, the layer, or both."""
    owners = (*model.parameters(), *model.modules())
    states = {id(one.quant_state): one.quant_state for one in owners if getattr(one, "quant_state", None) is not None}
    found = []
    for state in states.values():
        found += [state.absmax, state.code]
        if state.nested:
            found += [state.offset, state.state2.absmax, state.state2.code]
    return found


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all the memory behind tensors; shared memory counts once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def own_storages(model: nn.Module) -> set[int]:
    """Addresses of the model's own memory: parameters, buffers and what belongs to 4-bit weights."""
    held = [*model.parameters(), *model.buffers(), *quantized_state(model)]
    return {tensor.untyped_storage()._cdata for tensor in held}


def saved_tensors(model: nn.Module, forward: Callable[[], object]) -> list[Tensor]:
    """The tensors that autograd saves while `forward()` runs, the model's own weights left out.

    Parameters
    ----------
    model : module whose memory is left out
    forward : function without arguments that calls it; what it returns is dropped

    Returns
    -------
    list of Tensor, each as many times as it is saved

    Source: https://docs.pytorch.org/tutorials/intermediate/autograd_saved_tensors_hooks_tutorial.html
    """
    own, kept = own_storages(model), []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept.append(tensor)  # and so keeps it alive: no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return kept


def saved_bytes(model: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes of the memory behind `saved_tensors`."""
    return storage_bytes(saved_tensors(model, forward))
