"""Switching a pretended card on, for one process and all its threads."""

import os
import sys
import threading
from dataclasses import replace

from ..errors import LabError, choose, real
from .cards import CARDS, GIB, Card

ON: list[Card] = []  # the card of this process
MODES = threading.local()


def enabled() -> Card | None:
    """The card that this process pretends to have; None without."""
    return ON[0] if ON else None


def enable(card: str = "T4", memory_gib: float | None = None) -> Card:
    """Pretend to have a card from now on, until this process ends: in this thread, and in those that begin later.

    Call it before models are loaded, and before accelerate is imported: what looked for a GPU already does not look
    again. `LORA_LAB_DEVICE=cpu`, which would hide the card, is unset.

    Parameters
    ----------
    card : str, in `CARDS`
    memory_gib : float > 0, GiB of memory that it has; default the real card's

    Returns
    -------
    Card

    Raises
    ------
    LabError
        Unknown card; this process has another already; or there is a real GPU.
    """
    wanted = CARDS[choose("card", card, CARDS)]
    if memory_gib is not None:
        wanted = replace(wanted, memory_bytes=int(real("memory_gib", memory_gib) * GIB))
    if ON:
        if ON[0] != wanted:
            raise LabError(f"This process pretends to have a {ON[0].name} already: start another one for {card}.")
        return ON[0]
    import torch

    if torch.cuda.is_available():
        raise LabError("There is a real GPU here. Start with CUDA_VISIBLE_DEVICES= (empty) to pretend another card.")
    _set_environment()
    from . import four_bit, functions, precision, runtime

    four_bit.install()
    runtime.install(wanted)
    precision.install()
    for module in (torch.nn.functional, torch.autograd):
        functions.see_inside(module)
    functions.see_saved_tensors(wanted)
    ON.append(wanted)
    _enter(wanted)
    _follow_threads(wanted)
    return wanted


def _set_environment() -> None:
    """Unset what hides a card; weights are loaded in this thread; without triton, whose kernels want a real card."""
    if os.environ.get("LORA_LAB_DEVICE", "").strip() == "cpu":
        del os.environ["LORA_LAB_DEVICE"]
    os.environ.pop("ACCELERATE_USE_CPU", None)
    os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
    sys.modules.setdefault("triton", None)  # so libraries take their own code in torch


def _enter(card: Card) -> None:
    """Enter the modes in this thread; nothing leaves them. They are kept here too: older torch holds no reference."""
    from .dispatch import Operations
    from .functions import Calls

    MODES.of_thread = Operations(card), Calls(card)
    for mode in MODES.of_thread:
        mode.__enter__()


def _follow_threads(card: Card) -> None:
    """Modes are a thread's own: let every new thread begin with them."""
    run = threading.Thread.run

    def run_with_modes(self) -> None:
        _enter(card)
        run(self)

    threading.Thread.run = run_with_modes
