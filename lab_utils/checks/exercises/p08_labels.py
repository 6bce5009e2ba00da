"""Exercise of page 08 on data: what one example teaches."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

IGNORED = -100


def build_labels_spec(prompt: Tensor, answer: Tensor, end_id: int) -> tuple[Tensor, Tensor]:
    """Write token after token; beside each, its own id if it is to be learned, else -100."""
    ids, labels = [], []
    for token in prompt.tolist():
        ids.append(token)
        labels.append(-100)
    for token in [*answer.tolist(), end_id]:
        ids.append(token)
        labels.append(token)
    return torch.tensor(ids), torch.tensor(labels)


def build_labels(prompt: Tensor, answer: Tensor, end_id: int) -> tuple[Tensor, Tensor]:
    ids = torch.cat([prompt, answer, torch.tensor([end_id])])
    labels = ids.clone()
    labels[: len(prompt)] = -100
    return ids, labels


def _relabelled(change):
    """build_labels with other labels, made of the ids, the right labels, the prompt's length and the end."""

    def wrong(prompt, answer, end_id):
        ids, labels = build_labels(prompt, answer, end_id)
        return ids, change(ids, labels, len(prompt), end_id)

    return wrong


def _put(labels, places, value):
    labels[places] = value
    return labels


def _no_end(prompt, answer, end_id):
    ids, labels = build_labels(prompt, answer, end_id)
    return ids[:-1], labels[:-1]


def _instead(value=lambda ids, end_id: 0):
    """build_labels with another number on what is not learned."""
    return _relabelled(lambda ids, labels, start, end_id: torch.where(labels == IGNORED, value(ids, end_id), labels))


def _searched(which):
    """build_labels that takes for the answer what comes behind an end of turn: the first (0) or the last in it (-1)."""

    def change(ids, labels, start, end_id):
        ends = (ids[:-1] == end_id).nonzero()
        return torch.where(torch.arange(len(ids)) > ends[which], ids, IGNORED)

    return _relabelled(change)


def _overwritten(prompt, answer, end_id):
    labels = build_labels(prompt, answer, end_id)[1]
    return labels, labels


@st.composite
def example(draw, end_id=None):
    """A prompt in which a turn has ended already, and an answer; one answer in three holds the end's id too."""
    end_id = draw(st.integers(1, 9)) if end_id is None else end_id
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))

    def make(count):
        return torch.randint(10, 90, (count,), generator=generator)

    prompt = torch.cat([make(draw(st.integers(1, 3))), torch.tensor([end_id]), make(draw(st.integers(1, 2)))])
    answer = make(draw(st.integers(2, 4)))
    if draw(st.integers(0, 2)) == 0:
        answer[draw(st.integers(0, len(answer) - 1))] = end_id
    return prompt, answer, end_id


DEMO = (torch.tensor([31, 57, 2, 40]), torch.tensor([64, 19, 73]), 2)

EXERCISES = (
    Exercise(
        name="build_labels", page=8, title="What is read, and what is learned",
        spec=build_labels_spec, solution=build_labels, inputs=example(), demo=DEMO,
        picture=lambda made: (made[1] != IGNORED).float(),
        mistakes=(
            Mistake(
                "the prompt scored",
                "Labels of the prompt are -100: it is read, and nobody wants the model to write booking messages.",
                wrong=(_relabelled(lambda ids, labels, start, end_id: ids.clone()),),
            ),
            Mistake(
                "the end missing",
                "Behind the answer comes the end of turn, in the ids and in the labels. Else nothing teaches the model "
                "to stop.",
                wrong=(_no_end,),
            ),
            Mistake(
                "the end not scored",
                "The end of turn is read and learned: its label is its own id, not -100.",
                wrong=(_relabelled(lambda ids, labels, start, end_id: _put(labels, -1, IGNORED)),),
            ),
            Mistake(
                "every end id ignored",
                "You took out every label that equals end_id, as collators do that ignore padding by its id. Go by "
                "place instead: all that comes after the prompt is learned.",
                wrong=(_relabelled(lambda ids, labels, start, end_id: _put(labels, labels == end_id, IGNORED)),),
            ),
            Mistake(
                "shifted",
                "A label is the token at its own place. The loss compares it with what the place before it predicts: "
                "shifting here as well would shift twice.",
                wrong=(
                    _relabelled(lambda ids, labels, s, e: torch.cat([labels[1:], torch.tensor([IGNORED])])),
                    _relabelled(lambda ids, labels, s, e: torch.cat([torch.tensor([IGNORED]), labels[:-1]])),
                    _relabelled(lambda ids, labels, s, e: labels.roll(-1)),
                ),
            ),
            Mistake(
                "another number than -100 on the prompt",
                "0 and the end's id are tokens like others and would be learned. PyTorch's cross entropy leaves out "
                "-100, and nothing else unless it is told.",
                wrong=(_instead(), _instead(lambda ids, end_id: end_id), _instead(lambda ids, end_id: -1)),
            ),
            Mistake(
                "the user's end learned too",
                "The same id ends the user's turn, but there it is in the prompt: read, not learned.",
                wrong=(_relabelled(lambda ids, labels, start, end_id: torch.where(ids == end_id, ids, labels)),),
            ),
            Mistake(
                "the answer searched for",
                "You took what comes behind an end of turn for the answer. The prompt goes on after the user's turn, "
                "and an answer may hold the id too: the answer starts at len(prompt).",
                wrong=(_searched(0), _searched(-1)),
            ),
            Mistake(
                "the ids overwritten too",
                "`labels = ids` is a second name for one tensor, and -100 is in both. Take ids.clone().",
                wrong=(_overwritten,),
            ),
            Mistake(
                "one token off",
                "The answer starts at len(prompt), counted from 0: the last token of the prompt is not learned, the "
                "first of the answer is.",
                wrong=(
                    _relabelled(lambda ids, labels, start, e: _put(labels, start - 1, ids[start - 1])),
                    _relabelled(lambda ids, labels, start, e: _put(labels, start, IGNORED)),
                ),
            ),
            Mistake(
                "labels for the answer alone",
                "Ids and labels have the same length: the prompt has labels too, -100 each.",
                wrong=(_relabelled(lambda ids, labels, start, end_id: labels[start:]),),
            ),
        ),
        hints=(
            "Which tokens should the model be able to write by itself? All of those, and no others, have a label.",
            "Join the three parts into one row of ids. The labels are a copy, with -100 on the first len(prompt).",
            "ids = torch.cat of prompt, answer and a tensor of end_id alone; labels = ids.clone(); then write -100 "
            "over labels[:len(prompt)].",
        ),
        reward="Masked by place, not by searching: no id and no text that looks like another can fool it.",
    ),
)  # fmt: skip
