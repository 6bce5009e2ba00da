"""Hybrid sharding (HSDP): the model is shared out inside each machine, and every machine holds all of it.

PyTorch's FSDP calls it `HYBRID_SHARD`; with `fully_shard` it is a mesh of two dimensions.

Source: Zhao et al. 2023 (PyTorch FSDP), section 3.2, https://arxiv.org/abs/2304.11277
"""

from ..counts.architectures import Architecture
from ..errors import LabError, whole
from .sharding import Communication, ShardedEstimate, communication, sharded

PER_MACHINE = 8  # GPUs of one machine, unless told otherwise


def group_size(processes: int, per_machine: int = PER_MACHINE) -> int:
    """The processes that share one copy of the model out: those of a machine, or all if there are fewer.

    Raises
    ------
    LabError
        A number is not a whole one of 1 or more, or the processes do not fill their machines.
    """
    processes, per_machine = whole("processes", processes), whole("per_machine", per_machine)
    if processes > per_machine and processes % per_machine:
        raise LabError(
            f"processes={processes} do not fill machines of per_machine={per_machine}: take a multiple of "
            f"{per_machine}, or another per_machine."
        )
    return min(processes, per_machine)


def hybrid_sharded(
    architecture: Architecture | str, method: str, processes: int, per_machine: int = PER_MACHINE, **settings
) -> ShardedEstimate:
    """Bytes at the peak of each process: those of FSDP among the processes of one machine.

    Parameters
    ----------
    architecture, method, processes, settings : as in `sharding.sharded`
    per_machine : int >= 1, processes of a machine; `processes` is a multiple of it, or smaller

    Returns
    -------
    ShardedEstimate

    Raises
    ------
    LabError
        As `sharding.sharded` and `group_size`.
    """
    return sharded(architecture, method, group_size(processes, per_machine), "fsdp", **settings)


def hybrid_communication(
    architecture: Architecture | str, method: str, processes: int, per_machine: int = PER_MACHINE, **settings
) -> tuple[Communication, Communication]:
    """What HSDP exchanges in an optimizer step: inside a machine, and between machines.

    Inside, every layer is gathered twice and the gradients are added up, as with FSDP. Then each process holds its
    share of the machine's gradients, and adds it up with the processes that hold the same share on other machines.

    Parameters
    ----------
    architecture, method, processes, per_machine : as in `hybrid_sharded`
    settings : the other arguments of `sharding.communication`, by name

    Returns
    -------
    inside, between : Communication, of the processes of one machine, and of one process from each machine

    Raises
    ------
    LabError
        As `sharding.communication` and `group_size`.
    """
    inside = group_size(processes, per_machine)
    gradients = communication(architecture, method, inside, "ddp", **settings).collectives["all_reduce"]
    between = dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter"), 0) | {"all_reduce": -(-gradients // inside)}
    return (
        communication(architecture, method, inside, "fsdp", **settings),
        Communication(whole("processes", processes) // inside, between),
    )
