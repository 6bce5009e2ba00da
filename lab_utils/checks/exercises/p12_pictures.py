"""Exercises of page 12: noise on a picture, the update of a convolution, guidance by the caption."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import SIZE, Exercise, Mistake, sides, tensor_maker


def add_noise_spec(picture: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """Each picture of the batch has its own kept, the share of its variance that stays; noise has the rest."""
    noisy = torch.zeros_like(picture)
    for n in range(len(picture)):
        signal = kept[n] ** 0.5
        rest = (1 - kept[n]) ** 0.5
        noisy[n] = signal * picture[n] + rest * noise[n]
    return noisy


def add_noise(picture: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    kept = kept[:, None, None, None]
    return kept.sqrt() * picture + (1 - kept).sqrt() * noise


def convolution_update_spec(lora_A: Tensor, lora_B: Tensor, scaling: float) -> Tensor:
    """At each place of the kernel its own product: from every input channel over the ranks to every output channel."""
    (rank, in_channels, height, width), out_channels = lora_A.shape, len(lora_B)
    update = lora_A.new_zeros(out_channels, in_channels, height, width)
    for o in range(out_channels):
        for i in range(in_channels):
            for y in range(height):
                for x in range(width):
                    update[o, i, y, x] = scaling * sum(lora_B[o, k, 0, 0] * lora_A[k, i, y, x] for k in range(rank))
    return update


def convolution_update(lora_A: Tensor, lora_B: Tensor, scaling: float) -> Tensor:
    product = lora_B.flatten(1) @ lora_A.flatten(1)  # (out, in · height · width)
    return scaling * product.view(-1, *lora_A.shape[1:])


def guided_spec(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Start at the guess without the caption, and go `scale` times the way to the guess with it."""
    guess = torch.zeros_like(conditional)
    for n in range(len(guess)):
        way = conditional[n] - unconditional[n]
        guess[n] = unconditional[n] + scale * way
    return guess


def guided(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    return unconditional + scale * (conditional - unconditional)


def _each(kept):
    """A number for each picture, ready to be multiplied."""
    return kept[:, None, None, None]


def _noisy(signal=torch.sqrt, rest=lambda kept: (1 - kept).sqrt(), shape=_each):
    """add_noise with other factors, or with kept along another axis."""
    return lambda picture, noise, kept: signal(shape(kept)) * picture + rest(shape(kept)) * noise


def _update(last=lambda update: update, scaling=lambda s: s):
    """convolution_update with something done to its result, or to the scaling."""
    return lambda A, B, s: last(convolution_update(A, B, scaling(s)))


def _in_other_order(*order):
    """The product's numbers put into axes in this order, and these then back to out, in, height, width."""
    back = [order.index(axis) for axis in range(4)]
    return _update(lambda update: update.reshape([update.shape[axis] for axis in order]).permute(back))


def _product_transposed(A, B, scaling):
    return scaling * (A.flatten(1).T @ B.flatten(1).T).reshape(len(B), *A.shape[1:])


@st.composite
def _noisy_batch(draw):
    """Batches whose other axes are often as long, so that an axis taken for another is not always an error."""
    make, batch = tensor_maker(draw), draw(st.integers(1, 4))
    shape = (batch, *(draw(st.sampled_from([1, 2, batch, batch])) for _ in range(3)))
    picture, noise = make(*shape) / 4, make(*shape) / 2
    numbers = draw(st.lists(st.integers(1, 49), min_size=batch, max_size=batch))
    return picture, noise, torch.tensor(numbers, dtype=picture.dtype) / 50


@st.composite
def _convolution(draw):
    (out_channels, in_channels), rank, make = draw(sides()), draw(SIZE), tensor_maker(draw)
    height, width = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (3, 3), (2, 3)]))
    A, B = make(rank, in_channels, height, width), make(out_channels, rank, 1, 1)
    return A, B, draw(st.sampled_from([2.0, 0.5, 4.0]))


@st.composite
def _guesses(draw):
    shape, make = [draw(st.integers(1, 3)) for _ in range(4)], tensor_maker(draw)
    return make(*shape), make(*shape), draw(st.sampled_from([2.0, 7.5, 3.0, 0.5]))


_DEMO = tensor_maker(lambda _: 5, torch.float32)
_DISC = torch.tensor([[-1.0, 1, 1, -1], [1, 1, 1, 1], [1, 1, 1, 1], [-1, 1, 1, -1]]).repeat(3, 1, 1, 1)

EXERCISES = (
    Exercise(
        name="add_noise", page=12, title="Noise on a picture",
        spec=add_noise_spec, solution=add_noise, inputs=_noisy_batch(), picture=lambda noisy: noisy.flatten(0, 2),
        demo=(_DISC, _DEMO(3, 1, 4, 4) / 3, torch.tensor([0.98, 0.5, 0.02])),
        mistakes=(
            Mistake(
                "no square roots",
                "kept is a share of the variance. The numbers themselves are multiplied by its root.",
                wrong=(_noisy(lambda kept: kept, lambda kept: 1 - kept),),
            ),
            Mistake(
                "only one square root",
                "Both factors are roots: their squares add up to 1.",
                wrong=(_noisy(rest=lambda kept: 1 - kept), _noisy(lambda kept: kept)),
            ),
            Mistake(
                "1 − √kept instead of √(1 − kept)",
                "First the difference, then its root: the squares of both factors must add up to 1.",
                wrong=(_noisy(rest=lambda kept: 1 - kept.sqrt()),),
            ),
            Mistake(
                "picture and noise swapped",
                "kept belongs to the picture: at kept near 1 hardly any noise is to be seen.",
                wrong=(
                    _noisy(lambda kept: (1 - kept).sqrt(), torch.sqrt),
                    _noisy(lambda kept: 1 - kept, lambda kept: kept),
                ),
            ),
            Mistake(
                "the picture does not fade",
                "Noise does not only come on top. The picture is multiplied by √kept.",
                wrong=(_noisy(torch.ones_like),),
            ),
            Mistake(
                "the noise is not scaled",
                "The noise is multiplied by √(1 − kept).",
                wrong=(_noisy(rest=torch.ones_like),),
            ),
            Mistake("the noise forgotten", "Add √(1 − kept) times the noise.", wrong=(_noisy(rest=torch.zeros_like),)),
            Mistake(
                "kept along the wrong axis",
                "kept has one number a picture, and torch lines up axes from the last one. Give it the shape "
                "(batch, 1, 1, 1).",
                wrong=(
                    _noisy(shape=lambda kept: kept), _noisy(shape=lambda kept: kept[:, None]),
                    _noisy(shape=lambda kept: kept[:, None, None]),
                ),
            ),
            Mistake(
                "one number for the whole batch",
                "Each picture has its own kept.",
                wrong=(_noisy(shape=lambda kept: kept[0]), _noisy(shape=lambda kept: kept.mean())),
            ),
        ),
        hints=(
            "Picture and noise both have variance 1, more or less, and so has their sum. Which shares are there?",
            "The factors are the roots of the two shares of the variance. And kept has one number a picture: which "
            "axes does it lack?",
            "kept[:, None, None, None] lines up with the batch: kept.sqrt() * picture + (1 - kept).sqrt() * noise.",
        ),
        reward="Training a diffusion model is no more than that: make noise, add it, let the model say what was there.",
    ),
    Exercise(
        name="convolution_update", page=12, title="LoRA's update of a convolution",
        spec=convolution_update_spec, solution=convolution_update, inputs=_convolution(),
        picture=lambda update: update.flatten(1), demo=(_DEMO(2, 3, 3, 3), _DEMO(4, 2, 1, 1), 2.0),
        mistakes=(
            Mistake("scaling forgotten", "Multiply by scaling.", wrong=(_update(scaling=lambda s: 1.0),)),
            Mistake(
                "divided by scaling",
                "scaling is alpha / rank already. Multiply by it.",
                wrong=(_update(scaling=lambda s: 1 / s),),
            ),
            Mistake(
                "in and out swapped",
                "The weight of a convolution is (out, in, height, width): out comes first.",
                wrong=(_update(lambda update: update.transpose(0, 1)),),
            ),
            Mistake(
                "reshaped in the wrong order",
                "A reshape takes the numbers as they lie, row by row, so the axes must keep their order. Flatten all "
                "but the first axis, multiply B by A, and give the product the shape (out, in, height, width).",
                wrong=(
                    _product_transposed, _in_other_order(1, 0, 2, 3), _in_other_order(0, 2, 3, 1),
                    _in_other_order(2, 3, 0, 1), _in_other_order(2, 3, 1, 0),
                ),
            ),
            Mistake(
                "height and width swapped",
                "Leave the last two axes of A where they are.",
                wrong=(_update(lambda update: update.transpose(2, 3)), _in_other_order(0, 1, 3, 2)),
            ),
            Mistake(
                "the kernel turned round",
                "torch's convolution does not turn its kernel round. Leave height and width as they are.",
                wrong=(_update(lambda update: update.flip(2, 3)),),
            ),
            Mistake(
                "a matrix product over height and width",
                "On four axes @ multiplies over the last two. Sum over the rank: flatten A and B to matrices before.",
                wrong=(lambda A, B, s: s * (B @ A), lambda A, B, s: s * (A @ B)),
            ),
            Mistake(
                "no sum over the rank",
                "Entry (o, i) is a sum over k of B[o, k] times A[k, i], as in any matrix product.",
                wrong=(lambda A, B, s: s * (B * A), lambda A, B, s: s * B[:, 0, :, :, None] * A[0]),
            ),
        ),
        hints=(
            "A is a convolution into `rank` channels, B mixes these without looking at their neighbours. What does B "
            "do to A's kernels?",
            "Each place of the kernel is its own matrix product. With the axes after the first laid flat they are "
            "all done in one.",
            "scaling * (lora_B.flatten(1) @ lora_A.flatten(1)), which is (out, in · height · width), and then .view.",
        ),
        reward="A 3 × 3 convolution is a matrix with 9 · in columns, and LoRA treats it as one.",
    ),
    Exercise(
        name="guided", page=12, title="Guidance: further than the caption asks",
        spec=guided_spec, solution=guided, inputs=_guesses(), picture=lambda guess: guess.flatten(0, 2),
        demo=(_DEMO(1, 1, 4, 4) / 4, _DEMO(1, 1, 4, 4) / 4, 2.0),
        mistakes=(
            Mistake(
                "the two guesses swapped",
                "The way leads from the guess without the caption to the guess with it. This one leads away.",
                wrong=(lambda u, c, s: c + s * (u - c), lambda u, c, s: u - s * (c - u)),
            ),
            Mistake(
                "one more than the scale",
                "At scale 1 the caption's own guess comes out. The way begins at the guess without the caption, not at "
                "the one with it.",
                wrong=(lambda u, c, s: c + s * (c - u),),
            ),
            Mistake(
                "one less than the scale",
                "At scale 1 the caption's own guess comes out, not the one without it.",
                wrong=(lambda u, c, s: u + (s - 1) * (c - u),),
            ),
            Mistake(
                "the scale on the whole guess with the caption",
                "Multiply the difference of the two guesses, and nothing else.",
                wrong=(
                    lambda u, c, s: u + s * c, lambda u, c, s: s * c, lambda u, c, s: s * c - u,
                    lambda u, c, s: s * c + (1 + s) * u,
                ),
            ),
            Mistake(
                "the difference alone",
                "This is the way. It starts at the guess without the caption: add that.",
                wrong=(lambda u, c, s: s * (c - u),),
            ),
            Mistake("the scale forgotten", "Go `scale` times the way.", wrong=(lambda u, c, s: c,)),
        ),
        hints=(
            "What should come out at scale 0, and what at scale 1? A straight line goes through both.",
            "The line starts at `unconditional`, and its direction is the difference of the two guesses.",
            "unconditional plus scale times (conditional - unconditional).",
        ),
        reward="The model is asked twice for each step: guidance costs twice the time, and no training.",
    ),
)  # fmt: skip
