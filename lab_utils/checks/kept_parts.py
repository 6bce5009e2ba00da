"""One thing that a learner's function can change, remembered as it is now, and put back: names, values, generators."""

import collections
import random
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from operator import is_
from types import CellType, FunctionType, MappingProxyType

import numpy as np
import torch

GENERATORS = (  # random generators: kind, and how their state is read and set
    (torch.Generator, torch.Generator.get_state, torch.Generator.set_state),
    (np.random.RandomState, np.random.RandomState.get_state, np.random.RandomState.set_state),
    (np.random.Generator, lambda one: one.bit_generator.state, lambda one, to: setattr(one.bit_generator, "state", to)),
    (np.random.BitGenerator, lambda one: one.state, lambda one, to: setattr(one, "state", to)),
    (random.Random, random.Random.getstate, random.Random.setstate),
)
MADE_BY_PYTHON = {"__annotations__", "__annotations_cache__", "__annotate__", "__annotate_func__"}


class Names:
    """The names of a module, as a dict. `whole`: what was added is taken out again."""

    def __init__(self, names: dict, *, whole: bool = False):
        self.names, self.before, self.whole = names, dict(names), whole

    def now(self) -> dict:
        return self.names

    def restore(self) -> None:
        if _same(self.names, self.before):
            return
        for name, value in self.before.items():
            if self.names.get(name, self) is not value:
                self.names[name] = value
        for name in [name for name in self.names if self.whole and name not in self.before]:
            del self.names[name]


class Attributes:
    """The attributes of a class or an object."""

    def __init__(self, owner: object):
        self.owner, self.before = owner, dict(vars(owner))
        self.base = type if isinstance(owner, type) else object  # past what a frozen dataclass says

    def now(self) -> Mapping:
        return vars(self.owner)

    def restore(self) -> None:
        now = self.now()
        if _same(now, self.before):
            return
        changed = [name for name, value in self.before.items() if now.get(name, self) is not value]
        added = [name for name in now if name not in self.before and name not in MADE_BY_PYTHON]
        for name in changed:
            self.base.__setattr__(self.owner, name, self.before[name])
        for name in added:
            self.base.__delattr__(self.owner, name)


class Many:
    """Names and attributes of much that a function hardly ever changes: one look at all of it, then one by one."""

    def __init__(self, parts: list):
        self.parts = parts
        self.names = [name for part in parts for name in part.before]
        self.values = [value for part in parts for value in part.before.values()]

    def restore(self) -> None:
        if self._unchanged():
            return
        for part in self.parts:
            with suppress(Exception):  # what refuses does not keep the rest from it
                part.restore()

    def _unchanged(self) -> bool:
        """The same names in the same order everywhere, with the same objects behind them?"""
        try:
            now = [part.now() for part in self.parts]
            values = chain.from_iterable([names.values() for names in now])
            return list(chain.from_iterable(now)) == self.names and all(map(is_, values, self.values))
        except Exception:  # one by one it is seen where
            return False


class Cell:
    """What a variable of an enclosing function holds."""

    def __init__(self, cell: CellType):
        self.cell, self.value = cell, cell.cell_contents

    def restore(self) -> None:
        self.cell.cell_contents = self.value


class State:
    """Where a random generator is."""

    def __init__(self, generator: object):
        read, self.put = next((read, put) for kind, read, put in GENERATORS if isinstance(generator, kind))
        self.generator, self.state = generator, read(generator)

    def restore(self) -> None:
        self.put(self.generator, self.state)


class Held:
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
        elif isinstance(value, collections.deque):
            value.clear()
            value.extend(before)
        elif not isinstance(value, dict) or not _same(value, before):
            value.clear()
            value.update(before)


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
    return list(now) == list(before) and all(map(is_, now.values(), before.values()))


def part_for(value: object) -> type | None:
    """What keeps a value; None for what cannot change itself, but may lead to what can."""
    if isinstance(value, (tuple, MappingProxyType)):
        return None
    if isinstance(value, CellType):
        return Cell
    if isinstance(value, tuple(kind for kind, _, _ in GENERATORS)):
        return State
    held = isinstance(value, (torch.Tensor, np.ndarray, FunctionType)) or is_container(value)
    return Held if held else Attributes


def is_container(value: object) -> bool:
    """Does it hold other values, and can it be given others?"""
    return isinstance(value, (list, dict, set, bytearray, collections.deque))
