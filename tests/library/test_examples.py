"""The worked examples in docstrings: numbers in, numbers out. Every public function of the lowest rooms has one."""

import builtins
import doctest
import importlib
import inspect

import pytest

ALL_HAVE_ONE = ("lowrank", "quantize", "nf4.codec", "nf4.double_quant")
SOME_HAVE_ONE = (
    "facts.asking", "facts.grading", "nf4.linear", "lora.layers", "lora.states", "lora.whole_model",
    "models.quick_codes",
    "preferences.dpo", "preferences.grpo", "preferences.logprobs", "preferences.pairs", "preferences.verified",
    "variants.delta_lora", "variants.dora", "variants.lora_fa", "variants.lora_plus", "variants.pissa",
    "variants.vera", "variants.whole_model",
)  # fmt: skip
FINDER = doctest.DocTestFinder(exclude_empty=True)


@pytest.fixture(autouse=True)
def last_value(monkeypatch):
    """doctest leaves the last value in `builtins._`, where IPython takes it for somebody's own name."""
    monkeypatch.setattr(builtins, "_", None, raising=False)


def module(name: str):
    return importlib.import_module(f"lab_utils.{name}")


def public_functions(name: str) -> list[str]:
    """Names of the functions that a module defines, without those for its own use."""
    found = inspect.getmembers(module(name), lambda value: inspect.isfunction(inspect.unwrap(value)))
    return [key for key, value in found if not key.startswith("_") and value.__module__ == f"lab_utils.{name}"]


@pytest.mark.parametrize("name", ALL_HAVE_ONE + SOME_HAVE_ONE)
def test_examples_give_what_they_say(name):
    examples = [found for found in FINDER.find(module(name), module(name).__name__) if found.examples]
    assert examples
    runner = doctest.DocTestRunner()
    report: list[str] = []
    for example in examples:
        runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("name", ALL_HAVE_ONE)
def test_every_public_function_has_an_example(name):
    names = public_functions(name)
    assert names
    missing = [key for key in names if ">>> " not in getattr(module(name), key).__doc__]
    assert missing == [], f"lab_utils.{name}: give each a worked example of one or two lines"


def test_a_wrong_example_would_be_found():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1
