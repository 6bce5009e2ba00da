"""The optimizer that suits a device, and a step with it."""

import math

from ..device import Device, find_device
from ..errors import LabError


def decide_optimizer(kind: str, paged: bool = True) -> str:
    """bitsandbytes' paged 8-bit AdamW on CUDA, plain AdamW elsewhere (paging needs CUDA's unified memory)."""
    return "paged_adamw_8bit" if kind == "cuda" and paged else "adamw"


def build_optimizer(
    model, learning_rate: float, device: Device | None = None, *, weight_decay: float = 0.0, sharded: bool = False
):
    """AdamW over what is trainable: paged and with 8-bit moments on CUDA, in one fused call elsewhere.

    Parameters
    ----------
    model : torch module
    learning_rate : float > 0
    device : Device, default this machine's
    weight_decay : float >= 0
    sharded : bool, the parameters will be cut up among processes, which paged moments do not support

    Returns
    -------
    bitsandbytes PagedAdamW8bit or torch AdamW

    Raises
    ------
    LabError
        Nothing is trainable.

    Source: Dettmers et al. 2023 (QLoRA), section 3, paged optimizers. https://arxiv.org/abs/2305.14314
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise LabError(f"{type(model).__name__} has nothing to train: put an adapter on it first.")
    kind = (device or find_device()).kind
    settings = {"lr": learning_rate, "weight_decay": weight_decay}
    if decide_optimizer(kind, paged=not sharded) == "paged_adamw_8bit":
        from bitsandbytes.optim import PagedAdamW8bit

        return PagedAdamW8bit(trained, **settings)
    import torch

    return torch.optim.AdamW(trained, fused=True, **settings)


def descend(loss, optimizer, scaler, max_grad_norm: float = 1.0) -> None:
    """One step down: backward pass, gradients clipped to `max_grad_norm` together, update.

    Parameters
    ----------
    loss : Tensor of one number
    optimizer : of torch, whose gradients are zero or add up
    scaler : torch.amp.GradScaler; one that is not enabled changes nothing
    max_grad_norm : float > 0

    Raises
    ------
    LabError
        The gradient is NaN or infinite, and no scaler leaves such steps out: nothing is changed.
    """
    import torch

    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
    if not math.isfinite(norm) and not scaler.is_enabled():
        raise LabError(f"The gradient is {norm}, with a loss of {float(loss.detach()):g}: lower the learning rate.")
    scaler.step(optimizer)
    scaler.update()
