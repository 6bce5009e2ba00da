"""Exercises of page 14 on what a test tests: what leaks into it, and how to split by group."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

WORDS = ("the", "chain", "is", "late", "broken", "my", "bill", "again", "please", "order")
THRESHOLDS = (0.5, 0.6, 0.75, 1.0)


def leaked_spec(train: list[str], test: list[str], threshold: float) -> Tensor:
    """Compare each test text with every training text: words in both, over words in either."""
    found = []
    for text in test:
        words, leaks = set(text.lower().split()), False
        for other in train:
            others = set(other.lower().split())
            if len(words & others) / len(words | others) >= threshold:
                leaks = True
        found.append(leaks)
    return torch.tensor(found)


def leaked(train: list[str], test: list[str], threshold: float) -> Tensor:
    known = [set(text.lower().split()) for text in train]
    rows = [set(text.lower().split()) for text in test]
    return torch.tensor([any(len(row & one) >= threshold * len(row | one) for one in known) for row in rows])


def test_rows_spec(groups: Tensor, wanted: int) -> Tensor:
    """Take whole groups, in the order in which they first occur, until the test set is large enough."""
    values, taken = groups.tolist(), []
    for group in values:
        if sum(values.count(one) for one in taken) >= wanted:
            break
        if group not in taken:
            taken.append(group)
    return torch.tensor([group in taken for group in values])


def test_rows(groups: Tensor, wanted: int) -> Tensor:
    taken = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups:
        if taken.sum() < wanted:
            taken |= groups == group
    return taken


for _function in (test_rows, test_rows_spec):
    _function.__test__ = False  # a name that pytest would collect


def _leaks(similar, lower=True, pick=any):
    """leaked with another sense of similar, of two sets of words and the threshold."""

    def wrong(train, test, threshold):
        sets = lambda texts: [set((text.lower() if lower else text).split()) for text in texts]  # noqa: E731
        known = sets(train)
        return torch.tensor([pick(similar(row, one, threshold) for one in known) for row in sets(test)])

    return wrong


def _jaccard(row, one, threshold):
    return len(row & one) >= threshold * len(row | one)


def _in_test(train, test, threshold):
    rows = [set(text.lower().split()) for text in test]
    return torch.tensor([any(_jaccard(a, b, threshold) for k, b in enumerate(rows) if k != n)
                         for n, a in enumerate(rows)])  # fmt: skip


def _by_groups(groups: Tensor, wanted: int, order=None, enough=lambda rows, group, wanted: rows >= wanted) -> Tensor:
    """test_rows with another order of the groups, or another reason to stop."""
    values = groups.tolist()
    order = list(dict.fromkeys(values)) if order is None else order(values)
    taken: list[int] = []
    for group in order:
        if enough(sum(values.count(one) for one in taken), values.count(group), wanted):
            break
        taken.append(group)
    return torch.tensor([group in taken for group in values])


def _cut(groups: Tensor, wanted: int) -> Tensor:
    """As many rows as wanted, and no more."""
    taken = test_rows(groups, wanted)
    return taken & (taken.cumsum(0) <= wanted)


def _many_groups(groups: Tensor, wanted: int) -> Tensor:
    """As many groups as rows are wanted."""
    first = list(dict.fromkeys(groups.tolist()))[:wanted]
    return torch.isin(groups, torch.tensor(first))


@st.composite
def _texts(draw):
    """A few texts, and test texts of which most are a training text with a word changed, added or written large."""
    words = st.lists(st.sampled_from(WORDS), min_size=2, max_size=4, unique=True)
    train = draw(st.lists(words, min_size=1, max_size=3))
    test = []
    for _ in range(draw(st.integers(1, 3))):
        row = list(draw(st.sampled_from(train)))
        way = draw(st.sampled_from(["add", "change", "drop", "case", "same", "new", "twice"]))
        if way == "add":
            row.append(draw(st.sampled_from([word for word in WORDS if word not in row])))
        elif way == "change":
            row[-1] = draw(st.sampled_from([word for word in WORDS if word not in row]))
        elif way == "drop":
            row = row[1:]
        elif way == "case":
            row = [word.capitalize() for word in row]
        elif way == "new":
            row = draw(words)
        elif way == "twice":
            row.append(row[0])
        test.append(" ".join(row))
    return [" ".join(row) for row in train], test, draw(st.sampled_from(THRESHOLDS))


@st.composite
def _groups(draw):
    """Rows of two to five groups in any order, and how many of them the test set should have at least."""
    groups = draw(st.lists(st.integers(1, 5), min_size=3, max_size=8).filter(lambda rows: len(set(rows)) > 1))
    return torch.tensor(groups), draw(st.integers(1, len(groups) - 1))


EXERCISES = (
    Exercise(
        name="leaked", page=14, title="Which test messages did the model see in training?",
        spec=leaked_spec, solution=leaked, inputs=_texts(),
        demo=(
            ["please send the bill for May", "my chain is broken"],
            ["Please send the bill for June", "is my chain broken", "where is my order"], 0.6,
        ),
        mistakes=(
            Mistake(
                "exact copies only",
                "One other number or name, and a copy is no longer exact. Compare sets of words.",
                wrong=(
                    lambda train, test, threshold: torch.tensor([text in train for text in test]),
                    lambda train, test, threshold: torch.tensor(
                        [text.lower() in {one.lower() for one in train} for text in test]
                    ),
                    _leaks(lambda row, one, threshold: row == one),
                ),
            ),
            Mistake("upper case taken for another word", "Make both texts lower case first.",
                    wrong=(_leaks(_jaccard, lower=False),)),
            Mistake(
                "the test set against itself",
                "Near duplicates within the test set are another fault. A leak is between training and test.",
                wrong=(_in_test,),
            ),
            Mistake(
                "like all instead of like any",
                "One training message that is like it is enough.",
                wrong=(_leaks(_jaccard, pick=all),),
            ),
            Mistake(
                "divided by one text's words",
                "A short text is inside many long ones. Divide by the words of either text, both together.",
                wrong=(
                    _leaks(lambda row, one, threshold: len(row & one) >= threshold * len(row)),
                    _leaks(lambda row, one, threshold: len(row & one) >= threshold * len(one)),
                    _leaks(lambda row, one, threshold: len(row & one) >= threshold * min(len(row), len(one))),
                    _leaks(lambda row, one, threshold: len(row & one) >= threshold * max(len(row), len(one))),
                ),
            ),
            Mistake(
                "divided by the sum of both",
                "Words in both texts are counted twice in len(a) + len(b). Count each once: len(a | b).",
                wrong=(
                    _leaks(lambda row, one, threshold: len(row & one) >= threshold * (len(row) + len(one))),
                    _leaks(lambda row, one, threshold: 2 * len(row & one) >= threshold * (len(row) + len(one))),
                ),
            ),
            Mistake("just as similar left out", "At the threshold it is a leak: use >=.",
                    wrong=(_leaks(lambda row, one, threshold: len(row & one) > threshold * len(row | one)),)),
            Mistake("the clean ones", "True is for a test message that leaks.",
                    wrong=(lambda *a: ~leaked(*a),)),
        ),
        hints=(
            "What do two messages share that differ in one number? Nearly all of their words.",
            "Turn each text into a set of words in lower case. Two sets share `a & b`; together they have `a | b`.",
            "For each test text: any(len(a & b) / len(a | b) >= threshold for b in the training sets).",
        ),
        reward="That number is called Jaccard similarity. The linter's MinHash estimates it without all pairs.",
    ),
    Exercise(
        name="test_rows", page=14, title="Split by customer, not by row",
        spec=test_rows_spec, solution=test_rows, inputs=_groups(),
        demo=(torch.tensor([3, 1, 3, 2, 1, 4]), 3),
        mistakes=(
            Mistake(
                "rows instead of groups",
                "The first rows are of customers who also have later rows, and these stay in training. Take whole "
                "groups.",
                wrong=(
                    lambda groups, wanted: torch.arange(len(groups)) < wanted,
                    lambda groups, wanted: torch.arange(len(groups)) >= len(groups) - wanted,
                ),
            ),
            Mistake(
                "the last group cut",
                "Exactly `wanted` rows would cut a group in two. Take it whole, even if that is a few rows more.",
                wrong=(_cut,),
            ),
            Mistake(
                "stops a group too early",
                "Stop once there are enough rows, not before the group that makes them enough.",
                wrong=(
                    lambda groups, wanted: _by_groups(groups, wanted, enough=lambda rows, group, n: rows + group > n),
                ),
            ),
            Mistake("a group too many", "With exactly `wanted` rows there are enough.",
                    wrong=(lambda groups, wanted: test_rows(groups, wanted + 1),)),
            Mistake(
                "groups counted instead of rows",
                "`wanted` is a number of rows: a large customer has many at once.",
                wrong=(_many_groups,),
            ),
            Mistake(
                "groups in order of their number",
                "The rows were shuffled; the groups' numbers were not. Take groups in the order in which they occur.",
                wrong=(
                    lambda groups, wanted: _by_groups(groups, wanted, lambda values: sorted(set(values))),
                    lambda groups, wanted: _by_groups(groups, wanted, lambda values: sorted(set(values), reverse=True)),
                ),
            ),
            Mistake("the training rows", "True is for a row of the test set.",
                    wrong=(lambda groups, wanted: ~test_rows(groups, wanted),)),
        ),
        hints=(
            "Which rows must follow the first row into the test set, wherever they are?",
            "Walk through the rows. If there are not enough test rows yet, this row's whole group goes in.",
            "Keep a bool tensor `taken`. For each group in groups: if taken.sum() < wanted, add groups == group to it.",
        ),
        reward="`tasks.own(..., group=\"customer\")` does the same with shuffled groups and three splits.",
    ),
)  # fmt: skip
