"""Low rank: the best thin factors of a matrix, how far off they are, and what share of it they hold.

Every decomposition is computed in float64, whatever the weight's dtype: the small singular values of a float32 matrix
are then its own and not rounding errors of the algorithm. Factors are returned in the weight's dtype, measurements
(singular values, energy) in float64.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from .errors import LabError, whole

DTYPES = (torch.float32, torch.float64)
NEARLY = 1 - 1e-6  # entries this close to the largest of a column count as equally large
RANKS = (1, 2, 4, 8, 16, 32, 64)  # at which `energy_shares` measures


def best_rank_r(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two thin matrices whose product is closest to `weight`.

    Parameters
    ----------
    weight : float32 or float64 Tensor, shape (out, in), finite
    rank : int, 0 to min(out, in)

    Returns
    -------
    B : Tensor, shape (out, rank), in the weight's dtype
    A : Tensor, shape (rank, in), in the weight's dtype
        `B @ A` has the smallest Frobenius error that any product of this rank can have. Each singular value is
        split evenly: column i of B and row i of A both have length √σᵢ. The signs are fixed: in every column of B
        the entry of largest magnitude is positive (the first of them, if several are equally large). Where singular
        values are equal, the best fit is not unique and one of them is returned. Rank 0 gives empty factors whose
        product is all zeros.

    Raises
    ------
    LabError
        `rank` is not a whole number or out of range; `weight` is not a matrix, is empty, holds NaN or infinity, or has
        another dtype.

    Source: Eckart and Young 1936, "The approximation of one matrix by another of lower rank", Psychometrika 1.

    >>> B, A = best_rank_r(torch.tensor([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0]]), rank=1)
    >>> B.tolist(), A.tolist()  # √4 on either side; the direction of length 3 is dropped
    ([[2.0], [0.0]], [[2.0, 0.0, 0.0]])
    """
    matrix = _matrix("weight", weight)
    n_out, n_in = matrix.shape
    rank = whole("rank", rank, 0, min(n_out, n_in), f"the smaller side of a {n_out}×{n_in} matrix")
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    if rank:  # an SVD may flip the signs of a pair (u, v): fix them, so that every machine returns the same factors
        size = left.abs()
        first = (size >= NEARLY * size.amax(dim=0)).int().argmax(dim=0)  # (rank,) row of each column's largest entry
        signs = left.gather(0, first[None]).sign()  # (1, rank)
        left, right = left * signs, right * signs.T
    root = values.sqrt()
    return (left * root).to(weight.dtype), (root[:, None] * right).to(weight.dtype)


def relative_error(weight: Tensor, approximation: Tensor) -> float:
    """How far `approximation` is from `weight`: ‖weight − approximation‖ / ‖weight‖ in the Frobenius norm.

    Parameters
    ----------
    weight, approximation : float32 or float64 Tensor, both of shape (out, in), finite

    Returns
    -------
    float >= 0: 0 is exact, 1 is as bad as all zeros. For a zero weight it is 0 if the approximation is zero too.

    Raises
    ------
    LabError
        The shapes differ; the weight is zero and the approximation is not, which would divide by zero; or a matrix is
        not allowed (see `best_rank_r`).

    >>> weight = torch.tensor([[4.0, 0.0], [0.0, 3.0]])
    >>> relative_error(weight, torch.tensor([[4.0, 0.0], [0.0, 0.0]]))  # 3 / √(4² + 3²)
    0.6
    """
    matrix, other = _matrix("weight", weight), _matrix("approximation", approximation)
    if matrix.shape != other.shape:
        raise LabError(
            f"weight has shape {tuple(matrix.shape)} and approximation {tuple(other.shape)}: they must be equal."
        )
    largest = matrix.abs().max()
    if largest == 0:
        if other.any():
            raise LabError(
                "weight is all zeros and approximation is not: a relative error would divide by zero. "
                "Look at (weight - approximation).norm() instead."
            )
        return 0.0
    matrix, other = matrix / largest, other / largest  # now squares neither overflow nor vanish
    return float((matrix - other).norm() / matrix.norm())


def singular_values(weight: Tensor) -> Tensor:
    """The singular values of `weight`, largest first.

    Parameters
    ----------
    weight : float32 or float64 Tensor, shape (out, in), finite

    Returns
    -------
    float64 Tensor, shape (min(out, in),), each >= 0

    Raises
    ------
    LabError
        The matrix is not allowed (see `best_rank_r`).

    >>> singular_values(torch.tensor([[0.0, 3.0], [-4.0, 0.0]])).tolist()
    [4.0, 3.0]
    """
    return torch.linalg.svdvals(_matrix("weight", weight))


def energy(weight: Tensor) -> Tensor:
    """The share of the matrix that its best fits of rank 1, 2, … hold: cumulative squared singular values.

    Parameters
    ----------
    weight : float32 or float64 Tensor, shape (out, in), finite

    Returns
    -------
    float64 Tensor, shape (min(out, in),)
        Entry i is for rank i + 1; they rise, and the last is 1. One minus an entry is the squared `relative_error` of
        the best fit of that rank. A zero matrix has 1 everywhere: nothing is missing at any rank.

    Raises
    ------
    LabError
        The matrix is not allowed (see `best_rank_r`).

    >>> energy(torch.tensor([[4.0, 0.0], [0.0, 3.0]])).tolist()  # 4² / (4² + 3²), then all
    [0.64, 1.0]
    """
    values = singular_values(weight)
    if values[0] == 0:
        return torch.ones_like(values)
    total = (values / values[0]).square().cumsum(dim=0)
    return total / total[-1]


def _matrix(name: str, value) -> Tensor:
    """`value` as a float64 matrix without gradient, or a LabError that says what is wrong with it."""
    if not isinstance(value, Tensor):
        raise LabError(f"{name} is a {type(value).__name__}, not a torch tensor: use torch.as_tensor({name}).")
    if value.dtype not in DTYPES:
        raise LabError(f"{name} has dtype {value.dtype}: convert it first, with {name}.float().")
    if value.dim() != 2:
        raise LabError(f"{name} has shape {tuple(value.shape)}: a matrix with two dimensions is needed.")
    if not value.numel():
        raise LabError(f"{name} has shape {tuple(value.shape)} and no entries: there is nothing to approximate.")
    if not value.isfinite().all():
        count = int((~value.isfinite()).sum())
        raise LabError(f"{name} holds {count} of {value.numel()} entries that are NaN or infinite: fix them first.")
    return value.detach().double()


def energy_shares(spectra: Iterable[Tensor]) -> dict[int, float]:
    """The share of the squared singular values in the first r directions, for r in `RANKS`, averaged over matrices.

    Parameters
    ----------
    spectra : 1-d Tensors, singular values, descending, not all zero

    Returns
    -------
    dict rank -> float in [0, 1], to 5 decimals

    >>> shares = energy_shares([torch.tensor([4.0, 3.0])])
    >>> shares[1], shares[2]
    (0.64, 1.0)
    """
    squares = [values.double().square() for values in spectra]
    return {
        rank: round(sum((s[:rank].sum() / s.sum()).item() for s in squares) / len(squares), 5) for rank in RANKS
    }  # fmt: skip


def rank_of_energy(values: Tensor, share: float = 0.9) -> int:
    """The smallest rank whose best fit holds this share of a matrix's energy.

    Parameters
    ----------
    values : 1-d Tensor, its singular values, descending, not all zero
    share : float in (0, 1]

    Returns
    -------
    int, 1 to the number of values

    >>> rank_of_energy(torch.tensor([4.0, 3.0]), 0.64), rank_of_energy(torch.tensor([4.0, 3.0]), 0.65)
    (1, 2)
    """
    held = values.double().square().cumsum(dim=0)
    return min(int((held < share * held[-1]).sum()) + 1, len(values))


def random_spectra(shapes: Iterable[tuple[int, int]], seed: int) -> list[Tensor]:
    """The singular values of a Gaussian matrix of each shape; equal shapes share one matrix.

    Parameters
    ----------
    shapes : of (out, in)
    seed : int

    Returns
    -------
    list of float32 Tensors (min(out, in),), one for each of `shapes`

    >>> [tuple(values.shape) for values in random_spectra([(2, 3), (8, 4)], seed=0)]
    [(2,), (4,)]
    """
    shapes = [tuple(shape) for shape in shapes]
    generator = torch.Generator().manual_seed(seed)
    found = {shape: torch.linalg.svdvals(torch.randn(shape, generator=generator)) for shape in sorted(set(shapes))}
    return [found[shape] for shape in shapes]
