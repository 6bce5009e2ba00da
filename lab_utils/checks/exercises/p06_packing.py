"""Exercises of page 06: two numbers in a byte, and scales that are quantized themselves."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import SIZE, Exercise, Mistake


def pack_spec(indices: Tensor) -> Tensor:
    """Write two neighbours into one byte bit by bit: the first to the left, the second to the right."""
    packed = torch.zeros(len(indices) // 2, dtype=torch.uint8)
    for n in range(len(packed)):
        bits = f"{int(indices[2 * n]):04b}" + f"{int(indices[2 * n + 1]):04b}"
        packed[n] = int(bits, base=2)
    return packed


def pack(indices: Tensor) -> Tensor:
    first, second = indices[0::2], indices[1::2]
    return first << 4 | second


def restore_absmax_spec(codes: Tensor, code: Tensor, nested_absmax: Tensor, offset: float, blocksize: int) -> Tensor:
    """Look each number up in the code, scale it with the absmax of its block, and add the offset."""
    absmax = torch.zeros(len(codes), dtype=code.dtype)
    for n in range(len(codes)):
        absmax[n] = code[codes[n]] * nested_absmax[n // blocksize] + offset
    return absmax


def restore_absmax(codes: Tensor, code: Tensor, nested_absmax: Tensor, offset: float, blocksize: int) -> Tensor:
    return code[codes] * nested_absmax.repeat_interleave(blocksize) + offset


def _scaled(by):
    """restore_absmax with another number to scale each code with."""
    return lambda codes, code, nested, offset, size: code[codes] * by(nested, size, len(codes)) + offset


@st.composite
def _indices(draw):
    pairs = draw(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=4))
    return (torch.tensor(pairs, dtype=torch.uint8).flatten(),)


@st.composite
def _nested(draw):
    """Codes in whole blocks, a map for them, a scale for each block, an offset."""
    blocks, blocksize = draw(SIZE), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    inner = draw(st.sets(st.integers(-9, 9), min_size=1, max_size=4))
    code = torch.tensor([-10, *sorted(inner), 10], dtype=dtype) / 10
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    codes = torch.randint(len(code), (blocks * blocksize,), generator=generator)
    nested_absmax = torch.randint(1, 9, (blocks,), generator=generator).to(dtype) / 10
    return codes, code, nested_absmax, draw(st.integers(1, 30)) / 10, blocksize


_CODES = torch.tensor([0, 3, 2, 1, 3, 0, 1, 2])

EXERCISES = (
    Exercise(
        name="pack", page=6, title="Two numbers in a byte",
        spec=pack_spec, solution=pack, inputs=_indices(), picture=lambda packed: packed,
        demo=(torch.tensor([1, 2, 15, 0, 7, 8, 0, 9, 12, 3], dtype=torch.uint8),),
        mistakes=(
            Mistake(
                "nibbles swapped",
                "The first of two goes to the left, into the high four bits: shift the first one, not the second.",
                wrong=(lambda indices: indices[0::2] | indices[1::2] << 4,),
            ),
            Mistake(
                "every second number lost",
                "Each byte holds two numbers: join indices[0::2] and indices[1::2].",
                wrong=(
                    lambda indices: indices[0::2], lambda indices: indices[1::2],
                    lambda indices: indices[0::2] << 4, lambda indices: indices[1::2] << 4,
                ),
            ),
            Mistake(
                "added without a shift",
                "1 + 2 and 2 + 1 are the same byte, and nothing tells them apart. Shift the first by four bits.",
                wrong=(lambda indices: indices[0::2] + indices[1::2], lambda indices: indices[0::2] | indices[1::2]),
            ),
            Mistake(
                "a missing bracket",
                "+ is done before <<, so this shifts by 4 + second. Write (first << 4) + second, or use | for +.",
                wrong=(lambda indices: indices[0::2] << 4 + indices[1::2],),
            ),
            Mistake(
                "shifted by the wrong amount",
                "Sixteen values take four bits: << 4, which is the same as times 16.",
                wrong=tuple(
                    (lambda indices, by=by: indices[0::2] * by + indices[1::2]) for by in (2, 4, 8, 10, 15, 32, 64, 100)
                ),
            ),
            Mistake(
                "not the neighbours",
                "Byte n holds the numbers 2n and 2n + 1: take every second one, [0::2] and [1::2].",
                wrong=(
                    lambda indices: indices[: len(indices) // 2] << 4 | indices[len(indices) // 2 :],
                    lambda indices: indices[: len(indices) // 2] | indices[len(indices) // 2 :] << 4,
                ),
            ),
            Mistake(
                "& instead of |",
                "& keeps the bits that are in both. | puts two halves together.",
                wrong=(lambda indices: indices[0::2] << 4 & indices[1::2],),
            ),
        ),
        hints=(
            "A byte has eight bits, a number below 16 takes four. How do you move the first number out of the way?",
            "first << 4 moves it four bits to the left (times 16). What puts the other one into the gap?",
            "first, second = indices[0::2], indices[1::2]: shift the first by 4, and join them with |.",
        ),
        reward="Half as many bytes as numbers: this is why a 4-bit model says it has only half its parameters.",
    ),
    Exercise(
        name="restore_absmax", page=6, title="The scales have been quantized too",
        spec=restore_absmax_spec, solution=restore_absmax, inputs=_nested(), picture=lambda absmax: absmax,
        demo=(_CODES, torch.tensor([-1.0, -0.3, 0.4, 1.0]), torch.tensor([0.5, 0.2]), 1.5, 4),
        mistakes=(
            Mistake(
                "the offset forgotten",
                "The mean was taken off before the scales were quantized. Add it back, or most of the size is lost.",
                wrong=(lambda codes, code, nested, offset, size: restore_absmax(codes, code, nested, 0, size),),
            ),
            Mistake(
                "the offset subtracted",
                "It was taken off when the scales were quantized; on the way back it is added.",
                wrong=(lambda codes, code, nested, offset, size: restore_absmax(codes, code, nested, -offset, size),),
            ),
            Mistake(
                "the offset scaled too",
                "Scale first, then add: nested_absmax belongs to what is left after the mean was taken off.",
                wrong=(
                    lambda codes, code, nested, offset, size: (code[codes] + offset) * nested.repeat_interleave(size),
                ),
            ),
            Mistake(
                "the codes not looked up",
                "A code is a position in the map: the value there is code[codes].",
                wrong=(
                    lambda codes, code, nested, offset, size: codes * nested.repeat_interleave(size) + offset,
                    lambda codes, code, nested, offset, size: codes / 255 * nested.repeat_interleave(size) + offset,
                ),
            ),
            Mistake(
                "nested_absmax forgotten",
                "The map only reaches from -1 to 1. Multiply by the nested_absmax of the block.",
                wrong=(_scaled(lambda nested, size, n: 1),),
            ),
            Mistake(
                "one nested_absmax for all",
                "Each block has its own: number n belongs to nested_absmax[n // blocksize].",
                wrong=(
                    _scaled(lambda nested, size, n: nested[0]), _scaled(lambda nested, size, n: nested.max()),
                    _scaled(lambda nested, size, n: nested.mean()),
                ),
            ),
            Mistake(
                "nested_absmax in turns",
                "A block's numbers are side by side, so each nested_absmax is repeated at once: repeat_interleave, "
                "not repeat.",
                wrong=(_scaled(lambda nested, size, n: nested.repeat(size)),),
            ),
            Mistake(
                "divided by nested_absmax",
                "Quantizing divided by it, so the way back multiplies.",
                wrong=(_scaled(lambda nested, size, n: 1 / nested.repeat_interleave(size)),),
            ),
        ),
        hints=(
            "Undo three things in the opposite order: the mean was taken off, the rest scaled, and then looked up.",
            "code[codes] undoes the looking up. Each number then needs its block's nested_absmax; the mean comes last.",
            "code[codes] times nested_absmax.repeat_interleave(blocksize), plus offset.",
        ),
        reward="8 bits per scale instead of 32, and 32 more for 256 of them: that is double quantization.",
    ),
)  # fmt: skip
