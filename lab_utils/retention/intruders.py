"""Intruder dimensions: singular directions of a fine-tuned matrix that the matrix before had not.

Source: Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence".
https://arxiv.org/abs/2410.21228
"""

from dataclasses import dataclass, field

from ..errors import LabError, real, whole

TOP, THRESHOLD = 10, 0.5  # as peft's reduce_intruder_dimension has them


@dataclass(frozen=True)
class Likeness:
    """How like the old singular vectors are to the leading new ones.

    Attributes
    ----------
    cosines : tuple of float in [0, 1], of each leading left singular vector of the new matrix the largest absolute
        cosine with any of the old matrix's, the largest singular value first
    singular_values : tuple of float, of the new matrix, as many
    """

    cosines: tuple[float, ...]
    singular_values: tuple[float, ...] = field(repr=False)

    def intruders(self, threshold: float = THRESHOLD) -> tuple[int, ...]:
        """Indices of the vectors whose largest cosine is below the threshold."""
        return tuple(index for index, one in enumerate(self.cosines) if one < threshold)


def left_vectors(weight):
    """(U, S) of a matrix, float32: its left singular vectors as columns, its singular values falling."""
    import torch

    U, S, _ = torch.linalg.svd(weight.float(), full_matrices=False)
    return U, S


def likeness(before, after, top: int = TOP) -> Likeness:
    """Compare the leading left singular vectors of a matrix after a change with all of those before it.

    A singular vector's sign is free, so the cosine counts without it. Every new vector looks for its nearest old one.

    Parameters
    ----------
    before, after : float Tensors (out, in), not empty; or of `before` what `left_vectors` returns, computed once
    top : int >= 1, new vectors that are looked at, those of the largest singular values

    Raises
    ------
    LabError
        The shapes differ, a value is not finite, or `top` is out of range.
    """
    top = whole("top", top, 1)
    old = before[0] if isinstance(before, tuple) else before
    if after.dim() != 2 or old.shape[0] != after.shape[0] or (old is before and before.shape != after.shape):
        raise LabError(f"before {tuple(old.shape)} and after {tuple(after.shape)} must be one matrix at two times.")
    if not after.isfinite().all():
        raise LabError("The matrix after the change holds NaN or infinity: its singular vectors do not exist.")
    U, _ = before if isinstance(before, tuple) else left_vectors(before)
    new, S = left_vectors(after)
    cosines = (new[:, :top].T @ U).abs().amax(1).clamp(max=1)
    return Likeness(tuple(cosines.tolist()), tuple(S[:top].tolist()))


def intruders(before, after, threshold: float = THRESHOLD, top: int = TOP) -> tuple[int, ...]:
    """Which of the leading new singular vectors are like none of the old: their indices, the largest first.

    Parameters
    ----------
    before, after, top : as of `likeness`
    threshold : float in [0, 1], the cosine below which a vector counts as new

    Raises
    ------
    LabError
        As `likeness`, or the threshold is out of range.
    """
    return likeness(before, after, top).intruders(real("threshold", threshold, "a cosine from 0 to 1", zero=True))
