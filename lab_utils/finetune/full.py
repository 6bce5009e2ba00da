"""Full fine-tuning, the thing that LoRA is measured against: every matrix of the layers is trained, in float32."""

import math
from collections.abc import Callable, Iterable, Iterator

from ..errors import LabError
from ..models import load_base
from ..tasks.registry import find_task
from .answer_loss import build_supervised
from .batches import collate, plan_batches
from .conversation import padding_token
from .fit import check_fit, check_values
from .optimizer import descend, set_rate
from .recipe import Recipe
from .supervision import encode_split
from .training_rows import training_rows


def matrices(model) -> dict:
    """The linear modules of the layers by name; the head, which is the embedding, is not among them."""
    import torch

    found = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return {name: module for name, module in found.items() if ".layers." in name}


def load_full(recipe: Recipe):
    """The base in float32 with gradients for the layers' matrices only; in bfloat16 most steps would be rounded away.

    Returns
    -------
    (model, tokenizer)
    """
    model, tokenizer = load_base(recipe.model, "none", verbose=False)
    model.float().requires_grad_(False)
    for module in matrices(model).values():
        module.weight.requires_grad_(True)
    return model, tokenizer


def training_steps(
    model, tokenizer, recipe: Recipe, rows: Iterable[dict], optimizer, *, autocast=None,
    before_step: Callable | None = None, after_step: Callable | None = None, done: int = 0,
) -> Iterator[float]:  # fmt: skip
    """The plain loop, without checkpoints or processes: one training step for each loss that is asked for.

    Parameters
    ----------
    model, tokenizer, recipe, rows : as in `train_full`
    optimizer : of torch, with the parameters to train; each group's "lr" is its peak, the recipe's schedule scales all
    autocast : torch.dtype that the forward pass computes in, on whichever device the model is; default the weights' own
    before_step, after_step : functions of the model, around the optimizer's step (see `lab_utils.variants`)
    done : int, steps that an interrupted run has taken; model and optimizer are as they were after them

    Yields
    ------
    float, the loss before that step's change, in nats per supervised token

    Raises
    ------
    LabError
        Loss or gradient are not finite; a row is not two texts, and its number and column are named; or the model has
        no values, no embedding for a token, or too few positions.
    """
    import torch

    examples = encode_split(tokenizer, find_task(recipe.task), training_rows(rows), recipe.max_length, recipe.turns)
    padding = padding_token(tokenizer)
    check_values(model)
    check_fit(model, [*(example.input_ids for example in examples), [padding]], way_out="Lower max_length.")
    plan = plan_batches([len(e.input_ids) for e in examples], recipe.batch_size, recipe.steps, recipe.seed)
    for group in optimizer.param_groups:
        group.setdefault("share", group["lr"] / recipe.learning_rate)
    place = next(model.parameters()).device
    scaler = torch.amp.GradScaler(place.type, enabled=autocast == torch.float16)
    supervised = build_supervised(model.train())
    hooks = [optimizer.register_step_pre_hook(lambda *_: before_step(model))] if before_step else []
    hooks += [optimizer.register_step_post_hook(lambda *_: after_step(model))] if after_step else []
    try:
        for step in range(done, recipe.steps):
            batch = collate([examples[index] for index in plan[step]], padding)
            batch = {name: tensor.to(place) for name, tensor in batch.items()}
            with torch.autocast(place.type, autocast, enabled=autocast is not None):
                loss = supervised(**batch) / (batch["labels"] >= 0).sum()
            blame = f" at step {step + 1}: lower learning_rate ({recipe.learning_rate:g})."
            if not math.isfinite(value := loss.item()):
                raise LabError(f"The loss is {value}{blame}")
            optimizer.zero_grad()
            set_rate(optimizer, recipe.learning_rate_at(step))
            descend(loss, optimizer, scaler, recipe.max_grad_norm, blame)
            yield value
    finally:
        for hook in hooks:
            hook.remove()


def train_full(
    model, tokenizer, recipe: Recipe, rows: Iterable[dict], on_step: Callable[[str], object] | None = None
) -> list[float]:
    """Fine-tune what `load_full` returned, in place, with the steps, batches and schedule that adapters get.

    Parameters
    ----------
    model, tokenizer : as `load_full` returns them
    recipe : Recipe; task, learning_rate, warmup, steps, batch_size, max_length, max_grad_norm, weight_decay and seed
        count, the others are an adapter's
    rows : iterable of {"prompt": str, "answer": str}
    on_step : function of a line of progress, optional

    Returns
    -------
    list of float, each step's loss in nats per supervised token

    Raises
    ------
    LabError
        The model has no such matrix; loss or gradient are not finite; a row is not two texts.
    """
    import torch

    trained = [module.weight for module in matrices(model).values()]
    if not trained:
        raise LabError(f"{type(model).__name__} has no linear module in a list named `layers`: take another base.")
    optimizer = torch.optim.AdamW(
        trained, recipe.learning_rate,
        weight_decay=recipe.weight_decay, fused=True,
    )  # fmt: skip
    losses = []
    for loss in training_steps(model, tokenizer, recipe, rows, optimizer):
        losses.append(loss)
        if on_step:
            on_step(f"step {len(losses)} of {recipe.steps}, loss {loss:.4f}")
    model.eval()
    return losses
