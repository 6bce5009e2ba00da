"""What a sweep's table says: settings, means over seeds, and differences with their uncertainty. No result without one.
"""

import math
from dataclasses import replace
from pathlib import Path

from ..errors import LabError, choose
from ..folders import DATA
from ..recorded_files import reading, restore
from .differences import Difference, compare, student
from .table import RESULTS, read_rows
from .trial import SETTINGS

TABLE = DATA / "sweep" / "sweep.csv"
CENTRE = {  # what a setting is unless a question says otherwise; `scaling` is what B·A is multiplied by
    "method": "adapter", "shots": 0, "quantization": "nf4", "rank": 8, "scaling": 2.0, "use_rslora": False,
    "target_modules": "all-linear", "dropout": 0.0, "learning_rate": 2e-3, "train_examples": 128,
}  # fmt: skip
WHOLE = ("shots", "rank", "steps", "batch_size", "train_examples", "seed")


def load_sweep(table: str | Path = TABLE):
    """The table as a pandas DataFrame, a row per run: settings and results with their types, and also `scaling`.

    Runs that failed keep their `problem`; their results are NaN.

    Raises
    ------
    LabError
        The table is missing, empty or damaged, or has other columns.
    """
    way_out = restore("data/sweep", "record_sweep.py")
    with reading(f"The sweep in {table}", way_out):
        rows = read_rows(table)
        if not rows:
            raise LabError("there is no run in it")
        return frame_of(rows)


def frame_of(rows: list[dict[str, str]]):
    """Rows of `table.read_rows` as `load_sweep`'s DataFrame.

    Raises
    ------
    ValueError
        A value is not what its column holds.
    """
    import pandas

    frame = pandas.DataFrame(rows)
    for name in (*WHOLE, "alpha", "dropout", "learning_rate", *RESULTS):
        frame[name] = _numbers(frame[name])
    if not frame["use_rslora"].isin(["true", "false"]).all():
        raise ValueError("use_rslora is neither true nor false")
    frame["use_rslora"] = frame["use_rslora"] == "true"
    frame["scaling"] = [
        round(alpha / (math.sqrt(rank) if rs else rank), 4)
        for alpha, rank, rs in zip(frame["alpha"], frame["rank"], frame["use_rslora"], strict=True)
    ]
    return frame


def _numbers(column):
    """A column of texts as numbers, NaN where it is empty; a ValueError names line, column and text if one is none."""
    import pandas

    try:
        return pandas.to_numeric(column)
    except ValueError:
        for line, text in enumerate(column, 2):
            try:
                float(text or "nan")
            except ValueError:
                raise ValueError(f"row {line}, {column.name}: {text!r} is not a number") from None
        raise


def pick(frame, **settings):
    """The runs at the centre of the sweep (`CENTRE`), but for the settings named here.

    Parameters
    ----------
    frame : DataFrame of `load_sweep`
    settings : a column's value, a list of values, or `...` for any: rank=..., quantization=["nf4", "fp4"].
        With method="full" or "prompt" an adapter's settings mean nothing, and are not asked for.

    Raises
    ------
    LabError
        No column has that name, or no run is like that.
    """
    for name in settings:
        if name not in (*SETTINGS, "method", "shots", "scaling"):
            raise LabError(f"{name} is not a setting of the sweep. It has: {', '.join(CENTRE)}, alpha, seed.")
    wanted = CENTRE | settings
    if "alpha" in settings:
        wanted.pop("scaling")
    if wanted["method"] != "adapter":
        meant = {"full": ("method", "learning_rate", "train_examples"), "prompt": ("method", "shots")}
        wanted = {name: value for name, value in wanted.items() if name in meant[wanted["method"]] or name in settings}
    for name, value in wanted.items():
        if value is ...:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        frame = frame[frame[name].isin(values)]
    if frame.empty:
        said = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        raise LabError(f"The sweep has no run with {said}, and its other settings at the centre.")
    return frame


def summarize(frame, by: list[str], value: str = "validation_loss"):
    """Means over seeds.

    Parameters
    ----------
    frame : DataFrame of `load_sweep`, or a part of it
    by : list of settings; runs with equal ones are one group, and must differ in their seed only
    value : a column of results

    Returns
    -------
    DataFrame, a row per group in ascending order: the settings, `mean`, `deviation` (over seeds, with n − 1), `error`
    (standard error of the mean, deviation / √n; NaN for one seed), `reach` (half the width of the mean's 95 % interval
    over seeds: Student's t times the error; NaN for one seed), `low` and `high` (the extremes), `n`,
    `trainable_parameters`, `training_cpu_seconds` (its median), `failed` (runs without a result)

    Raises
    ------
    LabError
        A group holds a seed twice: a setting that differs is not named in `by`.
    """
    twice = frame[frame.duplicated([*by, "seed"])]
    if len(twice):
        differing = [name for name in (*SETTINGS, "method", "shots") if frame[name].nunique() > 1 and name not in by]
        differing = [name for name in differing if name != "seed"]
        raise LabError(f"A group would mix runs that differ in {', '.join(differing)}: name that in `by` too.")
    groups = frame.groupby(by, sort=True)
    out = groups[value].agg(mean="mean", deviation="std", low="min", high="max", n="count")
    out["error"] = out["deviation"] / out["n"] ** 0.5
    out["reach"] = [student(n - 1) * error if n > 1 else error for n, error in zip(out["n"], out["error"], strict=True)]
    out["trainable_parameters"] = groups["trainable_parameters"].first()
    out["training_cpu_seconds"] = groups["training_cpu_seconds"].median()
    out["failed"] = groups["problem"].agg(lambda texts: sum(bool(text) for text in texts))
    return out.reset_index()


def difference(first, second, value: str = "loss") -> Difference:
    """Second minus first, paired by seed: runs of one seed saw the same messages in the same order.

    The table has one mean per run and set of messages, not one value per message. So "loss" and "exact" take the
    validation and the test messages as two draws of messages, which leaves one degree of freedom for what messages do:
    the interval reaches 12.7 of their standard errors. A column by itself says what *these* messages say, over seeds.

    Parameters
    ----------
    first, second : parts of `load_sweep`'s DataFrame, each one setting with several seeds
    value : "loss" or "exact", over seeds and both sets of messages; or a column of results, over seeds alone

    Returns
    -------
    Difference; its `messages` is the number of sets, or 0 over seeds alone

    Raises
    ------
    LabError
        A part mixes settings, fewer than two seeds have both results, or there is no such value.

    Source: as `differences.compare`; over seeds alone Student 1908, https://doi.org/10.1093/biomet/6.1.1
    """
    columns = [f"{split}_{value}" for split in ("validation", "test")] if value in ("loss", "exact") else [value]
    choose("value", columns[0], RESULTS)
    for part in (first, second):
        if part["seed"].duplicated().any():
            raise LabError("A difference is between two settings, but one side holds a seed twice: pick one setting.")
    sides = [part.set_index("seed")[columns].dropna() for part in (first, second)]
    seeds = sides[0].index.intersection(sides[1].index)
    if len(seeds) < 2:
        raise LabError(f"{len(seeds)} seed(s) have both results: two at least are needed to tell a mean from noise.")
    one, other = (side.loc[seeds].to_numpy(float) for side in sides)
    if len(columns) > 1:
        return replace(compare(one, other), unit="sets of messages")
    alone = compare(one.repeat(2, axis=1), other.repeat(2, axis=1))  # the same messages twice: they add nothing
    return replace(alone, messages=0)


def cheapest_within_one_error(groups, cost: str = "trainable_parameters"):
    """The cheapest group whose mean lies within one standard error of the best: a choice that does not chase noise.

    Of groups that cost the same, the one with the lowest mean.

    Parameters
    ----------
    groups : DataFrame of `summarize`, of a loss (lower is better)
    cost : a column of it

    Returns
    -------
    Series, that row

    Source: Breiman et al. 1984, Classification and Regression Trees, section 3.4.3 (the one-standard-error rule).
    """
    best = groups.loc[groups["mean"].idxmin()]
    near = groups[groups["mean"] <= best["mean"] + (best["error"] if best["n"] > 1 else 0)]
    return near.sort_values([cost, "mean"]).iloc[0]
