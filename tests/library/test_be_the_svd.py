"""Be the SVD: the browser says what the library computes, and no hand does better than its button."""

import pytest
import torch
from shown import node, shown

from lab_utils import lowrank
from lab_utils.errors import LabError
from lab_utils.widgets.be_the_svd import BeTheSVD

TABLE = torch.tensor([[1.0, 2, 2, 2.5, 3], [1.5, 2, 2.5, 3, 4], [1.5, 2.5, 3, 4, 4.5], [2, 3.5, 4, 5, 6]])


def hands(count: int):
    """Columns and rows as a reader might set them."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        column, row = (2 * torch.rand(side, generator=generator) for side in TABLE.shape)
        yield {"column": (2 * column).tolist(), "row": row.tolist()}


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
def test_the_browser_says_what_python_says():
    explorer = BeTheSVD(TABLE)
    settings = [*hands(6), {"column": explorer.best["column"], "row": explorer.best["row"]}]
    for setting, seen in zip(settings, shown(explorer, settings), strict=True):
        explorer.column, explorer.row = setting["column"], setting["row"]
        assert seen["sentence"] == explorer.summary()
    assert "comes closer" in explorer.summary()


def test_the_error_is_the_librarys_and_the_best_is_the_svds():
    explorer = BeTheSVD(TABLE)
    B, A = lowrank.best_rank_r(TABLE, 1)
    for hand in hands(20):
        explorer.column, explorer.row = hand["column"], hand["row"]
        made = torch.outer(torch.tensor(hand["column"]), torch.tensor(hand["row"]))
        assert explorer.error() == pytest.approx(lowrank.relative_error(TABLE, made))
        assert explorer.error() >= explorer.best["error"] and "comes closer" not in explorer.summary()
    explorer.column, explorer.row = explorer.best["column"], explorer.best["row"]
    assert explorer.product().numpy() == pytest.approx((B @ A).numpy(), abs=1e-5)
    explorer.reset()
    assert explorer.row == [1.0] * 5 and len(set(explorer.column)) == 1


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (torch.ones(9, 2), "9 × 2"), (torch.ones(3), "table is 3"), (-torch.ones(2, 2), "zero or more"),
        (torch.zeros(2, 2), "one above zero"), ("abc", "table cannot be read"),
    ],
)  # fmt: skip
def test_a_table_that_no_hand_can_fit_is_refused(table, said):
    with pytest.raises(LabError, match=said):
        BeTheSVD(table)


def test_a_column_of_another_length_is_refused():
    explorer = BeTheSVD(TABLE)
    with pytest.raises(LabError, match="column has 2 numbers: the table needs 4"):
        explorer.column = [1.0, 2.0]
    with pytest.raises(LabError, match=r"row\[1\]"):
        explorer.row = [1.0, -1.0, 1.0, 1.0, 1.0]
