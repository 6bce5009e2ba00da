"""Names and what they hold, remembered before a learner's function is called, and put back after each call.

Of the modules that a check relies on, and of their classes, what was replaced or deleted comes back; what was added
stays, for a module may load parts of itself when they are first asked for. Of the learner's own module everything comes
back, and every value that the function reaches by name, as a default or in its closure holds again what it held: lists,
dicts, sets, tensors, arrays, models, random generators, and objects and classes of the learner's own. An iterator
cannot be put back: what was read from it is gone.
"""

import collections
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MappingProxyType

import numpy as np
import torch

from .kept_parts import Attributes, Held, Many, Names, is_container, part_for

MODULES = (
    "builtins", "collections", "copy", "functools", "gc", "inspect", "io", "itertools", "json", "logging", "math",
    "numpy", "numpy.linalg", "numpy.random", "operator", "os", "os.path", "random", "re", "signal", "statistics", "sys",
    "tempfile", "time", "traceback", "warnings", "torch", "torch.autograd", "torch.autograd.grad_mode", "torch.cuda",
    "torch.fft", "torch.func", "torch.linalg", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.random",
    "torch.special", "torch.testing", "torch._tensor", "torch._C", "hypothesis", "hypothesis.strategies", "torch.amp",
    "torch.backends.cuda", "torch.nn.modules.module", "torch.nn.utils", "torch.optim", "torch.optim.lr_scheduler",
    "torch.optim.optimizer", "torch.overrides", "torch.utils._python_dispatch", "torch.utils.data",
)  # fmt: skip
HOOKS = ("torch.nn.modules.module", "torch.optim.optimizer")  # they hold the hooks of all modules and all optimizers
PUBLIC = ("torch.nn", "torch.optim", "torch.autograd")  # modules whose classes are kept, as the following are
CLASSES = (torch.Tensor, torch._C.TensorBase)
TOGETHER = 64  # modules and classes that are looked at in one go
PLAIN = frozenset({str, bytes, int, float, bool, type(None), type, FunctionType, BuiltinFunctionType})
MOST_VALUES, MOST_BYTES = 20_000, 16 * 2**20  # that are copied of the learner's values


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
        owners = [*_torch_classes(), *more, *(one for module in lab for one in _classes(module)), *_lab_objects(lab)]
        self._parts: list = [Held(one) for one in owners if isinstance(one, FunctionType)]
        self._parts += [Names(names, whole=True) for names in own.values()]
        many = [Attributes(one) for one in owners if not isinstance(one, FunctionType)]
        many += [Names(names) for names in (sys.modules, *shared) if id(names) not in own]
        self._parts += [Many(many[first : first + TOGETHER]) for first in range(0, len(many), TOGETHER)]
        holders = [*lab, *(sys.modules[name] for name in HOOKS)]
        held = {id(one): one for module in holders for one in vars(module).values() if is_container(one)}
        self._parts += map(Held, held.values())  # each once: all modules hold the same __builtins__
        start = [*functions, *_arguments(function)]
        self._parts += _values(start, {names.get("__name__") for names in own.values()})

    def restore(self) -> None:
        """Put back, names before the values that they lead to. What refuses does not keep the rest from it."""
        for part in self._parts:
            with suppress(Exception):
                part.restore()


def _values(start: list, modules: set) -> list:
    """A part to restore for each value that can be reached from `start`: functions of `modules`, and what they hold."""
    parts, seen, bytes_left, waiting = [], {}, MOST_BYTES, list(start)
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
            if kind := part_for(value):
                parts.append(kind(value))
            waiting.extend(_leads_to(value))
    return parts


def _size(value: object, modules: set) -> int | None:
    """Bytes that a copy of a value takes; None for what is not looked at."""
    if isinstance(value, torch.Tensor):
        plain = value.layout == torch.strided and value.device.type != "meta"
        return value.numel() * value.element_size() if plain else None
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_container(value):
        return 8 * len(value)
    if part_for(value) is not Attributes and not isinstance(value, FunctionType):
        return 0
    kind = value if isinstance(value, (type, FunctionType)) else type(value)
    own = kind.__module__ in modules or isinstance(value, torch.nn.Module)
    return 0 if own and hasattr(value, "__dict__") else None


def _leads_to(value: object) -> Iterator[object]:
    """The values that are reached from a value."""
    if isinstance(value, FunctionType):
        codes = [value.__code__]
        while codes:
            code = codes.pop()
            yield from (value.__globals__[name] for name in code.co_names if name in value.__globals__)
            codes += [part for part in code.co_consts if isinstance(part, CodeType)]
        yield from (value.__defaults__ or (), value.__kwdefaults__ or {}, *(value.__closure__ or ()))
    elif isinstance(value, CellType):
        yield value.cell_contents
    elif isinstance(value, (dict, MappingProxyType)):
        yield from value.values()
    elif isinstance(value, (tuple, list, set, collections.deque)):
        yield from value
    elif part_for(value) is Attributes:
        yield from vars(value).values()


def _classes(module) -> Iterator[type]:
    """The classes that a module defines."""
    return (one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__)


def _torch_classes() -> list[type]:
    """Tensors, and the classes that pages find in `torch.nn`, `torch.optim` and `torch.autograd`."""
    found = {one: None for name in PUBLIC for one in vars(sys.modules[name]).values() if isinstance(one, type)}
    return list(found | dict.fromkeys(CLASSES))


def _lab_objects(lab: list) -> list:
    """Objects of the lab's own classes that its modules hold, such as tasks and exercises, and those within them."""
    found, seen, waiting = [], {}, [value for module in lab for value in vars(module).values()]
    while waiting and len(found) < MOST_VALUES:
        value = waiting.pop()
        if type(value) in PLAIN or id(value) in seen:
            continue
        seen[id(value)] = value  # held, so that no other object is given its id
        if type(value).__module__.startswith("lab_utils.") and hasattr(value, "__dict__"):
            found.append(value)
        elif not isinstance(value, (dict, MappingProxyType, tuple, list)):
            continue
        waiting.extend(_leads_to(value))
    return found


def _arguments(function: Callable) -> Iterator[object]:
    """What a partial function or a method was made with, and an object that can be called."""
    for one in _unwrapped(function):
        yield from (getattr(one, name, None) for name in ("args", "keywords", "__self__"))
        yield one


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
