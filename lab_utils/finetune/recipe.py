"""A fine-tuning recipe: every choice that decides the result, in one frozen and checked object."""

import hashlib
import json
import math
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path

from ..errors import LabError, choose, flag, shown, whole
from ..models.registry import QUANTIZATIONS
from ..models.sources import model_name
from ..tasks import TASKS, OwnTask
from ..tasks.file_sources import KINDS
from .turns import TURNS

LATER = ("turns", "validate_every", "validation_examples", "patience", "keep_best")  # fields that earlier runs lack
TARGETS = {
    "all-linear": "all-linear",
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qv": ["q_proj", "v_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train on what, and how. The defaults are the course's QLoRA run of about three CPU minutes.

    Parameters
    ----------
    model : str, a name in `lab_utils.models.MODELS`, a folder with a model in it, owner/name on the Hugging Face hub,
        or "auto": the embedded model, or the base that a run was given
    task : str, a name in `lab_utils.tasks.TASKS`; or a task of your own, of `lab_utils.tasks.own`
    quantization : "nf4", "fp4", "int8" or "none"
    rank : int, 1 to 1024, at most the smaller side of every adapted layer
    alpha : float > 0; the update is scaled by alpha / rank
    dropout : float in [0, 1), on the adapter's input
    use_rslora : bool, scale by alpha / sqrt(rank) instead
    target_modules : "all-linear", "attention", "qv" or "mlp", or a tuple of module names
    learning_rate : float in (0, 1), the peak
    warmup : float in [0, 1), share of the steps with rising learning rate
    steps : int >= 1, each reads one batch and changes the adapter once
    batch_size : int >= 1, examples per step, over all processes together
    max_length : int >= 8, tokens; longer examples are left out
    max_grad_norm : float > 0; a longer gradient is shortened to this length
    weight_decay : float >= 0, of AdamW
    gradient_checkpointing : bool, recompute activations in the backward pass: less memory, more time
    train_examples : int >= 1 or None, use the first so many examples (None: all)
    supervise_end : bool, train the end-of-turn token too; False is the classic mistake, to be looked at
    seed : int >= 0, of the adapter's start, the order of the examples, and dropout
    checkpoint_every : int >= 1, steps between two checkpoints, from which a run that was stopped goes on
    turns : "all" or "last", which turns of the assistant are learned where the data are conversations
    validate_every : int >= 0, steps between two measurements of the validation loss, and one at the end (0: none)
    validation_examples : int >= 1, take the first so many of the validation split
    patience : int >= 0, stop after so many measurements in a row without a lower validation loss (0: never)
    keep_best : bool, keep the adapter of the step with the lowest validation loss, not the last; with `patience` it is
        kept always

    Raises
    ------
    LabError
        Names the value and its range.
    """

    model: str = "auto"
    task: "str | OwnTask" = "bookings"
    quantization: str = "nf4"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    use_rslora: bool = False
    target_modules: str | tuple[str, ...] = "all-linear"
    learning_rate: float = 2e-3
    warmup: float = 0.06
    steps: int = 175
    batch_size: int = 4
    max_length: int = 256
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    gradient_checkpointing: bool = False
    train_examples: int | None = None
    supervise_end: bool = True
    seed: int = 0
    checkpoint_every: int = 10
    turns: str = "all"
    validate_every: int = 0
    validation_examples: int = 64
    patience: int = 0
    keep_best: bool = False

    def __post_init__(self):
        self._set("model", model_name(self.model))
        if not isinstance(self.task, OwnTask):
            if Path(str(self.task)).suffix.lower() in KINDS:
                raise LabError(f"task={str(self.task)!r} is a file: give task=tasks.own({str(self.task)!r}, …).")
            self._set("task", choose("task", self.task, TASKS))
        for name, allowed in (("quantization", QUANTIZATIONS), ("turns", TURNS)):
            self._set(name, choose(name, getattr(self, name), allowed))
        self._targets()
        self._whole("rank", 1, 1024)
        self._whole("steps", 1, 1_000_000)
        self._whole("batch_size", 1, 4096)
        self._whole("max_length", 8, 1_000_000)
        self._whole("seed", 0, 2**32 - 1)
        self._whole("checkpoint_every", 1, 1_000_000)
        self._whole("validate_every", 0, 1_000_000)
        self._whole("validation_examples", 1, 1_000_000)
        self._whole("patience", 0, 1_000_000)
        if self.train_examples is not None:
            self._whole("train_examples", 1, 1_000_000_000)
        self._real("alpha", 0, math.inf, open_low=True)
        self._real("dropout", 0, 1)
        self._real("learning_rate", 0, 1, open_low=True)
        self._real("warmup", 0, 1)
        self._real("max_grad_norm", 0, math.inf, open_low=True)
        self._real("weight_decay", 0, math.inf)
        for name in ("use_rslora", "gradient_checkpointing", "supervise_end", "keep_best"):
            self._set(name, flag(name, getattr(self, name)))
        if (self.patience or self.keep_best) and not self.validate_every:
            raise LabError(
                f"patience={self.patience} and keep_best={self.keep_best} go by the validation loss: set "
                "validate_every too, for example validate_every=10."
            )

    def _set(self, name: str, value: object) -> None:
        """Keep a checked value as plain Python: numpy's 8 and 8, or 16 and 16.0, are one recipe, one fingerprint."""
        object.__setattr__(self, name, value)

    def _targets(self) -> None:
        value = self.target_modules
        if isinstance(value, str):
            self._set("target_modules", choose("target_modules", value, TARGETS))
        elif not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
            raise LabError(f"target_modules={shown(value)} is out of range: {', '.join(TARGETS)}, or names of modules.")
        elif not value:
            raise LabError("target_modules is empty: name at least one module, or 'all-linear'.")
        else:
            self._set("target_modules", tuple(map(str, value)))

    def _whole(self, name: str, low: int, high: int) -> None:
        self._set(name, whole(name, getattr(self, name), low, high, what="both included"))

    def _real(self, name: str, low: float, high: float, open_low: bool = False) -> None:
        value = getattr(self, name)
        try:
            number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
        except OverflowError:
            number = math.inf
        if not low <= number < high or (open_low and number == low):
            ends = f"{'(' if open_low else '['}{low}, {high})"
            raise LabError(f"{name}={shown(value)} is out of range: a number in {ends}.")
        self._set(name, number)

    @property
    def peft_targets(self) -> str | list[str]:
        """`target_modules` in peft's words."""
        if isinstance(self.target_modules, str):
            return TARGETS[self.target_modules]
        return list(self.target_modules)

    @property
    def scaling(self) -> float:
        """What B·A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of `step` (0-based): linear warm-up, then half a cosine down to zero.

        transformers' `get_cosine_schedule_with_warmup` is the same after the warm-up; in it, its first step has a rate
        of 0 and changes nothing, while here the first step has its share of the rise.
        """
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        progress = (step - rising) / max(1, self.steps - rising)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    @property
    def own_task(self) -> OwnTask | None:
        """The task, if it is one of your own."""
        return self.task if isinstance(self.task, OwnTask) else None

    @property
    def keeps_best(self) -> bool:
        """Is the adapter of the best validation loss kept, not the last?"""
        return self.keep_best or self.patience > 0

    def as_record(self) -> dict:
        """The fields as plain values, ready for JSON; a task of your own is its key."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return values | ({"task": self.own_task.key} if self.own_task else {})

    def fingerprint(self) -> str:
        """Twelve hex digits that differ for recipes that train differently (checkpoint_every does not count).

        A field that came later counts only where it is not at its default: older runs keep their digits.
        """
        defaults = {one.name: one.default for one in fields(self)}
        values = {
            name: value for name, value in self.as_record().items()
            if name != "checkpoint_every" and not (name in LATER and value == defaults[name])
        }  # fmt: skip
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    @classmethod
    def from_text(cls, values: dict[str, str]) -> "Recipe":
        """A recipe from strings, as the command line has them: {"rank": "16", "task": "style"}."""
        kinds = {field.name: field.type for field in fields(cls)}
        parsed = {}
        for name, text in values.items():
            choose("recipe field", name, kinds)
            parsed[name] = _parse(name, text, str(kinds[name]))
        return cls(**parsed)


def _parse(name: str, text: str, kind: str):
    """One value of the command line in the field's type."""
    if "bool" in kind:
        choose(name, text.lower(), ("true", "false"))
        return text.lower() == "true"
    if "tuple" in kind:
        return text if text in TARGETS else tuple(text.split(","))
    if "None" in kind and text.lower() == "none":
        return None
    for wanted in (int, float):
        if wanted.__name__ in kind:
            try:
                return wanted(text)
            except ValueError:
                kind = "a whole number" if wanted is int else "a number"
                raise LabError(f"{name}={text!r} is not a number ({kind} is expected).") from None
    return text
