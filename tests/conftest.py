"""What the tests share: no network, a CPU, one tokenizer, models to read from, and tiny models to build."""

import functools
import inspect
import os
import re
import sys
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ.setdefault("LORA_LAB_DEVICE", "cpu")  # the same tests on a machine with a GPU; set it to cuda to use that

import pytest
from costs import LIST, Costs

SLOW_MARKERS = {"training", "notebook", "browser"}
SLOW_FIXTURES = {"nf4_base", "trainable_base"}
STARTERS = {"subprocess", "Popen", "multiprocessing", "mp", "fork", "AsyncKernelManager", "chromium"}


def pytest_addoption(parser):
    parser.addoption("--costs", help="write what each test costs to this file (tests/support/costs.py)")


def pytest_configure(config):
    if config.getoption("--costs"):
        config.pluginmanager.register(Costs(config.rootpath / config.getoption("--costs")))


def slow_lines() -> set[str]:
    """Files, tests and fixtures that tests/slow.txt names."""
    lines = LIST.read_text().splitlines() if LIST.exists() else []
    return {line for line in lines if line and not line.startswith("#")}


@functools.cache
def starts_a_process(function) -> bool:
    """Does a test or a fixture name what starts a process, itself or in one of the helpers in tests/ that it calls?"""
    seen, left = set(), [function]
    while left:
        function = left.pop()
        function = inspect.unwrap(getattr(getattr(function, "hypothesis", None), "inner_test", function))
        space = getattr(function, "__globals__", {})
        if function in seen or not str(space.get("__file__", "")).startswith(str(LIST.parent)):
            continue
        seen.add(function)
        names = names_in(function.__code__)
        if not STARTERS.isdisjoint(names):
            return True
        left += [space[name] for name in names if inspect.isfunction(space.get(name))]
    return False


def names_in(code) -> set[str]:
    """The names that a function uses, with those of the functions and comprehensions inside it."""
    inner = [constant for constant in code.co_consts if inspect.iscode(constant)]
    return set(code.co_names).union(*map(names_in, inner))


def is_slow(item, lines: set[str]) -> bool:
    """Does a test load the real model, start a process, a server, a kernel or a browser, or take long?"""
    file, test = item.nodeid.partition("::")[0], item.nodeid.partition("[")[0]
    fixtures = {name: made[-1].func for name, made in item._fixtureinfo.name2fixturedefs.items()}
    return (
        any(item.get_closest_marker(name) for name in SLOW_MARKERS)
        or not SLOW_FIXTURES.isdisjoint(fixtures)
        or any(starts_a_process(function) for function in (item.function, *fixtures.values()))
        or not lines.isdisjoint([file, test, *(f"{file}::{name}" for name in fixtures)])
    )


def pytest_ignore_collect(collection_path, config):
    """`-m "not slow"` does not even import a file of slow tests alone."""
    if config.getoption("markexpr") == "not slow" and collection_path.is_file():
        if collection_path.relative_to(config.rootpath).as_posix() in slow_lines():
            return True
    return None


def together(nodeid: str) -> str:
    """What `make test` keeps on one process: a file's tests; of an explorer, those on its page; a notebook alone."""
    file, _, test = nodeid.partition("::")
    if file.endswith("test_notebooks.py"):
        return nodeid
    if file.endswith("test_browser_explorers.py"):
        return re.search(r"\[\w+", test)[0]
    return file


def pytest_xdist_make_scheduler(config, log):
    """Share the tests out over processes by `together`; `make quick` wants none of that."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    return Together(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config, items):
    """Mark the slow tests, and put the longest first.

    On several processes whole notebooks come first, later pages, which compute longer, before earlier ones; and what
    waits for other processes before what only computes.
    """
    lines = slow_lines()
    for item in items:
        if is_slow(item, lines):
            item.add_marker("slow")
        if "/test_checks" in item.nodeid:  # a check uses the alarm that pytest-timeout would use
            item.add_marker(pytest.mark.timeout(method="thread"))
    if hasattr(config, "workerinput"):
        notebooks = [item for item in items if item.get_closest_marker("notebook")]
        waiting = [item for item in items if item.get_closest_marker("training") or item.get_closest_marker("browser")]
        files = {together(item.nodeid) for item in waiting}
        first = [*notebooks[::-1], *(item for item in items if together(item.nodeid) in files)]
        seen = set(map(id, first))
        items[:] = first + [item for item in items if id(item) not in seen]


@pytest.fixture(scope="session", autouse=True)
def threads():
    """Honour LORA_LAB_THREADS, as the lab itself does."""
    from lab_utils.device import use_threads

    return use_threads()


@pytest.fixture(autouse=True)
def prints_as_torch_does():
    """A page's cells, run in this process by a test before, may have set how tensors are printed."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_printoptions(profile="default")


@pytest.fixture(scope="session")
def tokenizer():
    """The embedded model's tokenizer."""
    from lab_utils.models.registry import load_tokenizer

    return load_tokenizer()


@pytest.fixture(scope="session")
def nf4_base():
    """The embedded model in nf4, to be read only: a test that changes a model loads its own."""
    from lab_utils.models.registry import load_base

    model, _ = load_base("smollm2-135m", "nf4", verbose=False)
    yield model
    changed = [name for name, _ in model.named_modules() if "lora" in name]
    assert not changed and not model.training, "a test changed the shared nf4_base: let it load its own"


@pytest.fixture(scope="session")
def tiny_llama():
    """A function that builds a random float32 Llama of two layers, the same one every time."""

    def build(vocabulary: int = 61, **changes):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        settings = {
            "vocab_size": vocabulary, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
            "tie_word_embeddings": True, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2,
            "pad_token_id": 2, "attn_implementation": "eager",
        }
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()

    return build


@pytest.fixture(scope="session")
def trainable_base():
    """(model, tokenizer) of the embedded model in nf4 for tests that train: each attaches its own adapter."""
    from lab_utils.models.registry import load_base

    return load_base("smollm2-135m", "nf4", verbose=False)


@pytest.fixture
def no_pictures(monkeypatch):
    """Checks draw nothing: drawing takes most of a check's time."""
    monkeypatch.setattr("lab_utils.checks.attempt_report._picture", lambda *_: (b"", ""))


@pytest.fixture
def only_the_verdict(monkeypatch, no_pictures):
    """Checks draw nothing and put nothing back after a call: for functions that change nothing outside themselves.

    test_checks.py and test_checks_kept.py check with all of it.
    """
    monkeypatch.setattr("lab_utils.checks.engine.Surroundings", lambda *_: SimpleNamespace(restore=lambda: None))
