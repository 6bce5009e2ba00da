"""The evidence that the pages' conclusions rest on: one line per run, with the loss of every message.

    study = load_study("rates")                 # refused if the recipes differ in what is not compared
    study.difference("LoRA r=8, 100 steps", "full, 100 steps")

`data/record_evidence.py` records it, `lab_utils.sweep.studies` says what is asked, data/README.md what a line holds.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import LabError, choose
from ..files import append_text, read_text, replacing_file
from ..finetune import Recipe
from ..folders import DATA
from ..locks import locked

FOLDER = DATA / "evidence"
METHODS = ("adapter", "full", "variant")
FIELDS = (  # of a recipe, that every line holds
    "model", "task", "quantization", "rank", "alpha", "dropout", "use_rslora", "target_modules", "learning_rate",
    "warmup", "steps", "batch_size", "max_length", "max_grad_norm", "weight_decay", "gradient_checkpointing",
    "train_examples", "supervise_end", "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run trains, and how. Two runs are one and the same if their `key` is.

    Parameters
    ----------
    recipe : Recipe with a model's name, not "auto"
    method : "adapter"; "full" trains all matrices of the layers, float32 weights and bfloat16 arithmetic; "variant"
        trains adapters of `lab_utils.variants`, on float32 weights with bfloat16 arithmetic
    variant : str, a name in VARIANTS; "" unless the method is "variant"
    settings : pairs of a name and a number that the variant also takes
    adapter_dtype : "float32" or "bfloat16", of an adapter's A and B and of their optimizer
    labels : "true", or "shuffled": every training message gets another one's answer
    """

    recipe: Recipe
    method: str = "adapter"
    variant: str = ""
    settings: tuple[tuple[str, float], ...] = ()
    adapter_dtype: str = "float32"
    labels: str = "true"

    def __post_init__(self):
        choose("method", self.method, METHODS)
        choose("adapter_dtype", self.adapter_dtype, ("float32", "bfloat16"))
        choose("labels", self.labels, ("true", "shuffled"))
        if self.recipe.model == "auto":
            raise LabError("model='auto' differs from machine to machine: name a model, model='smollm2-135m' for one.")
        if bool(self.variant) != (self.method == "variant"):
            raise LabError(f"variant={self.variant!r} with method={self.method!r}: a variant belongs to 'variant'.")

    @property
    def choices(self) -> dict:
        """Everything that decides the result, as JSON has it, under one name each."""
        own = {name: getattr(self, name) for name in ("method", "variant", "adapter_dtype", "labels")}
        return json.loads(json.dumps(own | {"settings": dict(self.settings)} | _choices(self.recipe)))

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits that differ for runs that train differently."""
        return hashlib.sha256(json.dumps(self.choices, sort_keys=True).encode()).hexdigest()[:16]

    def changed(self, **changes) -> "Run":
        """The same run with other fields of its recipe."""
        return replace(self, recipe=replace(self.recipe, **changes))

    @classmethod
    def from_choices(cls, choices: dict) -> "Run":
        """The run that `choices` belongs to; a field of the recipe that it lacks has its default."""
        recipe = {f.name: choices[f.name] for f in fields(Recipe) if f.name in choices}
        own = {name: choices[name] for name in ("method", "variant", "adapter_dtype", "labels")}
        return cls(recipe=Recipe(**recipe), settings=tuple(choices["settings"].items()), **own)

    def __str__(self) -> str:
        recipe, what = self.recipe, self.variant or self.method
        size = "" if self.method == "full" else f" {recipe.quantization} r={recipe.rank}"
        return f"{what}{size} lr={recipe.learning_rate:g} {recipe.steps} × {recipe.batch_size} seed {recipe.seed}"


def _choices(recipe: Recipe) -> dict:
    """A recipe's fields; how often it is saved changes nothing. A field that came later counts where it is used."""
    plain = Recipe()
    names = [name for name in asdict(recipe) if name in FIELDS or getattr(recipe, name) != getattr(plain, name)]
    return {name: getattr(recipe, name) for name in names if name != "checkpoint_every"}


def packed(values: Iterable[float]) -> str:
    """Numbers as text: float16, little endian, base64."""
    return base64.b64encode(np.asarray(list(values), dtype="<f2").tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """What `packed` was given, float64."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(float)


def packed_bits(values: Iterable[bool]) -> str:
    """Yes and no as text: eight to a byte, base64."""
    return base64.b64encode(np.packbits(np.asarray(list(values), dtype=bool)).tobytes()).decode()


def unpacked_bits(text: str, count: int) -> np.ndarray:
    """What `packed_bits` was given, `count` bool."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8))[:count].astype(bool)


@dataclass(frozen=True)
class Recorded:
    """One run that is done.

    Attributes
    ----------
    run : Run
    study, arm : str, what it was recorded for
    losses : dict split -> float array (messages,), nats per answer token of each message. "test@nf4" is the test split
        read on another base than the one trained on, "trained" the first 100 messages that were trained on
    right : dict split -> bool array (messages,), is every token of the answer the model's first choice
    training_losses : float array (steps taken,)
    row : dict, the whole line: trained_parameters, cpu_seconds, cpu_seconds_a_step, cpu, versions, date, data …
    """

    run: Run
    study: str
    arm: str
    losses: dict[str, np.ndarray] = field(repr=False)
    right: dict[str, np.ndarray] = field(repr=False)
    training_losses: np.ndarray = field(repr=False)
    row: dict = field(repr=False)

    @property
    def problem(self) -> str:
        """Why there are no losses, or ""."""
        return self.row["problem"]

    def loss(self, split: str = "test") -> float:
        """Mean over the messages of a split, each counting the same; infinity for a run that blew up."""
        return float(self.losses[split].mean()) if not self.problem else float("inf")

    def exact(self, split: str = "test") -> float:
        """Share of the messages whose right answer would be written; 0 for a run that blew up."""
        return float(self.right[split].mean()) if not self.problem else 0.0

    @classmethod
    def from_row(cls, row: dict) -> "Recorded":
        """The run of a line of the table."""
        losses = {split: unpacked(text) for split, text in row["losses"].items()}
        right = {split: unpacked_bits(text, len(losses[split])) for split, text in row["right"].items()}
        run = Run.from_choices(row["choices"])
        return cls(run, row["study"], row["arm"], losses, right, unpacked(row["training_losses"]), row)


def table_of(folder: str | Path, study: str) -> Path:
    """The file of a study's lines."""
    return Path(folder) / f"{study}.jsonl"


def read_table(table: str | Path) -> list[dict]:
    """The lines of a table, one per run, sorted by what was run; none if there is no file.

    Of two lines about one run (recorded twice, and merged) the one that was first is taken. A last line without an end
    was cut off while it was written, and does not count.

    Raises
    ------
    LabError
        A line is damaged: file and number are named.
    """
    table, found = Path(table), {}
    if not table.exists():
        return []
    lines = read_text(table).split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            found.setdefault(row["key"], row)
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(f"{table}, line {number}: not a recorded run ({error!r}). Delete that line.") from error
    return sorted(found.values(), key=lambda row: (row["arm"], row["choices"]["learning_rate"], row["choices"]["seed"]))


def add_row(table: str | Path, row: dict) -> bool:
    """Add one line and flush it to the disk, unless its run is there already. Several processes may do so at once.

    Returns
    -------
    bool, was it added
    """
    table = Path(table)
    with locked(table.parent / ".locks" / f"{table.name}.lock"):
        _drop_torn_line(table)
        if any(row["key"] == there["key"] for there in read_table(table)):
            return False
        append_text(table, json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")
    return True


def _drop_torn_line(table: Path) -> None:
    """Cut off what a process that was killed in the middle of a line left behind."""
    if table.exists() and not (content := table.read_bytes()).endswith(b"\n"):
        with open(table, "r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def merge_tables(source: str | Path, target: str | Path) -> int:
    """Add the lines of all tables in `source` that `target` lacks, and files beside them; returns how many lines."""
    source, target, count = Path(source), Path(target), 0
    for table in sorted(source.glob("*.jsonl")):
        count += sum(add_row(target / table.name, row) for row in read_table(table))
    for path in sorted(source.glob("*.safetensors")):
        if not (target / path.name).exists():
            with replacing_file(target / path.name) as new:
                new.write_bytes(path.read_bytes())
    return count
