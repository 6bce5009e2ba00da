"""The merge explorer: how much of an update is left when W + ΔW is rounded to a number format again."""

import base64

import torch
import traitlets

from .. import plots
from ..errors import LabError, choose
from ..lowrank import best_rank_r, relative_error
from ..nf4 import dequantize_4bit, nf4_code, quantize_4bit
from ..quantize import dequantize_absmax, quantize_absmax
from .explorer import Explorer, on_cpu, script

QUESTION = "NF4, and an update of 0.4 % of W, about as large as real ones: how many of a block's 64 codes change?"
BLOCK, SAMPLE = 64, 2**14  # weights that share an absmax; and how many are looked at, at most
BASES = ("rounded before, as in QLoRA", "the original weights")
PERCENTS = (
    0.1, 0.13, 0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.63, 0.8, 1, 1.3, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8,
    10, 13, 16, 20, 25, 32, 40, 50, 63, 80, 100,
)  # fmt: skip


def _nf4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    quantized = quantize_4bit(weight, BLOCK)
    packed = quantized.packed.view(-1)
    return torch.stack([packed >> 4, packed & 15], dim=1).view(weight.shape), dequantize_4bit(quantized)


def _int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    quantized = quantize_absmax(weight.view(-1, BLOCK), 8, axis=0)
    return quantized.indices.view(weight.shape), dequantize_absmax(quantized).view(weight.shape)


def _bfloat16(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rounded = weight.bfloat16()
    return rounded.view(torch.int16), rounded.float()


# float32 Tensor (n,), n a multiple of 64 -> what is stored for each weight, and the float32 value that it means
FORMATS = {"NF4": _nf4, "int8": _int8, "bfloat16": _bfloat16, "float32": lambda weight: (weight, weight)}


def merge(weight: torch.Tensor, delta: torch.Tensor, into: str, base: str) -> dict[str, torch.Tensor]:
    """W, W + ΔW and what a number format makes of it.

    Parameters
    ----------
    weight, delta : float32 Tensor (n,), n a multiple of 64
    into : str, a name in `FORMATS`
    base : str, of `BASES`: is W itself in that format already?

    Returns
    -------
    dict of Tensors (n,): "before", W; "wanted", W + ΔW; "after", what is stored for it; "arrived", by how much the
    stored weights have moved; "changed", bool, is another code stored than before?
    """
    round_to = FORMATS[into]
    codes, values = round_to(weight)
    before = values if base == BASES[0] else weight
    wanted = before + delta
    new_codes, after = round_to(wanted)
    return {
        "before": before, "wanted": wanted, "after": after, "arrived": after - values, "changed": new_codes != codes
    }  # fmt: skip


def measure(merged: dict[str, torch.Tensor], delta: torch.Tensor) -> dict:
    """What `merge` left of ΔW: "changed", codes; "cosine" and "error" (relative, Frobenius) of what arrived."""
    arrived, wanted = merged["arrived"].double(), delta.double()
    norms = float(arrived.norm() * wanted.norm())
    return {
        "changed": int(merged["changed"].sum()),
        "cosine": float(arrived @ wanted) / norms if norms else 0.0,
        "error": relative_error(wanted[None], arrived[None]),
    }


class MergeExplorer(Explorer):
    """A choice of format, update and base, and sliders for the update's size and for the block on screen.

    Parameters
    ----------
    weight : Tensor of any dtype and device, shape (out, in), with a multiple of 64 numbers in a row; taken in bfloat16,
        as models are shipped. Looked at are as many of its rows, spread evenly, as hold 16,384 numbers.
    update : Tensor, shape of `weight`, not zero, of a real fine-tune; its best fit of rank `rank` is one of the
        two directions, a random product of that rank the other
    rank : int >= 1
    into : "NF4", "int8", "bfloat16" or "float32"
    percent : float, one of `PERCENTS`, ‖ΔW‖ in percent of ‖W‖, both of the sample

    Attributes
    ----------
    into, update, base, percent, block : as chosen, at every moment
    real_percent : float, size of the given update, in percent of W

    Raises
    ------
    LabError
        Shapes that do not fit, tensors that cannot be read (see `on_cpu`), or a value that is not there.
    """

    _esm = script("merge_explorer")
    _moved = ("into", "update", "base", "percent", "block")
    weight = traitlets.Unicode().tag(sync=True)
    directions = traitlets.List().tag(sync=True)
    sizes = traitlets.Dict().tag(sync=True)
    code = traitlets.List().tag(sync=True)
    formats = traitlets.List(list(FORMATS)).tag(sync=True)
    bases = traitlets.List(list(BASES)).tag(sync=True)
    percents = traitlets.List(list(PERCENTS)).tag(sync=True)
    real_percent = traitlets.Float().tag(sync=True)
    into = traitlets.Unicode().tag(sync=True)
    update = traitlets.Unicode().tag(sync=True)
    base = traitlets.Unicode(BASES[0]).tag(sync=True)
    percent = traitlets.Any().tag(sync=True)  # a whole number stays one
    block = traitlets.Int(0).tag(sync=True)

    def __init__(
        self, weight, update, rank: int = 8, into: str = "NF4", percent: float = 10, question: str = QUESTION,
        choices=("none", "about 6", "about 30"),
    ):  # fmt: skip
        weight, update = on_cpu(weight, "weight"), on_cpu(update, "update")
        if weight.dim() != 2 or weight.shape[1] % BLOCK or update.shape != weight.shape or not bool(update.any()):
            raise LabError(
                f"MergeExplorer needs a weight (out, in), in a multiple of {BLOCK}, and an update as large that is not "
                f"zero: weight has shape {tuple(weight.shape)}, update {tuple(update.shape)}."
            )
        rows = max(1, min(len(weight), SAMPLE // weight.shape[1]))
        sample = torch.linspace(0, len(weight) - 1, rows).round().long()
        original = weight[sample].bfloat16()
        self._weight = original.float().view(-1)
        self._factors = _factors(update, sample, rank, float(self._weight.double().norm()))
        self._updates = {name: (B.double() @ A.double()).float().view(-1) for name, (B, A) in self._factors.items()}
        super().__init__(
            weight=_bytes(original.view(torch.int16), "<i2"), code=nf4_code().tolist(),
            directions=[
                {"name": name, "B": _bytes(B, "<f4"), "A": _bytes(A, "<f4")} for name, (B, A) in self._factors.items()
            ],
            sizes={"rows": rows, "columns": weight.shape[1], "rank": rank, "blocks": self._weight.numel() // BLOCK},
            real_percent=100 * float(update.norm() / weight.norm()),
            into=into, update=next(iter(self._updates)), percent=percent, question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("into", "update", "base", "percent", "block")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        allowed = {"into": FORMATS, "update": self._updates, "base": BASES, "percent": PERCENTS}
        if name != "block":
            choose(name, value, allowed[name])
        elif not 0 <= value < self._weight.numel() // BLOCK:
            raise LabError(f"block={value} is out of range: 0 to {self._weight.numel() // BLOCK - 1}.")
        return value

    def _merged(self, percent: float) -> tuple[dict, torch.Tensor]:
        """What `merge` returns for the whole sample, and ΔW."""
        delta = percent / 100 * self._updates[self.update]
        return merge(self._weight, delta, self.into, self.base), delta

    def results(self) -> dict:
        """What is left of ΔW in the sample, as `measure` has it, and "in_block": codes that change in the block."""
        merged, delta = self._merged(self.percent)
        here = slice(self.block * BLOCK, (self.block + 1) * BLOCK)
        return measure(merged, delta) | {"in_block": int(merged["changed"][here].sum())}

    def summary(self) -> str:
        found, count = self.results(), self._weight.numel()
        return (
            f"Merge into {self.into}, W {self.base}, {self.update}, {self.percent:g} % of W: {found['in_block']} of "
            f"{BLOCK} codes change in block {self.block}, {found['changed']:,} of {count:,} "
            f"({found['changed'] / count:.2%}) in the sample; what arrives has cosine {found['cosine']:.3f} with the "
            f"update and a relative error of {found['error']:.1%}."
        )

    def figure(self):
        here = slice(self.block * BLOCK, (self.block + 1) * BLOCK)
        merged, _ = self._merged(self.percent)
        block = {name: values[here] for name, values in merged.items()}
        curve = [measure(*self._merged(percent)) for percent in PERCENTS]
        return plots.merge_survival(
            block, PERCENTS, [one["changed"] / self._weight.numel() for one in curve],
            [one["cosine"] for one in curve], self.percent, f"merge into {self.into}: block {self.block}",
        )  # fmt: skip


def _factors(update: torch.Tensor, rows: torch.Tensor, rank: int, norm: float) -> dict[str, tuple]:
    """name -> (B, A), float32, for some rows, products as large as `norm`: the update's best fit, and a random one."""
    generator = torch.Generator().manual_seed(0)
    B, A = best_rank_r(update, rank)
    random = torch.randn(len(rows), rank, generator=generator), torch.randn(A.shape, generator=generator)
    pairs = {f"a real one, rank {rank}": (B[rows], A), f"a random one, rank {rank}": random}
    return {name: (norm / float((B.double() @ A.double()).norm()) * B, A) for name, (B, A) in pairs.items()}


def _bytes(values: torch.Tensor, kind: str) -> str:
    """Numbers row by row as base64: kind "<i2" or "<f4"."""
    return base64.b64encode(values.contiguous().numpy().astype(kind).tobytes()).decode("ascii")
