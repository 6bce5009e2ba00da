"""What two processes on this machine send each other in a training step: measured, to compare with `sharding`.

They train a small Llama (`traffic_process`), started by torchrun as on a cluster, over gloo and the loopback interface.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median

import psutil

from ..counts import lora_parameters
from ..counts.architectures import Architecture
from ..errors import LabError, at_least, choose
from ..files import read_json
from ..folders import ROOT
from ..memory import METHODS
from ..outputs import temporary_folder
from .loopback import LOOPBACKS
from .sharding import Communication

MEASURED = ("ddp", "fsdp")  # the strategies that are measured
CASES = tuple((method, strategy) for strategy in MEASURED for method in METHODS)
SETTLING = 2  # steps before the traffic is the same every time: DDP orders its buckets, FSDP makes its groups
SMALL = Architecture(
    name="small Llama", family="llama", hidden=256, n_layers=4, heads=4, kv_heads=2, head_size=64, intermediate=768,
    vocabulary=2048,
)  # fmt: skip
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Traffic:
    """One measurement. Bytes and seconds are per step and process; held bytes are those of the fullest process.

    Attributes
    ----------
    method, strategy : str
    processes : int
    losses : tuple of float, the mean over the processes in each step
    sent_bytes : int or None, through the loopback interface, with the frames' headers: the least of the settled steps,
        because other programs can only add to it; None if this system does not count
    sent_each_step : tuple of int or None, of all steps
    collectives : dict of int, bytes of the whole tensors, as in `sharding.Communication`; of the last step
    weights_bytes, adapter_bytes, gradients_bytes, optimizer_bytes : int, held between steps
    seconds : float, of the median settled step
    """

    method: str
    strategy: str
    processes: int
    losses: tuple[float, ...]
    sent_bytes: int | None
    sent_each_step: tuple[int | None, ...]
    collectives: dict[str, int]
    weights_bytes: int
    adapter_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    seconds: float


def gloo_bytes(communication: Communication) -> int:
    """What each process sends over gloo, PyTorch's backend for CPUs, which has no reduce-scatter.

    It adds up everything everywhere (an all-reduce) and keeps a share: twice the ring's bytes. All-reduce and
    all-gather are rings. NCCL, on GPUs, has all three.

    Source: https://github.com/pytorch/pytorch/pull/118911
    """
    parts = communication.collectives
    return replace(
        communication,
        collectives={
            "all_reduce": parts["all_reduce"] + parts["reduce_scatter"],
            "all_gather": parts["all_gather"],
            "reduce_scatter": 0,
        },
    ).sent_bytes


def measure_traffic(method: str, strategy: str, **settings) -> Traffic:
    """Train a small Llama (`SMALL`, float32) for a few steps with torchrun on this machine, and count.

    Takes about 8 seconds on idle cores, most of them for importing torch three times; `measure_all` imports once for
    many. The processes are new, so it works in a notebook too. None is left running, whatever happens.

    Parameters
    ----------
    method : "full", "lora" or "qlora" (bitsandbytes' NF4 with double quantization)
    strategy : "ddp" (DistributedDataParallel) or "fsdp" (FSDP2, `fully_shard`: each layer, then what is outside)
    settings : of `measure_all`, by name

    Returns
    -------
    Traffic

    Raises
    ------
    LabError
        As `measure_all`.
    """
    return measure_all([(method, strategy)], **settings)[method, strategy]


def measure_all(
    cases: Sequence[tuple[str, str]] = CASES,
    *,
    processes: int = 2,
    rank: int = 8,
    steps: int = 6,
    batch_size: int = 2,
    tokens: int = 32,
    timeout_seconds: int = 300,
) -> dict[tuple[str, str], Traffic]:
    """`measure_traffic` of several methods and strategies, one after the other in the same processes.

    Parameters
    ----------
    cases : of (method, strategy); default all
    processes : int >= 2
    rank : int, of the adapters, on every linear layer
    steps : int above 2, optimizer steps
    batch_size, tokens : int, of each process; an example has 2 tokens or more
    timeout_seconds : int, after this the processes are stopped

    Returns
    -------
    dict (method, strategy) -> Traffic

    Raises
    ------
    LabError
        An argument is unknown or out of range, or the processes fail or take too long: the text has their last lines.
    """
    at_least(1, cases=len(cases))
    for _, strategy in cases:
        choose("strategy", strategy, MEASURED)
    settings = _settings([method for method, _ in cases], processes, rank, steps, batch_size, tokens)
    at_least(1, timeout_seconds=timeout_seconds)
    with temporary_folder("lora-lab-traffic-") as folder:
        result = folder / "result.json"
        settings |= {"cases": list(cases), "timeout_seconds": timeout_seconds, "result": str(result)}
        _torchrun(settings, folder)
        found = read_json(result)
    return {tuple(case): _traffic(case, records) for case, *records in zip(cases, *found, strict=True)}


def _traffic(case: tuple[str, str], records: list[dict]) -> Traffic:
    """What the processes measured, combined."""
    sent = tuple(records[0]["sent"])  # of the one interface that all of them look at
    held = ("weights_bytes", "adapter_bytes", "gradients_bytes", "optimizer_bytes")
    return Traffic(
        *case,
        processes=len(records),
        losses=tuple(fmean(losses) for losses in zip(*(one["losses"] for one in records), strict=True)),
        sent_bytes=None if None in sent else min(sent[SETTLING:]),
        sent_each_step=sent,
        collectives=records[0]["collectives"][-1],
        seconds=median(records[0]["seconds"][SETTLING:]),
        **{name: max(one[name] for one in records) for name in held},
    )


def losses_alone(
    method: str, *, processes: int = 2, rank: int = 8, steps: int = 6, batch_size: int = 2, tokens: int = 32
) -> tuple[float, ...]:
    """The losses of `measure_traffic` when this one process has every process's examples in its batch.

    Parameters, errors : as `measure_all`; `batch_size` is that of each of the `processes`

    Returns
    -------
    tuple of float, one per step
    """
    from .traffic_process import train

    return tuple(train(_settings([method], processes, rank, steps, batch_size, tokens), method)["losses"])


def _settings(methods: list[str], processes: int, rank: int, steps: int, batch_size: int, tokens: int) -> dict:
    """What a process needs to know to train, ready for JSON."""
    for method in methods:
        choose("method", method, METHODS)
    at_least(2, processes=processes)
    at_least(SETTLING + 1, steps=steps)
    at_least(1, batch_size=batch_size)
    at_least(2, tokens=tokens)
    lora_parameters(SMALL, rank)  # raises what is wrong with the rank
    return {
        "shape": asdict(SMALL), "rank": rank, "learning_rate": LEARNING_RATE, "steps": steps,
        "batch_size": batch_size, "tokens": tokens, "processes": processes,
    }  # fmt: skip


def _torchrun(settings: dict, folder: Path) -> None:
    """Start the processes, wait for them, and leave none behind."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(settings["processes"]),
        "--redirects", "3", "--log-dir", str(folder), "-m", "lab_utils.machines.traffic_process", json.dumps(settings),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if interface := next((name for name in LOOPBACKS if name in psutil.net_io_counters(pernic=True)), None):
        environment["GLOO_SOCKET_IFNAME"] = interface
    with open(folder / "torchrun.log", "wb") as log:
        launcher = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            failed = launcher.wait(settings["timeout_seconds"])
        except subprocess.TimeoutExpired:
            raise LabError(
                f"{settings['processes']} processes took longer than {settings['timeout_seconds']} s. Is this machine "
                f"busy? A larger timeout_seconds gives them more time. They said last: {_last_lines(folder)}"
            ) from None
        finally:
            _stop(launcher)
    if failed:
        raise LabError(f"{settings['processes']} processes failed. They said last: {_last_lines(folder)}")


def _stop(launcher: subprocess.Popen) -> None:
    """End torchrun and the processes it started, if they are still running."""
    if launcher.poll() is not None:
        return
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end just now
        family += [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(family, timeout=5)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    launcher.wait()


def _last_lines(folder: Path) -> str:
    """The last line that each process wrote, or torchrun's own."""
    found = {}
    for log in [*sorted(folder.rglob("stderr.log")), folder / "torchrun.log"]:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        lines = [line for line in (re.sub(r"^\[rank\d+\]:", "", line).strip() for line in lines) if line]
        if lines and (log.name == "stderr.log" or not found):
            found[lines[-1]] = None  # a line that several processes wrote appears once
    return " | ".join(found) or "nothing"
