"""The adapter that a run starts from: read, compared with the recipe, and put on the model."""

import hashlib
from pathlib import Path

from ..errors import LabError
from ..files import explain, read_json, user_path
from ..finetune import Recipe, attach_adapter, speed_up
from ..finetune.checkpoint_files import ADAPTER, CONFIG
from ..finetune.resume import load_adapter
from .logprobs import adapter_state


def start_digest(recipe: Recipe) -> list[dict]:
    """What tells one start from another, as a row for `data_digest`: none for a fresh adapter.

    Raises
    ------
    LabError
        `start` is not an adapter's folder.
    """
    if not recipe.start:
        return []
    path = user_path(recipe.start) / ADAPTER
    try:
        return [{"prompt": "start", "answer": hashlib.sha256(path.read_bytes()).hexdigest()}]
    except OSError as error:
        raise LabError(
            f"start={recipe.start!r} is not the folder of an adapter: {path.name}: {explain(error)}"
        ) from error


def begin(model, recipe: Recipe) -> tuple:
    """Put on a base model the adapter that a recipe starts from: that in `recipe.start`, or a fresh one.

    Parameters
    ----------
    model : transformers model, or a peft model, whose adapter is taken off
    recipe : PreferenceRecipe or RewardRecipe

    Returns
    -------
    (peft model in training mode, the adapter's numbers at the start for `reference`, or None for a fresh adapter)

    Raises
    ------
    LabError
        The adapter has another rank, alpha or scaling than the recipe, or other modules: what differs is named.
    """
    model = attach_adapter(model, recipe)
    speed_up(model)
    if not recipe.start:
        return model, None
    folder = user_path(recipe.start)
    _check_scaling(folder, recipe)
    load_adapter(model, folder, "Give the recipe that adapter's rank and target_modules, or another start.")
    return model, adapter_state(model)


def _check_scaling(folder: Path, recipe: Recipe) -> None:
    """Raise a LabError if the adapter's own settings would scale it otherwise than the recipe does."""
    config = read_json(folder / CONFIG)
    names = {"r": "rank", "lora_alpha": "alpha", "use_rslora": "use_rslora"}
    for theirs, ours in names.items():
        if theirs in config and config[theirs] != getattr(recipe, ours):
            raise LabError(
                f"The adapter in start={recipe.start!r} has {ours}={config[theirs]} and the recipe has "
                f"{ours}={getattr(recipe, ours)}. Give both the same."
            )
