"""What the evidence asks: studies of several arms, each an arm with its own learning rate.

The order is the order of recording. `data/record_evidence.py` runs them, `lab_utils.sweep.study_results` reads them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from ..finetune import Recipe
from .evidence import Run
from .rate_search import Search

CENTRE = Recipe(model="smollm2-135m", steps=100, batch_size=4, rank=8, alpha=16.0, quantization="nf4")
INSIDE = Search(start=(-1, 0, 1))  # around another arm's best rate
FIXED = Search(start=(0,), grow=False)  # at another arm's best rate


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One setting of a study; its learning rate and its seeds are found by `search`.

    Parameters
    ----------
    name : str
    run : Run; its learning rate and seed do not count
    search : Search
    centre : "study: arm" at whose best rate the search's exponents begin to count; "" for 1e-4
    reads : names of quantizations, other bases that the trained adapter is also measured on
    trained : bool, also measure the first 100 messages that were trained on
    spectra : bool, also take the weight update apart (full fine-tuning only)
    """

    name: str
    run: Run
    search: Search
    centre: str = ""
    reads: tuple[str, ...] = ()
    trained: bool = False
    spectra: bool = False

    def at(self, learning_rate: float, seed: int) -> Run:
        """The arm's run at a rate, with a seed."""
        return _changed(self.run, learning_rate, seed)


@lru_cache(maxsize=10_000, typed=True)  # recording asks for each run after every other one
def _changed(run: Run, learning_rate: float, seed: int) -> Run:
    return run.changed(learning_rate=learning_rate, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, the arms that answer it, and what they differ in.

    Parameters
    ----------
    question : str
    compared : names of choices that its arms may differ in; learning rate and seed are always free
    arms : of Arm
    shared : "study: arm" of other studies that belong to the comparison too
    """

    question: str
    compared: tuple[str, ...]
    arms: tuple[Arm, ...]
    shared: tuple[str, ...] = ()


def adapter(**changes) -> Run:
    """The centre's adapter with some fields changed; alpha is 2r unless it is given."""
    changes = {"alpha": 2.0 * changes.get("rank", CENTRE.rank)} | changes
    return Run(recipe=replace(CENTRE, **changes))


def full(**changes) -> Run:
    """A full fine-tune."""
    return Run(recipe=replace(CENTRE, quantization="none", **changes), method="full")


def _rates() -> Iterator[Arm]:
    for steps, shift in ((100, 0), (400, -1)):
        for name, run, start in (
            ("full", full(steps=steps), range(-1, 4)),
            ("LoRA r=8", adapter(steps=steps), range(2, 7)),
            ("LoRA r=1", adapter(rank=1, steps=steps), range(3, 8)),
            ("LoRA r=64", adapter(rank=64, steps=steps), range(2, 7)),
        ):
            search = Search(start=tuple(exponent + shift for exponent in start), neighbours=True)
            reads = ("none",) if name == "LoRA r=8" and steps == 100 else ()
            yield Arm(name=f"{name}, {steps} steps", run=run, search=search, reads=reads)


EIGHT = "rates: LoRA r=8, 100 steps"


def _scaling() -> Iterator[Arm]:
    at_eight = 2 * 8**0.5  # with α/√r the same scaling as 2r/r at r = 8
    for rank, alpha, root, start in (
        (64, 16.0, False, (1, 2, 3)), (1, 16.0, False, (-3, -2, -1)), (64, at_eight, True, (0, 1, 2)),
        (1, at_eight, True, (-2, -1, 0)), (8, 4.0, False, (0, 1, 2)), (8, 64.0, False, (-2, -1, 0)),
    ):  # fmt: skip
        rule = f"α={alpha:.3g}, α/{'√r' if root else 'r'}"
        yield Arm(name=f"r={rank}, {rule}", run=adapter(rank=rank, alpha=alpha, use_rslora=root),
                  search=Search(start=start), centre=EIGHT)


def _layers() -> Iterator[Arm]:
    for layers, rank in (("qv", 42), ("attention", 21), ("mlp", 13)):  # 2.42, 2.42 and 2.47 M numbers, and 2.44 in all
        yield Arm(name=f"{layers} r={rank}", run=adapter(rank=rank, target_modules=layers), search=INSIDE, centre=EIGHT)


def _base() -> Iterator[Arm]:
    for base, dtype, reads in (
        ("none", "float32", ("nf4",)), ("int8", "float32", ()), ("fp4", "float32", ()),
        ("nf4", "bfloat16", ()), ("none", "bfloat16", ()),
    ):  # fmt: skip
        run = replace(adapter(quantization=base), adapter_dtype=dtype)
        yield Arm(name=f"{'bf16' if base == 'none' else base}, {dtype} adapter", run=run, search=INSIDE, centre=EIGHT,
                  reads=reads)


def _batch() -> Iterator[Arm]:
    for batch, steps in ((16, 100), (64, 25)):
        for name, build in (("full", full), ("LoRA r=8", adapter)):
            yield Arm(name=f"{name}, batch {batch}", run=build(batch_size=batch, steps=steps),
                      search=Search(start=(0, 1, 2)), centre=f"rates: {name}, 400 steps")


def _capacity() -> Iterator[Arm]:
    for examples, steps, search in (
        (30, 120, INSIDE), (300, 300, FIXED), (3000, 1000, replace(FIXED, seeds=(0, 1))),
    ):  # fmt: skip
        for name, run in (("full", full()), ("LoRA r=8", adapter()), ("LoRA r=1", adapter(rank=1)),
                          ("LoRA r=64", adapter(rank=64))):
            yield Arm(name=f"{name}, {examples} examples", run=run.changed(steps=steps, train_examples=examples),
                      search=search, centre=f"rates: {name}, 400 steps", trained=True)


def _variants() -> Iterator[Arm]:
    settings = {"delta-lora": {"strength": 2.0}, "pissa": {"iterations": 16}, "lora+": {"ratio": 16.0}}
    lowest = {"lora": 2, "lora-fa": 3, "delta-lora": 2, "vera": 6, "rslora": 1, "dora": 2, "lora+": 0, "pissa": 1}
    for variant, low in lowest.items():
        recipe = replace(CENTRE, quantization="none", rank=256 if variant == "vera" else 8)
        run = Run(recipe=recipe, method="variant", variant=variant, settings=tuple(settings.get(variant, {}).items()))
        yield Arm(name=variant, run=run, search=Search(start=tuple(range(low, low + 5))))


def _update() -> Iterator[Arm]:
    for labels in ("shuffled", "true"):
        run = replace(full(steps=1000, train_examples=1000), labels=labels)
        yield Arm(name=f"{labels} labels", run=run, search=replace(FIXED, seeds=(0, 1)),
                  centre="rates: full, 400 steps", trained=True, spectra=True)


STUDIES = MappingProxyType(
    {
        "rates": Study(
            question="Which learning rate do full fine-tuning and LoRA at ranks 1, 8, 64 want? Which is better then?",
            compared=("method", "quantization", "rank", "alpha", "steps"), arms=tuple(_rates()),
        ),
        "scaling": Study(
            question="Do alpha and the rule α/r or α/√r matter once the learning rate is tuned?",
            compared=("rank", "alpha", "use_rslora"), arms=tuple(_scaling()),
            shared=(EIGHT, "rates: LoRA r=1, 100 steps", "rates: LoRA r=64, 100 steps"),
        ),
        "layers": Study(
            question="Which layers are worth adapting, at equally many trained numbers?",
            compared=("rank", "alpha", "target_modules"), arms=tuple(_layers()), shared=(EIGHT,),
        ),
        "base": Study(
            question="What do fewer bits of the base cost, and does an adapter learn around their error?",
            compared=("quantization", "adapter_dtype"), arms=tuple(_base()), shared=(EIGHT,),
        ),
        "batch": Study(
            question="Does LoRA suffer from large batches more than full fine-tuning, at 1,600 examples?",
            compared=("method", "quantization", "batch_size", "steps"), arms=tuple(_batch()),
            shared=("rates: full, 400 steps", "rates: LoRA r=8, 400 steps"),
        ),
        "capacity": Study(
            question="How much can a rank learn: 30, 300 and 3,000 examples, trained for long?",
            compared=("method", "quantization", "rank", "alpha", "steps", "train_examples"), arms=tuple(_capacity()),
        ),
        "variants": Study(
            question="Is a successor of LoRA better, each with its learning rate tuned?",
            compared=("variant", "settings", "rank"), arms=tuple(_variants()),
        ),
        "update": Study(
            question="Is the weight update still of low rank where the task is long and hard?",
            compared=("labels",), arms=tuple(_update()),
        ),
    }
)  # fmt: skip
