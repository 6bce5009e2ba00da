"""A real weight update to look at: what a full fine-tune added to each matrix of the embedded model.

`data/record_update.py` trained the model and wrote `data/update`; data/README.md says what lies there.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .errors import LabError
from .tasks import DATA

FOLDER = DATA / "update"
RANKS = (1, 2, 4, 8, 16, 32, 64)
MEND = "Restore it with `git checkout -- data/update`, or make it anew with `python data/record_update.py`."


@dataclass(frozen=True)
class WeightUpdate:
    """ΔW = W_after − W_before of a full fine-tune, for the 210 matrices of the embedded model's 30 layers.

    A module's name is as in the model: "model.layers.15.self_attn.v_proj".

    Attributes
    ----------
    singular_values : dict module -> float32 Tensor (min(out, in),), of ΔW, descending
    weight_singular_values : the same of W_before, rounded to float16's eleven bits
    relative_norm : dict module -> float, ‖ΔW‖ / ‖W_before‖, Frobenius
    delta : dict module -> float32 Tensor (out, in), the whole ΔW of a few matrices, rounded to eleven bits an entry
    loss_by_rank : dict rank -> float, loss on held-out messages, in nats an answer token, when every ΔW is cut to
        its best fit of that rank; 0 is the base, None the whole ΔW
    exact_by_rank : dict rank -> float in [0, 1], exact match on held-out messages, likewise, for a few ranks
    energy : dict of "update", "weight", "random" -> dict rank -> float in [0, 1], share of the squared singular values
        in the first `rank` directions, mean over ΔW, over W_before, over Gaussian matrices of the same shapes
    recipe : dict, how it was trained, and "test_examples", "exact_examples": how many messages it was measured on
    provenance : dict, command, date, processor, seconds, versions
    """

    singular_values: dict[str, Tensor] = field(repr=False)
    weight_singular_values: dict[str, Tensor] = field(repr=False)
    relative_norm: dict[str, float] = field(repr=False)
    delta: dict[str, Tensor] = field(repr=False)
    loss_by_rank: dict[int | None, float]
    exact_by_rank: dict[int | None, float]
    energy: dict[str, dict[int, float]] = field(repr=False)
    recipe: dict = field(repr=False)
    provenance: dict = field(repr=False)


def weight_update(folder: str | Path = FOLDER) -> WeightUpdate:
    """The recorded update. Read once a process: change copies of its tensors only.

    Parameters
    ----------
    folder : path, holds `update.safetensors` and `update.json`

    Raises
    ------
    LabError
        A file is missing or damaged, or the two do not belong together.
    """
    return _read(Path(folder))


@cache
def _read(folder: Path) -> WeightUpdate:
    """Both files, checked and put together."""
    from safetensors.torch import load

    try:
        packed = (folder / "update.safetensors").read_bytes()
        record = json.loads((folder / "update.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"The recorded update in {folder} cannot be read ({error}). {MEND}") from error
    if hashlib.sha256(packed).hexdigest() != record.get("sha256"):
        raise LabError(f"{folder}: update.safetensors is not the file that update.json describes. {MEND}")
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load(packed).items():
        group, module = key.split("/")
        groups.setdefault(group, {})[module] = tensor.float()
    measured = record["measured"]
    return WeightUpdate(
        singular_values=groups["singular_values"],
        weight_singular_values=groups["weight_singular_values"],
        relative_norm={module: value.item() for module, value in groups["relative_norm"].items()},
        delta={module: values / groups["scale"][module] for module, values in groups["delta"].items()},
        loss_by_rank=_by_rank(measured["loss_by_rank"]),
        exact_by_rank=_by_rank(measured["exact_by_rank"]),
        energy={name: _by_rank(shares) for name, shares in measured["energy"].items()},
        recipe=record["recipe"] | {name: measured[name] for name in ("test_examples", "exact_examples")},
        provenance=record["provenance"],
    )


def _by_rank(values: dict[str, float]) -> dict:
    """JSON's text keys as numbers, "full" as None."""
    return {None if rank == "full" else int(rank): value for rank, value in values.items()}


def energy_shares(spectra: Iterable[Tensor]) -> dict[int, float]:
    """Share of the squared singular values in the first r directions, for each r of `RANKS`, mean of the matrices.

    Parameters
    ----------
    spectra : 1-d Tensors, singular values, descending, not all zero

    Returns
    -------
    dict rank -> float in [0, 1], to 5 decimals
    """
    squares = [values.double().square() for values in spectra]
    return {
        rank: round(sum((s[:rank].sum() / s.sum()).item() for s in squares) / len(squares), 5) for rank in RANKS
    }  # fmt: skip


def random_spectra(shapes: Iterable[tuple[int, int]], seed: int) -> list[Tensor]:
    """Singular values of a Gaussian matrix of each shape; equal shapes share one.

    Parameters
    ----------
    shapes : of (out, in)
    seed : int

    Returns
    -------
    list of float32 Tensors (min(out, in),), one for each of `shapes`
    """
    shapes = [tuple(shape) for shape in shapes]
    generator = torch.Generator().manual_seed(seed)
    found = {shape: torch.linalg.svdvals(torch.randn(shape, generator=generator)) for shape in sorted(set(shapes))}
    return [found[shape] for shape in shapes]
