"""Exercise of page 15 on retrieval: the notes that are nearest to a question."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake, tensor_maker


def nearest_notes_spec(question: Tensor, notes: Tensor, top_k: int) -> Tensor:
    """Say for every note how small its angle to the question is, and name the notes with the smallest angles."""
    alike = []
    for note in notes.tolist():
        product = sum(a * b for a, b in zip(question.tolist(), note, strict=True))
        lengths = math.sqrt(sum(a * a for a in question.tolist())) * math.sqrt(sum(b * b for b in note))
        alike.append(product / lengths)
    ranked = sorted(range(len(alike)), key=lambda place: -alike[place])
    return torch.tensor(ranked[:top_k])


def nearest_notes(question: Tensor, notes: Tensor, top_k: int) -> Tensor:
    cosines = (notes @ question) / (notes.norm(dim=1) * question.norm())
    return cosines.topk(top_k).indices


def cosines_of(question: Tensor, notes: Tensor) -> Tensor:
    """The cosine of the angle between the question and each note."""
    return torch.nn.functional.cosine_similarity(notes, question[None], dim=1)


def _ranked(score=cosines_of, largest=True, after=lambda places: places):
    """nearest_notes by another score, from the other end, or with something done to the places."""
    return lambda question, notes, top_k: after(score(question, notes).topk(top_k, largest=largest).indices)


def _columns(question, notes):
    return (notes / notes.norm(dim=0).clamp(min=1e-6)) @ question


def _ranks(question, notes, top_k):
    return cosines_of(question, notes).argsort(descending=True).argsort()[:top_k]


@st.composite
def _notes(draw):
    """A question and 4 to 6 notes of 2 or 3 numbers, some of them half or four times as long; top_k of 2 or 3."""
    make = tensor_maker(draw)
    count, size = draw(st.integers(4, 6)), draw(st.integers(2, 3))
    stretch = torch.tensor([draw(st.sampled_from([0.5, 1.0, 4.0])) for _ in range(count)])
    question, notes = make(size), make(count, size)
    return question, notes * stretch.to(notes.dtype)[:, None], draw(st.integers(2, 3))


def _telling(inputs) -> bool:
    """Are all angles well apart, and so are the products, by which a learner may have sorted?"""
    question, notes, _ = inputs
    scores = cosines_of(question, notes), cosines_of(question, notes).abs(), notes @ question
    return all(bool((one.sort().values.diff() > 0.02).all()) for one in scores)


EXERCISES = (
    Exercise(
        name="nearest_notes", page=15, title="Which notes is the question about?",
        spec=nearest_notes_spec, solution=nearest_notes, inputs=_notes().filter(_telling),
        demo=(
            torch.tensor([1.0, 0.0]), torch.tensor([[6.0, 8.0], [-2.0, 1.0], [1.0, 0.5], [2.0, 0.0]]), 2,
        ),
        mistakes=(
            Mistake(
                "no normalisation",
                "A long note has large products with everything. Divide by the lengths: only the angle should count.",
                wrong=(
                    _ranked(lambda question, notes: notes @ question),
                    _ranked(lambda question, notes: notes @ (question / question.norm())),
                ),
            ),
            Mistake("the smallest in place of the largest", "The cosine is largest, 1, where the directions agree.",
                    wrong=(_ranked(largest=False),
                           lambda q, n, k: cosines_of(q, n).argsort()[:k])),
            Mistake("sorted by index", "The most alike note comes first, wherever it is among the notes.",
                    wrong=(_ranked(after=lambda places: places.sort().values),)),
            Mistake("the order reversed", "These are the right notes; the most alike one comes first.",
                    wrong=(_ranked(after=lambda places: places.flip(0)),
                           lambda q, n, k: cosines_of(q, n).argsort()[-k:])),
            Mistake("the cosines, not the places", "Wanted is which notes they are, as whole numbers from 0.",
                    wrong=(lambda q, n, k: cosines_of(q, n).topk(k).values,)),
            Mistake("a distance", "The distance between the tips counts lengths too. Compare directions: the cosine.",
                    wrong=(_ranked(lambda question, notes: (notes - question).norm(dim=1), largest=False),)),
            Mistake("the sign forgotten", "A note that points the other way, cosine -1, is as unlike as can be.",
                    wrong=(_ranked(lambda question, notes: cosines_of(question, notes).abs()),
                           _ranked(lambda question, notes: cosines_of(question, notes) ** 2))),
            Mistake("the columns normalised", "Each note is a row: its length is a norm over dim=1.",
                    wrong=(_ranked(_columns),)),
            Mistake("divided by the squared length", "The cosine divides by the length of a note, not by its square.",
                    wrong=(_ranked(lambda question, notes: (notes @ question) / (notes * notes).sum(1)),)),
            Mistake("ranks, not places", "One argsort gives the places in order; a second one gives each note's rank.",
                    wrong=(_ranks,)),
            Mistake("one note too many or too few", "Give top_k places, no more and no fewer.",
                    wrong=(lambda q, n, k: nearest_notes(q, n, k + 1), lambda q, n, k: nearest_notes(q, n, k - 1),
                           lambda q, n, k: nearest_notes(q, n, len(n)))),
            Mistake("places counted from 1", "The first note has the place 0.",
                    wrong=(_ranked(after=lambda places: places + 1),)),
        ),
        hints=(
            "Which number says that two vectors point the same way, however long they are?",
            "All products at once: notes @ question. Divide each by both lengths, then ask for the largest ones.",
            "cosines = notes @ question / (notes.norm(dim=1) * question.norm()); then the indices of topk.",
        ),
        reward="The longest note has the largest product and is not the nearest. Vectors of length 1 need no division.",
    ),
)  # fmt: skip
