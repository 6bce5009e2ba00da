"""A run's processes: one alone, or several under torchrun, as accelerate sees them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..device import Device
from ..errors import LabError
from .fsdp import put_in_place


@contextmanager
def accelerate(device: Device, plugin=None) -> Iterator:
    """accelerate's view of this process: alone, or one of several under torchrun; with FSDP's `plugin`, sharded.

    Its state is shared in a process, precision included: another trainer (TRL's, say) may have left its own, and gets
    an error where ours is left behind.
    """
    if device.kind == "cpu":
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    launched = os.environ.get("ACCELERATE_USE_FSDP")
    try:
        accelerator = Accelerator(cpu=device.kind == "cpu", mixed_precision=device.mixed_precision, fsdp_plugin=plugin)
        if plugin:
            put_in_place(accelerator, plugin)
        yield accelerator
    finally:
        AcceleratorState._reset_state()
        if launched is None:  # accelerate sets it
            os.environ.pop("ACCELERATE_USE_FSDP", None)


def on_main(accelerator, act: Callable[[], object]) -> None:
    """Let the main process act, and the others wait; what it refuses is refused in every process."""
    from accelerate.utils import broadcast_object_list

    problem = None
    if accelerator.is_main_process:
        try:
            act()
        except LabError as error:
            problem = error
    text = broadcast_object_list([problem and str(problem)])[0]
    if text:
        raise LabError(text) from problem
