"""`prefer` and `reward`: training by preference and by reward, killed and resumed at will like `finetune`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..errors import LabError
from ..finetune import Recipe, encode
from ..finetune.identity import data_digest, tokens_digest
from ..finetune.runs import Run
from ..finetune.starting import check_arguments, device_for
from ..finetune.supervision import prompt_ids
from ..finetune.training import Objective, run_training
from ..finetune.training_rows import training_rows
from ..printing import say
from ..tasks import load_task
from ..tasks.registry import find_task
from .pairs import booking_pairs, check_pairs
from .recipes import PreferenceRecipe, RewardRecipe
from .rewards import rewarder
from .starts import begin, start_digest
from .trainers import PreferenceTrainer, RewardTrainer


def prefer(
    recipe: PreferenceRecipe, output_dir: str | Path, resume: bool = True, *, base: tuple | None = None,
    pairs: Iterable | None = None, on_step: Callable[[list[dict]], None] | None = None, progress: bool = True,
) -> Run:  # fmt: skip
    """Train by preference (DPO): of two answers the chosen one becomes likelier than it was, the other less likely.

    Killed at any step, the same call goes on from the last checkpoint.

    Parameters
    ----------
    recipe : PreferenceRecipe
    output_dir : path of a folder for this run alone, `~` expanded
    resume, base, on_step, progress : as in `finetune`
    pairs : rows of {"prompt", "chosen", "rejected"}, all text. Default for the task "bookings": `booking_pairs` of its
        training split.

    Returns
    -------
    Run, as of `finetune`; what a row of its history has, `PreferenceTrainer` says

    Raises
    ------
    LabError
        As `finetune`; or a pair is none, no pair fits into max_length, or `start` holds no adapter of this recipe's.

    Source: Rafailov et al. 2023 (DPO). https://arxiv.org/abs/2305.18290
    """
    check_arguments(recipe, PreferenceRecipe(), output_dir, base)
    if pairs is None:
        if recipe.task != "bookings":
            raise LabError("pairs is missing: only for the task 'bookings' are pairs made by rule (booking_pairs).")
        pairs = booking_pairs(load_task("bookings")["train"], recipe.seed)
    pairs = check_pairs(pairs)[: recipe.train_examples]
    objective = _Chosen(pairs, recipe)
    return run_training(
        objective, recipe, output_dir, resume, base, device_for(base), on_step=on_step, progress=progress
    )


def reward(
    recipe: RewardRecipe, output_dir: str | Path, resume: bool = True, *, base: tuple | None = None, dataset=None,
    judge: Callable[[str, str], float] | None = None, on_step: Callable[[list[dict]], None] | None = None,
    progress: bool = True,
) -> Run:  # fmt: skip
    """Train by reward (GRPO): the model answers each prompt several times, and what is better than its group gains.

    Killed at any step, the same call goes on from the last checkpoint. No answer of the data is read by the model: only
    the reward looks at it.

    Parameters
    ----------
    recipe : RewardRecipe
    output_dir, resume, base, dataset, on_step, progress : as in `finetune`; rows of prompt and answer only
    judge : function (output, answer) -> number, with `reward="own"` in the recipe. A resumed run takes the function
        that it is given: that it is the same one is not checked.

    Returns
    -------
    Run, as of `finetune`; what a row of its history has, `RewardTrainer` says

    Raises
    ------
    LabError
        As `finetune`; or reward and judge do not go together, a row is a conversation, or `start` holds no adapter of
        this recipe's.

    Source: Shao et al. 2024 (DeepSeekMath, GRPO). https://arxiv.org/abs/2402.03300
    """
    check_arguments(recipe, RewardRecipe(), output_dir, base)
    task = find_task(recipe.task)
    worth = rewarder(task, recipe.reward, judge)
    rows = list(training_rows(load_task(recipe.task) if dataset is None else dataset, recipe.train_examples))
    if any("messages" in row for row in rows):
        raise LabError("dataset holds conversations: reward needs rows of one prompt and one answer.")
    objective = _Rewarded(rows, worth, recipe)
    return run_training(
        objective, recipe, output_dir, resume, base, device_for(base), on_step=on_step, progress=progress
    )


class _FromStart(Objective):
    """What both have in common: one process, and an adapter to start from, which is what the model is held against."""

    def __init__(self, rows: Sequence[dict], recipe: Recipe):
        self.identity = {"data": data_digest([*rows, *start_digest(recipe)]), "rows": len(rows)}

    def check_processes(self, count: int) -> None:
        if count > 1:
            raise LabError("prefer and reward train in one process: start them without torchrun or accelerate launch.")

    def attach(self, model, recipe: Recipe):
        model, self.start = begin(model, recipe)
        return model


class _Chosen(_FromStart):
    """To make the chosen answer of each pair likelier, and the rejected one less likely."""

    def __init__(self, pairs: list[dict], recipe: PreferenceRecipe):
        self.pairs = pairs
        super().__init__([one for pair in pairs for one in _two_rows(pair)], recipe)

    def encode(self, tokenizer, recipe: Recipe) -> None:
        task = find_task(recipe.task)
        encoded = [[encode(tokenizer, task, **row) for row in _two_rows(pair)] for pair in self.pairs]
        self.kept = [two for two in encoded if _longest(two) <= recipe.max_length]
        _say_left_out(len(encoded) - len(self.kept), len(encoded), "pairs", recipe.max_length)
        examples = [one for two in self.kept for one in two]
        self.digest, self.outermost = tokens_digest(examples), [one.input_ids for one in examples]

    def trainer(self, recipe, device, accelerator, model, padding: int, optimizer: str | None) -> PreferenceTrainer:
        lengths = [_longest(two) for two in self.kept]
        return PreferenceTrainer(
            recipe, device, accelerator, model, lengths, padding, self.start, optimizer, pairs=self.kept
        )


class _Rewarded(_FromStart):
    """To make those of the model's own answers likelier that are worth more than others to the same prompt."""

    def __init__(self, rows: list[dict], worth: Callable, recipe: RewardRecipe):
        self.rows, self.worth = rows, worth
        super().__init__(rows, recipe)

    def encode(self, tokenizer, recipe: Recipe) -> None:
        task = find_task(recipe.task)
        self.tokenizer, self.room = tokenizer, task.max_new_tokens
        encoded = [(prompt_ids(tokenizer, task, row["prompt"]), row["answer"]) for row in self.rows]
        kept = [(ids, answer) for ids, answer in encoded if len(ids) + self.room <= recipe.max_length]
        _say_left_out(len(encoded) - len(kept), len(encoded), "prompts", recipe.max_length)
        self.prompts, self.answers = map(list, zip(*kept, strict=True))
        examples = [encode(tokenizer, task, row["prompt"], row["answer"]) for row in self.rows]
        self.digest, self.outermost = tokens_digest(examples), [one.input_ids for one in examples]

    def trainer(self, recipe, device, accelerator, model, padding: int, optimizer: str | None) -> RewardTrainer:
        return RewardTrainer(
            recipe, device, accelerator, model, list(map(len, self.prompts)), padding, self.start, optimizer,
            prompts=self.prompts, answers=self.answers, worth=self.worth, tokenizer=self.tokenizer, room=self.room,
        )  # fmt: skip


def _two_rows(pair: dict) -> list[dict]:
    """A pair as two rows of prompt and answer: the chosen one first."""
    return [{"prompt": pair["prompt"], "answer": pair[name]} for name in ("chosen", "rejected")]


def _longest(examples: Sequence) -> int:
    """Tokens of the longest of some examples."""
    return max(len(one.input_ids) for one in examples)


def _say_left_out(left_out: int, count: int, what: str, max_length: int) -> None:
    """Print how many examples are too long; a LabError if all are."""
    if left_out == count:
        raise LabError(f"None of {count:,} {what} fits into max_length={max_length} tokens, answer included. Raise it.")
    if left_out:
        say(f"{left_out} of {count} {what} are longer than {max_length} tokens with their answers: left out.")
