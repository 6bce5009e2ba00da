"""What every training settles before it begins: its arguments, its device, and the name of its model."""

from dataclasses import replace
from pathlib import Path

from ..device import KINDS, find_device
from ..errors import LabError, shown
from ..models import default_model
from ..models.footprint import stored_as
from ..models.sources import base_model, name_of
from ..printing import say
from .checkpoint import model_on_record
from .recipe import Recipe


def check_arguments(recipe, example: Recipe, output_dir, base) -> None:
    """Raise a LabError unless these are a recipe of the example's kind, a path, and None or what looks like a base."""
    if not isinstance(recipe, type(example)):
        kind, task = type(example).__name__, example.task
        raise LabError(f"recipe={shown(recipe)} is out of range: a {kind}, as in {kind}(task={task!r}, rank=8).")
    if not isinstance(output_dir, (str, Path)) or not str(output_dir):
        raise LabError(f"output_dir={shown(output_dir)} is out of range: the path of a folder for this run.")
    pair = isinstance(base, (tuple, list)) and len(base) == 2
    if base is not None and not (pair and hasattr(base[0], "named_parameters") and callable(base[1])):
        kind = f"({', '.join(type(one).__name__ for one in base)})" if pair else type(base).__name__
        raise LabError(f"base={kind} is out of range: the pair (model, tokenizer) that load_base returns.")


def device_for(base):
    """Where a run trains: where the base is that was given, else this machine's device."""
    device = find_device()
    first = next(base[0].parameters(), None) if base else None
    elsewhere = first is not None and first.device.type in KINDS and first.device.type != device.kind
    return find_device(first.device.type) if elsewhere else device


def model_name(recipe: Recipe, base, output_dir: Path | None) -> str:
    """The name of the model that is trained: of the base that is given, else of the run's record, else the default.

    Raises
    ------
    LabError
        The recipe names another model than the base that is given.
    """
    if recipe.model == "auto":
        return (base and name_of(base[0])) or (output_dir and model_on_record(output_dir)) or default_model()
    loaded = getattr(base_model(base[0]), "lab_model", None) if base else None  # the name that load_base was given
    if loaded not in (None, recipe.model):
        raise LabError(
            f"recipe.model is {recipe.model!r} and base is {loaded!r}: the run's record would name a model that was "
            f"not trained. Pass load_base({recipe.model!r}, ...), or a recipe with model={loaded!r}."
        )
    return recipe.model


def as_loaded(recipe: Recipe, base, main: bool) -> Recipe:
    """The recipe with the quantization of the base that is given; where it says another one, that is printed.

    A run's record and its report card then say what was trained on.
    """
    stored = stored_as(base[0]) if base else None
    if stored in (None, recipe.quantization):
        return recipe
    if main:
        how = "not quantized" if stored == "none" else f"in {stored}"
        say(
            f"Note: base is {how}, and recipe.quantization is {recipe.quantization!r}. The run trains on the base as "
            f"it is, and its record says quantization={stored!r}."
        )
    return replace(recipe, quantization=stored)
