"""Exercise of page 05: a scale for every block."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake, candidates, sides


def block_absmax_spec(weight: Tensor, blocksize: int) -> Tensor:
    """Walk along each row and keep the largest |weight| of every `blocksize` neighbours."""
    rows, columns = weight.shape
    absmax = torch.zeros(rows, columns // blocksize, dtype=weight.dtype)
    for i in range(rows):
        for j in range(columns):
            absmax[i, j // blocksize] = max(absmax[i, j // blocksize], abs(weight[i, j]))
    return absmax


def block_absmax(weight: Tensor, blocksize: int) -> Tensor:
    blocks = weight.reshape(weight.shape[0], -1, blocksize)
    return blocks.abs().amax(dim=2)


@st.composite
def _weight_and_blocksize(draw):
    """A matrix whose rows hold whole blocks; as many rows as blocks, or as a block is long, about half the time."""
    rows, blocks = draw(sides())
    blocksize = blocks if draw(st.booleans()) else draw(st.integers(1, 4))
    shape, dtype = (rows, blocks * blocksize), draw(st.sampled_from([torch.float32, torch.float64]))
    return next(candidates(draw(st.integers(0, 99)), shape, dtype)), blocksize


_OUTLIER = torch.tensor(
    [
        [0.3, -0.5, 0.1, 0.4, -0.2, 0.6, -0.9, 0.1], [0.2, 0.3, -8, 0.4, 0.5, -0.1, 0.3, 0.2],
        [-0.7, 0.2, 0.4, -0.3, 0.1, 0.2, -0.1, 0.3], [0.5, 0.1, -0.2, 0.2, -0.3, 0.4, 0.2, -0.6],
    ]
)  # fmt: skip
EXERCISES = (
    Exercise(
        name="block_absmax", page=5, title="A scale for every block",
        spec=block_absmax_spec, solution=block_absmax, inputs=_weight_and_blocksize(), demo=(_OUTLIER, 2),
        picture=lambda absmax: absmax,
        mistakes=(
            Mistake(
                "blocks along the wrong axis",
                "A block is a stretch of one row: weight[i, j], weight[i, j + 1] and so on, along the last axis.",
                wrong=(
                    lambda w, size: w.reshape(-1, size, w.shape[1]).abs().amax(1),
                    lambda w, size: w.T.reshape(w.shape[1], -1, size).abs().amax(2),
                    lambda w, size: w.T.reshape(w.shape[1], -1, size).abs().amax(2).T,
                ),
            ),
            Mistake(
                "the absolute value forgotten",
                "The weight furthest from zero may be negative: take .abs() first.",
                wrong=(
                    lambda w, size: w.reshape(len(w), -1, size).amax(2),
                    lambda w, size: w.reshape(len(w), -1, size).amax(2).abs(),
                ),
            ),
            Mistake(
                "one absmax for all",
                "With a single absmax one outlier spoils every block. Keep one number for each block.",
                wrong=(
                    lambda w, size: w.abs().max(),
                    lambda w, size: w.abs().max().expand(len(w), w.shape[1] // size),
                ),
            ),
            Mistake(
                "one absmax a row",
                "Cut each row into blocks of `blocksize` before you take the maximum.",
                wrong=(
                    lambda w, size: w.abs().amax(1), lambda w, size: w.abs().amax(1, keepdim=True),
                    lambda w, size: w.abs().amax(1, keepdim=True).expand(-1, w.shape[1] // size),
                ),
            ),
            Mistake(
                "blocksize taken as the number of blocks",
                "blocksize is how many weights a block has: reshape to (out, -1, blocksize), with blocksize last.",
                wrong=(
                    lambda w, size: w.reshape(len(w), size, -1).abs().amax(2),
                    lambda w, size: w.reshape(len(w), size, -1).abs().amax(1),
                ),
            ),
            Mistake(
                "the maximum over the blocks",
                "The maximum is to be taken within each block, over the last axis of (out, blocks, blocksize).",
                wrong=(lambda w, size: w.reshape(len(w), -1, size).abs().amax(1),),
            ),
            Mistake(
                "in one long line",
                "The numbers are right, and bitsandbytes keeps them like this. Here give them the shape (out, blocks).",
                wrong=(lambda w, size: w.reshape(-1, size).abs().amax(1),),
            ),
            Mistake(
                "the mean instead of the largest",
                "The scale has to reach the largest |weight| of its block.",
                wrong=(lambda w, size: w.reshape(len(w), -1, size).abs().mean(2),),
            ),
        ),
        hints=(
            "A row of 8 weights has 4 blocks of 2. Can you give the weight a third axis, along which a block lies?",
            "Reshape to (out, blocks, blocksize). Over which of the three axes do you take the maximum, and of what?",
            "weight.reshape(out, -1, blocksize); then .abs() and .amax over the last axis, dim=2.",
        ),
        reward="An outlier now ruins its own block only. 64 is the block that NF4 uses, on the next page.",
    ),
)  # fmt: skip
