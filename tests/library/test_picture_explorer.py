"""The picture explorer and the recorded pictures behind it: laws of the record, and the browser against Python."""

import json
import re

import alone
import numpy as np
import pytest
from choosing_explorers import picture_explorer, picture_samples

from lab_utils import plots
from lab_utils.errors import LabError
from lab_utils.recorded.pictures import FOLDER, load_samples
from lab_utils.widgets.picture_explorer import PictureExplorer


@pytest.fixture(scope="module")
def recorded():
    return load_samples()


@pytest.fixture
def folder(tmp_path):
    """The small samples as files."""
    samples = picture_samples()
    (tmp_path / "samples.png").write_bytes(samples.png())
    record = {name: getattr(samples, name) for name in ("size", "ranks", "strengths", "prompts", "adapters")}
    (tmp_path / "samples.json").write_text(json.dumps(record))
    return tmp_path


def test_what_was_written_is_read(folder):
    samples, read = picture_samples(), load_samples(folder)
    assert np.array_equal(samples.sheet, read.sheet) and samples.adapters == read.adapters
    assert (samples.size, samples.ranks, samples.strengths, samples.prompts) == (
        read.size, read.ranks, read.strengths, read.prompts,
    )  # fmt: skip


def test_a_picture_is_cut_from_its_place():
    """A sheet whose every pixel tells its own place."""
    samples = picture_samples()
    rows, columns = np.indices(samples.sheet.shape[:2])
    samples.sheet[:] = np.stack([rows, columns, 0 * rows], axis=-1)
    pictures = samples.pictures(2, 1.0)  # rank number 1, strength number 2: row 1 · 4 + 2
    assert pictures.shape == (2, 6, 6, 3)
    assert pictures[0, 0, 0].tolist() == [36, 0, 0] and pictures[1, 5, 2].tolist() == [41, 8, 0]


def test_the_change_is_the_mean_distance_from_the_base():
    samples = picture_samples()
    samples.sheet[:] = 100
    samples.sheet[6:12] = 151  # rank 1, strength 0.5
    assert samples.change(1, 0.5) == pytest.approx(0.2) and samples.change(1, 0.0) == samples.change(2, 0.5) == 0
    samples.sheet[6:12] = 49  # darker is as far
    assert samples.change(1, 0.5) == pytest.approx(0.2)


@pytest.mark.parametrize("change, words", [
    (lambda record: record.update(prompts=["one"]), r"not \(72, 6\)"),
    (lambda record: record.update(ranks=[1, 4, 2]), r"ranks \[1, 4, 2\] do not ascend"),
    (lambda record: record.update(strengths=[0.1, 0.5, 1.0, 1.5]), "strength 0, the base alone, is missing"),
    (lambda record: record["adapters"].pop("2"), "KeyError"),
    (lambda record: record["adapters"]["4"].update(loss=float("nan")), "rank 4 has loss nan"),
    (lambda record: record.pop("size"), "size"),
])  # fmt: skip
def test_a_damaged_record_is_named_with_its_fix(folder, change, words):
    file = folder / "samples.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    with pytest.raises(LabError, match=rf"{words}.*git checkout"):
        load_samples(folder)


@pytest.mark.parametrize("name", ["samples.json", "samples.png"])
def test_a_file_that_is_missing_or_cut_short_is_named(folder, name):
    whole = (folder / name).read_bytes()
    for left in (whole[: len(whole) // 2], None):
        (folder / name).unlink()
        if left is not None:
            (folder / name).write_bytes(left)
        with pytest.raises(LabError, match="git checkout"):
            load_samples(folder)


# What was recorded


def test_at_strength_0_an_adapter_changes_nothing_whatever_its_rank(recorded):
    base = recorded.pictures(recorded.ranks[0], 0.0).astype(int)
    for rank in recorded.ranks[1:]:
        assert np.abs(recorded.pictures(rank, 0.0) - base).max() <= 2  # of 255: rounding


def test_at_strength_1_every_adapter_shows(recorded):
    assert all(recorded.change(rank, 1.0) > 0.02 for rank in recorded.ranks)


def test_the_numbers_trained_go_with_the_rank_and_fit_into_the_file(recorded):
    for rank in recorded.ranks:
        adapter = recorded.adapters[rank]
        assert adapter["trainable_parameters"] * recorded.ranks[0] == (
            recorded.adapters[recorded.ranks[0]]["trainable_parameters"] * rank
        )
        assert adapter["file_bytes"] >= 2 * adapter["trainable_parameters"]


def test_the_record_is_small_and_says_how_it_was_made():
    record = json.loads((FOLDER / "samples.json").read_text(encoding="utf-8"))
    assert record["command"].startswith("python data/record_pictures.py") and record["machine"]
    assert sum(path.stat().st_size for path in FOLDER.glob("samples.*")) < 2**20


# The explorer


def test_the_explorer_starts_with_the_smallest_rank_at_full_strength():
    explorer = picture_explorer()
    assert (explorer.rank, explorer.strength, explorer.choices) == (1, 1.0, ["1", "2", "4"])
    assert "1,200 numbers were trained, 5.0 kB in a file, training loss 0.1000" in explorer.summary()
    explorer.strength = 0
    assert explorer.summary().endswith("the 2 pictures differ from the base's by 0.0 %.")


def test_the_static_picture_shows_the_base_above_the_adapter():
    explorer = picture_explorer()
    samples = picture_samples()
    explorer.rank, explorer.strength = 4, 0.5
    axes = explorer.figure().axes
    assert [one.get_title().replace("\n", " ") for one in axes[:2]] == list(samples.prompts)
    shown = [one.images[0].get_array() for one in axes]
    expected = [*samples.pictures(4, 0.0), *samples.pictures(4, 0.5)]
    assert all(np.array_equal(*both) for both in zip(shown, expected, strict=True))
    assert plots.png(explorer.figure()).startswith(b"\x89PNG")


COLOURS = """all => all.map(one => {
  const data = one.getContext('2d').getImageData(0, 0, one.width, one.height).data, found = new Set();
  for (let i = 0; i < data.length; i += 4) found.add(data.slice(i, i + 3).join());
  return [...found]; })"""


@pytest.mark.browser
def test_the_browser_says_and_shows_what_python_does():
    """All twelve states (about four seconds)."""
    explorer, samples = picture_explorer(), picture_samples()
    states = [{"rank": rank, "strength": strength} for rank in samples.ranks for strength in samples.strengths]
    with alone.shown(explorer) as page:
        page.wait_for_function("document.querySelector('.lab-summary').textContent")
        texts = alone.sentences(page, states)
        canvases = page.locator(".lab-sample canvas")
        colours = canvases.evaluate_all(COLOURS)
        labels = [one.get_attribute("aria-label") for one in canvases.all()]
        bold = page.locator(".lab-chosen th").inner_text()
        assert page.errors == []
    for state, text in zip(states, texts, strict=True):
        explorer.rank, explorer.strength = state.values()
        said, shown = explorer.summary().removeprefix("Picture explorer, r"), text.removeprefix("R")
        assert re.sub(r"by [\d.]+ %", "", shown) == re.sub(r"by [\d.]+ %", "", said)
        change = [float(re.search(r"by ([\d.]+) %", one)[1]) for one in (shown, said)]
        assert change[0] == pytest.approx(change[1], abs=0.11)
    assert labels[:2] == ["a red house: base", "a red house: rank 4, strength 1.5"] and bold == "4"
    # The last state is seen, and enlarging has taken nothing from a neighbour on the sheet.
    base, last = samples.pictures(4, 0.0), samples.pictures(4, 1.5)
    expected = [one[0, 0] for pair in zip(base, last, strict=True) for one in pair]
    assert colours == [[",".join(map(str, colour))] for colour in expected]


@pytest.mark.browser
def test_sliders_and_sentence_are_on_one_screen_of_1024_by_768():
    with alone.shown(PictureExplorer()) as page:
        page.evaluate("document.querySelector('main').style.width = '856px'")  # JupyterLab's page at that width
        page.wait_for_function("document.querySelector('.lab-summary').textContent")
        end = page.locator(".lab-summary").bounding_box()
        top = page.get_by_label("rank", exact=True).bounding_box()["y"]
        assert end["y"] + end["height"] - top < 640  # what JupyterLab leaves of 768
