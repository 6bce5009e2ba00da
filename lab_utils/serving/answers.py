"""Answers of a bank of adapters: who is asked, with which system message, and what comes back when it fails."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import LabError
from ..files import user_path
from ..tasks import TASKS, Task, load_task
from ..tasks.registry import find_task
from .adapter_records import base_of, recorded_adapter, task_of
from .bank import AdapterBank

BASE = "base"
Answers = Callable[[list[str], list[str | None]], list[str]]
DEFAULT_ADAPTERS = ("bookings", "style")


def reply(answers: Answers, message: str, adapters: Sequence[str | None]) -> dict:
    """Answer one message with several adapters in one batch.

    Parameters
    ----------
    answers : function, (messages, adapters) -> texts; None among the adapters is the base
    message : str
    adapters : sequence of str or None

    Returns
    -------
    dict of "message", "replies" (list of str, one per adapter), "seconds" (float, of the whole batch) and "error" (str:
    what went wrong and what to do; "" if nothing did)
    """
    replies, error, began = [], "", time.perf_counter()
    try:
        replies = list(answers([message] * len(adapters), list(adapters)))
        if len(replies) != len(adapters):
            error = f"{len(replies)} answers came back for {len(adapters)} adapters: `answers` must give one each."
    except LabError as problem:
        error = str(problem)
    except Exception as problem:  # a widget's callback may not raise: nobody would see it
        error = (
            f"No answer: {type(problem).__name__}: {problem}. Try a shorter message. If that fails too, restart and "
            "load the model and its adapters again."
        )
    seconds = round(time.perf_counter() - began, 3)
    return {"message": message, "replies": [] if error else replies, "seconds": seconds, "error": error}


def answers_of(bank, base_task: str | None = None, *, room: int | None = None) -> Answers:
    """A bank's answers with a system message for the rows of the base, which has no task.

    Parameters
    ----------
    bank : lab_utils.serving.AdapterBank
    base_task : str, optional
        A name in `lab_utils.tasks.TASKS`. Default: the task of the first adapter that has one.
    room : int >= 1, optional
        The most tokens of an answer. Default: what the tasks of the batch need.
    """
    most = {} if room is None else {"max_new_tokens": room}

    def answers(messages: list[str], adapters: list[str | None]) -> list[str]:
        for_base = base_task or next((task for task in bank.tasks.values() if task), None)
        return bank.answer(messages, adapters, tasks=[bank.tasks.get(name, for_base) for name in adapters], **most)

    return answers


def load_bank(folders: Mapping[str, Path], model: str | None = None, task: str | None = None):
    """A bank of the adapters in `folders` (name -> folder) on a base, rounded to NF4 as in training.

    On a CPU the bank holds the dequantized weights, which give the same answers faster.

    Parameters
    ----------
    folders : dict name -> folder
    model : str, optional
        The base: a name in `MODELS`, a folder, or owner/name on the hub. Default: the one that the adapters' records
        name, or the embedded one.
    task : str, optional
        A name in `lab_utils.tasks.TASKS`: that of adapters whose folder does not say which task they were trained on.

    Raises
    ------
    LabError
        Nothing says an adapter's task, or two were trained on two bases; or as `load_base` and `AdapterBank.load`.
    """
    tasks = {name: _task_of(folder, task) for name, folder in folders.items()}
    for name, its_task in tasks.items():
        if its_task is None:
            raise LabError(
                f"{folders[name]} does not say which task {name} was trained on (there is no record.json), and another "
                f"task's system message would give wrong answers. Name it: --task bookings, or {', '.join(TASKS)}."
            )
        find_task(its_task)
    from ..merging import dequantized_copy
    from ..models import four_bit_problem, load_base

    quantization = "none" if four_bit_problem() else "nf4"
    base, tokenizer = load_base(model or _base_of(folders), quantization)
    if quantization == "nf4" and base.device.type == "cpu":
        base = dequantized_copy(base)
    bank = AdapterBank(base, tokenizer)
    for name, folder in folders.items():
        bank.load(name, folder, tasks[name])
    return bank


def _base_of(folders: Mapping[str, Path]) -> str | None:
    """The one base that the adapters' records name; None if none does."""
    found = {name: base for name, folder in folders.items() if (base := base_of(folder))}
    if len(set(found.values())) > 1:
        named = ", ".join(f"{name} on {base}" for name, base in found.items())
        raise LabError(f"These adapters were trained on different bases ({named}). Load those of one base together.")
    return next(iter(found.values()), None)


def _task_of(folder: Path, task: str | None) -> str | Task | None:
    """The task that an adapter's record names; `task` if there is no record, or none that can be read."""
    try:
        return task_of(folder) or task
    except LabError:
        if task is None:
            raise
        return task


def adapter_folders(texts: Sequence[str]) -> dict[str, Path]:
    """`name=folder` of the command line as a dict; without any, the recorded adapters.

    Raises
    ------
    LabError
        A text is not of that form, a name comes twice, or a folder is not there.
    """
    if not texts:
        return {name: recorded_adapter(name) for name in DEFAULT_ADAPTERS}
    folders = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not (name and folder):
            raise LabError(f"--adapter {text} is not understood: write name=folder, as --adapter mine=runs/08/adapter.")
        if name in folders:
            raise LabError(f"--adapter {name} is given twice: each adapter needs its own name.")
        path = user_path(folder)  # a shell expands ~ only where a word begins
        if not path.is_dir():
            raise LabError(f"--adapter {text}: there is no folder {path.resolve()}.")
        folders[name] = path
    return folders


def example_messages(tasks: Iterable[str | Task], count: int = 2) -> list[str]:
    """The first `count` test messages of each task whose data lie in the repository."""
    return [
        message
        for task in dict.fromkeys(tasks) if not isinstance(task, Task) and not TASKS[task].hub
        for message in load_task(task)["test"][:count]["prompt"]
    ]
