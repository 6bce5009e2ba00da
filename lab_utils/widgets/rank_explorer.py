"""The rank explorer: a matrix, its best approximation of a chosen rank, and what is missing."""

import torch
import traitlets

from .. import plots
from ..errors import LabError, choose
from ..lowrank import best_rank_r, singular_values
from .explorer import Explorer, on_cpu, script, to_base64

QUESTION = "From which rank on is the error of the first matrix below 6 %? And on the others: earlier or later?"


CLOSE = 25  # ranks up to here have their own places on the slider: the errors of most pictures fall there


class RankExplorer(Explorer):
    """A choice of matrices and a slider for the rank.

    Parameters
    ----------
    matrices : dict name -> Tensor (rows, columns) of any dtype and device; one without negative values is painted grey
    rank : int >= 0, to start with

    Attributes
    ----------
    matrix : str, the name of the matrix on screen
    rank : int, 0 to min(rows, columns)

    Raises
    ------
    LabError
        No matrix, none that can be read (see `on_cpu`), or a rank or name that is not there.
    """

    _esm = script("rank_explorer")
    _moved = ("matrix", "rank")
    matrices = traitlets.List().tag(sync=True)
    matrix = traitlets.Unicode().tag(sync=True)
    rank = traitlets.Int().tag(sync=True)

    def __init__(self, matrices: dict, rank: int = 1, question: str = QUESTION, choices=("2", "7", "40")):
        if not matrices:
            raise LabError("RankExplorer needs at least one matrix, as {'a name': tensor}.")
        self._weights = {name: on_cpu(weight, name) for name, weight in matrices.items()}
        self._values = {name: singular_values(weight) for name, weight in self._weights.items()}
        super().__init__(
            matrices=[_record(name, weight, self._values[name]) for name, weight in self._weights.items()],
            matrix=next(iter(matrices)), rank=rank, question=question, choices=list(choices),
        )

    @traitlets.validate("matrix")
    def _known(self, proposal):
        choose("matrix", proposal["value"], self._weights)
        return proposal["value"]

    @traitlets.validate("rank")
    def _possible(self, proposal):
        rank, largest = proposal["value"], max(min(weight.shape) for weight in self._weights.values())
        if not 0 <= rank <= largest:
            raise LabError(f"rank={rank} is out of range: 0 to {largest}.")
        return rank

    def _state(self):
        """The matrix on screen, its singular values, and the rank that it allows."""
        weight = self._weights[self.matrix]
        return weight, self._values[self.matrix], min(self.rank, *weight.shape)

    def summary(self) -> str:
        weight, values, rank = self._state()
        rows, columns = weight.shape
        squares = values.square()
        error = float((squares[rank:].sum() / squares.sum().clamp_min(1e-300)).sqrt())
        return (
            f"Rank explorer, {self.matrix}, rank {rank}: {rank * (rows + columns):,} numbers instead of "
            f"{rows * columns:,}, relative error {error:.1%}."
        )

    def figure(self):
        weight, values, rank = self._state()
        left, right = best_rank_r(weight, rank)
        return plots.approximations({"the matrix": weight, f"rank {rank}": left @ right}, values, rank)


def stops(full: int) -> list[int]:
    """The ranks on the slider, 0 to `full`: each up to `CLOSE`, then in steps of a sixth."""
    ranks = list(range(min(full, CLOSE) + 1))
    while ranks[-1] < full:
        ranks.append(min(full, ranks[-1] + max(1, ranks[-1] // 6)))
    return ranks


def _record(name: str, weight: torch.Tensor, values: torch.Tensor) -> dict:
    """What the browser needs: the singular values and, with 16 bits per number, the directions on both sides."""
    rows, columns = weight.shape
    left, right = best_rank_r(weight, min(rows, columns))
    roots = values.sqrt().clamp_min(1e-30)
    kind = "grey" if bool((weight >= 0).all()) else "signed"
    limit = float(weight.max()) if kind == "grey" else 3 * float(weight.square().mean().sqrt())
    return {
        "name": name, "rows": rows, "columns": columns, "kind": kind, "limit": limit or 1.0,
        "singular_values": values.tolist(), "ranks": stops(len(values)),
        "left": to_base64(left / roots), "right": to_base64(right / roots[:, None]),
    }  # fmt: skip
