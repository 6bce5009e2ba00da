"""What a learner's function may change outside itself, and how all of it is put back after each call.

`Surroundings` keeps the settings of torch, numpy and Python, and with `namespaces` the names and what they hold.
"""

import decimal
import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import torch

from .namespaces import Kept

LOCALES = tuple(getattr(locale, name) for name in dir(locale) if name.startswith("LC_") and name != "LC_ALL")


class Surroundings:
    """A snapshot of everything around a function; `restore` brings it back, and only touches what has changed.

    Parameters
    ----------
    function : the learner's, whose module's names are part of the snapshot
    more : functions, and objects whose attributes are kept, as well
    """

    def __init__(self, function: Callable, *more: object):
        """Look at everything once."""
        self._modes = _modes()
        self._settings = [(put, read, read()) for read, put in _settings()]
        self._kept = Kept(function, *more)

    def restore(self) -> None:
        """Put back what has changed since: first torch's modes, which see all that follows, then names and values."""
        with suppress(Exception):
            _leave_modes(self._modes)
        self._kept.restore()
        for put, read, before in self._settings:
            with suppress(Exception):  # one setting that cannot be put back must not keep the others from it
                if not _equal(read(), before):
                    put(before)


@contextmanager
def standard() -> Iterator[None]:
    """Random numbers from seed 0, and torch as a fresh kernel has it: float32, CPU, gradients. Put back at the end."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else ()
    python, of_numpy = random.getstate(), np.random.get_state()
    dtype, device, gradients = torch.get_default_dtype(), _default_device(), torch.is_grad_enabled()
    with torch.random.fork_rng(devices=list(devices)), warnings.catch_warnings():
        try:
            random.seed(0)
            np.random.seed(0)
            torch.default_generator.manual_seed(0)
            _set_torch(torch.float32, None, True)
            yield
        finally:
            _set_torch(dtype, device, gradients)
            random.setstate(python)
            np.random.set_state(of_numpy)


def _set_torch(dtype: torch.dtype, device: torch.device | None, gradients: bool) -> None:
    """Set them where they differ: setting a default device costs time with every tensor that is made later."""
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(gradients)
    if _default_device() != device:
        torch.set_default_device(device)


def _default_device() -> torch.device | None:
    """The default device if one is set. (`torch.get_default_device` answers "cpu" in either case.)"""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return context and context.device


def _settings() -> list[tuple[Callable, Callable]]:
    """(read, put) of each setting."""
    pairs = [
        (torch.get_default_dtype, torch.set_default_dtype), (_default_device, torch.set_default_device),
        (_saved_hooks, _set_saved_hooks), (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_num_threads, torch.set_num_threads),
        (_deterministic, _set_deterministic), (torch.is_warn_always_enabled, torch.set_warn_always),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly), (_flushes, torch.set_flush_denormal),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
        (np.geterr, lambda kept: np.seterr(**kept)), (np.geterrcall, np.seterrcall),
        (np.get_printoptions, lambda kept: np.set_printoptions(**kept)),
        (lambda: decimal.getcontext().copy(), lambda kept: decimal.setcontext(kept.copy())),
        (lambda: dict(os.environ), _set_environment), (_folder, os.chdir),
        (lambda: list(warnings.filters), _set_filters),
        (gc.get_threshold, lambda kept: gc.set_threshold(*kept)), (socket.getdefaulttimeout, socket.setdefaulttimeout),
        (sys.getrecursionlimit, sys.setrecursionlimit), (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        (sys.getswitchinterval, sys.setswitchinterval), (sys.gettrace, sys.settrace), (sys.getprofile, sys.setprofile),
        (lambda: logging.root.manager.disable, logging.disable), (lambda: logging.root.level, logging.root.setLevel),
    ]  # fmt: skip
    lists = sys.path, sys.meta_path, sys.path_hooks, sys.argv, logging.root.handlers
    pairs += [(partial(list, one), partial(_fill, one)) for one in lists]
    cuda = torch.backends.cuda  # which ways to compute attention are allowed
    pairs += [
        (cuda.math_sdp_enabled, cuda.enable_math_sdp), (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
        (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
        (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
        (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    ]  # fmt: skip
    for kind in ("cpu", "cuda"):
        pairs += [
            (partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind)),
            (partial(torch.get_autocast_dtype, kind), partial(torch.set_autocast_dtype, kind)),
        ]
    pairs += [
        _attributes(torch._tensor_str.PRINT_OPTS), _attributes(torch.backends.cudnn, "enabled", "benchmark"),
        _attributes(torch.backends.cudnn, "deterministic"), _attributes(torch.backends.mkldnn, "enabled"),
        _attributes(torch.utils.deterministic, "fill_uninitialized_memory"),
    ]  # fmt: skip
    pairs += [(partial(locale.setlocale, kind), partial(locale.setlocale, kind)) for kind in LOCALES]
    if hasattr(sys, "set_int_max_str_digits"):
        pairs.append((sys.get_int_max_str_digits, sys.set_int_max_str_digits))
    if "matplotlib" in sys.modules:
        settings = sys.modules["matplotlib"].rcParams
        pairs.append((lambda: dict(settings.items()), settings.update))
    if threading.current_thread() is threading.main_thread():  # no other thread may set them
        for number in (signal.SIGINT, signal.SIGTERM):
            pairs.append((partial(signal.getsignal, number), partial(signal.signal, number)))
    return pairs


def _attributes(owner: object, *names: str) -> tuple[Callable, Callable]:
    """(read, put) of an object's attributes; all of them by default."""
    names = names or tuple(vars(owner))

    def put(kept: dict) -> None:
        for name, value in kept.items():
            setattr(owner, name, value)

    return lambda: {name: getattr(owner, name) for name in names}, put


def _equal(now: object, before: object) -> bool:
    """The same value of the same type? (Two `decimal` contexts are never equal: one is put back each time.)"""
    return now is before or (type(now) is type(before) and bool(now == before))


def _fill(target: list, kept: list) -> None:
    target[:] = kept


def _set_filters(kept: list) -> None:
    """`warnings` keeps a cache of what the filters say: it must hear of a change."""
    warnings.filters[:] = kept
    getattr(warnings, "_filters_mutated", getattr(warnings, "_filters_mutated_lock_held", lambda: None))()


def _set_environment(kept: dict[str, str]) -> None:
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    for name, value in kept.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _folder() -> str | None:
    """The current folder; None if it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(kept: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(kept[0], warn_only=kept[1])


def _modes() -> tuple[int, int]:
    """How many of torch's modes are on: those that see functions, and those that see operators."""
    return torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()


def _leave_modes(kept: tuple[int, int]) -> None:
    while torch._C._len_torch_function_stack() > kept[0]:
        torch._C._pop_torch_function_stack()
    while torch._C._len_torch_dispatch_stack() > kept[1]:
        torch._C._pop_torch_dispatch_stack(None)


def _saved_hooks() -> tuple[Callable, Callable] | None:
    """What autograd does with the tensors that it saves: the innermost hooks."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def _set_saved_hooks(kept: tuple[Callable, Callable] | None) -> None:
    while _saved_hooks() not in (None, kept):
        torch._C._autograd._pop_saved_tensors_default_hooks()
    if kept is not None and _saved_hooks() is None:
        torch._C._autograd._push_saved_tensors_default_hooks(*kept)


def _flushes() -> bool:
    """Does the processor take the smallest float32 numbers for zero?"""
    return not float(torch.full((), 1e-39, dtype=torch.float32, device="cpu") * 1)
