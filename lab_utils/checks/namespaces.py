"""Names and what they hold, remembered before a learner's function is called, and put back after each call.

Of the modules that a check relies on, and of their classes, what was replaced or deleted comes back; what was added
stays, for a module may load parts of itself when they are first asked for. Of the learner's own module everything comes
back, and every value in it that the function reaches by name holds again what it held: lists, dicts, sets, tensors,
arrays, models, and objects and classes of the learner's own.
"""

import collections
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import is_
from types import CodeType, FunctionType

import numpy as np
import torch

MODULES = (
    "builtins", "collections", "copy", "functools", "gc", "inspect", "io", "itertools", "json", "logging", "math",
    "numpy", "numpy.linalg", "numpy.random", "operator", "os", "os.path", "random", "re", "signal", "statistics", "sys",
    "tempfile", "time", "traceback", "warnings", "torch", "torch.autograd", "torch.autograd.grad_mode", "torch.cuda",
    "torch.fft", "torch.func", "torch.linalg", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.random",
    "torch.special", "torch.testing", "torch._tensor", "torch._C", "hypothesis", "hypothesis.strategies",
)  # fmt: skip
CLASSES = (torch.Tensor, torch._C.TensorBase, torch.nn.Parameter, torch.nn.Module, torch.nn.Linear)
MOST_VALUES, MOST_BYTES = 20_000, 16 * 2**20  # that are copied of the learner's values
MADE_BY_PYTHON = {"__annotations__", "__annotations_cache__", "__annotate__", "__annotate_func__"}


class Kept:
    """A snapshot of names and values; `restore` brings back what has changed.

    Parameters
    ----------
    function : the learner's
    more : functions, and objects whose attributes are kept, as well
    """

    def __init__(self, function: Callable, *more: object):
        functions = [one for one in _unwrapped(function) if isinstance(one, FunctionType)]
        own = {id(one.__globals__): one.__globals__ for one in functions}
        own |= {id(vars(module)): vars(module) for module in [sys.modules.get("__main__")] if module}
        lab = [module for name, module in sys.modules.items() if name.partition(".")[0] == "lab_utils"]
        shared = [vars(module) for module in (*map(sys.modules.get, MODULES), *lab) if module]
        owners = [*CLASSES, *more, *(one for module in lab for one in _classes(module))]
        self._parts: list = [_Held(one) if isinstance(one, FunctionType) else _Attributes(one) for one in owners]
        self._parts += [_Names(names, whole=True) for names in own.values()]
        self._parts += [_Names(names) for names in (sys.modules, *shared) if id(names) not in own]
        holders = [*lab, torch.nn.modules.module]  # the last has the hooks of all modules
        self._parts += [_Held(one) for module in holders for one in vars(module).values() if _is_container(one)]
        self._parts += _values(functions, {names.get("__name__") for names in own.values()})

    def restore(self) -> None:
        """Put back, names before the values that they lead to. What refuses does not keep the rest from it."""
        for part in self._parts:
            with suppress(Exception):
                part.restore()


class _Names:
    """The names of a module, as a dict. `whole`: what was added is taken out again."""

    def __init__(self, names: dict, *, whole: bool = False):
        self.names, self.before, self.whole = names, dict(names), whole

    def restore(self) -> None:
        if _same(self.names, self.before):
            return
        for name, value in self.before.items():
            if self.names.get(name, self) is not value:
                self.names[name] = value
        for name in [name for name in self.names if self.whole and name not in self.before]:
            del self.names[name]


class _Attributes:
    """The attributes of a class or an object."""

    def __init__(self, owner: object):
        self.owner, self.before = owner, dict(vars(owner))
        self.base = type if isinstance(owner, type) else object  # past what a frozen dataclass says

    def restore(self) -> None:
        now = vars(self.owner)
        if _same(now, self.before):
            return
        changed = [name for name, value in self.before.items() if now.get(name, self) is not value]
        added = [name for name in now if name not in self.before and name not in MADE_BY_PYTHON]
        for name in changed:
            self.base.__setattr__(self.owner, name, self.before[name])
        for name in added:
            self.base.__delattr__(self.owner, name)


class _Held:
    """What a function, a container, a tensor or an array holds."""

    def __init__(self, value: object):
        self.value = value
        if isinstance(value, torch.Tensor):
            self.before = value.detach().clone(), value.requires_grad, value.grad
        elif isinstance(value, FunctionType):
            self.before = value.__code__, value.__defaults__, value.__kwdefaults__, dict(vars(value))
        else:
            self.before = value.copy()

    def restore(self) -> None:
        value, before = self.value, self.before
        if isinstance(value, torch.Tensor):
            _restore_tensor(value, *before)
        elif isinstance(value, FunctionType):
            value.__code__, value.__defaults__, value.__kwdefaults__ = before[:3]
            vars(value).clear()
            vars(value).update(before[3])
        elif isinstance(value, np.ndarray):
            value.shape = before.shape
            value[...] = before
        elif isinstance(value, (list, bytearray)):
            value[:] = before
        elif not isinstance(value, dict) or not _same(value, before):
            value.clear()
            (value.extend if isinstance(value, collections.deque) else value.update)(before)


def _restore_tensor(value: torch.Tensor, held: torch.Tensor, requires_grad: bool, gradient) -> None:
    """Numbers, shape, `requires_grad` and gradient. Tensors that share its numbers go on sharing them."""
    if value.shape != held.shape or value.dtype != held.dtype:
        value.data = held.clone()
    elif not torch.equal(_bytes_of(value), _bytes_of(held)):
        value.data.copy_(held)
    if value.is_leaf and (value.requires_grad != requires_grad or value.grad is not gradient):
        value.requires_grad_(requires_grad)
        value.grad = gradient


def _bytes_of(value: torch.Tensor) -> torch.Tensor:
    """Its bytes, in which NaN equals NaN."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def _same(now, before: dict) -> bool:
    """The same names in the same order, with the same objects behind them?"""
    return len(now) == len(before) and all(map(is_, now, before)) and all(map(is_, now.values(), before.values()))


def _values(functions: list, modules: set) -> list:
    """A part to restore for each value that can be reached by name from functions of `modules`."""
    parts, seen, bytes_left, waiting = [], {}, MOST_BYTES, list(functions)
    while waiting and len(seen) < MOST_VALUES:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value  # held, so that no other object is given its id
        size = _size(value, modules)
        if size is None or size > bytes_left:
            continue
        bytes_left -= size
        with suppress(Exception):
            plain = not isinstance(value, (torch.Tensor, np.ndarray, FunctionType)) and not _is_container(value)
            parts.append(_Attributes(value) if plain else _Held(value))
            waiting.extend(_leads_to(value))
    return parts


def _size(value: object, modules: set) -> int | None:
    """Bytes that a copy of a value takes; None for what is not looked at."""
    if isinstance(value, torch.Tensor):
        plain = value.layout == torch.strided and value.device.type != "meta"
        return value.numel() * value.element_size() if plain else None
    if isinstance(value, np.ndarray):
        return value.nbytes
    if _is_container(value):
        return 8 * len(value)
    kind = value if isinstance(value, (type, FunctionType)) else type(value)
    own = kind.__module__ in modules or isinstance(value, torch.nn.Module)
    return 0 if own and hasattr(value, "__dict__") else None


def _is_container(value: object) -> bool:
    return isinstance(value, (list, dict, set, bytearray, collections.deque))


def _leads_to(value: object) -> Iterator[object]:
    """The values that are reached from a value."""
    if isinstance(value, FunctionType):
        codes = [value.__code__]
        while codes:
            code = codes.pop()
            yield from (value.__globals__[name] for name in code.co_names if name in value.__globals__)
            codes += [part for part in code.co_consts if isinstance(part, CodeType)]
    elif _is_container(value):
        yield from value.values() if isinstance(value, dict) else () if isinstance(value, bytearray) else value
    elif not isinstance(value, (torch.Tensor, np.ndarray)):
        yield from vars(value).values()


def _classes(module) -> Iterator[type]:
    """The classes that a module defines."""
    return (one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__)


def _unwrapped(function: Callable) -> list:
    """A function and those within it: of a partial, a method, a decorator, or an object that can be called."""
    found, waiting = [], [function]
    while waiting and len(found) < 20:
        one = waiting.pop()
        found.append(one)
        with suppress(Exception):
            parts = [inspect.getattr_static(type(one), "__call__", None)]
            parts += [getattr(one, name, None) for name in ("func", "__func__", "__wrapped__")]
            waiting += [part for part in parts if callable(part) and not any(part is other for other in found)]
    return found
