"""Copies from one device to another, with their gradients."""

import contextlib
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import _disable_current_modes

from .places import place, put

DEVICE = torch.Tensor.device.__get__  # asked of torch itself, not of the modes


@contextlib.contextmanager
def without_rules() -> Iterator[None]:
    """A context in which torch computes as always: our own steps are not operations of the reader's."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


class Move(torch.autograd.Function):
    """A copy on another device; its gradient goes the way back."""

    @staticmethod
    def forward(ctx, tensor, card):
        ctx.back = place(tensor)
        return copy_on(tensor, card)

    @staticmethod
    def backward(ctx, grad):
        return moved(grad, ctx.back), None


def copy_on(tensor: torch.Tensor, card: int | None) -> torch.Tensor:
    """A copy of a tensor's numbers on a card, or on the CPU for None, without a gradient."""
    with without_rules():
        return put(tensor.detach().clone(), card)


def moved(tensor: torch.Tensor, card: int | None) -> torch.Tensor:
    """A tensor on a card, or on the CPU for None: itself if it is there, else a copy that gradients pass."""
    if place(tensor) == card:
        return tensor
    if tensor.requires_grad and torch.is_grad_enabled():
        return Move.apply(tensor, card)
    return copy_on(tensor, card)


def converted(tensor: torch.Tensor, device, dtype, copy: bool, memory_format) -> torch.Tensor:
    """`tensor.to(device, dtype)`.

    Parameters
    ----------
    tensor : Tensor
    device : torch.device or None
    dtype : torch.dtype or None
    copy : bool, a copy even if nothing changes
    memory_format : torch.memory_format or None
    """
    with without_rules():
        real = DEVICE(tensor).type
    if "meta" in (real, device and device.type):  # no storage to label; from meta, torch raises
        target = "cpu" if device and device.type == "cuda" else device or "meta"
        with without_rules():
            return tensor.to(target, dtype or tensor.dtype)
    if copy or memory_format is not None or dtype not in (None, tensor.dtype):
        options = {"memory_format": memory_format} if memory_format else {}
        with torch._C.DisableTorchFunction():
            tensor = torch.Tensor.to(tensor, dtype=dtype or tensor.dtype, copy=copy, **options)
    if device is None:
        return tensor
    return moved(tensor, (device.index or 0) if device.type == "cuda" else None)
