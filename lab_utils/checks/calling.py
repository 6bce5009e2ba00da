"""Calling what a learner wrote: a time limit, what it prints, and results and errors that hold no code."""

import io
import math
import signal
import threading
import time
from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import _disable_current_modes


class TooLong(BaseException):
    """The time is up. Not an Exception, so that a learner's `except Exception` does not catch it."""


@contextmanager
def time_limit(end: float):
    """Raise TooLong in this block when the clock (time.monotonic) passes `end`, and on entering if it has.

    An endless loop is interrupted on the main thread of a Unix process (every notebook there), nowhere else.
    """
    began = time.monotonic()
    left = end - began
    if left <= 0:
        raise TooLong
    on_main = threading.current_thread() is threading.main_thread()
    if left == math.inf or not on_main or not hasattr(signal, "setitimer"):
        yield
        return

    armed = [True]

    def stop(*_):
        if armed:
            raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    others, interval = signal.setitimer(signal.ITIMER_REAL, left, 0.25)  # again, if a bare `except:` swallows the first
    try:
        try:
            yield
        finally:
            armed.clear()
    finally:  # on its own: the alarm may ring just before `armed` is cleared
        armed.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if others:  # someone else's alarm goes on
            signal.setitimer(signal.ITIMER_REAL, max(others - (time.monotonic() - began), 1e-3), interval)


class Printed(io.StringIO):
    """Catches what a function prints, and cannot be closed by it."""

    def close(self) -> None:
        pass


def plain(result, depth: int = 0):
    """A result that later calls cannot change, and that holds no code: plain tensors, tuples and lists."""
    if isinstance(result, torch.Tensor):
        modes = _disable_current_modes() if torch._C._len_torch_dispatch_stack() else nullcontext()
        with torch._C.DisableTorchFunction(), modes:  # a subclass or a mode may answer itself
            copied = result.detach().clone()
            return copied if type(copied) is torch.Tensor else copied.as_subclass(torch.Tensor)
    if isinstance(result, (tuple, list)) and depth < 3:
        kind = tuple if isinstance(result, tuple) else list
        return kind([plain(part, depth + 1) for part in kind.__iter__(result)])
    return result


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    try:
        return (str(error).strip().splitlines() or [""])[0][:300]
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""
