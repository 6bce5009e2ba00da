"""Exercises of page 15 on weights: an adapter turned down, a random one of equal size, directions that are new."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake, tensor_maker


def weight_at_spec(W: Tensor, A: Tensor, B: Tensor, scaling: float, strength: float) -> Tensor:
    """The base, and of what the adapter adds to each number the wanted share."""
    found = W.clone()
    for row in range(W.shape[0]):
        for column in range(W.shape[1]):
            added = sum(float(B[row, k]) * float(A[k, column]) for k in range(len(A)))
            found[row, column] += strength * scaling * added
    return found


def weight_at(W: Tensor, A: Tensor, B: Tensor, scaling: float, strength: float) -> Tensor:
    return W + strength * scaling * (B @ A)


def random_update_spec(A: Tensor, B: Tensor, random_A: Tensor, random_B: Tensor) -> Tensor:
    """The random product, stretched until the squares of its numbers add up to what they do in the trained one."""
    trained, made = B @ A, random_B @ random_A
    wanted = sum(float(one) ** 2 for one in trained.flatten())
    has = sum(float(one) ** 2 for one in made.flatten())
    return made * (wanted / has) ** 0.5


def random_update(A: Tensor, B: Tensor, random_A: Tensor, random_B: Tensor) -> Tensor:
    made = random_B @ random_A
    return made * ((B @ A).norm() / made.norm())


def count_intruders_spec(old: Tensor, new: Tensor, threshold: float) -> int:
    """For every new vector find the old one that is most like it, whichever way it points; count those without."""
    count = 0
    for column in range(new.shape[1]):
        nearest = 0.0
        for other in range(old.shape[1]):
            product = sum(float(a) * float(b) for a, b in zip(new[:, column], old[:, other], strict=True))
            nearest = max(nearest, abs(product))
        count += nearest < threshold
    return count


def count_intruders(old: Tensor, new: Tensor, threshold: float) -> int:
    nearest = (new.T @ old).abs().amax(dim=1)
    return int((nearest < threshold).sum())


def _matched(size):
    """random_update with another measure of size."""
    return lambda A, B, RA, RB: RB @ RA * (size(B @ A) / size(RB @ RA))


def _counted(score, below=True):
    """count_intruders with another score for every vector."""
    return lambda old, new, threshold: int(
        ((score(new.T @ old) < threshold) if below else (score(new.T @ old) >= threshold)).sum()
    )


@st.composite
def _adapted(draw):
    """A weight, an adapter of rank 1 or 2, a scaling other than 1 and a strength other than 0 and 1."""
    make, rank = tensor_maker(draw), draw(st.integers(1, 2))
    out, into = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    scaling, strength = draw(st.sampled_from([0.5, 2.0, 4.0])), draw(st.sampled_from([0.25, 0.75, 1.5]))
    return make(out, into), make(rank, into), make(out, rank), scaling, strength


@st.composite
def _pairs(draw):
    """A trained adapter and random matrices of the same shapes, of another size."""
    make, rank = tensor_maker(draw), draw(st.integers(1, 2))
    out, into = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    small = draw(st.sampled_from([0.1, 0.5, 3.0]))
    return make(rank, into), make(out, rank) * small, make(rank, into), make(out, rank)


def _sizes_differ(inputs) -> bool:
    """Do other measures of size give other factors?"""
    A, B, RA, RB = inputs
    trained, made = B @ A, RB @ RA
    if float(trained.norm()) < 0.1 or float(made.norm()) < 0.1:
        return False
    right = float(trained.norm() / made.norm())
    others = [1.0, trained.abs().max() / made.abs().max(), trained.abs().sum() / made.abs().sum(),
              B.norm() * A.norm() / (RB.norm() * RA.norm()), B.norm() / RB.norm()]
    spectral = float(torch.linalg.matrix_norm(trained, 2) / torch.linalg.matrix_norm(made, 2))
    apart = all(abs(float(one) / right - 1) > 0.02 for one in others)
    return apart and (len(A) == 1 or abs(spectral / right - 1) > 0.02)  # fmt: skip


@st.composite
def _directions(draw):
    """Old directions in seven, and new ones: an old one turned round, one turned half away, one of none, an old one."""
    seed, dtype = draw(st.integers(0, 99)), draw(st.sampled_from([torch.float32, torch.float64]))
    Q = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(seed)))[0].to(dtype)
    cosine = draw(st.sampled_from([0.3, 0.8]))
    turned = cosine * Q[:, 1] + (1 - cosine**2) ** 0.5 * Q[:, 5]
    new = torch.stack([-Q[:, 0], turned, Q[:, 6], Q[:, 2]], dim=1)
    order = draw(st.permutations(range(4)))[: draw(st.integers(3, 4))]
    return Q[:, : draw(st.integers(3, 5))].contiguous(), new[:, list(order)].contiguous(), 0.5


def _told_apart(inputs) -> bool:
    """Do the usual wrong counts differ from the right one, and from each other?"""
    old, new, threshold = inputs
    products = (new.T @ old).abs()
    counts = [count_intruders(*inputs), int(((new.T @ old).amax(1) < threshold).sum()),
              int((products.amax(0) < threshold).sum()), new.shape[1], int((products.amax(1) >= threshold).sum())]
    return counts[0] > 0 and len(set(counts)) == len(counts)  # fmt: skip


EXERCISES = (
    Exercise(
        name="weight_at", page=15, title="An adapter turned down",
        spec=weight_at_spec, solution=weight_at, inputs=_adapted(),
        demo=(torch.eye(2), torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0], [-1.0]]), 2.0, 0.5),
        mistakes=(
            Mistake(
                "the strength counts twice",
                "A and B are multiplied with each other: turn down one of them, or the product. Both is strength².",
                wrong=(lambda W, A, B, scaling, strength: W + scaling * (strength * B) @ (strength * A),),
            ),
            Mistake("the base is turned down too", "The base stays whole: only what the adapter adds is multiplied.",
                    wrong=(lambda W, A, B, scaling, strength: strength * (W + scaling * (B @ A)),
                           lambda W, A, B, scaling, strength: (1 - strength) * W + strength * scaling * (B @ A))),
            Mistake("the wrong way round", "Strength 0 is the base and 1 the adapter as trained.",
                    wrong=(lambda W, A, B, scaling, strength: W + (1 - strength) * scaling * (B @ A),)),
            Mistake("the scaling forgotten", "An adapter adds scaling · B A: the strength is a factor on top of that.",
                    wrong=(lambda W, A, B, scaling, strength: W + strength * (B @ A),)),
            Mistake("the strength in place of the scaling", "Both are factors: strength · scaling.",
                    wrong=(lambda W, A, B, scaling, strength: W + strength / scaling * (B @ A),)),
            Mistake("always as trained", "The strength has no effect here.",
                    wrong=(lambda W, A, B, scaling, strength: W + scaling * (B @ A),)),
            Mistake("without the base", "Add it to W: the question is what the layer computes with.",
                    wrong=(lambda W, A, B, scaling, strength: strength * scaling * (B @ A),)),
            Mistake("subtracted", "The adapter is added to the base.",
                    wrong=(lambda W, A, B, scaling, strength: W - strength * scaling * (B @ A),)),
        ),
        hints=(
            "At strength 0 the result is W, at 1 it is the trained layer. What lies halfway?",
            "Only one thing on top of what a LoRA layer adds: one more factor.",
            "W plus strength · scaling · B @ A.",
        ),
        reward="That is a straight line through the weights, from the base through the trained model and beyond it.",
    ),
    Exercise(
        name="random_update", page=15, title="A random adapter of the same size",
        spec=random_update_spec, solution=random_update, inputs=_pairs().filter(_sizes_differ),
        demo=(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [0.0]]),
              torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0], [2.0]])),
        mistakes=(
            Mistake(
                "the size not matched",
                "A larger change does more harm whatever its direction: give the control the size of the trained one.",
                wrong=(lambda A, B, RA, RB: RB @ RA,),
            ),
            Mistake(
                "A and B matched one by one",
                "The size of a product is not the product of the sizes. Match B A, which is what is added to W.",
                wrong=(lambda A, B, RA, RB: (RB * (B.norm() / RB.norm())) @ (RA * (A.norm() / RA.norm())),),
            ),
            Mistake("the ratio upside down", "Multiply by the trained size over the random one.",
                    wrong=(lambda A, B, RA, RB: RB @ RA * ((RB @ RA).norm() / (B @ A).norm()),)),
            Mistake("the ratio squared", "Put the factor on one of the two matrices, or on the product: once.",
                    wrong=(lambda A, B, RA, RB: RB @ RA * ((B @ A).norm() / (RB @ RA).norm()) ** 2,)),
            Mistake("matched by the largest number", "Size is the Frobenius norm here: all numbers count.",
                    wrong=(_matched(lambda update: update.abs().max()),)),
            Mistake("matched by absolute values", "The Frobenius norm is the root of the sum of squares.",
                    wrong=(_matched(lambda update: update.abs().sum()),)),
            Mistake("the trained update itself", "The direction should be random: scale random_B @ random_A.",
                    wrong=(lambda A, B, RA, RB: B @ A,)),
            Mistake("only B matched", "Match the product B A, which is what is added to W.",
                    wrong=(lambda A, B, RA, RB: (RB * (B.norm() / RB.norm())) @ RA,)),
        ),
        hints=(
            "What should the control share with the trained update, and what must it not share?",
            "Form both products. One number says by how much the random one is too small or too large.",
            "made = random_B @ random_A; times (B @ A).norm() over made.norm().",
        ),
        reward="Same shape, same rank, same size: what is left is the direction, and that is what training found.",
    ),
    Exercise(
        name="count_intruders", page=15, title="Directions that were not there before",
        spec=count_intruders_spec, solution=count_intruders, inputs=_directions().filter(_told_apart),
        demo=(torch.eye(4)[:, :3], torch.tensor([[-1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), 0.5),
        mistakes=(
            Mistake(
                "the sign of a singular vector",
                "u and -u are the same direction: take the absolute value of the cosine first.",
                wrong=(_counted(lambda products: products.amax(1)),),
            ),
            Mistake(
                "best over the wrong axis",
                "That asks which OLD directions are gone. Ask of every NEW one whether an old one is like it.",
                wrong=(_counted(lambda products: products.abs().amax(0)),),
            ),
            Mistake("those that are like an old one", "An intruder is one whose best cosine is BELOW the threshold.",
                    wrong=(_counted(lambda products: products.abs().amax(1), below=False),)),
            Mistake("only the one at the same place", "Directions change places: compare with every old one.",
                    wrong=(_counted(lambda products: products[:, : len(products)].diagonal().abs()),)),
            Mistake("a share, not a number", "Count them: a whole number.",
                    wrong=(lambda old, new, threshold: count_intruders(old, new, threshold) / new.shape[1],)),
            Mistake("every new one counts", "One old direction that is like it is enough: take the largest cosine.",
                    wrong=(lambda old, new, threshold: new.shape[1], _counted(lambda products: products.abs().mean(1)),
                           _counted(lambda products: products.abs().amin(1)))),
        ),
        hints=(
            "All cosines at once: columns of length 1 against columns of length 1.",
            "One row per new vector: take its largest absolute cosine with an old one, and compare with the threshold.",
            "(new.T @ old).abs().amax(dim=1) has one number per new vector; count those below the threshold.",
        ),
        reward="In the example the first vector only turned round; the second is new.",
    ),
)  # fmt: skip
