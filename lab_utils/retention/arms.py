"""The ways to train that page 15 compares: LoRA or all weights, random labels, replayed text, a KL term."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..finetune import (
    Encoded,
    Recipe,
    answer_logits,
    attach_adapter,
    build_optimizer,
    collate,
    encode,
    encode_split,
    plan_batches,
    speed_up,
    take_off_adapter,
)  # fmt: skip
from ..finetune.full import load_full, matrices
from ..finetune.optimizer import descend, set_rate
from ..locks import wait_for_tests
from ..sweep.base_weights import plain_base, put_weights, weights_of
from ..tasks import TASKS, load_task
from .measuring import GENERAL, passages, questions
from .strength import at_strength

REPLAY = 10  # every tenth example is general text, in the arm that replays


@dataclass(frozen=True)
class Arm:
    """One way to train: recipe, and what differs from plain LoRA.

    Attributes
    ----------
    recipe : Recipe
    full : bool, all matrices of the layers are trained, without an adapter
    shuffled : bool, every message gets the answer of another
    replay : bool, every tenth example is general text
    anchor : float >= 0, weight of KL(base ‖ model) on the tokens of the prompts
    strengths : bool, read the texts with the adapter turned up and down too, and with a random one
    """

    recipe: Recipe
    full: bool = False
    shuffled: bool = False
    replay: bool = False
    anchor: float = 0.0
    strengths: bool = False


def build(arm: Arm):
    """(model, tokenizer, optimizer) before the first step."""
    recipe = arm.recipe
    if arm.full:
        model, tokenizer = load_full(recipe)
        weights = [module.weight for module in matrices(model).values()]
        return model, tokenizer, torch.optim.AdamW(weights, recipe.learning_rate, weight_decay=0.0, fused=True)
    base, tokenizer = plain_base(recipe.model)
    base = take_off_adapter(base)
    put_weights(base, weights_of(recipe.model, recipe.quantization))
    model = attach_adapter(base, recipe)
    speed_up(model)
    return model, tokenizer, build_optimizer(model, recipe.learning_rate, weight_decay=0.0)


def training_rows(arm: Arm) -> list[dict]:
    """The messages that the recipe wants; shuffled, each with the answer of the next in a random round."""
    rows = list(load_task(arm.recipe.task)["train"])[: arm.recipe.train_examples]
    if arm.shuffled:
        turn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(arm.recipe.seed)).tolist()
        rows = with_next_answers(rows, turn)
    return rows


def with_next_answers(rows: Sequence[dict], order: list[int]) -> list[dict]:
    """The rows, each with the answer of the one that is next in `order`, and the last with the first one's.

    So every answer is there once, and with two rows or more none is where it was.
    """
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return [row | {"answer": rows[following[place]]["answer"]} for place, row in enumerate(rows)]


def general_text(tokenizer) -> list[Encoded]:
    """What is replayed: questions with answers and passages, none of which is measured."""
    asked = [encode(tokenizer, GENERAL, row["prompt"], row["answer"]) for row in questions("replay")]
    read = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in passages("replay")[: len(asked)]]
    return [one for pair in zip(asked, (Encoded(ids, 1) for ids in read), strict=True) for one in pair]


def batches(arm: Arm, tokenizer) -> Iterator[list[Encoded]]:
    """The examples of each step."""
    recipe = arm.recipe
    examples = encode_split(tokenizer, TASKS[recipe.task], training_rows(arm), recipe.max_length)
    plan = plan_batches([len(one.input_ids) for one in examples], recipe.batch_size, recipe.steps, recipe.seed)
    replayed, count = (general_text(tokenizer) if arm.replay else []), 0
    for indices in plan:
        some = [examples[index] for index in indices]
        for place in range(len(some)):
            count += 1
            if replayed and count % REPLAY == 0:
                some[place] = replayed[count // REPLAY % len(replayed)]
        yield some


def batch_loss(model, arm: Arm, some: list[Encoded], padding: int):
    """Mean loss per answer token, and with an anchor the KL divergence from the base on the tokens of the prompts."""
    batch = collate(some, padding)
    logits, targets, _ = answer_logits(model, **batch)
    loss = torch.nn.functional.cross_entropy(logits.float(), targets)
    if not arm.anchor:
        return loss, loss
    reads = (batch["labels"] < 0) & (batch["attention_mask"] > 0)
    prompt = batch | {"labels": torch.where(reads, batch["input_ids"], -100)}
    with torch.no_grad(), at_strength(model, 0):
        base = answer_logits(model, **prompt)[0].float().log_softmax(-1)
    own = answer_logits(model, **prompt)[0].float().log_softmax(-1)
    return loss, loss + arm.anchor * torch.nn.functional.kl_div(own, base, reduction="batchmean", log_target=True)


def train(
    model, tokenizer, arm: Arm, optimizer, look: Callable[[int], None], checkpoints: Collection[int],
    losses: list[float] | None = None,
) -> list[float]:  # fmt: skip
    """All steps; `look(step)` is called before the first, at the checkpoints and after the last.

    Parameters
    ----------
    model, tokenizer, optimizer : as `build` returns them, or as they were after the steps in `losses`
    arm : Arm
    look : function of the number of steps taken
    checkpoints : int, such numbers
    losses : list of float, of the steps that are taken already; it grows with each further one

    Returns
    -------
    list of float, each step's loss on the answers, measured before the step
    """
    recipe, losses = arm.recipe, [] if losses is None else losses
    for group in optimizer.param_groups:
        group.setdefault("share", group["lr"] / recipe.learning_rate)
    padding, scaler, taken = tokenizer.pad_token_id, torch.amp.GradScaler("cpu", enabled=False), len(losses)
    if not taken:
        look(0)
    for step, some in enumerate(batches(arm, tokenizer)):
        if step < taken:
            continue
        wait_for_tests()
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=arm.full):
            loss, goal = batch_loss(model, arm, some, padding)
        optimizer.zero_grad()
        set_rate(optimizer, recipe.learning_rate_at(step))
        descend(goal, optimizer, scaler, recipe.max_grad_norm, f" at step {step + 1}")
        losses.append(round(float(loss.detach()), 4))
        if step + 1 in checkpoints or step + 1 == recipe.steps:
            look(step + 1)
    return losses
