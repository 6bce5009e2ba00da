"""The recorded weight updates of full fine-tunes; `data/record_update.py` measured it, see data/README.md."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from torch import Tensor

from ..errors import LabError, choose
from ..files import read_json
from ..folders import DATA
from ..lowrank import RANKS
from ..recorded_files import number, reading, restore

FOLDER = DATA / "update"
SEEDS = {"bookings": (0,), "right": (0, 1), "shuffled": (0, 1)}  # of each update, those that were recorded
ENERGIES = ("update", "weight", "random")
COUNTS, ARM_COUNTS = ("test_examples", "exact_examples"), ("examples", "unseen_examples")


@dataclass(frozen=True)
class WeightUpdate:
    """ΔW = W_after − W_before of a full fine-tune, for the 210 matrices of the embedded model's 30 layers.

    A module's name is as in the model: "model.layers.15.self_attn.v_proj". "bookings" was trained on 3,000 messages and
    measured on held-out ones. The pair "right" and "shuffled" was trained on a few messages and measured on these, with
    the answers that were trained; of W_before and single entries it keeps nothing.

    Attributes
    ----------
    singular_values : dict module -> float32 Tensor (min(out, in),), of ΔW, descending
    weight_singular_values : the same of W_before, rounded to float16's eleven bits; empty for the pair
    relative_norm : dict module -> float, ‖ΔW‖ / ‖W_before‖, Frobenius
    delta : dict module -> float32 Tensor (out, in), the whole ΔW of a few matrices, each entry rounded to eleven bits;
        empty for the pair
    loss_by_rank : dict rank -> float, in nats per answer token, when every ΔW is cut to its best fit of that rank; 0 is
        the base, None the whole ΔW
    exact_by_rank : dict rank -> float in [0, 1], share of answers exactly right in the same way, for a few ranks
    energy : dict of "update", "weight", "random" -> dict rank -> float in [0, 1], share of the squared singular values
        in the first `rank` directions, mean over ΔW, over W_before, over Gaussian matrices of the same shapes; the pair
        has "update" alone
    training_loss : tuple of float, the loss of each step's batch before that step
    losses_by_rank : dict rank -> tuple of float, `loss_by_rank` message by message; empty for bookings
    unseen_loss : float or None, of the pair: the loss on messages that were not trained on, with their right answers
    recipe : dict, how it was trained, and how many messages it was measured on: "test_examples" and "exact_examples"
        for bookings, "examples" and "unseen_examples" for the pair
    provenance : dict, command, date, processor, seconds, versions
    """

    singular_values: dict[str, Tensor] = field(repr=False)
    weight_singular_values: dict[str, Tensor] = field(repr=False)
    relative_norm: dict[str, float] = field(repr=False)
    delta: dict[str, Tensor] = field(repr=False)
    loss_by_rank: dict[int | None, float]
    exact_by_rank: dict[int | None, float]
    energy: dict[str, dict[int, float]] = field(repr=False)
    training_loss: tuple[float, ...] = field(repr=False)
    losses_by_rank: dict[int | None, tuple[float, ...]] = field(repr=False)
    unseen_loss: float | None
    recipe: dict = field(repr=False)
    provenance: dict = field(repr=False)


def folder_of(name: str, seed: int = 0) -> str:
    """Where an update is in `FOLDER`: bookings in the folder itself, each of the pair in a folder per seed."""
    return "" if name == "bookings" else f"{name}_{seed}" if seed else name


def weight_update(name: str = "bookings", *, seed: int = 0, folder: str | Path = FOLDER) -> WeightUpdate:
    """A recorded update. It is read once per process: change only copies of its tensors.

    Parameters
    ----------
    name : "bookings", the job of the pages; or "right" or "shuffled", a few of its messages with their own answers, or
        each with another's
    seed : int, of the order of the messages and of the shuffle; the pair has 0 and 1, bookings has 0
    folder : path, holds `update.safetensors` and `update.json` of bookings, and a folder with both for each of the pair

    Raises
    ------
    LabError
        There is no update of that name or seed; a file is missing or damaged, or the two do not belong together.
    """
    name = choose("recorded update", name, SEEDS)
    return _read(Path(folder) / folder_of(name, choose(f"seed of the update {name}", seed, SEEDS[name])))


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
    measured, whole = record["measured"], "weight_singular_values" in groups
    losses = measured.get("losses_by_rank", {})
    return WeightUpdate(
        singular_values=groups["singular_values"],
        weight_singular_values=groups.get("weight_singular_values", {}),
        relative_norm={module: value.item() for module, value in groups["relative_norm"].items()},
        delta={module: values / groups["scale"][module] for module, values in groups.get("delta", {}).items()},
        loss_by_rank=_by_rank(measured["loss_by_rank"], (0, *RANKS, None)),
        exact_by_rank=_by_rank(measured["exact_by_rank"], (0, None)),
        energy={name: _by_rank(measured["energy"][name], RANKS) for name in (ENERGIES if whole else ENERGIES[:1])},
        training_loss=tuple(number(value) for value in measured["training_loss"]),
        losses_by_rank={_rank(rank): tuple(number(value) for value in values) for rank, values in losses.items()},
        unseen_loss=None if whole else number(measured["unseen_loss"]),
        recipe=record["recipe"] | {name: measured[name] for name in (COUNTS if whole else ARM_COUNTS)},
        provenance=record["provenance"],
    )


def _rank(text: str) -> int | None:
    """JSON's text key as a number, "full" as None."""
    return None if text == "full" else int(text)


def _by_rank(values: dict[str, float], needed: Iterable[int | None]) -> dict:
    """JSON's text keys as numbers, "full" as None; a KeyError names a rank that is needed and missing."""
    found = {_rank(rank): number(value) for rank, value in values.items()}
    for rank in needed:
        found[rank]
    return found
