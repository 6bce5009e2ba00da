"""Exercise of page 14 on conversations: which of their tokens are learned."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

IGNORED = -100


def turn_labels_spec(ids: Tensor, roles: list[str], headers: list[int], contents: list[int]) -> Tensor:
    """Walk through the turns; what the template writes before a turn is never learned, what the assistant says is."""
    labels, place = [], 0
    for role, header, content in zip(roles, headers, contents, strict=True):
        for _ in range(header):
            labels.append(-100)
            place += 1
        for _ in range(content):
            labels.append(int(ids[place]) if role == "assistant" else -100)
            place += 1
    return torch.tensor(labels)


def turn_labels(ids: Tensor, roles: list[str], headers: list[int], contents: list[int]) -> Tensor:
    labels, place = torch.full_like(ids, -100), 0
    for role, header, content in zip(roles, headers, contents, strict=True):
        start, place = place + header, place + header + content
        if role == "assistant":
            labels[start:place] = ids[start:place]
    return labels


def _labels(learned=lambda roles, turn: roles[turn] == "assistant", shift=0, header=0, less=0):
    """turn_labels with another choice of turns, or other ends of a turn."""

    def wrong(ids, roles, headers, contents):
        labels, place = torch.full_like(ids, IGNORED), 0
        for turn in range(len(roles)):
            start, stop = place + headers[turn], place + headers[turn] + contents[turn]
            place = stop
            if learned(roles, turn):
                part = slice(start - header * headers[turn] + shift, stop - less + shift)
                labels[part] = ids[part]
        return labels

    return wrong


def _last(roles, turn):
    return turn == max(place for place, role in enumerate(roles) if role == "assistant")


def _first(roles, turn):
    return turn == roles.index("assistant")


def _shifted(ids, roles, headers, contents):
    labels = turn_labels(ids, roles, headers, contents)
    return torch.cat([labels[1:], torch.tensor([IGNORED])])


@st.composite
def _conversation(draw):
    """A conversation of one to three answers, with or without a system message."""
    roles = (["system"] if draw(st.booleans()) else []) + ["user", "assistant"] * draw(st.integers(1, 3))
    headers = [draw(st.integers(1, 2)) for _ in roles]
    contents = [draw(st.integers(2, 3)) for _ in roles]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    ids = torch.randint(3, 90, (sum(headers) + sum(contents),), generator=generator)
    return ids, roles, headers, contents


EXERCISES = (
    Exercise(
        name="turn_labels", page=14, title="Which tokens of a conversation are learned?",
        spec=turn_labels_spec, solution=turn_labels, inputs=_conversation(),
        demo=(
            torch.tensor([1, 9, 41, 42, 2, 1, 4, 51, 2, 1, 9, 43, 2, 1, 4, 52, 53, 2]),
            ["user", "assistant", "user", "assistant"], [2, 2, 2, 2], [3, 2, 2, 3],
        ),
        mistakes=(
            Mistake(
                "only the last answer",
                "Every answer of the conversation can be learned from, in one pass. Learn all assistant turns.",
                wrong=(_labels(_last),),
            ),
            Mistake("only the first answer", "There are more assistant turns: learn all of them.",
                    wrong=(_labels(_first),)),
            Mistake(
                "the end of turn left out",
                "The last token of a turn is its end. A model that never learns it never stops: learn it too.",
                wrong=(_labels(less=1), _labels(_last, less=1)),
            ),
            Mistake(
                "the header learned too",
                "The template writes the header, so the model never has to. Begin after it.",
                wrong=(_labels(header=1),),
            ),
            Mistake(
                "the customer learned too",
                "Learn what the assistant says. A model that learns the user's turns learns to ask the questions.",
                wrong=(
                    _labels(lambda roles, turn: roles[turn] != "system"), _labels(lambda roles, turn: True),
                    lambda ids, *_: ids.clone(),
                ),
            ),
            Mistake("the others learned", "It is the assistant's turns that are learned, not the others.",
                    wrong=(_labels(lambda roles, turn: roles[turn] != "assistant"),
                           _labels(lambda roles, turn: roles[turn] == "user"))),
            Mistake(
                "shifted by one",
                "The model shifts labels itself: `labels[t]` is the token at t, not the one after it.",
                wrong=(_shifted, _labels(shift=-1)),
            ),
            Mistake(
                "0 instead of −100",
                "0 is a token, and would be learned. Cross entropy ignores -100.",
                wrong=(lambda *a: torch.where(turn_labels(*a) == IGNORED, 0, turn_labels(*a)),),
            ),
        ),
        hints=(
            "Where does each turn begin? Keep a running place.",
            "A turn is its header, then its contents. Move the place past both, no matter who speaks.",
            "Start with torch.full_like(ids, -100); for an assistant's turn copy ids from place + header, as many as "
            "its contents. The end of turn is the last of these.",
        ),
        reward="The library finds the same places from the template's own pieces, and so need not search the text.",
    ),
)  # fmt: skip
