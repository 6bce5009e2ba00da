"""Exercises of page 04: what rank and alpha do, and where dropout acts."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import ALPHA, SIZE, Exercise, Mistake, sides, tensor_maker

RANK = st.sampled_from([1, 2, 3, 4, 8, 16, 64, 256])


def scaling_spec(alpha: float, rank: int, use_rslora: bool) -> float:
    """Split alpha evenly: into `rank` parts, or into as many as the root of the rank."""
    if not use_rslora:
        return alpha / rank
    root = 1.0
    for _ in range(60):  # Heron's way to a square root
        root = (root + rank / root) / 2
    return alpha / root


def scaling(alpha: float, rank: int, use_rslora: bool) -> float:
    return alpha / (rank**0.5 if use_rslora else rank)


def alpha_for_rank_spec(alpha: float, rank: int, new_rank: int) -> float:
    """What one direction gets must stay the same: give that much to each of the new ones."""
    each = alpha / rank
    new_alpha = 0.0
    for _ in range(new_rank):
        new_alpha += each
    return new_alpha


def alpha_for_rank(alpha: float, rank: int, new_rank: int) -> float:
    return alpha * new_rank / rank


def adapter_with_dropout_spec(
    x: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: float, keep_mask: Tensor, p: float
) -> Tensor:
    """Drop entries of x, make up for them with 1/(1 - p), then go through A and B."""
    (batch, in_features), (out_features, rank) = x.shape, lora_B.shape
    y = torch.zeros(batch, out_features, dtype=x.dtype)
    for n in range(batch):
        kept = [x[n, i] / (1 - p) if keep_mask[n, i] else 0.0 for i in range(in_features)]
        for o in range(out_features):
            for k in range(rank):
                y[n, o] += scaling * lora_B[o, k] * sum(lora_A[k, i] * kept[i] for i in range(in_features))
    return y


def adapter_with_dropout(
    x: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: float, keep_mask: Tensor, p: float
) -> Tensor:
    dropped = x * keep_mask / (1 - p)
    return scaling * (dropped @ lora_A.T @ lora_B.T)


def _input(change):
    """adapter_with_dropout with another change of x."""
    return lambda x, A, B, scaling, keep, p: scaling * (change(x, keep, p) @ A.T @ B.T)


def _output(x, A, B, scaling, keep, p):
    return scaling * (x @ A.T @ B.T) * keep / (1 - p)


@st.composite
def _dropout(draw):
    """Inputs with a mask that keeps some and drops some; batch, rank and sides sometimes agree."""
    out_features, in_features = draw(sides())
    rank = draw(st.integers(1, min(out_features, in_features)))
    batch = rank if draw(st.booleans()) else draw(SIZE)
    make = tensor_maker(draw)
    keep = make(batch, in_features) > -1
    return (
        make(batch, in_features), make(rank, in_features), make(out_features, rank),
        draw(st.sampled_from([1.0, 2.0, 0.5])), keep, draw(st.sampled_from([0.5, 0.2, 0.1])),
    )  # fmt: skip


_DEMO = tensor_maker(lambda _: 5, torch.float32)

EXERCISES = (
    Exercise(
        name="scaling", page=4, title="What B·A is multiplied by",
        spec=scaling_spec, solution=scaling, inputs=st.tuples(ALPHA, RANK, st.booleans()), demo=(16, 64, True),
        mistakes=(
            Mistake("raw alpha", "Divide alpha by the rank, or by its root.", wrong=(lambda alpha, r, rs: alpha,)),
            Mistake(
                "upside down",
                "alpha is the numerator: a larger alpha makes the effect larger, a larger rank smaller.",
                wrong=(lambda alpha, r, rs: (r**0.5 if rs else r) / alpha, lambda alpha, r, rs: r / alpha),
            ),
            Mistake(
                "√ missing",
                "With use_rslora alpha is divided by the square root of the rank.",
                wrong=(lambda alpha, r, rs: alpha / r,),
            ),
            Mistake(
                "√ for both",
                "Plain LoRA divides by the rank itself; only use_rslora takes the root.",
                wrong=(lambda alpha, r, rs: alpha / r**0.5,),
            ),
            Mistake(
                "the two cases swapped",
                "use_rslora=True is the one with the root.",
                wrong=(lambda alpha, r, rs: alpha / (r if rs else r**0.5),),
            ),
            Mistake(
                "multiplied instead of divided",
                "With more directions each has to count for less: divide alpha by the rank or its root.",
                wrong=(lambda alpha, r, rs: alpha * (r**0.5 if rs else r), lambda alpha, r, rs: alpha * r),
            ),
            Mistake(
                "squared instead of rooted",
                "rsLoRA takes the square root of the rank, rank**0.5, not its square.",
                wrong=(lambda alpha, r, rs: alpha / (r**2 if rs else r),),
            ),
            Mistake(
                "rounded",
                "The scaling is a fraction: divide with /, and do not round.",
                wrong=(
                    lambda alpha, r, rs: float(alpha // (r**0.5 if rs else r)),
                    lambda alpha, r, rs: float(round(alpha / (r**0.5 if rs else r))),
                    lambda alpha, r, rs: alpha // r if not rs else alpha / r**0.5,
                ),
            ),
            Mistake(
                "always 2",
                "2 is the scaling only where alpha is twice the rank. Compute it from the arguments.",
                wrong=(lambda alpha, r, rs: 2.0,),
            ),
            Mistake(
                "√ of the whole fraction",
                "Only the rank goes under the root: α/√r, not √(α/r).",
                wrong=(lambda alpha, r, rs: (alpha / r) ** 0.5 if rs else alpha / r,),
            ),
        ),
        hints=(
            "More directions add up to a larger update. What would you divide by to make up for that?",
            "LoRA divides by the rank; rsLoRA argues that this is too much, and divides by its square root.",
            "alpha over rank, or alpha over rank**0.5 if use_rslora is true.",
        ),
        reward="You know the one number that alpha becomes. At rank 64, α/√r is eight times α/r.",
    ),
    Exercise(
        name="alpha_for_rank", page=4, title="Another rank, the same scaling",
        spec=alpha_for_rank_spec, solution=alpha_for_rank, inputs=st.tuples(ALPHA, RANK, RANK), demo=(16, 8, 32),
        mistakes=(
            Mistake(
                "alpha left as it is",
                "Then α/r shrinks as the rank grows. Let alpha grow with it.",
                wrong=(lambda alpha, r, new: alpha,),
            ),
            Mistake(
                "ratio upside down",
                "A larger rank needs a larger alpha: multiply by new_rank / rank.",
                wrong=(lambda alpha, r, new: alpha * r / new,),
            ),
            Mistake(
                "difference instead of ratio",
                "α/r stays the same if alpha is multiplied, not if something is added.",
                wrong=(lambda alpha, r, new: alpha + new - r,),
            ),
            Mistake(
                "the scaling instead of alpha",
                "You found α/r. Multiply it by the new rank to get the new alpha.",
                wrong=(lambda alpha, r, new: alpha / r, lambda alpha, r, new: alpha / new),
            ),
            Mistake(
                "2 × rank by habit",
                "That is a habit, not the alpha you found. Keep the old α/r, whatever it was.",
                wrong=(lambda alpha, r, new: 2.0 * new, lambda alpha, r, new: 2 * new),
            ),
            Mistake(
                "the old rank forgotten",
                "Divide by the old rank: alpha grows with the ratio of the two ranks.",
                wrong=(lambda alpha, r, new: float(alpha * new), lambda alpha, r, new: alpha * new),
            ),
            Mistake(
                "the ratio without alpha",
                "The ratio of the ranks is what alpha is multiplied by.",
                wrong=(lambda alpha, r, new: new / r, lambda alpha, r, new: r / new),
            ),
            Mistake(
                "rounded",
                "The new alpha may be a fraction: divide with /, and do not round.",
                wrong=(
                    lambda alpha, r, new: float(alpha * new // r), lambda alpha, r, new: alpha * new // r,
                    lambda alpha, r, new: float(alpha // r * new), lambda alpha, r, new: alpha * (new // r),
                    lambda alpha, r, new: round(alpha * new / r),
                ),
            ),
            Mistake(
                "√ of the ratio",
                "That keeps α/√r, the scaling of rsLoRA. Here α/r is to stay.",
                wrong=(lambda alpha, r, new: alpha * (new / r) ** 0.5,),
            ),
        ),
        hints=(
            "Which quantity is to stay the same? Write it once with the old and once with the new numbers.",
            "new_alpha / new_rank = alpha / rank. Solve this for new_alpha.",
            "alpha times the ratio of the new rank to the old one.",
        ),
        reward=(
            "You can change the rank and keep the scaling. That does not keep the size of the update, since more "
            "directions add up to more: compare size_of_update after training at ranks 2 and 32."
        ),
    ),
    Exercise(
        name="adapter_with_dropout", page=4, title="Where dropout acts",
        spec=adapter_with_dropout_spec, solution=adapter_with_dropout, inputs=_dropout(), picture=lambda y: y,
        demo=(_DEMO(4, 6), _DEMO(2, 6), _DEMO(5, 2), 2.0, _DEMO(4, 6) > -1, 0.5),
        mistakes=(
            Mistake(
                "dropout on the adapter's output",
                "The mask has the shape of x: it drops entries of the adapter's input, before A.",
                wrong=(_output, lambda x, A, B, s, keep, p: s * ((x @ A.T @ B.T) * keep / (1 - p))),
            ),
            Mistake(
                "dropout on the entries of A",
                "A's numbers are never dropped. What is dropped are entries of x, others for each example.",
                wrong=(
                    lambda x, A, B, s, keep, p: s * (x @ (A * keep / (1 - p)).T @ B.T),
                    lambda x, A, B, s, keep, p: s * (x @ (keep * A / (1 - p)).T @ B.T),
                    lambda x, A, B, s, keep, p: s * (x @ (A * keep).T @ B.T),
                ),
            ),
            Mistake(
                "rescaling forgotten",
                "Divide what is kept by 1 - p, so that the sum stays the same on average.",
                wrong=(_input(lambda x, keep, p: x * keep),),
            ),
            Mistake(
                "mask inverted",
                "keep_mask is True where an entry stays.",
                wrong=(_input(lambda x, keep, p: x * ~keep / (1 - p)), _input(lambda x, keep, p: x * ~keep)),
            ),
            Mistake(
                "the counted share instead of p",
                "Divide by 1 - p, the share that is kept on average, not by what this mask happens to keep.",
                wrong=(
                    _input(lambda x, keep, p: x * keep / keep.float().mean()),
                    _input(lambda x, keep, p: x * keep / keep.float().mean(1, keepdim=True)),
                ),
            ),
            Mistake(
                "one mask for all examples",
                "Each example has its own row of keep_mask.",
                wrong=(_input(lambda x, keep, p: x * keep[:1] / (1 - p)),),
            ),
            Mistake(
                "rescaled the wrong way",
                "What is kept must grow, to make up for what is dropped: divide by 1 - p, the share that is kept.",
                wrong=(
                    _input(lambda x, keep, p: x * keep * (1 - p)), _input(lambda x, keep, p: x * keep / p),
                    _input(lambda x, keep, p: x * keep * p),
                ),
            ),
            Mistake(
                "mask forgotten",
                "Multiply x by keep_mask: True counts as 1, False as 0.",
                wrong=(_input(lambda x, keep, p: x), _input(lambda x, keep, p: x / (1 - p))),
            ),
            Mistake(
                "scaling left out",
                "Multiply by `scaling`, as without dropout.",
                wrong=(lambda x, A, B, s, keep, p: x * keep / (1 - p) @ A.T @ B.T,),
            ),
        ),
        hints=(
            "Compare the shape of keep_mask with those of x, A, B and the output. What does it fit?",
            "Dropout makes a thinned-out copy of x. The rest is the adapter as you know it.",
            "x * keep_mask / (1 - p) takes the place of x; then through lora_A.T and lora_B.T, times scaling.",
        ),
        reward="Dropout touches what flows into the adapter, never its numbers; the frozen layer sees all of x.",
    ),
)  # fmt: skip
