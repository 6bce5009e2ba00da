"""What a function reaches outside itself is as before: defaults, closures, generators, torch and the lab."""

import queue
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from lab_utils import checks
from lab_utils.checks import engine
from lab_utils.checks.kept_parts import Attributes, Many, Names
from lab_utils.folders import ROOT
from lab_utils.tasks import TASKS

pytestmark = pytest.mark.usefixtures("no_pictures")
RIGHT = torch.outer


class Doubling(torch.overrides.TorchFunctionMode):
    """While it is on, sums are twice what they are."""

    def __torch_function__(self, function, kinds, arguments=(), options=None):
        return function(*arguments, **(options or {})) * (2 if "add" in function.__name__ else 1)


class Zeros(torch.utils._python_dispatch.TorchDispatchMode):
    """While it is on, every sum is 0."""

    def __torch_dispatch__(self, function, kinds, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        return made * 0 if "add" in str(function) else made


def enters(mode):
    return lambda: mode().__enter__()


def put(owner, name, value=None):
    return (lambda: setattr(owner, name, value)), (lambda: vars(owner).get(name))


def total():
    with Zeros():  # torch loads what it needs for a mode when the first is used, which takes seconds
        torch.ones(1)
    return float(torch.ones(2).sum() + 1)


BACKENDS, OPTIMIZER = torch.backends.cuda, sys.modules["torch.optim.optimizer"]
CHANGES = {  # what a function does -> how to see it
    "every module's hook": (
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda *_: torch.zeros(1), always_call=True),
        lambda: (float(torch.nn.Identity()(torch.ones(1))), len(torch.nn.modules.module._global_forward_hooks))),
    "every module's hook before": (
        lambda: torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: (torch.zeros(1),)),
        lambda: float(torch.nn.Identity()(torch.ones(1)))),
    "every module's hook backward": (
        lambda: torch.nn.modules.module.register_module_full_backward_hook(lambda *_: None),
        lambda: torch.nn.modules.module._global_is_full_backward_hook),
    "every optimizer's hook": (
        lambda: OPTIMIZER.register_optimizer_step_post_hook(lambda *_: None),
        lambda: len(OPTIMIZER._global_optimizer_post_hooks)),
    "saved tensors' hooks": (
        lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x * 0, lambda x: x).__enter__(),
        lambda: slope()),
    "embedding": put(torch.nn.Embedding, "forward"), "norm": put(torch.nn.LayerNorm, "forward"),
    "container": put(torch.nn.Sequential, "forward"), "loss": put(torch.nn.CrossEntropyLoss, "forward"),
    "step": put(torch.optim.SGD, "step"), "optimizer": put(torch.optim.Optimizer, "zero_grad"),
    "optimizer gone": put(torch.optim, "AdamW"), "schedule": put(torch.optim.lr_scheduler, "LambdaLR"),
    "clipping": put(torch.nn.utils, "clip_grad_norm_"), "checkpoint": put(torch.autograd.Function, "apply"),
    "attention, plain": (lambda: BACKENDS.enable_math_sdp(False), BACKENDS.math_sdp_enabled),
    "attention, flash": (lambda: BACKENDS.enable_flash_sdp(False), BACKENDS.flash_sdp_enabled),
    "attention, memory": (lambda: BACKENDS.enable_mem_efficient_sdp(False), BACKENDS.mem_efficient_sdp_enabled),
    "attention, cudnn": (
        lambda: BACKENDS.enable_cudnn_sdp(not BACKENDS.cudnn_sdp_enabled()), BACKENDS.cudnn_sdp_enabled),
    "attention, fast path": (
        lambda: torch.backends.mha.set_fastpath_enabled(False), torch.backends.mha.get_fastpath_enabled),
    "importing": (sys.meta_path.clear, lambda: list(sys.meta_path)),
    "importing from folders": (sys.path_hooks.clear, lambda: list(sys.path_hooks)),
    "arguments": (sys.argv.clear, lambda: list(sys.argv)),
    "function mode": (enters(Doubling), total), "operator mode": (enters(Zeros), total),
    "both modes": (lambda: (Doubling().__enter__(), Zeros().__enter__(), Doubling().__enter__()), total),
    "a task": (lambda: object.__setattr__(TASKS["bookings"], "system", "mine"), lambda: TASKS["bookings"].system),
    "an exercise": (
        lambda: object.__setattr__(checks.EXERCISES["adapter_parameters"], "reward", "mine"),
        lambda: checks.EXERCISES["adapter_parameters"].reward),
    "a mistake": (
        lambda: object.__setattr__(checks.EXERCISES["outer_product"].mistakes[0], "name", "mine"),
        lambda: checks.EXERCISES["outer_product"].mistakes[0].name),
}  # fmt: skip


def slope() -> float:
    value = torch.full((1,), 3.0, requires_grad=True)
    (value * value).sum().backward()
    return float(value.grad)


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_function_changes_is_as_before(name, monkeypatch):
    """After each call: a few of them show it."""
    monkeypatch.setattr(engine, "examples", lambda exercise, made=engine.examples: made(exercise)[:5])
    change, read = CHANGES[name]
    before = read()

    def outer_product(column, row):
        made = RIGHT(column, row)
        change()
        return made

    report = checks.check("outer_product", outer_product)
    assert report.passed, report.text
    assert read() == before
    assert checks.check("outer_product", outer_product).passed  # the next check finds nothing changed either


REACHED = """
import functools, random, numpy as np, torch
class Counter:
    count, names = 0, []
numbers = []
generator, of_numpy, older, plain = (
    torch.Generator().manual_seed(1), np.random.default_rng(1), np.random.RandomState(1), random.Random(1))

def decorated(function):
    inner = []
    def wrapper(*arguments):
        nonlocal times
        times += 1
        inner.append(1)
        return function(*arguments)
    times = 0
    wrapper.look = lambda: (times, list(inner))
    return wrapper

@decorated
def outer_product(column, row, first=[], *, cache=[], table={}):
    numbers.append(1); Counter.count += 1; Counter.names.append(1)
    first.append(1); cache.append(1); table[len(table)] = 1
    torch.rand(2, generator=generator); of_numpy.random(3); older.rand(3); plain.random()
    return torch.outer(column, row)
"""


def test_what_a_decorated_function_reaches_is_as_before():
    space = {"__name__": "a_page"}
    exec(REACHED, space)
    report = checks.check("outer_product", space["outer_product"])
    assert report.passed, report.text
    inner = space["outer_product"].__closure__[0].cell_contents
    assert space["outer_product"].look() == (0, [])
    assert (inner.__defaults__, inner.__kwdefaults__) == (([],), {"cache": [], "table": {}})
    assert space["numbers"] == [] and (space["Counter"].count, space["Counter"].names) == (0, [])
    fresh = torch.Generator().manual_seed(1), np.random.default_rng(1), np.random.RandomState(1), random.Random(1)
    assert torch.equal(space["generator"].get_state(), fresh[0].get_state())
    assert space["of_numpy"].bit_generator.state == fresh[1].bit_generator.state
    assert space["older"].rand() == fresh[2].rand() and space["plain"].getstate() == fresh[3].getstate()


@pytest.mark.parametrize("kind", ["def f(column, row, *a, cache=[])", "def f(column, row, cache=[])"])
def test_a_default_that_remembers_is_called_twice_in_a_row(kind):
    """Put back after each call, and so not seen by the next input; two calls with one input do see it."""
    space = {"torch": torch, "__name__": "a_page"}
    exec(f"{kind}:\n cache.append(1)\n return torch.outer(column, row) * len(cache)", space)
    report = checks.check("outer_product", space["f"])
    assert "called again with the same input" in report.text and report.mistake is None


def test_random_numbers_of_a_generator_are_the_same_in_each_call():
    seen, generator = queue.SimpleQueue(), torch.Generator().manual_seed(7)

    def outer_product(column, row):
        seen.put(float(torch.rand(1, generator=generator)))
        return RIGHT(column, row)

    assert checks.check("outer_product", outer_product).passed
    numbers = [seen.get() for _ in range(seen.qsize())]
    assert len(numbers) > 50 and len(set(numbers[:-1])) == 1 and numbers[-1] != numbers[0]  # two calls in a row


def test_putting_back_costs_little():
    """Each call is followed by it: what is compared is a few thousand names, not the whole of torch.

    In a fresh process: a test session has imported more of the library than a page has.
    """
    code = (
        "from lab_utils import checks; from lab_utils.checks.namespaces import Kept; parts = Kept(lambda x: x)._parts; "
        "print(sum(len(p.before) for p in parts if isinstance(getattr(p, 'before', None), dict)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 25_000


def test_what_is_looked_at_in_one_go_holds_the_same_objects_again():
    """An equal object is another one, and so is the same object under another name."""
    class Kind:
        one = [1]

    first, second, kept = {"a": [1.5], "b": [2]}, {"c": [3]}, Kind.one
    held, parts = (first["b"], second["c"]), [Names(first), Names(second), Attributes(Kind)]
    many = Many(parts)
    many.restore()
    for change in (
        lambda: first.update(b=[2]), lambda: first.pop("b"), lambda: second.update(d=second.pop("c")),
        lambda: setattr(Kind, "one", [1]), lambda: delattr(Kind, "one"), lambda: first.update(a=[1.5], b=[2]),
    ):  # fmt: skip
        change()
        many.restore()
        assert (first["b"], second["c"]) == held and first["b"] is held[0] and second["c"] is held[1]
        assert first["a"] is parts[0].before["a"] and Kind.one is kept
