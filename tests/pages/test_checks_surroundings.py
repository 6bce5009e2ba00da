"""What a learner's function changes outside itself is as before after each call, and no check can be talked round."""

import builtins
import collections
import decimal
import gc
import locale
import logging
import math
import os
import queue
import random
import signal
import socket
import sys
import time
import types
import warnings

import numpy as np
import pytest
import torch

from lab_utils import checks
from lab_utils.checks import engine, exercise

pytestmark = pytest.mark.usefixtures("no_pictures")
OUTER = checks.EXERCISES["outer_product"]


def environment():
    return dict(os.environ)


class Doubling(torch.overrides.TorchFunctionMode):
    """While it is on, sums are twice what they are."""

    def __torch_function__(self, function, kinds, arguments=(), options=None):
        return function(*arguments, **(options or {})) * (2 if "add" in function.__name__ else 1)


SETTINGS = {  # what a function does -> how to see it
    "dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "gradients by hand": (lambda: torch.no_grad().__enter__(), torch.is_grad_enabled),
    "threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads),
    "device": (lambda: torch.set_default_device("meta"), lambda: torch.empty(1).device),
    "deterministic": (
        lambda: torch.use_deterministic_algorithms(True), torch.are_deterministic_algorithms_enabled),
    "matmul": (lambda: torch.set_float32_matmul_precision("medium"), torch.get_float32_matmul_precision),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "denormal": (lambda: torch.set_flush_denormal(True), lambda: float(torch.tensor(1e-39) * 1) == 0),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), lambda: torch.is_autocast_enabled("cpu")),
    "torch prints": (lambda: torch.set_printoptions(precision=2), lambda: str(torch.tensor(1 / 3))),
    "torch seed": (lambda: torch.manual_seed(5), lambda: torch.get_rng_state().tolist()),
    "numpy seed": (lambda: np.random.seed(5), lambda: np.random.get_state()[1].tolist()),
    "seed": (lambda: random.seed(5), random.getstate),
    "numpy errors": (lambda: np.seterr(all="raise"), np.geterr),
    "numpy prints": (lambda: np.set_printoptions(precision=2), np.get_printoptions),
    "variable": (lambda: os.environ.update(LORA_LAB_FAST="7", HOME="/nowhere"), environment),
    "variable deleted": (lambda: os.environ.pop("PATH", None), environment),
    "folder": (lambda: os.chdir("/"), os.getcwd),
    "warnings": (lambda: warnings.simplefilter("error"), lambda: list(warnings.filters)),
    "warnings by hand": (lambda: warnings.catch_warnings().__enter__(), lambda: id(warnings.filters)),
    "decimal": (lambda: setattr(decimal.getcontext(), "prec", 3), lambda: decimal.getcontext().prec),
    "locale": (lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"), lambda: locale.setlocale(locale.LC_NUMERIC)),
    "recursion": (lambda: sys.setrecursionlimit(4000), sys.getrecursionlimit),
    "digits": (lambda: sys.set_int_max_str_digits(0), sys.get_int_max_str_digits),
    "function mode": (lambda: Doubling().__enter__(), lambda: float(torch.ones(1) + 0)),
    "inference": (lambda: torch.inference_mode().__enter__(), torch.is_inference_mode_enabled),
    "hooks": (
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda *_: torch.zeros(1)),
        lambda: float(torch.nn.Identity()(torch.ones(1)))),
    "socket": (lambda: socket.setdefaulttimeout(3), socket.getdefaulttimeout),
    "collection": (lambda: gc.set_threshold(1), gc.get_threshold),
    "input": (lambda: setattr(sys, "stdin", None), lambda: sys.stdin),
    "path": (lambda: sys.path.insert(0, "/nowhere"), lambda: list(sys.path)),
    "path replaced": (lambda: setattr(sys, "path", []), lambda: list(sys.path)),
    "module replaced": (lambda: sys.modules.update(json=types.ModuleType("json")), lambda: sys.modules["json"]),
    "garbage": (gc.disable, gc.isenabled),
    "logging": (lambda: logging.disable(), lambda: logging.root.manager.disable),
    "log level": (
        lambda: logging.basicConfig(level=5, force=True), lambda: (logging.root.level, logging.root.handlers[:])),
    "interrupt": (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), lambda: signal.getsignal(signal.SIGINT)),
    "alarm": (lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN), lambda: signal.getsignal(signal.SIGALRM)),
    "output": (lambda: setattr(sys, "stdout", None), lambda: sys.stdout),
    "output closed": (lambda: sys.stdout.close(), lambda: sys.stdout.closed),
    "torch function": (lambda: setattr(torch, "isclose", torch.ones_like), lambda: torch.isclose),
    "torch function gone": (lambda: vars(torch).pop("outer", None), lambda: torch.outer),
    "functional": (lambda: setattr(torch.nn.functional, "linear", None), lambda: torch.nn.functional.linear),
    "tensor ==": (lambda: setattr(torch.Tensor, "__eq__", lambda *_: True), lambda: torch.Tensor.__eq__),
    "tensor method": (lambda: setattr(torch.Tensor, "any", lambda *_: False), lambda: torch.Tensor.any),
    "tensor attribute": (lambda: setattr(torch.Tensor, "mine", 1), lambda: hasattr(torch.Tensor, "mine")),
    "math": (lambda: setattr(math, "isclose", lambda *_, **__: True), lambda: math.isclose),
    "builtin": (lambda: setattr(builtins, "zip", map), lambda: builtins.zip),
    "clock": (lambda: setattr(time, "monotonic", lambda: 0.0), lambda: time.monotonic),
    "the comparison": (lambda: setattr(exercise, "compare", lambda *_: {}), lambda: exercise.compare),
    "the engine": (lambda: setattr(engine, "_untouched", lambda *_: True), lambda: engine._untouched),
    "the exercises": (lambda: checks.EXERCISES.clear(), lambda: dict(checks.EXERCISES)),
    "the exercise": (lambda: object.__setattr__(OUTER, "solution", abs), lambda: OUTER.solution),
    "the class": (lambda: setattr(exercise.Exercise, "findings", dict), lambda: exercise.Exercise.findings),
    "the solution": (
        lambda: setattr(OUTER.solution, "__code__", (lambda column, row: None).__code__),
        lambda: OUTER.solution.__code__),
}  # fmt: skip


def does(change, then=None):
    """The right function, but for what else it does."""
    outer = torch.outer

    def outer_product(column, row):
        result = outer(column, row)
        change()
        if then:
            raise then
        return result

    return outer_product


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("then", [None, ValueError(), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_every_setting_is_as_before(setting, then, monkeypatch):
    """After each call: a few of them show it."""
    monkeypatch.setattr(engine, "examples", lambda exercise, made=engine.examples: made(exercise)[:2])
    monkeypatch.setattr(engine, "SEARCHED", 2)
    change, read = SETTINGS[setting]
    before = read()
    if isinstance(then, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            checks.check("outer_product", does(change, then))
    else:
        report = checks.check("outer_product", does(change, then), seconds=60)
        assert report.passed == (then is None), report.text
    assert read() == before


@pytest.mark.parametrize("setting", ["dtype", "gradients", "device", "folder", "variable", "the comparison", "digits"])
def test_no_call_sees_what_another_one_changed(setting):
    """Neither the next input, nor the reference that the result is compared with."""
    change, read = SETTINGS[setting]
    told = queue.SimpleQueue()  # a list would be put back after each call
    report = checks.check("outer_product", does(lambda: (told.put(read()), change())))
    seen = [told.get() for _ in range(told.qsize())]
    assert report.passed and seen.count(seen[0]) == len(seen) - 1 > 50  # the last is the second of two calls in a row


def test_warnings_are_ignored_in_every_call_whatever_the_page_makes_of_them():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checks.check("outer_product", does(lambda: warnings.warn("careful", stacklevel=1))).passed
        with pytest.raises(UserWarning):
            warnings.warn("careful", stacklevel=1)


def test_an_exercise_that_runs_after_another_ones_failure_is_judged_as_ever():
    def leaves_float64(column, row):
        torch.set_default_dtype(torch.float64)
        raise ValueError("and stops there")

    assert not checks.check("outer_product", leaves_float64).passed
    assert torch.ones(1).dtype == torch.float32
    assert checks.check("equal_mass_code", checks.EXERCISES["equal_mass_code"].solution).passed


def test_a_page_that_computes_in_another_way_is_left_so_and_judged_as_a_fresh_one():
    seen = []

    def outer_product(column, row):
        seen.append((torch.get_default_dtype(), torch.is_grad_enabled(), torch.empty(1).device.type))
        return torch.outer(column, row)

    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.no_grad():
            report = checks.check("outer_product", outer_product)
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64 and torch.empty(1).device.type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert report.passed, report.text


SPACE = """
import collections, torch, numpy as np
class State:
    count = 0
    names = []
state, calls, kept, table, found = State(), 0, [1, [2]], {"a": {"b": 1}}, {1}
queue, raw, weight = collections.deque([1]), bytearray(b"ab"), torch.tensor([1.0, float("nan")])
array, layer, trained = np.arange(3), torch.nn.Linear(2, 2), torch.nn.Parameter(torch.ones(2))

def helper():
    kept[1].append(3); table["a"]["b"] = 2; table["c"] = 1; found.add(2); queue.append(2); raw.extend(b"c")

def outer_product(column, row):
    global calls, fresh, State
    calls += 1
    fresh = 1
    helper()
    state.count = 4; State.count = 5; State.names.append(1); State.new = 1
    weight.add_(1); weight.resize_(3) if len(column) == 1 else None
    array[0] = 7
    layer.weight.data.zero_(); layer.bias = None; layer.eval()
    trained.requires_grad_(False); trained.grad = torch.ones(2)
    helper.calls = calls
    return torch.outer(column, row)
"""


def test_the_learners_own_names_and_what_they_hold_are_as_before():
    space = {"__name__": "a_page"}
    exec(SPACE, space)
    names, weights = dict(space), space["layer"].weight.detach().clone()
    report = checks.check("outer_product", space["outer_product"])
    assert report.passed, report.text
    assert space.keys() == names.keys() and all(space[name] is names[name] for name in names)
    assert space["calls"] == 0 and space["kept"] == [1, [2]] and space["table"] == {"a": {"b": 1}}
    assert space["found"] == {1} and space["queue"] == collections.deque([1]) and space["raw"] == b"ab"
    assert (space["state"].__dict__, space["State"].count, space["State"].names) == ({}, 0, [])
    assert not hasattr(space["State"], "new") and not hasattr(space["helper"], "calls")
    assert space["weight"].shape == (2,) and space["weight"][0] == 1 and space["array"].tolist() == [0, 1, 2]
    assert torch.equal(space["layer"].weight, weights) and space["layer"].bias is not None and space["layer"].training
    assert space["trained"].requires_grad and space["trained"].grad is None


@pytest.mark.parametrize("keep", ["total = total + len(column)", "seen.append(1); total = len(seen)"])
def test_a_function_that_answers_otherwise_the_second_time_is_not_right(keep):
    """Each call finds the names as they were: so it is called twice in a row as well."""
    code = f"""
total, seen = 0, []
def outer_product(column, row):
    global total
    {keep}
    return torch.outer(column, row) * (1 if total in (1, len(column)) else 2)
"""
    space = {"torch": torch, "__name__": "a_page"}
    exec(code, space)
    report = checks.check("outer_product", space["outer_product"])
    assert not report.passed and "called again with the same input" in report.text
    assert report.mistake is None and space["total"] == 0 and space["seen"] == []


def test_what_a_function_does_to_its_inputs_reaches_no_other_call():
    seen = []

    def model_adapter_parameters(shapes, n_layers, rank, targets):
        seen.append(len(shapes))
        made = checks.EXERCISES["model_adapter_parameters"].solution(shapes, n_layers, rank, targets)
        shapes.clear()
        targets.append("mine")
        return made

    report = checks.check("model_adapter_parameters", model_adapter_parameters)
    assert "It changes `shapes` and `targets` in place." in report.text and 0 not in seen
    assert checks.check("model_adapter_parameters", checks.EXERCISES["model_adapter_parameters"].solution).passed


class Agreeing(torch.Tensor):
    """A tensor that says it is equal to everything."""

    @classmethod
    def __torch_function__(cls, function, kinds, arguments=(), options=None):
        if function.__name__ in ("isclose", "equal", "allclose", "eq"):
            return torch.ones(arguments[0].shape, dtype=torch.bool)
        return super().__torch_function__(function, kinds, arguments, options or {})


class Anything(int):
    __eq__ = __le__ = lambda *_: True
    __hash__ = int.__hash__


class Endless(list):
    def __iter__(self):
        while True:
            yield 1


class Leaving:
    """An object that ends the program when it is asked for anything."""

    def __getattribute__(self, name):
        raise SystemExit(1)

    __repr__ = __len__ = __float__ = lambda self: sys.exit(1)


def nested():
    items = []
    items.append(items)
    return items


def patched(column, row):
    torch.isclose = torch.ones_like
    torch.Tensor.any = lambda *_: False
    return torch.zeros(len(column), len(row), dtype=column.dtype)


FALSE = {
    "agreeing": lambda c, r: torch.zeros(len(c), len(r), dtype=c.dtype).as_subclass(Agreeing),
    "column that broadcasts": lambda c, r: (c * 0 + 1)[:, None], "number": lambda c, r: torch.ones((), dtype=c.dtype),
    "true": lambda c, r: torch.outer(c, r) != 0, "nan": lambda c, r: torch.outer(c, r) * float("nan"),
    "whole": lambda c, r: torch.outer(c, r).long(), "none": lambda c, r: None, "endless": lambda c, r: Endless([1]),
    "leaving": lambda c, r: Leaving(), "nested": lambda c, r: nested(), "list": lambda c, r: torch.outer(c, r).tolist(),
    "complex": lambda c, r: torch.outer(c, r) + 1j, "patched": patched,
}  # fmt: skip


@pytest.mark.parametrize("name", FALSE)
def test_what_only_seems_equal_is_not(name):
    report = checks.check("outer_product", FALSE[name])
    assert not report.passed and report.text


@pytest.mark.parametrize("value", [Anything(3), True, float("nan"), None, 2.0, np.bool_(True), torch.tensor(True), "2"])
def test_a_number_is_compared_by_its_own_value_and_kind(value):
    assert not checks.check("adapter_parameters", lambda *_: value).passed


@pytest.mark.parametrize("kind", [torch.nn.Parameter, lambda t: t.requires_grad_(), lambda t: t.as_subclass(Agreeing)])
def test_right_numbers_in_another_kind_of_tensor_are_right(kind):
    assert checks.check("outer_product", lambda c, r: kind(torch.outer(c, r))).passed


def test_whole_numbers_are_compared_exactly_however_large():
    whole = torch.tensor([10_000_000])
    assert engine.agree(whole, whole.clone()) and not engine.agree(whole, whole + 1)
    assert not engine.agree(torch.tensor([2**53]), torch.tensor([2**53 + 1]))


def test_a_bool_is_no_one_in_an_input_that_was_changed():
    def adds_up(shapes, n_layers, rank, targets):
        made = checks.EXERCISES["model_adapter_parameters"].solution(shapes, n_layers, rank, targets)
        for name, (out, inside) in shapes.items():
            shapes[name] = (float(out), inside)
        return made

    assert "It changes `shapes` in place." in checks.check("model_adapter_parameters", adds_up).text


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), None, "5", True])
def test_a_time_that_is_none(seconds):
    report = checks.check("outer_product", torch.outer, seconds=seconds)
    assert not report.passed and f"seconds={seconds!r} is out of range" in report.text


def test_an_alarm_of_someone_elses_goes_on():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 600)
    try:
        checks.check("outer_product", torch.outer)
        assert 500 < signal.getitimer(signal.ITIMER_REAL)[0] <= 600
        signal.getsignal(signal.SIGALRM)()
        assert rung == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_recursion_without_end_comes_with_its_line():
    def outer_product(column, row):
        return outer_product(column, row)

    report = checks.check("outer_product", outer_product)
    assert "It raises RecursionError" in report.text and "line 2: return outer_product(column, row)" in report.text
