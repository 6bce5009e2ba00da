"""How good are a model's answers: exact match, fields, valid answers, with a confidence interval."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..decoding import as_pairs, generate, prompt_of, say_cut, texts
from ..errors import LabError, shown, whole
from ..finetune import open_run
from ..printing import say
from ..scores import measure
from ..scores.measuring import metric_of
from ..tasks import OwnTask, Task
from ..tasks.answer_kinds import metric_name
from ..tasks.registry import find_task
from .held_out import held_out


@dataclass(frozen=True)
class Scores:
    """What `score` found.

    Attributes
    ----------
    exact : float in [0, 1], share of answers that are right as a whole
    exact_interval : (low, high), 95 % bootstrap interval of `exact`
    valid : float in [0, 1], share of well-formed answers: a JSON object, or a text in the task's style
    valid_interval : (low, high), 95 % bootstrap interval of `valid`
    fields : dict field -> share of right values (empty for plain-text tasks)
    rows : list of {"prompt", "answer", "output", "right", "valid"}, in the order of the examples
    measured : scores.Measured, what suits the task's answers: label accuracy, fields, token F1, your own function
    """

    exact: float
    exact_interval: tuple[float, float]
    valid: float
    valid_interval: tuple[float, float]
    fields: dict[str, float]
    rows: list[dict] = field(repr=False)
    measured: object = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.measured is not None:
            return str(self.measured)
        parts = [f"exact match {self.exact:.0%} ({self.exact_interval[0]:.0%} to {self.exact_interval[1]:.0%})"]
        parts.append(f"well-formed {self.valid:.0%}")
        parts += [f"{name} {share:.0%}" for name, share in self.fields.items()]
        return f"{len(self.rows)} examples: " + ", ".join(parts)


def bootstrap_interval(hits: Sequence[bool], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a share.

    Parameters
    ----------
    hits : sequence of bool, one per example, not empty; or of numbers in [0, 1]
    resamples : int, 1 to 1,000,000
    seed : int, 0 or more

    Returns
    -------
    (low, high), both in [0, 1]

    Raises
    ------
    LabError
        `hits` is empty or holds something else, or a setting is out of range.

    Source: Efron 1979, Bootstrap methods. https://doi.org/10.1214/aos/1176344552
    """
    import numpy as np

    resamples, seed = whole("resamples", resamples, 1, 1_000_000), whole("seed", seed, 0)
    try:
        values = np.asarray(hits, dtype=float)
    except (TypeError, ValueError) as error:
        raise LabError(f"hits={shown(hits)} is out of range: True or False for each example.") from error
    if values.size == 0:
        raise LabError("There are no examples: the share of none has no interval.")
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():  # NaN is neither
        raise LabError(f"hits={shown(hits)} is out of range: True or False for each example.")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def score(
    model, tokenizer=None, examples=None, task: str | Task | None = None, batch_size: int = 32, *, shots=()
) -> Scores:
    """Let the model answer `examples` greedily and compare with the answers.

        score(run)                  the test split of the task that the run was trained on
        score("runs/tickets")       the same of a run in a folder, which is opened for it
        score(run, own)             the test split of a task of your own
        score(run, rows)            rows of the run's task
        score(model, tokenizer, rows, "bookings")

    Parameters
    ----------
    model : a Run of `finetune`, or the folder of one; or a model, as `load_base` or `finetune` return it, with its
        `tokenizer`
    tokenizer : the model's; after a Run, the examples
    examples : a split of `load_task`, any list of {"prompt": str, "answer": str} or of {"messages": list}, or a task of
        your own, whose test split is meant (without one the validation split, and that is printed). Of a conversation
        the assistant's last turn is asked for.
    task : a name in `TASKS`, or a Task: what the answers are compared as, and the system message. Default: the run's,
        or the examples' if they are a task; else "bookings"
    batch_size : int, examples decoded together
    shots : rows like `examples`, put before every prompt as turns of the conversation

    Returns
    -------
    Scores

    Raises
    ------
    LabError
        There are no examples, the task is unknown, the answers are not the task's, or as `generate` and `open_run`.
    """
    if isinstance(model, (str, Path)):
        given = [one for one in (task, tokenizer, examples) if isinstance(one, OwnTask)]
        model = open_run(model, given[0] if given else None)
    if hasattr(model, "recipe") and hasattr(model, "output_dir"):
        run, examples = model, tokenizer if examples is None else examples
        if task is None and isinstance(examples, OwnTask):
            _say_other(run.task, examples)
        model, tokenizer, task = run.model, run.tokenizer, task or run.recipe.task
        examples = find_task(task) if examples is None else examples
    if isinstance(examples, OwnTask):
        task = task or examples
    task = find_task(task or "bookings")
    examples = _check_references(task, held_out(examples))
    say_cut(tokenizer, task, examples)
    outputs = generate(model, tokenizer, [prompt_of(row) for row in examples], task, batch_size, shots=shots)
    return grade(task, examples, outputs)


def _say_other(task: Task, examples: OwnTask) -> None:
    """Print what a task of one's own asks or compares by that the run's task, which decides, does not."""
    pairs = {"system": (task.system, examples.system), "fields": (set(task.fields), set(examples.fields))}
    pairs["metric"] = tuple(metric_name(metric_of(one)) for one in (task, examples))
    if other := [name for name, (one, two) in pairs.items() if one != two]:
        say(
            f"Note: these examples are asked and scored as the run's own task is. Theirs has another "
            f"{' and another '.join(other)}: to go by that, pass task= too."
        )


def grade(task: Task, examples: list[dict], outputs: list[str]) -> Scores:
    """The scores of given outputs.

    A field is right if output and answer both have it, with the same type and value: where both leave it out, or where
    the output is not JSON, it is wrong. Of a task of your own, a field that both JSON objects leave out is right.

    Parameters
    ----------
    task : Task
    examples : rows of {"prompt": str, "answer": str}, not empty
    outputs : list of str, one per example, in the same order

    Raises
    ------
    LabError
        There are no examples, the numbers differ, an output is not a text, or an answer is empty or not the task's.
    """
    task = find_task(task)
    examples, outputs = _check_references(task, examples), texts("outputs", outputs)
    if len(outputs) != len(examples):
        raise LabError(f"There are {len(examples)} examples and {len(outputs)} outputs: give one output per example.")
    for number, output in enumerate(outputs, 1):
        if not isinstance(output, str):
            raise LabError(f"output {number} is a {type(output).__name__}: give the text that the model wrote.")
    rows = [
        {
            "prompt": example["prompt"],
            "answer": example["answer"],
            "output": output,
            "right": task.is_right(output, example["answer"]),
            "valid": task.is_valid(output),
        }
        for example, output in zip(examples, outputs, strict=True)
    ]
    fields = [task.right_fields(row["output"], row["answer"]) for row in rows]
    right, valid = [row["right"] for row in rows], [row["valid"] for row in rows]
    return Scores(
        exact=sum(right) / len(rows),
        exact_interval=bootstrap_interval(right),
        valid=sum(valid) / len(rows),
        valid_interval=bootstrap_interval(valid),
        fields={name: sum(one[name] for one in fields) / len(rows) for name in task.fields},
        rows=rows,
        measured=measure(task, [row["answer"] for row in rows], outputs) if isinstance(task, OwnTask) else None,
    )


def _check_references(task: Task, examples) -> list[dict]:
    """The examples as a list, or a LabError that names the first whose answer is not one of the task."""
    examples = as_pairs(examples)
    if not examples:
        raise LabError("There are no examples to score: the split is empty. Choose another split or a larger slice.")
    for number, row in enumerate(examples, 1):
        if not task.fields:
            if not row["answer"].strip():
                raise LabError(f"example {number}: the answer is empty, and so would be right. Leave that row out.")
            continue
        found = task.parse(row["answer"])
        if found is None:
            why = "is not a JSON object"
        elif isinstance(task, OwnTask):  # of which each row may have other fields, or none
            continue
        elif unknown := [key for key in found if key not in task.fields]:
            why = f"has the field {unknown[0]!r}"
        elif not found:
            why = "has no field"
        else:
            continue
        raise LabError(
            f"example {number}: the answer {row['answer'][:60]!r} {why}, and this task's answers are JSON objects with "
            f"the fields {', '.join(task.fields)}. Name the task that the examples belong to: task='style' compares "
            "plain text; for other fields give task=dataclasses.replace(TASKS['bookings'], fields=('your', 'fields'))."
        )
    return examples
