"""The recorded weight update of a full fine-tune; `data/record_update.py` measured it, see data/README.md."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from torch import Tensor

from ..errors import LabError
from ..files import read_json
from ..folders import DATA
from ..lowrank import RANKS
from ..recorded_files import number, reading, restore

FOLDER = DATA / "update"


@dataclass(frozen=True)
class WeightUpdate:
    """ΔW = W_after − W_before of a full fine-tune, for the 210 matrices of the embedded model's 30 layers.

    A module's name is as in the model: "model.layers.15.self_attn.v_proj".

    Attributes
    ----------
    singular_values : dict module -> float32 Tensor (min(out, in),), of ΔW, descending
    weight_singular_values : the same of W_before, rounded to float16's eleven bits
    relative_norm : dict module -> float, ‖ΔW‖ / ‖W_before‖, Frobenius
    delta : dict module -> float32 Tensor (out, in), the whole ΔW of a few matrices, each entry rounded to eleven bits
    loss_by_rank : dict rank -> float, loss on held-out messages, in nats per answer token, when every ΔW is cut to
        its best fit of that rank; 0 is the base, None the whole ΔW
    exact_by_rank : dict rank -> float in [0, 1], exact match on held-out messages, in the same way, for a few ranks
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
    """The recorded update. It is read once per process: change only copies of its tensors.

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
    with reading(f"The recorded update in {folder}", restore("data/update", "record_update.py")):
        packed = (folder / "update.safetensors").read_bytes()
        record = read_json(folder / "update.json")
        if hashlib.sha256(packed).hexdigest() != record["sha256"]:
            raise LabError("update.safetensors is not the file that update.json describes")
        return _put_together(packed, record)


def _put_together(packed: bytes, record: dict) -> WeightUpdate:
    """The tensors and the record as one."""
    from safetensors.torch import load

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
        loss_by_rank=_by_rank(measured["loss_by_rank"], (0, *RANKS, None)),
        exact_by_rank=_by_rank(measured["exact_by_rank"], (0, None)),
        energy={name: _by_rank(measured["energy"][name], RANKS) for name in ("update", "weight", "random")},
        recipe=record["recipe"] | {name: measured[name] for name in ("test_examples", "exact_examples")},
        provenance=record["provenance"],
    )


def _by_rank(values: dict[str, float], needed: Iterable[int | None]) -> dict:
    """JSON's text keys as numbers, "full" as None; a KeyError names a rank that is needed and missing."""
    found = {None if rank == "full" else int(rank): number(value) for rank, value in values.items()}
    for rank in needed:
        found[rank]
    return found
