"""What a merge leaves of an adapter, by the grid of its base and the format of the result (data/README.md)."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..files import read_text
from ..folders import DATA
from ..recorded_files import number, reading, restore

REQUANTIZATION = DATA / "requantization"
FILE = "requantization.jsonl"
GRIDS = ("NF4", "Q4_1", "FP4", "Q4_0", "Q8_0", "int8")  # NF4: the adapter's own base; Q4_1: the weights as shipped
NO_ADAPTER = "no adapter"
SHIFTED = "FP4, blocks shifted"  # from NF4 only: FP4 in blocks that begin 32 weights later, so with other scales
DESTINATIONS = ("NF4", "Q4_1", "FP4", "Q4_0", "Q8_0", "int8", "float16", "float32", NO_ADAPTER)


@dataclass(frozen=True)
class MergeRecord:
    """One merge of the recorded adapter `bookings`: the base on a grid, the sum rounded to a destination.

    Attributes
    ----------
    grid : str, of `GRIDS`: the format that the base's weights were rounded to before the merge
    destination : str, of `DESTINATIONS`, or `SHIFTED`; "no adapter" is the base alone
    loss : float, nats per token of the right answers
    right, messages : int, messages whose every token is the model's first choice, and how many were read
    kept, noise, cosine, changed : float, see `lab_utils.merging.Left`, over all 210 matrices; None without adapter
    seconds : float, wall clock of this cell
    provenance : dict, processor, threads, date, versions
    """

    grid: str
    destination: str
    loss: float
    right: int
    messages: int
    seconds: float
    provenance: dict = field(repr=False)
    kept: float | None = None
    noise: float | None = None
    cosine: float | None = None
    changed: float | None = None


def requantized_merges(folder: str | Path = REQUANTIZATION) -> dict[tuple[str, str], MergeRecord]:
    """(grid, destination) -> what `data/record_requantization.py` measured there, in the order of `GRIDS`.

    Beside these there may be one control, ("NF4", `SHIFTED`). Only grids whose every destination is recorded are
    returned: the recorder takes one grid after the other, and continues where it was stopped.

    Parameters
    ----------
    folder : path, holds `requantization.jsonl`

    Raises
    ------
    LabError
        The file is missing or damaged, the first two grids are not complete, or its cells were measured on different
        messages.
    """
    way_out = restore("data/requantization", "record_requantization.py")
    with reading(f"The recorded merges in {folder}", way_out):
        lines = read_text(Path(folder) / FILE).splitlines()
        found = {(one.grid, one.destination): one for one in map(_record, lines)}
        if len({one.messages for one in found.values()}) != 1:
            raise ValueError("cells of different numbers of messages")
        whole = [grid for grid in GRIDS if all((grid, into) in found for into in DESTINATIONS)]
        if whole[:2] != list(GRIDS[:2]):
            raise ValueError(f"complete are {', '.join(whole) or 'no grids'}, and {GRIDS[0]} and {GRIDS[1]} are needed")
        control = {pair: one for pair, one in found.items() if pair == ("NF4", SHIFTED)}
        return {(grid, into): found[grid, into] for grid in whole for into in DESTINATIONS} | control


def _record(line: str) -> MergeRecord:
    """A line as a record, if its numbers are numbers."""
    made = MergeRecord(**json.loads(line))
    for name in ("loss", "right", "messages", "seconds"):
        number(getattr(made, name), least=0)
    if made.destination != NO_ADAPTER:
        for name in ("kept", "noise", "cosine", "changed"):
            number(getattr(made, name))
    return made
