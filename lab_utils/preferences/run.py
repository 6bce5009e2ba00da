"""`prefer` and `reward`: training by preference and by reward, killed and resumed at will like `finetune`."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..device import use_threads
from ..errors import LabError
from ..files import user_path
from ..finetune import Recipe, encode
from ..finetune.checkpoint import latest_record, save_adapter
from ..finetune.conversation import padding_token
from ..finetune.fit import check_fit, check_values
from ..finetune.fsdp import WholeAdapter
from ..finetune.identity import base_identity, data_digest, tokens_digest
from ..finetune.identity_differences import refuse_other
from ..finetune.loop import train
from ..finetune.optimizer import optimizer_of
from ..finetune.processes import accelerate
from ..finetune.resume import load_adapter, restore
from ..finetune.run_folders import refuse_in_the_way, set_aside, set_damaged_aside
from ..finetune.run_lock import held
from ..finetune.runs import Run
from ..finetune.starting import check_arguments, device_for, model_name
from ..finetune.supervision import prompt_ids
from ..finetune.training_rows import training_rows
from ..memory.free import keep_freed_memory
from ..models import load_base
from ..models.registry import keep_weights_trainable
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
    rows = [{"prompt": pair["prompt"], "answer": pair[name]} for pair in pairs for name in ("chosen", "rejected")]

    def trainer_of(tokenizer, task):
        encoded = [[encode(tokenizer, task, pair["prompt"], pair[name]) for name in ("chosen", "rejected")]
                   for pair in pairs]  # fmt: skip
        kept = [two for two in encoded if max(len(one.input_ids) for one in two) <= recipe.max_length]
        _say_left_out(len(encoded) - len(kept), len(encoded), "pairs", recipe.max_length)
        lengths = [max(len(one.input_ids) for one in two) for two in kept]
        flat = [one for two in kept for one in two]
        return flat, 0, lengths, lambda *settings: PreferenceTrainer(*settings, pairs=kept)

    return _run(recipe, output_dir, resume, base, rows, trainer_of, on_step, progress)


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

    def trainer_of(tokenizer, task):
        encoded = [(prompt_ids(tokenizer, task, row["prompt"]), row["answer"]) for row in rows]
        room = task.max_new_tokens
        kept = [(ids, answer) for ids, answer in encoded if len(ids) + room <= recipe.max_length]
        _say_left_out(len(encoded) - len(kept), len(encoded), "prompts", recipe.max_length)
        prompts, answers = map(list, zip(*kept, strict=True))
        flat = [encode(tokenizer, task, row["prompt"], row["answer"]) for row in rows]
        make = {"prompts": prompts, "answers": answers, "worth": worth, "tokenizer": tokenizer, "room": room}
        return flat, room, list(map(len, prompts)), lambda *settings: RewardTrainer(*settings, **make)

    return _run(recipe, output_dir, resume, base, rows, trainer_of, on_step, progress)


def _run(recipe: Recipe, output_dir, resume: bool, base, rows: list, trainer_of, on_step, progress: bool) -> Run:
    """What both do: lock, checkpoint, base, adapter, loop, the adapter saved."""
    output_dir = user_path(output_dir)
    device = device_for(base)
    use_threads()
    keep_freed_memory()
    with accelerate(device) as accelerator, ExitStack() as until_the_end:
        if accelerator.num_processes > 1:
            raise LabError("prefer and reward train in one process: start them without torchrun or accelerate launch.")
        until_the_end.enter_context(held(output_dir))
        recipe = replace(recipe, model=model_name(recipe, base, output_dir if resume else None))
        refuse_in_the_way(output_dir)
        if not resume:
            set_aside(output_dir)
        identity: dict = {"data": data_digest([*rows, *start_digest(recipe)]), "rows": len(rows)}
        found = latest_record(output_dir, recipe)
        if found:
            refuse_other(output_dir, found[1].get("identity", {}), identity)
        set_damaged_aside(output_dir, found and found[0])
        model, tokenizer = base or load_base(recipe.model, recipe.quantization, device, progress)
        check_values(model)
        keep_weights_trainable(model)
        examples, room, lengths, make = trainer_of(tokenizer, find_task(recipe.task))
        padding = padding_token(tokenizer)
        check_fit(model, [*(one.input_ids for one in examples), [padding]], room, way_out="Lower max_length.")
        identity |= {"tokens": tokens_digest(examples), "base": base_identity(model, device)}
        if found:
            refuse_other(output_dir, found[1].get("identity", {}), identity)
        model, start = begin(model, recipe)
        if found:
            load_adapter(model, found[0])
        trainer = make(
            recipe, device, accelerator, model, lengths, padding, start,
            optimizer_of(found[2]["optimizer"]) if found else None,
        )  # fmt: skip
        history = restore(trainer, *found) if found else []
        if found and progress:
            print(f"Going on from {found[0].name} of {recipe.steps} steps.")
        run = Run(recipe, output_dir, history, model, tokenizer, resumed_from=len(history))
        if len(history) < recipe.steps:
            trainer.check_memory()
            train(trainer, run, identity, None, on_step, progress)
        elif on_step:
            on_step(history)
        save_adapter(run.adapter_dir, WholeAdapter(model).save_pretrained)
        return run


def _say_left_out(left_out: int, count: int, what: str, max_length: int) -> None:
    """Print how many examples are too long; a LabError if all are."""
    if left_out == count:
        raise LabError(f"None of {count:,} {what} fits into max_length={max_length} tokens, answer included. Raise it.")
    if left_out:
        print(f"{left_out} of {count} {what} are longer than {max_length} tokens with their answers: left out.")
