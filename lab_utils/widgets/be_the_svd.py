"""Be the SVD: a table, and a column and a row to drag until their product comes near it."""

import torch
import traitlets

from .. import plots
from ..errors import LabError, real
from ..lowrank import best_rank_r, relative_error
from .explorer import FOLDER, STYLE, Explorer, on_cpu, script

QUESTION = "How far down do you get the error by hand?"
SIDE = 8  # rows or columns that a hand can still set
NEAR = 5e-4  # an error this close to the best is called the best


class BeTheSVD(Explorer):
    """A table whose best column and row are looked for by hand; a button shows the SVD's.

    Parameters
    ----------
    table : Tensor (rows, columns), up to 8 × 8, no entry below zero and one above

    Attributes
    ----------
    column, row : list of float, what the reader set: one number for each row, and for each column, of the table
    best : dict of "column", "row" and "error", of the best fit of rank 1; its row is as long as a row of ones

    Raises
    ------
    LabError
        Not such a table; or a column or row of other lengths, or with a number out of reach.
    """

    _esm = script("be_the_svd")
    _css = STYLE + (FOLDER / "be_the_svd.css").read_text(encoding="utf-8")
    _moved = ("column", "row")
    table = traitlets.List().tag(sync=True)
    highest = traitlets.Dict().tag(sync=True)
    best = traitlets.Dict().tag(sync=True)
    column = traitlets.List().tag(sync=True)
    row = traitlets.List().tag(sync=True)

    def __init__(self, table, question: str = QUESTION, choices=("below 20 %", "below 10 %", "below 5 %")):
        self._table = on_cpu(table, "table")
        _refuse(self._table)
        rows, columns = self._table.shape
        top = max(1.0, -(-5 * float(self._table.max()) // 4))
        middle = round(float(self._table.mean()), 1)
        super().__init__(
            table=self._table.tolist(), highest={"column": top, "row": 2.0}, best=_best(self._table),
            column=[middle] * rows, row=[1.0] * columns, question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("column", "row")
    def _possible(self, proposal):
        name, values = proposal["trait"].name, proposal["value"]
        count = self._table.shape[0 if name == "column" else 1]
        if len(values) != count:
            raise LabError(f"{name} has {len(values)} numbers: the table needs {count}.")
        return [real(f"{name}[{at}]", value, "a number of 0 or more", zero=True) for at, value in enumerate(values)]

    def product(self) -> torch.Tensor:
        """The column times the row, (rows, columns)."""
        return torch.tensor(self.column)[:, None] * torch.tensor(self.row)[None, :]

    def error(self) -> float:
        """How far off the product is, as a share of the table's size."""
        return relative_error(self._table, self.product())

    def summary(self) -> str:
        miss = self._table - self.product()
        at = int(miss.abs().argmax())
        place = f"row {at // miss.shape[1] + 1}, column {at % miss.shape[1] + 1}"
        end = " No column times a row comes closer." if self.error() < self.best["error"] + NEAR else ""
        return f"Relative error {100 * self.error():.1f} %. Largest miss {float(miss.flatten()[at]):.2f}, {place}.{end}"

    def figure(self):
        miss, dearest = self._table - self.product(), float(self._table.max())
        return plots.matrices(
            {"the table": self._table, "column times row": self.product(), "what is missing": miss},
            limit=[dearest, dearest, max(1.0, float(miss.abs().max()))], numbers=True, inches=3.7,
        )  # fmt: skip


def _refuse(table: torch.Tensor) -> None:
    """Raise a LabError for a table that no hand can fit."""
    shape = " × ".join(map(str, table.shape)) or "one number"
    if table.dim() != 2 or not all(1 <= side <= SIDE for side in table.shape):
        raise LabError(f"table is {shape}: give a matrix of 1 to {SIDE} rows and columns.")
    if not bool(table.isfinite().all()) or bool((table < 0).any()) or not bool(table.any()):
        raise LabError("table needs finite numbers of zero or more, and one above zero.")


def _best(table: torch.Tensor) -> dict:
    """The best fit of rank 1; its row is as long as one of ones, to be compared with what a hand sets."""
    B, A = best_rank_r(table, 1)
    scale = float(A.norm()) / A.shape[1] ** 0.5
    return {
        "column": (B[:, 0] * scale).clamp_min(0).tolist(), "row": (A[0] / scale).clamp_min(0).tolist(),
        "error": relative_error(table, B @ A),
    }  # fmt: skip
