"""Common mistakes of page 15's exercise on retrieval."""

import torch


def dot_products(question, notes, top_k):
    return torch.topk(notes @ question, top_k).indices


def only_the_question_normalised(question, notes, top_k):
    return torch.argsort(notes @ (question / question.norm()), descending=True)[:top_k]


def ascending(question, notes, top_k):
    cosines = torch.cosine_similarity(notes, question.expand_as(notes))
    return cosines.argsort()[:top_k]


def from_the_end(question, notes, top_k):
    cosines = torch.cosine_similarity(notes, question.expand_as(notes))
    return cosines.argsort()[-top_k:]


def in_the_order_of_the_notes(question, notes, top_k):
    cosines = torch.cosine_similarity(notes, question.expand_as(notes))
    best = set(cosines.topk(top_k).indices.tolist())
    return torch.tensor([place for place in range(len(notes)) if place in best])


def values(question, notes, top_k):
    return torch.cosine_similarity(notes, question.expand_as(notes)).sort(descending=True).values[:top_k]


def euclidean(question, notes, top_k):
    return torch.cdist(question[None], notes)[0].argsort()[:top_k]


def absolute(question, notes, top_k):
    return torch.cosine_similarity(notes, question.expand_as(notes)).abs().topk(top_k).indices


def over_the_columns(question, notes, top_k):
    return (notes / notes.norm(dim=0) @ question).topk(top_k).indices


def by_the_square(question, notes, top_k):
    return (notes @ question / notes.pow(2).sum(dim=1)).topk(top_k).indices


def twice_sorted(question, notes, top_k):
    return torch.cosine_similarity(notes, question.expand_as(notes)).argsort(descending=True).argsort()[:top_k]


def all_of_them(question, notes, top_k):
    return torch.cosine_similarity(notes, question.expand_as(notes)).argsort(descending=True)


def from_one(question, notes, top_k):
    return torch.cosine_similarity(notes, question.expand_as(notes)).topk(top_k).indices + 1


LEARNERS = {
    "nearest_notes": [
        ("no normalisation", dot_products), ("no normalisation", only_the_question_normalised),
        ("the smallest in place of the largest", ascending), ("the order reversed", from_the_end),
        ("sorted by index", in_the_order_of_the_notes), ("the cosines, not the places", values),
        ("a distance", euclidean), ("the sign forgotten", absolute), ("the columns normalised", over_the_columns),
        ("divided by the squared length", by_the_square), ("ranks, not places", twice_sorted),
        ("one note too many or too few", all_of_them), ("places counted from 1", from_one),
    ],
}  # fmt: skip
