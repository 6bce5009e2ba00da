"""The code explorer of page 06: the browser's arithmetic is Python's, and levels move by mouse, keys and presets."""

import json
import random
import subprocess

import alone
import numpy as np
import pytest
import torch
from shown import node, shown

from lab_utils import nf4
from lab_utils.errors import LabError
from lab_utils.widgets import explorer as frame
from lab_utils.widgets.code_explorer import BLOCKSIZES, CodeExplorer, codes

needs_node = pytest.mark.skipif(node() is None, reason="no node and no Playwright")
RUN = """
let text = "";
for await (const part of process.stdin) text += part;
const { cases, starts } = JSON.parse(text);
console.log(JSON.stringify(cases.map(({ values, size, levels }) => {
  const blocks = prepare(Float32Array.from(values), size), fitted = lloydMax(blocks, starts);
  return { ...measure(blocks, levels), zero: zeroPoint(blocks).error, fitted, least: measure(blocks, fitted).error };
})));
"""


def weights(count: int = 4096, seed: int = 0) -> torch.Tensor:
    return 0.02 * torch.randn(count, generator=torch.Generator().manual_seed(seed))


def made(**settings) -> CodeExplorer:
    return CodeExplorer({"one": weights().reshape(64, 64), "short": weights(1000, 1)}, **settings)


def some_levels(chance: random.Random) -> list[float]:
    return sorted(chance.uniform(-1, 1) for _ in range(16))


@needs_node
def test_the_browsers_arithmetic_is_pythons(tmp_path):
    """Random levels and block sizes; a short last block, blocks of zeros and equal levels among them."""
    chance, cases = random.Random(0), []
    for count, size in ((4096, 16), (4096, 64), (4096, 1024), (4000, 512), (100, 4096)):
        weight = weights(count, count + size)
        weight[:32] = 0
        levels = some_levels(chance)
        cases.append((weight, size, [*levels[:14], levels[14], levels[14]]))
    starts = [code.tolist() for code in (nf4.nf4_code(), nf4.af4_code(), nf4.even_code())]
    file = tmp_path / "levels.mjs"
    file.write_text((frame.FOLDER / "levels.js").read_text(encoding="utf-8") + RUN, encoding="utf-8")
    given = {"starts": starts, "cases": [{"values": w.tolist(), "size": s, "levels": one} for w, s, one in cases]}
    text = json.dumps(given)
    done = subprocess.run([node(), str(file)], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for (weight, size, levels), found in zip(cases, json.loads(done.stdout), strict=True):
        levels, fitted = torch.tensor(levels, dtype=torch.float64), torch.tensor(found["fitted"], dtype=torch.float64)
        assert found["error"] == pytest.approx(nf4.levels_error(weight, levels, size), rel=1e-9)
        assert found["zero"] == pytest.approx(nf4.zeropoint_error(weight, size), rel=1e-9)
        assert found["least"] == pytest.approx(nf4.levels_error(weight, fitted, size), rel=1e-9)
        assert np.abs(fitted.numpy() - nf4.lloyd_max(weight, size).numpy()).max() < 1e-7
        index = torch.bucketize(nf4.divided(weight, size)[0], (levels[1:] + levels[:-1]) / 2)
        assert found["used"] == pytest.approx((index.bincount(minlength=16).double() / len(weight)).tolist(), abs=1e-12)
        assert sum(found["missed"]) == pytest.approx(1)


@needs_node
def test_the_sentence_says_what_python_says():
    explorer, chance = made(), random.Random(1)
    moves = [{}, {"compared": True}]
    moves += [
        {"levels": some_levels(chance), "blocksize": chance.choice(BLOCKSIZES), "level": chance.randint(1, 16),
         "weight": chance.choice(["one", "short"])}
        for _ in range(4)
    ]  # fmt: skip
    for move, seen in zip(moves, shown(explorer, moves), strict=True):
        for name, value in move.items():
            setattr(explorer, name, value)
        said = explorer.summary().removeprefix("Code explorer, y").replace("%", " %")
        assert seen["sentence"] == f"Y{said}"


def test_the_errors_are_those_of_the_weights_that_were_given():
    """Whole numbers of steps are sent to the browser; at this size that changes no digit that is shown."""
    explorer, weight = made(blocksize=128), weights()
    for name, error in explorer.errors().items():
        if name in codes():
            assert error == pytest.approx(nf4.levels_error(weight, codes()[name], 128), abs=2e-6)
    assert explorer.errors()["zero-point"] == pytest.approx(nf4.zeropoint_error(weight, 128), abs=3e-4)


def test_the_bits_are_those_of_what_is_stored():
    explorer = made(blocksize=64)
    assert explorer.bits() == {"index": 4, "scale": 0.5, "levels": 512 / 4096, "total": 4.625}
    stored = nf4.quantize_4bit(weights(), blocksize=64)
    assert stored.bits_per_parameter == 4 + explorer.bits()["scale"]
    large = CodeExplorer({"large": torch.ones(300, 300)}, blocksize=4096)
    assert large.bits()["levels"] == 512 / 90_000 and len(large._weights["large"]) == 32_768


def test_copies_become_the_readers_own_levels():
    explorer = made()
    assert explorer.levels == nf4.even_code().tolist()
    for name, code in codes().items():
        explorer.copy(name)
        assert explorer.errors()["yours"] == pytest.approx(explorer.errors()[name])
        assert explorer.levels.count(0.0) == 17 - len(code.unique())  # +0 and −0 of FP4 are two already
    explorer.copy("Lloyd-Max")
    errors = explorer.errors()
    assert errors["yours"] == errors["Lloyd-Max"] == min(errors[name] for name in errors if name != "zero-point")
    assert made(code="NF4").levels == nf4.nf4_code().tolist() == made(code="NF4").start["levels"]
    with pytest.raises(LabError, match="NF8"):
        explorer.copy("NF8")


def test_levels_are_sorted_and_bad_ones_named():
    explorer = made()
    explorer.levels = [0.5, *nf4.even_code().tolist()[:15]]
    assert explorer.levels == sorted(explorer.levels) and explorer.levels[15] == pytest.approx(13 / 15)
    for bad in ([0.0] * 15, [0.0] * 15 + [1.5], [0.0] * 15 + [float("nan")], "NF4"):
        with pytest.raises(LabError, match="levels"):
            explorer.levels = bad
    with pytest.raises(LabError, match="two"):
        made(weight="two")


@pytest.fixture(scope="module")
def page():
    with alone.shown(made()) as page:
        yield page


@pytest.mark.browser
def test_levels_move_by_mouse_keys_and_presets_and_undo_takes_each_back(page):
    now = "() => [model.get('level'), ...model.get('levels')]"
    start, strip = page.evaluate(now), page.locator(".lab-strip")
    strip.focus()
    page.keyboard.press("ArrowRight")  # level 9: 0.067 + 0.005
    assert page.evaluate(now)[9] == pytest.approx(0.072) and page.evaluate(now)[0] == 9
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Control+z")
    assert page.evaluate(now)[9] == pytest.approx(0.072)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("PageUp")  # level 10: 0.2 + 0.05
    assert page.evaluate(now)[0] == 10 and page.evaluate(now)[10] == pytest.approx(0.25)
    assert "level 10 of 16, at 0.250" in strip.get_attribute("aria-valuetext")

    box = strip.bounding_box()
    across = lambda value: box["x"] + box["width"] * (14 + (value + 1) / 2 * 544) / 572  # noqa: E731
    page.mouse.move(across(1.0), box["y"] + 40)
    page.mouse.down()
    page.mouse.move(across(0.5), box["y"] + 40, steps=5)
    page.mouse.move(across(0.3), box["y"] + 90, steps=5)  # past five others: they keep their order
    page.mouse.up()
    level, *levels = page.evaluate(now)
    assert levels == sorted(levels) and levels[level - 1] == pytest.approx(0.3, abs=0.01) and max(levels) < 0.9

    page.get_by_role("button", name="NF4").click()
    assert page.evaluate(now)[1:] == pytest.approx(nf4.nf4_code().tolist())
    undo = page.get_by_role("button", name="Undo")
    undo.click()
    assert page.evaluate(now)[1:] == levels
    for _ in range(3):  # the drag is one, and two keys
        undo.click()
    assert page.evaluate(now)[1:] == start[1:] and undo.get_attribute("aria-disabled") == "true"
    page.get_by_role("button", name="best fit").click()
    assert page.evaluate(now)[1:] == pytest.approx(made(code="Lloyd-Max").levels, abs=1e-7)
    page.get_by_role("button", name="Reset").click()
    assert page.evaluate(now)[1:] == start[1:]
    assert page.errors == []


@pytest.mark.browser
def test_others_errors_are_hidden_at_first_and_everything_fits_on_a_small_screen(page):
    rows, sentence = page.locator(".lab-levels text"), page.locator(".lab-summary")
    assert rows.all_text_contents().count("?") == 7 and "NF4" not in sentence.inner_text()
    page.get_by_label("show the others").check()
    assert "?" not in rows.all_text_contents() and "NF4" in sentence.inner_text()
    page.evaluate("document.querySelector('main').style.width = '856px'")  # JupyterLab's page at 1024 × 768
    tall = page.evaluate(
        """() => document.querySelector('.lab-summary').getBoundingClientRect().bottom
          - document.querySelector('.lab-controls').getBoundingClientRect().top"""
    )
    assert tall < 640  # what JupyterLab leaves of 768
