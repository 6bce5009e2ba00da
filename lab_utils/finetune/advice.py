"""Advice on a recipe for your own data: what is measured, what follows from it, and where the rule is from.

Nothing is changed. A rule of thumb is called one, with its source.
"""

from dataclasses import dataclass

from ..models import learning_rate, load_tokenizer
from ..printing import folded
from ..tasks.registry import find_task, load_task
from .recipe import Recipe
from .supervision import encode_row
from .training_rows import training_rows

LOOKED_AT = 2000  # rows whose lengths are measured, evenly spaced over the data
COVERED = 0.99  # share of the rows that `max_length` should not leave out
EPOCHS = (1, 5)  # passes over the data between which most recipes lie
WITHOUT_REGRET = "Schulman et al. 2025, LoRA Without Regret, https://thinkingmachines.ai/blog/lora/"
QLORA = "QLoRA, the authors' README and defaults, https://github.com/artidoro/qlora"


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    Attributes
    ----------
    argument : str, of Recipe
    now : its value
    advised : a value, or None where the present one is good
    why : str, what was measured or counted, and the rule
    source : str, where the rule is from; "" if it is arithmetic
    """

    argument: str
    now: object
    advised: object
    why: str
    source: str = ""

    def __str__(self) -> str:
        change = "keep" if self.advised is None else f"take {self.advised}"
        lines = [f"{self.argument} = {self.now}: {change}. {self.why}", f"  ({self.source})" if self.source else ""]
        return folded("\n".join(lines).rstrip())


def advise(recipe: Recipe, dataset=None, tokenizer=None) -> list[Advice]:
    """What the data and the model say about max_length, batch_size, steps and learning_rate. Print each; none is taken.

    Parameters
    ----------
    recipe : Recipe, with the task and the model
    dataset : as in `finetune`, default the task's
    tokenizer : of transformers, default the model's

    Returns
    -------
    list of Advice

    Raises
    ------
    LabError
        As `training_rows` and `encode_row`.
    """
    task = find_task(recipe.task)
    rows = training_rows(load_task(recipe.task) if dataset is None else dataset, recipe.train_examples)
    if tokenizer is None:
        tokenizer = load_tokenizer() if recipe.model == "auto" else load_tokenizer(recipe.model)
    places = range(0, len(rows), max(1, len(rows) // LOOKED_AT))
    lengths = sorted(len(encode_row(tokenizer, task, rows[place], recipe.turns).input_ids) for place in places)
    return [_length(recipe, lengths), _batch(recipe, len(rows)), _steps(recipe, len(rows)), _rate(recipe)]


def _length(recipe: Recipe, lengths: list[int]) -> Advice:
    """Room for nearly all of the data."""
    cut = sum(length > recipe.max_length for length in lengths)
    most = lengths[min(len(lengths) - 1, int(COVERED * len(lengths)))]
    measured = (
        f"Of {len(lengths):,} examples measured the middle one has {lengths[len(lengths) // 2]} tokens, the longest "
        f"{lengths[-1]}; {cut} of them are longer and would be left out."
    )
    wanted = -(-most // 64) * 64
    return Advice("max_length", recipe.max_length, wanted if cut > (1 - COVERED) * len(lengths) else None, measured)


def _batch(recipe: Recipe, rows: int) -> Advice:
    """Small for LoRA, and no larger than the data."""
    why = "LoRA loses more than full fine-tuning by large batches; the lab's first task learned more with 4 than 8."
    if recipe.batch_size > rows:
        return Advice("batch_size", recipe.batch_size, rows, f"There are {rows} examples.")
    return Advice("batch_size", recipe.batch_size, 16 if recipe.batch_size > 32 else None, why, WITHOUT_REGRET)


def _steps(recipe: Recipe, rows: int) -> Advice:
    """A few passes over the data: a rule of thumb."""
    passes = recipe.steps * recipe.batch_size / rows
    low, high = (max(1, round(one * rows / recipe.batch_size)) for one in EPOCHS)
    why = (
        f"{recipe.steps} steps of {recipe.batch_size} are {passes:.1f} passes over {rows:,} examples. {EPOCHS[0]} to "
        f"{EPOCHS[1]} are usual, which is a rule of thumb and no law: set validate_every and patience, and the "
        "validation loss tells when to stop."
    )
    return Advice("steps", recipe.steps, None if low <= recipe.steps <= high else f"{low} to {high}", why)


def _rate(recipe: Recipe) -> Advice:
    """The rate that is known for the model."""
    name = "smollm2-135m" if recipe.model == "auto" else recipe.model
    known = learning_rate(name)
    why = (
        "The best rate for LoRA is about ten times that of full fine-tuning, and hardly depends on the rank; larger "
        "models take smaller rates (QLoRA: 2e-4 up to 13B, 1e-4 above). In very short runs it was about fifteen times: "
        "compare two rates by their validation loss."
    )
    far = not known / 4 <= recipe.learning_rate <= known * 4
    return Advice("learning_rate", recipe.learning_rate, known if far else None, why, f"{WITHOUT_REGRET}; {QLORA}")
