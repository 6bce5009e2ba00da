"""The most memory that a piece of code takes: as seen by the operating system, CUDA, or torch's allocator."""

import os
import threading
from collections.abc import Callable

import psutil
import torch

from ..device import find_device
from ..errors import whole

PHASES = {"autograd::engine": "backward", "Optimizer.": "optimizer"}  # the first event of such a name begins the phase


def measured_peak(step: Callable[[], object], kind: str | None = None, interval_seconds: float = 0.001) -> int:
    """Bytes that `step()` takes at its peak, on top of what was in use when it began.

    On CUDA that is what tensors take there, by `torch.cuda.max_memory_allocated`. On a CPU it is the growth of this
    process's memory (of its anonymous part on Linux: files read through the page cache do not count), read every
    `interval_seconds` from a second thread. It includes what libraries set up at their first call. And it says little
    about a step that ran before: glibc keeps the memory which that one freed, so the process need not grow again.
    `data/record_memory.py` measures in a process that gives it back; elsewhere, as in a notebook, use `tensor_peak`.

    Parameters
    ----------
    step : function without arguments
    kind : "cuda" or "cpu", default this machine's
    interval_seconds : float, on a CPU only

    Returns
    -------
    int >= 0
    """
    if (kind or find_device().kind) == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = peak = process_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(interval_seconds):
            peak = max(peak, process_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        step()
    finally:
        done.set()
        watcher.join()
    return max(peak, process_bytes()) - before


def process_bytes() -> int:
    """Memory of this process now, without what it shares with files and other processes where that is known (Linux)."""
    info = psutil.Process().memory_info()
    return info.rss - getattr(info, "shared", 0)


def tensor_peak(step: Callable[[], object]) -> int:
    """Bytes that torch's CPU allocator hands out at the peak of `step()`, on top of what was in use when it began.

    The counterpart of `torch.cuda.max_memory_allocated`: every tensor counts, also inside operators, and nothing else.
    Runs `step` under the profiler, which slows it down by about half. Memory that was allocated before and is freed
    inside does not count as freed.
    """
    return max([0, *(total for _, name, total in _events(step) if name is None)])


def tensor_trace(step: Callable[[], object], bins: int = 200) -> dict[str, list[tuple[float, int]]]:
    """Bytes that torch's CPU allocator has handed out at each moment of a training step.

    As `tensor_peak`, over time: each phase is cut into `bins` equal stretches of time, and of each the largest number
    is kept.

    Parameters
    ----------
    step : function without arguments: forward pass, backward pass, then an optimizer of torch
    bins : int >= 1, stretches per phase

    Returns
    -------
    dict "forward", "backward", "optimizer" (those that occur) -> list of (share of the phase's time in [0, 1], bytes
    on top of what was in use when the step began)
    """
    bins = whole("bins", bins)
    phase, found = "forward", {"forward": []}
    for when, name, total in _events(step):
        new = next((known for begin, known in PHASES.items() if name and name.startswith(begin)), phase)
        if new != phase and new not in found:
            found[new] = [(when, found[phase][-1][1] if found[phase] else 0)]
            phase = new
        if name is None:
            found[phase].append((when, total))
    return {name: _binned(rows, bins) for name, rows in found.items() if rows}


def _binned(rows: list[tuple[int, int]], bins: int) -> list[tuple[float, int]]:
    """The largest number of each stretch of time that has one, at the middle of the stretch."""
    start, length = rows[0][0], max(rows[-1][0] - rows[0][0], 1)
    largest: dict[int, int] = {}
    for when, total in rows:
        place = min(int((when - start) / length * bins), bins - 1)
        largest[place] = max(largest.get(place, total), total)
    return [((place + 0.5) / bins, total) for place, total in sorted(largest.items())]


def _events(step: Callable[[], object]) -> list[tuple[int, str | None, int]]:
    """What happened in `step()`, in order of time: (ns, name of an operator, 0), and (ns, None, bytes handed out)."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler's messages, which bypass Python
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recording:
        step()
    found, events = [], list(recording.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag.name == "Allocation":
            found.append((event.start_time_ns, None, event.extra_fields.total_allocated))
        else:
            found.append((event.start_time_ns, event.name, 0))
    return sorted(found, key=lambda one: one[0])
