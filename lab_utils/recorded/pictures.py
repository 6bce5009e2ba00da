"""Recorded pictures of style adapters: every rank at every strength, on one sheet.

`load_samples` reads what `data/record_pictures.py` painted.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import choose
from ..files import read_json
from ..folders import DATA
from ..recorded_files import number, reading, restore

FOLDER = DATA / "pictures"


@dataclass(frozen=True)
class Samples:
    """The sheet, and what is on it.

    Attributes
    ----------
    size : int, pixels per side of one picture
    ranks : tuple of int, ascending
    strengths : tuple of float, ascending: the weight of the adapter; 0 is the base alone
    prompts : tuple of str, one per column
    adapters : dict rank -> {"trainable_parameters": int, "file_bytes": int, "loss": float (of the training),
        "seconds": float (of the training)}
    sheet : uint8 array (ranks · strengths · size, prompts · size, 3), RGB: per rank one row of pictures per strength
    """

    size: int
    ranks: tuple[int, ...]
    strengths: tuple[float, ...]
    prompts: tuple[str, ...]
    adapters: dict[int, dict]
    sheet: np.ndarray

    def pictures(self, rank: int, strength: float) -> np.ndarray:
        """Pictures of one rank at one strength: uint8 array (prompts, size, size, 3). LabError if there are none."""
        choose("rank", rank, self.ranks)
        choose("strength", strength, self.strengths)
        row = self.ranks.index(rank) * len(self.strengths) + self.strengths.index(strength)
        band = self.sheet[row * self.size : (row + 1) * self.size]
        return band.reshape(self.size, len(self.prompts), self.size, 3).swapaxes(0, 1)

    def change(self, rank: int, strength: float) -> float:
        """How far the pictures are from the base's (strength 0): mean absolute difference, as a share of 255."""
        now, base = (self.pictures(rank, one).astype(int) for one in (strength, 0.0))
        return float(np.abs(now - base).mean() / 255)

    def png(self) -> bytes:
        """The sheet as a PNG file."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.sheet).save(buffer, "PNG")
        return buffer.getvalue()


def load_samples(folder: str | Path = FOLDER) -> Samples:
    """Read `samples.json` and `samples.png`.

    Raises
    ------
    LabError
        A file is missing or damaged, or the two do not belong together.
    """
    from PIL import Image

    folder = Path(folder)
    with reading(f"The recorded pictures in {folder}", restore("data/pictures", "record_pictures.py")):
        found = read_json(folder / "samples.json")
        with Image.open(folder / "samples.png") as image:
            sheet = np.asarray(image.convert("RGB"))
        samples = Samples(
            size=int(found["size"]), ranks=tuple(map(int, found["ranks"])),
            strengths=tuple(float(number(one, 0)) for one in found["strengths"]),
            prompts=tuple(map(str, found["prompts"])),
            adapters={int(rank): adapter for rank, adapter in found["adapters"].items()}, sheet=sheet,
        )  # fmt: skip
        _check(samples)
        return samples


def _check(samples: Samples) -> None:
    """Raise a ValueError or KeyError unless all parts fit together."""
    for name in ("ranks", "strengths"):
        values = getattr(samples, name)
        if not values or list(values) != sorted(set(values)):
            raise ValueError(f"{name} {list(values)} do not ascend")
    if 0.0 not in samples.strengths:
        raise ValueError("strength 0, the base alone, is missing")
    high, wide = len(samples.ranks) * len(samples.strengths) * samples.size, len(samples.prompts) * samples.size
    if samples.sheet.shape != (high, wide, 3):
        raise ValueError(f"the sheet is {samples.sheet.shape[:2]}, not {(high, wide)} pixels high and wide")
    for rank in samples.ranks:
        for name in ("trainable_parameters", "file_bytes", "loss", "seconds"):
            value = samples.adapters[rank][name]
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"rank {rank} has {name} {value!r}")
