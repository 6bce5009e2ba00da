"""The cluster explorer: its records are the library's bytes, and the browser computes with them as the library does."""

import itertools

import alone
import pytest

from lab_utils.memory.step import estimate
from lab_utils.widgets.cluster_explorer import CHOICES, PROCESSES, STEP, ClusterExplorer, _size, _time

PARTS = ("weights", "adapter", "optimizer", "gradients", "activations", "gathered", "transients")


def test_a_record_is_one_process_and_what_stays_whole_with_fsdp():
    records = ClusterExplorer().records
    one = records["Llama-2-7B"]["full"][0]
    whole = estimate("Llama-2-7B", "full", **STEP)
    assert one["weights"] == 2 * 6_738_415_616 == whole.weights_bytes and one["optimizer"] == 4 * one["weights"]
    assert one["kept"] == 0 == one["adapter"]  # nothing in 16 bits stays whole
    assert one["travels"] - one["gathered"] == (2 * 32 - 2) * (one["weights"] - 2 * 2 * 32_000 * 4096 - 2 * 4096) // 32
    packed = records["Llama-2-7B"]["qlora"][0]
    linears = 6_738_415_616 - 2 * 32_000 * 4096 - 65 * 4096  # without embedding, head and norms
    assert packed["kept"] == pytest.approx(linears / 64, rel=0.02)  # a byte for each block of 64, and little more
    assert set(records) == set(CHOICES["model"])


def test_sizes_and_times_have_three_digits_and_a_unit():
    sizes = [_size(count) for count in (0, 999, 9_996_000, 999_499_999, 999_500_000, 1.044e12)]
    assert sizes == ["0 B", "999 B", "10 MB", "999 MB", "1 GB", "1.04 TB"]
    assert [_time(seconds) for seconds in (157.09, 0.9995, 0.9434, 3.1e-5)] == ["157 s", "1 s", "943 ms", "31 µs"]


def test_one_process_sends_nothing_and_more_hold_less():
    explorer = ClusterExplorer(strategy="fsdp", processes=1)
    assert "Nothing is sent." in explorer.summary() and "75.5 GiB" in explorer.summary()
    assert explorer._repr_mimebundle_()
    held = []
    for explorer.processes in PROCESSES:
        held.append(explorer._memory("fsdp").total_bytes)
    assert held == sorted(held, reverse=True) and held[-1] < held[0] / 20


def test_the_question_is_answered_by_the_bytes_it_is_about():
    explorer = ClusterExplorer(model="LLaMA-65B", method="qlora", strategy="fsdp", processes=1, gpu="L4, 24 GB")
    assert "35.6 GiB on each; there is room for 19.8" in explorer.summary()
    fits = []
    for explorer.processes in (2, 4, 8):  # half of it would fit, but layers are gathered on top
        fits.append("it fits" in explorer.summary())
    assert fits == [False, True, True] and "35.6 GiB" in explorer.question and "19.8" in explorer.question
    assert ClusterExplorer().model != "LLaMA-65B"  # it does not open on its answer


def test_over_several_machines_hsdp_keeps_what_eight_hold_and_sends_gradients_alone_over_the_link():
    explorer = ClusterExplorer(method="lora", strategy="hsdp", processes=8)
    eight = explorer.summary().replace("hsdp", "fsdp")
    explorer.strategy = "fsdp"
    assert explorer.summary() == eight
    explorer.strategy, explorer.processes = "hsdp", 16
    assert "Each sends 23.3 GB inside its machine and, between machines, 9.99 MB per step" in explorer.summary()
    assert explorer.summary().split(" GiB on each")[0].endswith(eight.split(" GiB on each")[0].split(": ")[-1])
    assert explorer._repr_mimebundle_()


def states() -> list[dict]:
    """Every model with every method and strategy; the other settings in turn, so that all of them come up."""
    others = [itertools.cycle(CHOICES[name]) for name in ("processes", "rank", "link", "gpu")]
    return [
        dict(zip(CHOICES, (*main, *map(next, others)), strict=True))
        for main in itertools.product(*(CHOICES[name] for name in ("model", "method", "strategy")))
    ]


@pytest.mark.browser
def test_the_browser_says_what_python_computes():
    """Memory, verdict, bytes and seconds of 225 settings, word for word (about ten seconds)."""
    explorer = ClusterExplorer()
    for name in CHOICES:
        assert {state[name] for state in states()} == set(CHOICES[name])
    with alone.shown(explorer) as page:
        texts = alone.sentences(page, states())
        assert page.errors == []
    for state, text in zip(states(), texts, strict=True):
        for name, value in state.items():
            setattr(explorer, name, value)
        assert text == explorer.summary()


@pytest.mark.browser
def test_the_browsers_table_adds_up_from_the_librarys_parts():
    explorer = ClusterExplorer()
    read = """state => {
      for (const [name, value] of Object.entries(state)) model.set(name, value);
      return [...document.querySelectorAll('.lab-table td:nth-child(2)')].map(cell => parseFloat(cell.textContent));
    }"""
    with alone.shown(explorer) as page:
        for state in states()[::7]:
            cells = page.evaluate(read, state)
            for name, value in state.items():
                setattr(explorer, name, value)
            held = explorer._memory(state["strategy"])
            wanted = [held.parts()[part] for part in PARTS] + [held.total_bytes]
            assert cells[:-1] == pytest.approx([count / 2**30 for count in wanted], rel=0.0051), state


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_everything_fits_on_a_small_screen_and_every_part_has_a_colour_of_its_own(dark):
    with alone.shown(ClusterExplorer(method="lora"), dark) as page:
        page.evaluate("document.querySelector('main').style.width = '856px'")  # JupyterLab's page at 1024 × 768
        assert page.locator(".lab-explorer").bounding_box()["height"] < 640  # what JupyterLab leaves of 768
        colours = page.evaluate(
            "[...document.querySelectorAll('.lab-swatch')].map(one => getComputedStyle(one).backgroundColor)"
        )
        assert len(set(colours)) == len(PARTS) and "rgba(0, 0, 0, 0)" not in colours
