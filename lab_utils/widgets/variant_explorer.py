"""The variant explorer: what each variant of LoRA freezes and trains, and what its update of a matrix looks like."""

from functools import cache

import torch
import traitlets

from .. import plots
from ..errors import LabError, choose
from ..lowrank import relative_error, singular_values
from ..variants import VARIANTS, DeltaLoRALinear, after_step, before_step, inject, learned_update, optimizer_groups
from .explorer import FOLDER, STYLE, Explorer, encode, script

QUESTION = "Which of these trains the fewest numbers at r = 8 on 576 × 576? Set the rank to 8 and look."
OUT, IN, STEPS, RATE, RATIO = 24, 16, 40, 0.02, 16.0
SMALL_RANKS = {name: 16 if name == "vera" else 4 for name in VARIANTS}  # VeRA's rank is meant to be large
LAYERS = {"576 × 576": (576, 576), "1,536 × 576": (1536, 576), "4,096 × 4,096": (4096, 4096)}
RANKS = (1, 2, 4, 8, 16, 32, 64)
PARTS = {"lora_B": "B", "lora_A": "A", "magnitude": "m", "lambda_b": "b", "lambda_d": "d"}
NEGLIGIBLE = 1e-3  # singular values below this share of the largest do not count as rank


@cache
def small_task(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """W (24, 16), and half as large the update that is wanted: each direction half as strong as the one before."""
    generator = torch.Generator().manual_seed(seed)
    weight, left, right = (torch.randn(size, generator=generator) for size in ((OUT, IN), (OUT, IN), (IN, IN)))
    (U, _), (V, _) = torch.linalg.qr(left), torch.linalg.qr(right)
    target = (U * 0.5 ** torch.arange(IN)) @ V.T
    return weight / 4, 0.5 * float(weight.norm() / 4) / float(target.norm()) * target


@cache
def trained(variant: str, seed: int = 0) -> tuple[torch.Tensor, dict[str, str]]:
    """Train a variant on `small_task` and record it.

    Returns
    -------
    (float32 Tensor (41, 24, 16): ΔW after 0 to 40 steps of Adam, dict part -> "trained", "frozen" or "moves").
    The learning rate is the same for all; in LoRA+ its geometric mean over A and B is.
    """
    weight, target = small_task(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = torch.nn.Linear(IN, OUT, bias=False)
        linear.weight.data = weight.clone()
        rank = SMALL_RANKS[variant]
        model = inject(torch.nn.Sequential(linear), variant, ["0"], rank, 2 * rank)
    layer, rate = model[0], RATE / RATIO**0.5 if variant == "lora+" else RATE
    optimizer = torch.optim.Adam(optimizer_groups(model, variant, rate, ratio=RATIO))
    history = []
    for step in range(STEPS + 1):
        history.append(learned_update(layer).detach().clone())
        if step < STEPS:
            error = layer(torch.eye(IN)).T - (weight + target)
            optimizer.zero_grad()
            error.square().sum().backward()
            before_step(model)
            optimizer.step()
            after_step(model)
    parts = {"W": "moves" if isinstance(layer, DeltaLoRALinear) else "frozen"}
    for name, part in PARTS.items():
        if hasattr(layer, name):
            parts[part] = "trained" if name in layer.TRAINED else "frozen"
    return torch.stack(history), parts


class VariantExplorer(Explorer):
    """A choice of variants and of a layer's size, and sliders for the training step and the rank that is counted.

    Every variant is trained once, with the classes of `lab_utils.variants`, on a matrix of 24 × 16 (see `small_task`).

    Parameters
    ----------
    variant : str, a name in `VARIANTS`
    layer : str, a name in `LAYERS`
    rank : int, one of `RANKS`, for the counts; the small matrix has rank 4, and 16 with VeRA

    Attributes
    ----------
    variant, step, layer, rank : as chosen, at every moment

    Raises
    ------
    LabError
        A value that is not there.
    """

    _esm = script("variant_explorer")
    _css = STYLE + (FOLDER / "choosing.css").read_text(encoding="utf-8")
    _moved = ("variant", "step", "layer", "rank")
    records, ranks = (traitlets.List().tag(sync=True) for _ in range(2))
    task, counts, layers = (traitlets.Dict().tag(sync=True) for _ in range(3))
    variant, layer = (traitlets.Unicode().tag(sync=True) for _ in range(2))
    step = traitlets.Int(0).tag(sync=True)
    rank = traitlets.Int().tag(sync=True)

    def __init__(
        self, variant: str = "lora", layer: str = "576 × 576", rank: int = 4, question: str = QUESTION,
        choices=("LoRA-FA", "VeRA", "DoRA"),
    ):  # fmt: skip
        weight, target = small_task()
        scale = max(float(trained(name)[0].abs().max()) for name in VARIANTS)
        super().__init__(
            records=[_record(name, scale) for name in VARIANTS], ranks=list(RANKS), layers=LAYERS,
            task={
                "rows": OUT, "columns": IN, "scale": scale, "target": encode(target / scale), "steps": STEPS,
                "norm": float(weight.norm()), "values": _rounded(singular_values(target)), "negligible": NEGLIGIBLE,
            },
            counts={
                name: {str(r): {key: one.count(*shape, r) for key, one in VARIANTS.items()} for r in RANKS}
                for name, shape in LAYERS.items()
            },
            variant=variant, layer=layer, rank=rank, question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("variant", "layer", "rank", "step")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name != "step":
            choose(name, value, {"variant": VARIANTS, "layer": LAYERS, "rank": RANKS}[name])
        elif not 0 <= value <= STEPS:
            raise LabError(f"step={value} was not recorded: 0 to {STEPS}.")
        return value

    def _state(self) -> dict:
        """The update on screen, the target, and what the sentence says of them."""
        weight, target = small_task()
        update = trained(self.variant)[0][self.step]
        values = singular_values(update)
        return {
            "update": update, "target": target, "size": float(update.norm() / weight.norm()),
            "rank": int((values > NEGLIGIBLE * values[0]).sum()) if values[0] else 0,
            "error": relative_error(target, update),
        }  # fmt: skip

    def summary(self) -> str:
        now, count = self._state(), self.counts[self.layer][str(self.rank)][self.variant]
        return (
            f"Variant explorer, {VARIANTS[self.variant].title}: {count:,} numbers are trained in a layer of "
            f"{self.layer} at r = {self.rank}; step {self.step} on the small matrix: ΔW is {now['size']:.1%} of W in "
            f"size, its rank is {now['rank']}, it misses the target by {now['error']:.1%}."
        )

    def figure(self):
        now = self._state()
        counts = {VARIANTS[name].title: count for name, count in self.counts[self.layer][str(self.rank)].items()}
        return plots.variant_update(
            {"target": now["target"], f"ΔW, step {self.step}": now["update"]}, counts, VARIANTS[self.variant].title,
            f"trained numbers, {self.layer}, r = {self.rank}",
        )  # fmt: skip


def _record(name: str, scale: float) -> dict:
    """What the browser needs of a variant."""
    variant, (history, parts) = VARIANTS[name], trained(name)
    return {
        "name": name, "title": variant.title, "rule": variant.rule, "trains": variant.trains, "saves": variant.saves,
        "published": variant.published, "parts": parts, "small_rank": SMALL_RANKS[name],
        "updates": encode(history / scale), "values": [_rounded(singular_values(update)) for update in history],
    }  # fmt: skip


def _rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]
