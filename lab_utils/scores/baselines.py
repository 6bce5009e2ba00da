"""What costs nothing: the answer that is right most often, and examples to put into a prompt."""

import random
from collections import Counter
from collections.abc import Sequence

from ..errors import LabError, whole
from ..tasks import OwnTask
from .measuring import as_json

READ = 20_000  # rows of training that are counted


def majority(own: OwnTask) -> tuple[str, float]:
    """The most common answer of training, and its share there: what a model that has read nothing would say.

    Of answers with fields, each field's most common value; the share is then of rows that have all of them.

    Raises
    ------
    LabError
        The answers are free texts, of which none is common.
    """
    if own.kind == "conversations" or own.metric == "text":
        raise LabError(f"The answers of {own.name!r} are free texts, and have no majority. Compare with the base.")
    answers = own["train"][:READ]["answer"]
    if own.fields:
        rows = [own.parse(answer) or {} for answer in answers]
        common = {name: _most([row[name] for row in rows if name in row]) for name in own.fields}
        said = as_json({name: value for name, value in common.items() if value is not None})
        return said, sum(own.is_right(said, answer) for answer in answers) / len(answers)
    said, count = Counter(answers).most_common(1)[0]
    return said, count / len(answers)


def _most(values: list):
    """The most common of values that JSON can write, lists among them."""
    if not values:
        return None
    counts = Counter(as_json([value]) for value in values)
    most = counts.most_common(1)[0][0]
    return next(value for value in values if as_json([value]) == most)


def majority_outputs(own: OwnTask, examples: Sequence[dict]) -> list[str]:
    """The majority's answer to each example."""
    return [majority(own)[0]] * len(examples)


def few_shots(own: OwnTask, count: int = 4, seed: int = 0) -> list[dict]:
    """Examples of training to put before a prompt, drawn by a seed; of labels, as many of each as there is room for.

    Returns
    -------
    list of rows, fewer than `count` only if there are fewer

    Raises
    ------
    LabError
        `count` is out of range.
    """
    count = whole("count", count, 0, 1000)
    rng = random.Random(seed)
    rows = own["train"]
    drawn = [rows[number] for number in rng.sample(range(len(rows)), min(len(rows), max(count, 500)))]
    if own.metric != "labels":
        return drawn[:count]
    by_label: dict[str, list[dict]] = {}
    for row in drawn:
        by_label.setdefault(row["answer"], []).append(row)
    order = [group[place] for place in range(len(drawn)) for group in by_label.values() if place < len(group)]
    shots = order[:count]
    rng.shuffle(shots)  # or the last label of all would always be the same
    return shots
