"""Exercise of page 08 on data: several examples in one batch."""

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..exercise import Exercise, Mistake
from .p08_labels import DEMO, IGNORED, build_labels, example


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
            batch = pad_sequence(turned, batch_first=True, padding_value=fill)
            made.append(batch.flip(1) if left else batch)
        return tuple(made)

    return wrong


def _shortest(rows, labels, pad_id):
    least = min(map(len, rows))
    ids = torch.stack([row[:least] for row in rows])
    return ids, torch.ones_like(ids), torch.stack([row[:least] for row in labels])


def _by_place(found):
    """collate with a mask that goes by the pads at the end of a row; `found` of them count as read."""

    def change(ids, mask, labels, pad_id):
        read = [len(row) for row in ids.tolist()]
        for n, row in enumerate(ids.tolist()):
            while read[n] and row[read[n] - 1] == pad_id:
                read[n] -= 1
        places = torch.arange(ids.shape[1])
        return ids, (places < torch.tensor(read)[:, None] + found).long(), labels

    return _batched(change)


@st.composite
def _rows(draw):
    """Two or three examples with their labels; what pads is what ends a turn."""
    end_id = draw(st.integers(1, 9))
    made = [build_labels(*draw(example(end_id))) for _ in range(draw(st.integers(2, 3)))]
    return [ids for ids, _ in made], [labels for _, labels in made], end_id


_SECOND = (torch.tensor([31, 2, 40]), torch.tensor([88, 25]), 2)
_BATCH = tuple(map(list, zip(build_labels(*DEMO), build_labels(*_SECOND), strict=True)))

EXERCISES = (
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
                "1 marks a token that is read, 0 marks padding.",
                wrong=(_batched(lambda ids, mask, labels, pad: (ids, 1 - mask, labels)),),
            ),
            Mistake(
                "padded with another id",
                "The ids are padded with pad_id. -100 is a label: as an id it has no row in the embedding.",
                wrong=(_padded(ids=lambda pad_id: 0), _padded(ids=lambda pad_id: IGNORED)),
            ),
            Mistake(
                "the padding found by its id",
                "You counted the pads at the end of a row. An answer ends with the same id, once or more, so nothing "
                "there tells the two apart. Use each row's length.",
                wrong=(_by_place(0), _by_place(1)),
            ),
            Mistake(
                "columns for rows",
                "One row per example, one column per place: pad_sequence needs batch_first=True.",
                wrong=(_batched(lambda ids, mask, labels, pad: (ids.T, mask.T, labels.T)),),
            ),
            Mistake(
                "another order",
                "Hand back ids, mask and labels, in this order.",
                wrong=(_batched(lambda ids, mask, labels, pad: (ids, labels, mask)),),
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
        reward="The mask comes from lengths, the labels from you. So it does not matter that pad and end are one id. "
        "Of rows with 40, 60 and 80 tokens a quarter of the batch is padding: 60 of 240 places.",
    ),
)  # fmt: skip
