"""Common mistakes on page 12, as a learner would write them: exercise -> (mistake's name, function)."""

import re

import torch
import torch.nn.functional as F


def noisy(factors):
    def wrong(picture, noise, kept):
        rows = []
        for one, other, share in zip(picture, noise, kept.tolist(), strict=True):
            a, b = factors(share)
            rows.append(a * one + b * other)
        return torch.stack(rows)

    return wrong


def kept_as_it_is(picture, noise, kept):
    return kept**0.5 * picture + (1 - kept) ** 0.5 * noise


def kept_with_one_axis(picture, noise, kept):
    signal, rest = kept.sqrt(), (1 - kept).sqrt()
    return signal.unsqueeze(1) * picture + rest.unsqueeze(1) * noise


def as_a_convolution(A, B, scaling):
    """The trick of peft, without its last step."""
    return F.conv2d(A.transpose(0, 1), B) * scaling


def kernel_first(A, B, scaling):
    rank, inside, height, width = A.shape
    product = A.reshape(rank, -1).T @ B[:, :, 0, 0].T
    return scaling * product.reshape(len(B), inside, height, width)


def places_before_channels(A, B, scaling):
    product = B.flatten(1) @ A.flatten(1)
    out, (_, inside, height, width) = len(B), A.shape
    return scaling * product.view(out, height, width, inside).permute(0, 3, 1, 2)


def summed(letters, factor=lambda scaling: scaling):
    return lambda A, B, scaling: factor(scaling) * torch.einsum(letters, B[:, :, 0, 0], A)


SEVEN = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def fitting(pattern):
    return lambda names: torch.tensor([re.fullmatch(pattern, name) is not None for name in names])


def last_parts(*allowed):
    def wrong(names):
        chosen = torch.zeros(len(names), dtype=torch.bool)
        for n, name in enumerate(names):
            chosen[n] = name.split(".")[-1] in allowed
        return chosen

    return wrong


def not_visual(names):
    return torch.tensor(["visual" not in name.split(".") for name in names])


LEARNERS = {
    "add_noise": [
        ("no square roots", noisy(lambda kept: (kept, 1 - kept))),
        ("only one square root", noisy(lambda kept: (kept**0.5, 1 - kept))),
        ("1 − √kept instead of √(1 − kept)", noisy(lambda kept: (kept**0.5, 1 - kept**0.5))),
        ("picture and noise swapped", noisy(lambda kept: ((1 - kept) ** 0.5, kept**0.5))),
        ("the picture does not fade", noisy(lambda kept: (1, (1 - kept) ** 0.5))),
        ("the noise is not scaled", noisy(lambda kept: (kept**0.5, 1))),
        ("the noise forgotten", lambda picture, noise, kept: torch.einsum("n,nchw->nchw", kept**0.5, picture)),
        ("kept along the wrong axis", kept_as_it_is),
        ("kept along the wrong axis", kept_with_one_axis),
        ("one number for the whole batch", lambda x, noise, kept: kept_as_it_is(x, noise, kept[0])),
    ],
    "convolution_update": [
        ("scaling forgotten", summed("or,rihw->oihw", lambda scaling: 1)),
        ("divided by scaling", summed("or,rihw->oihw", lambda scaling: 1 / scaling)),
        ("in and out swapped", as_a_convolution),
        ("in and out swapped", summed("or,rihw->iohw")),
        ("reshaped in the wrong order", kernel_first),
        ("reshaped in the wrong order", places_before_channels),
        ("height and width swapped", summed("or,rihw->oiwh")),
        ("the kernel turned round", lambda A, B, s: s * F.conv2d(A.flip(-1, -2).transpose(0, 1), B).transpose(0, 1)),
        ("a matrix product over height and width", lambda A, B, s: torch.matmul(B, A) * s),
        ("no sum over the rank", lambda A, B, s: B * A * s),
    ],
    "guided": [
        ("the two guesses swapped", lambda u, c, s: s * u + (1 - s) * c),
        ("one more than the scale", lambda u, c, s: (1 + s) * c - s * u),
        ("one more than the scale", lambda u, c, s: u + (1 + s) * (c - u)),
        ("one less than the scale", lambda u, c, s: c * (s - 1) + u * (2 - s)),
        ("the scale on the whole guess with the caption", lambda u, c, s: c * s + u),
        ("the scale on the whole guess with the caption", lambda u, c, s: s * c - u),
        ("the difference alone", lambda u, c, s: s * c - s * u),
        ("the scale forgotten", lambda u, c, s: u + (c - u)),
    ],
    "language_only": [
        ("the last part of the name alone", last_parts(*SEVEN)),
        ("the last part of the name alone", fitting(r".*(gate|up|down)_proj")),
        ("everything that ends with proj", fitting(".*proj")),
        ("every linear layer", fitting(r".*(_proj|qkv|attn\.proj|mlp\.[02])")),
        ("everything outside the vision tower", not_visual),
        ("everything inside the language model", fitting(r"model\.language_model\..*")),
        ("attention alone", last_parts("q_proj", "k_proj", "v_proj", "o_proj")),
        ("attention alone", fitting(r".*\.[qv]_proj")),
        ("the MLPs alone", fitting(r".*language_model.*mlp.*_proj")),
        ("the merger, too", fitting(r".*language_model.*_proj|.*merger\.mlp\.[02]")),
        ("the head, too", fitting(r".*language_model.*_proj|lm_head")),
        ("the other tower", fitting(r".*visual.*")),
    ],
}
