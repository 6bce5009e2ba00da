"""A run's processes: one alone, or several under torchrun, as accelerate sees them."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..device import Device
from ..errors import LabError
from .fsdp import put_in_place


@contextmanager
def accelerate(device: Device, plugin=None) -> Iterator:
    """accelerate's view of this process: alone, or one of several under torchrun; with FSDP's `plugin`, sharded.

    Its state is shared in a process, precision and device included: another trainer (TRL's, say) may have left its own,
    and gets an error where ours is left behind.
    """
    kept = {name: os.environ.get(name) for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_CPU")}
    if device.kind == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    elif kept["ACCELERATE_USE_CPU"]:
        del os.environ["ACCELERATE_USE_CPU"]
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    try:
        AcceleratorState._reset_state(reset_partial_state=_is_of_another_device(device))
        accelerator = Accelerator(cpu=device.kind == "cpu", mixed_precision=device.mixed_precision, fsdp_plugin=plugin)
        if accelerator.num_processes > 1:
            atexit.unregister(_leave_the_group)
            atexit.register(_leave_the_group)
        if plugin:
            put_in_place(accelerator, plugin)
        yield accelerator
    finally:
        AcceleratorState._reset_state()
        for name, value in kept.items():  # accelerate sets the first, and the second decides for other trainers
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leave_the_group() -> None:
    """Leave the other processes at the end of this one.

    Of a process that ends inside its group, gloo's threads may still run while they are destroyed: C++ then aborts it
    ("terminate called without an active exception"), and torchrun reports a run that had ended well as failed.
    """
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _is_of_another_device(device: Device) -> bool:
    """Has accelerate kept a device of another kind, from before `LORA_LAB_DEVICE` was changed in this process?

    Processes that were launched together keep what they agreed on: their group can be made only once.
    """
    import torch
    from accelerate.state import PartialState

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return False
    state = PartialState._shared_state
    return bool(state) and state["device"].type != device.kind


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
