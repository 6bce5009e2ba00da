"""Exercises of page 08 on data: one example's labels, and several examples in one batch."""

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


def collate_spec(rows: list[Tensor], labels: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make each row as long as the longest: pad_id behind the tokens, 0 behind the mask's ones, -100 behind labels."""
    longest = max(len(row) for row in rows)
    ids, mask, learned = [], [], []
    for row, label in zip(rows, labels, strict=True):
        missing = longest - len(row)
        ids.append(row.tolist() + [pad_id] * missing)
        mask.append([1] * len(row) + [0] * missing)
        learned.append(label.tolist() + [-100] * missing)
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(learned)


def collate(rows: list[Tensor], labels: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = len(rows), max(map(len, rows))
    ids, mask, padded = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.int64), torch.full(shape, -100)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = row
        mask[n, : len(row)] = 1
        padded[n, : len(row)] = labels[n]
    return ids, mask, padded


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


def _batched(change):
    """collate, then `change` what came out: (ids, mask, labels, pad_id) -> three tensors."""
    return lambda rows, labels, pad_id: change(*collate(rows, labels, pad_id), pad_id)


def _padded(ids=lambda pad_id: pad_id, labels=lambda pad_id: IGNORED):
    """collate with other padding for the ids or the labels."""

    def change(batch, mask, learned, pad_id):
        empty = mask == 0
        return batch.masked_fill(empty, ids(pad_id)), mask, learned.masked_fill(empty, labels(pad_id))

    return _batched(change)


def _left(sides=(True, True, True)):
    """collate with the padding of some of the three on the left."""

    def wrong(rows, labels, pad_id):
        made = []
        parts = (rows, pad_id), ([torch.ones_like(row) for row in rows], 0), (labels, IGNORED)
        for (values, fill), left in zip(parts, sides, strict=True):
            turned = [row.flip(0) if left else row for row in values]
            batch = torch.nn.utils.rnn.pad_sequence(turned, batch_first=True, padding_value=fill)
            made.append(batch.flip(1) if left else batch)
        return tuple(made)

    return wrong


def _shortest(rows, labels, pad_id):
    least = min(map(len, rows))
    ids = torch.stack([row[:least] for row in rows])
    return ids, torch.ones_like(ids), torch.stack([row[:least] for row in labels])


@st.composite
def _example(draw, end_id=None):
    """A prompt in which a turn has ended already, and an answer; one answer in three holds the end's id too."""
    end_id = draw(st.integers(1, 9)) if end_id is None else end_id
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))

    def make(count):
        return torch.randint(10, 90, (count,), generator=generator)

    prompt = torch.cat([make(draw(st.integers(1, 3))), torch.tensor([end_id]), make(1)])
    answer = make(draw(st.integers(2, 4)))
    if draw(st.integers(0, 2)) == 0:
        answer[draw(st.integers(0, len(answer) - 1))] = end_id
    return prompt, answer, end_id


@st.composite
def _rows(draw):
    """Two or three examples with their labels; what pads is what ends a turn."""
    end_id = draw(st.integers(1, 9))
    made = [build_labels(*draw(_example(end_id))) for _ in range(draw(st.integers(2, 3)))]
    return [ids for ids, _ in made], [labels for _, labels in made], end_id


_FIRST = (torch.tensor([31, 57, 2, 40]), torch.tensor([64, 19, 73]), 2)
_SECOND = (torch.tensor([31, 2, 40]), torch.tensor([88, 25]), 2)
_BATCH = tuple(map(list, zip(build_labels(*_FIRST), build_labels(*_SECOND), strict=True)))

EXERCISES = (
    Exercise(
        name="build_labels", page=8, title="What is read, and what is learned",
        spec=build_labels_spec, solution=build_labels, inputs=_example(), demo=_FIRST,
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
    Exercise(
        name="collate", page=8, title="Several examples in one batch",
        spec=collate_spec, solution=collate, inputs=_rows(), demo=(*_BATCH, 2),
        picture=lambda made: made[1].float(),
        mistakes=(
            Mistake(
                "padding that is learned",
                "Padding has the label -100, not its token: else the model learns to go on ending.",
                wrong=(_padded(labels=lambda pad_id: pad_id), _padded(labels=lambda pad_id: 0)),
            ),
            Mistake(
                "the mask made from the ids",
                "Here the id that pads also ends a turn, so `ids != pad_id` hides real tokens. Use each row's length.",
                wrong=(_batched(lambda ids, mask, labels, pad_id: (ids, (ids != pad_id).long(), labels)),),
            ),
            Mistake(
                "the end of turn ignored with the padding",
                "You ignored every pad_id; the last token of an answer is one of them. Use each row's length.",
                wrong=(
                    _batched(lambda ids, mask, labels, pad: (ids, mask, labels.masked_fill(ids == pad, IGNORED))),
                    _batched(lambda i, m, labels, pad: (i, (i != pad).long(), labels.masked_fill(i == pad, IGNORED))),
                ),
            ),
            Mistake(
                "padded on the left",
                "For training, real tokens come first and padding behind them, in all three tensors. Left padding is "
                "for generating, where the next token has to follow directly.",
                wrong=(_left(), _left((False, False, True)), _left((True, False, False)), _left((True, True, False))),
            ),
            Mistake(
                "labels copied from the ids",
                "Use the labels that you were given: they ignore the prompt. A copy of the ids does not.",
                wrong=(
                    _batched(lambda ids, mask, labels, pad: (ids, mask, ids.masked_fill(mask == 0, IGNORED))),
                    _batched(lambda ids, mask, labels, pad: (ids, mask, ids.masked_fill(ids == pad, IGNORED))),
                ),
            ),
            Mistake(
                "the prompt hidden from the model",
                "The mask says what is read, and the prompt is read. What is learned is for the labels to say.",
                wrong=(_batched(lambda ids, mask, labels, pad: (ids, (labels != IGNORED).long(), labels)),),
            ),
            Mistake(
                "padding that is read",
                "The mask is 0 on padding.",
                wrong=(_batched(lambda ids, mask, labels, pad: (ids, torch.ones_like(mask), labels)),),
            ),
            Mistake(
                "the mask inverted",
                "1 stands for a token that is read, 0 for padding.",
                wrong=(_batched(lambda ids, mask, labels, pad: (ids, 1 - mask, labels)),),
            ),
            Mistake(
                "padded with another id",
                "The ids are padded with pad_id. -100 is a label: as an id it has no row in the embedding.",
                wrong=(_padded(ids=lambda pad_id: 0), _padded(ids=lambda pad_id: IGNORED)),
            ),
            Mistake(
                "cut to the shortest",
                "Make the short rows longer, not the long ones shorter: the end of the answers would be gone.",
                wrong=(_shortest,),
            ),
        ),
        hints=(
            "Three tensors of one shape, rows by longest. What is in each of them where a row has no token any more?",
            "Start with all padding: full of pad_id, full of 0, full of -100. Then write each row over its beginning.",
            "torch.full((n, longest), pad_id), zeros in int64, torch.full(…, -100); for each n: ids[n, :len(row)] "
            "= row, mask 1, labels[n] likewise.",
        ),
        reward="The mask comes from lengths, the labels from you. So it does not matter that pad and end are one id.",
    ),
)  # fmt: skip
