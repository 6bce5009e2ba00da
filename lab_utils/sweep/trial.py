"""One run of a sweep: a recipe, a method, a seed; as an object, and as the table's text."""

from dataclasses import dataclass, fields, replace

from ..errors import LabError, choose
from ..finetune import Recipe

METHODS = ("adapter", "full", "prompt")
SETTINGS = (  # what tells one trial from another: `method`, `shots`, and these fields of its recipe
    "model", "task", "quantization", "rank", "alpha", "use_rslora", "target_modules", "dropout", "learning_rate",
    "steps", "batch_size", "train_examples", "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a sweep.

    Parameters
    ----------
    recipe : Recipe with a model's name, not "auto"; the fields that `SETTINGS` leaves out stay at their defaults.
        Its seed draws A, the examples and their order; `train_examples` messages are drawn from all of the split.
    method : "adapter"; "full" trains all matrices of the layers in float32; "prompt" trains nothing
    shots : int >= 0, solved examples before each question; 0 unless the method is "prompt"

    Raises
    ------
    LabError
        A value is out of its range, or would not be seen in the table.
    """

    recipe: Recipe
    method: str = "adapter"
    shots: int = 0

    def __post_init__(self):
        choose("method", self.method, METHODS)
        if self.recipe.model == "auto":
            raise LabError("model='auto' differs from machine to machine: name a model, model='smollm2-135m' for one.")
        if self.shots < 0 or (self.shots and self.method != "prompt"):
            raise LabError(f"shots={self.shots} with method={self.method!r}: shots are solved examples in a prompt.")
        plain = Recipe()
        for field in fields(Recipe):
            hidden = field.name not in (*SETTINGS, "checkpoint_every")
            if hidden and getattr(self.recipe, field.name) != getattr(plain, field.name):
                raise LabError(
                    f"{field.name} is not a column of the table: leave it at {getattr(plain, field.name)!r}."
                )

    @property
    def settings(self) -> dict[str, str]:
        """The settings as the table's text: two trials are one and the same if these are equal."""
        values = {name: getattr(self.recipe, name) for name in SETTINGS}
        return {"method": self.method, "shots": str(self.shots)} | {name: _text(v) for name, v in values.items()}

    @classmethod
    def from_row(cls, row: dict) -> "Trial":
        """The trial that a row of the table belongs to."""
        recipe = Recipe.from_text({name: _text(row[name]) for name in SETTINGS})
        return cls(recipe=recipe, method=row["method"], shots=int(row["shots"]))

    def changed(self, **changes) -> "Trial":
        """The same trial with other fields of its recipe: `trial.changed(rank=3, alpha=6.0)`."""
        return replace(self, recipe=replace(self.recipe, **changes))

    def __str__(self) -> str:
        recipe = self.recipe
        if self.method == "prompt":
            return f"prompt with {self.shots} shots, seed {recipe.seed}"
        if self.method == "full":
            return f"full fine-tune, lr {recipe.learning_rate:g}, seed {recipe.seed}"
        rule = "√r" if recipe.use_rslora else "r"
        targets = recipe.target_modules if isinstance(recipe.target_modules, str) else "+".join(recipe.target_modules)
        return (
            f"{recipe.quantization} {targets} r={recipe.rank} α={recipe.alpha:g} (α/{rule}) lr={recipe.learning_rate:g}"
            f" dropout={recipe.dropout:g} n={recipe.train_examples} seed {recipe.seed}"
        )


def _text(value) -> str:
    """A setting as it is in the table: 16.0 as 16, True as true, names joined by commas."""
    if isinstance(value, bool) or value in ("True", "False"):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
