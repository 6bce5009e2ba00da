"""Where page 12's painter learns a style: recorded adapters on its attention and on its convolutions."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean

from ..errors import LabError
from ..files import read_text
from ..folders import DATA
from ..recorded_files import number, reading, restore

STYLE_PARTS = DATA / "pictures" / "style_parts.jsonl"
CHOOSING = ("mushroom",)  # unseen things whose loss chooses a learning rate; the others give the result
NUMBERS = ("rank", "alpha", "learning_rate", "seed", "steps", "trained_parameters")


def style_parts(file: str | Path = STYLE_PARTS) -> list[dict]:
    """The recorded runs, in the order of recording.

    Returns
    -------
    list of dict: "arm", "rank", "alpha", "learning_rate", "seed", "steps", "trained_parameters", "losses" (thing ->
    list of the mean square errors of the guessed picture, one per neon drawing of a thing that the adapter never saw in
    neon), and where it was recorded. Three more are computed: "choosing", the mean loss of the things that choose the
    rate, "tested", the losses of all drawings of the others, and "test", their mean. data/README.md says more.

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    with reading(f"The recorded adapters in {file}", restore("data/pictures", "record_style_parts.py")):
        rows = [json.loads(line) for line in read_text(Path(file)).splitlines()]
        for row in rows:
            losses = row["losses"]
            for value in (*(row[name] for name in NUMBERS), *chain.from_iterable(losses.values())):
                number(value, 0)
            str(row["arm"])
            row["choosing"] = fmean(chain.from_iterable(losses[thing] for thing in CHOOSING))
            row["tested"] = list(chain.from_iterable(losses[thing] for thing in losses if thing not in CHOOSING))
            row["test"] = fmean(row["tested"])
        return rows


def at_best_rate(rows: Sequence[dict], arm: str) -> list[dict]:
    """The runs of an arm at the learning rate with the smallest `choosing` loss for its first seed, by seed.

    Parameters
    ----------
    rows : of `style_parts`
    arm : str

    Raises
    ------
    LabError
        The arm is not recorded.
    """
    own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
    if not own:
        raise LabError(f"The arm {arm!r} is not recorded. There are: {', '.join({row['arm']: 0 for row in rows})}.")
    best = min((row for row in own if row["seed"] == own[0]["seed"]), key=lambda row: row["choosing"])
    return [row for row in own if row["learning_rate"] == best["learning_rate"]]
