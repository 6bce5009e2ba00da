"""The optimizer that suits a device, and a step with it."""

import math

from ..device import Device, find_device
from ..errors import LabError, choose
from ..models import four_bit_problem

FEW = 50_000_000  # trained numbers: below, 8-bit moments save less than 0.3 GiB
OPTIMIZERS = ("adamw", "paged_adamw_8bit")


def decide_optimizer(kind: str, trained: int, fits: bool = True, sharded: bool = False) -> str:
    """AdamW in one fused call; bitsandbytes' paged 8-bit AdamW where that is what makes a step fit on a GPU.

    The paged one waits for the GPU after every tensor, some hundred times per step, and pages only tensors of 100,000
    numbers and more, which an adapter hardly has. So it is for many trained numbers on a GPU that is too small for
    their moments in float32.

    Parameters
    ----------
    kind : "cuda" or "cpu"; paging needs CUDA's unified memory
    trained : int, trained numbers
    fits : bool, does a step with moments in float32 fit (page 07's estimate)
    sharded : bool, the parameters will be cut up among processes, which paged moments do not support

    Returns
    -------
    A name in `OPTIMIZERS`
    """
    pays = kind == "cuda" and trained >= FEW and not fits and not sharded
    return "paged_adamw_8bit" if pays else "adamw"


def optimizer_of(state: dict) -> str | None:
    """The name in `OPTIMIZERS` of the optimizer that wrote a state dict; None if no step is in it yet.

    Parameters
    ----------
    state : of `optimizer.state_dict()`
    """
    names = {name for one in state["state"].values() for name in one}
    if not names:
        return None
    return "adamw" if "exp_avg" in names else "paged_adamw_8bit"


def build_optimizer(
    model, learning_rate: float, device: Device | None = None, *, weight_decay: float = 0.0, sharded: bool = False,
    fits: bool = True, name: str | None = None,
):  # fmt: skip
    """AdamW over what is trainable, as `decide_optimizer` says.

    Parameters
    ----------
    model : torch module
    learning_rate : float > 0
    device : Device, default this machine's
    weight_decay : float >= 0
    sharded, fits : as in `decide_optimizer`
    name : a name in `OPTIMIZERS` that is wanted, whatever would be decided

    Returns
    -------
    torch AdamW or bitsandbytes PagedAdamW8bit

    Raises
    ------
    LabError
        Nothing is trainable, the name is unknown, or bitsandbytes is missing or the model sharded and the paged
        optimizer is wanted.

    Source: Dettmers et al. 2023 (QLoRA), section 3, paged optimizers. https://arxiv.org/abs/2305.14314
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise LabError(f"{type(model).__name__} has nothing to train: put an adapter on it first.")
    kind = (device or find_device()).kind
    settings = {"lr": learning_rate, "weight_decay": weight_decay}
    if name is None:
        name = decide_optimizer(kind, sum(one.numel() for one in trained), fits, sharded)
    if choose("optimizer", name, OPTIMIZERS) == "paged_adamw_8bit":
        if problem := "the run is sharded" if sharded else four_bit_problem():
            raise LabError(f"The optimizer paged_adamw_8bit of bitsandbytes cannot be used here: {problem}.")
        from bitsandbytes.optim import PagedAdamW8bit

        return PagedAdamW8bit(trained, **settings)
    import torch

    return torch.optim.AdamW(trained, fused=True, **settings)


def set_rate(optimizer, rate: float) -> None:
    """Set the learning rate of all groups. A group whose own peak differs (LoRA+) keeps its share of it.

    Parameters
    ----------
    optimizer : of torch; a group may hold "share", its peak as a multiple of the others'
    rate : float
    """
    for group in optimizer.param_groups:
        group["lr"] = group.get("share", 1.0) * rate


def descend(loss, optimizer, scaler, max_grad_norm: float = 1.0, blame: str = "") -> None:
    """One step down: backward pass, gradients clipped to `max_grad_norm` together, update.

    The step of every loop in one process: full fine-tuning, variants, painters, models that see. `trainer` takes it
    through accelerate, for several processes and shards.

    Parameters
    ----------
    loss : Tensor of one number
    optimizer : of torch, whose gradients are zero or add up
    scaler : torch.amp.GradScaler; one that is not enabled changes nothing
    max_grad_norm : float > 0
    blame : str, the end of the message about a gradient that is not finite: where it happened and what to do

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
        blame = blame or f", with a loss of {float(loss.detach()):g}: lower the learning rate."
        raise LabError(f"The gradient is {norm}{blame}")
    scaler.step(optimizer)
    scaler.update()
