"""The recorded merges: what the file says is what the page may say, and a damaged file is named."""

import json

import pytest

from lab_utils.errors import LabError
from lab_utils.recorded import requantized_merges
from lab_utils.recorded.requantization import DESTINATIONS, FILE, GRIDS, NO_ADAPTER, SHIFTED
from lab_utils.scores import wilson


def line(grid, into, **changes) -> dict:
    left = {} if into == NO_ADAPTER else dict.fromkeys(("kept", "noise", "cosine", "changed"), 0.5)
    return {"grid": grid, "destination": into, "loss": 0.1, "right": 3, "messages": 4, "seconds": 1.0,
            "provenance": {}, **left, **changes}  # fmt: skip


def write(folder, lines) -> None:
    (folder / FILE).write_text("".join(f"{json.dumps(one)}\n" for one in lines), encoding="utf-8")


def test_what_page_10_says_of_the_recorded_merges_is_so():
    table = requantized_merges()
    assert table["NF4", SHIFTED].right > 20 > table["NF4", "FP4"].right == 0  # the same format, with other scales
    for grid in {grid for grid, _ in table}:
        whole = table[grid, "float32"]
        assert whole.kept == pytest.approx(1) and whole.noise < 1e-6 and whole.right > 0.5 * whole.messages
        assert table[grid, "float16"].right >= whole.right - 2 and table[grid, "Q8_0"].right >= whole.right - 2
        own = table[grid, grid]
        assert table[grid, NO_ADAPTER].right == 0
        if grid.startswith(("NF4", "Q4", "FP4")):  # four bits: a step is larger than the update
            assert own.right == 0 and own.kept < 0.2
    for grid, into in (("NF4", "Q4_0"), ("NF4", "Q4_1"), ("Q4_1", "NF4"), ("Q4_1", "Q4_0")):
        assert table[grid, into].right >= 30 and table[grid, into].cosine < 0.2  # the cosine foretells nothing
    assert all(one.messages == 40 and one.provenance["versions"] for one in table.values())


def test_what_page_10_says_of_the_share_that_arrives_and_what_it_costs():
    table = requantized_merges()
    four_bits = ("NF4", "FP4", "Q4_0", "Q4_1")
    assert all(0.025 < table[grid, grid].kept < 0.105 for grid in four_bits)  # 3 to 10 %
    assert all(0.4 < table[grid, grid].loss / table[grid, NO_ADAPTER].loss < 0.6 for grid in ("FP4", "Q4_1"))
    pairs = [(grid, into) for grid in four_bits for into in four_bits if grid != into]
    fewer = {pair: table[pair[0], "float32"].right - table[pair].right for pair in pairs}
    good = [pair for pair in pairs if fewer[pair] <= 5]
    bad = sorted(set(pairs) - set(good))
    assert len(good) == 8 and bad == [("FP4", "NF4"), ("FP4", "Q4_0"), ("NF4", "FP4"), ("Q4_0", "FP4")]
    assert min(fewer[pair] for pair in bad) == 19 and {("FP4", "Q4_1"), ("Q4_1", "FP4")} < set(good)
    cost = [table[pair].loss / table[pair[0], "float32"].loss for pair in good]
    assert min(cost) == pytest.approx(1.3, abs=0.05) and max(cost) == pytest.approx(2.5, abs=0.05)
    assert {pair for pair in pairs if _holds_zero(table[pair], table[pair[0], "float32"])} == set(good)
    lost, control = table["NF4", "FP4"], table["NF4", SHIFTED]
    assert (round(lost.kept, 2), lost.right, control.right) == (1.35, 0, 32) and control.noise > lost.noise
    assert max(table[pair].kept for pair in bad) == lost.kept
    for grid, into in table:
        if into in ("Q8_0", "int8", "float16") and grid != into:
            assert table[grid, into].kept == pytest.approx(1, abs=0.005)
            assert table[grid, "float32"].right - table[grid, into].right <= 1


def _holds_zero(one, whole) -> bool:
    """Does Newcombe's interval of the difference of two independent shares hold zero? Both ends by hand."""
    first, second = wilson(one.right, one.messages), wilson(whole.right, whole.messages)
    gap = first.value - second.value
    down = ((first.value - first.low) ** 2 + (second.high - second.value) ** 2) ** 0.5
    up = ((first.high - first.value) ** 2 + (second.value - second.low) ** 2) ** 0.5
    return gap - down < 0 < gap + up


def test_a_grid_that_is_not_complete_is_left_out(tmp_path):
    cells = [line(grid, into) for grid in GRIDS[:2] for into in DESTINATIONS] + [line(GRIDS[2], "NF4")]
    write(tmp_path, cells)
    assert {grid for grid, _ in requantized_merges(tmp_path)} == set(GRIDS[:2])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cells: cells[:9], lambda cells: cells[:-1], lambda cells: [*cells, line("NF4", "NF4", messages=5)],
        lambda cells: [*cells[:-2], line(GRIDS[1], "float32", loss=float("nan")), cells[-1]],
        lambda cells: [line("NF4", "NF4", colour="red"), *cells[1:]],
    ],
)  # fmt: skip
def test_a_damaged_record_is_named_with_its_way_out(tmp_path, spoil):
    write(tmp_path, spoil([line(grid, into) for grid in GRIDS[:2] for into in DESTINATIONS]))
    with pytest.raises(LabError, match=r"record_requantization\.py"):
        requantized_merges(tmp_path)
