"""The recorded comparisons of LoRA and its variants: on bookings, and page 11's race on mirrored digits."""

from pathlib import Path

from ..files import read_json
from ..folders import DATA
from ..recorded_files import number, reading, restore

FILE = DATA / "variants" / "variants.json"
RACE = DATA / "variants" / "race.json"
MEASURED = (
    "seed", "learning_rate", "trainable_parameters", "optimizer_bytes", "saved_activation_bytes", "cpu_seconds_a_step",
    "relative_update", "validation_loss", "validation_exact",
)  # fmt: skip
LOSSES = ("validation_loss", "test_loss")
TESTED = ("test_loss", "test_exact")  # of the chosen runs only


def load_variants(file: str | Path = FILE):
    """The recorded runs, and how they were made.

    Returns
    -------
    (runs, recipe) : a pandas DataFrame with one row per run, and a dict. Columns: variant, seed, learning_rate,
        trainable_parameters, optimizer_bytes, saved_activation_bytes, cpu_seconds_a_step, training_losses (list, nats
        per answer token, one per step), relative_update (‖W' − W‖ / ‖W‖), validation_loss, validation_exact, test_loss,
        test_exact (NaN where not measured), settings, cpu, threads, date, versions; and `chosen`: whether this is the
        learning rate that did better on the validation messages

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    import pandas

    with reading(f"The recorded variants in {file}", restore("data/variants", "record_variants.py")):
        record = read_json(file)
        for row in record["rows"]:
            for name in (*MEASURED, *(name for name in TESTED if row[name] is not None)):
                number(row[name], 0)
            number(record["chosen"][row["variant"]], 0)
        runs = pandas.DataFrame(record["rows"])
        runs[list(TESTED)] = runs[list(TESTED)].astype(float)
        runs["chosen"] = runs["learning_rate"] == runs["variant"].map(record["chosen"])
        return runs, dict(record["recipe"])


def load_race(file: str | Path = RACE):
    """The recorded race on mirrored digits: every variant at many learning rates, with several seeds.

    Returns
    -------
    (runs, recipe) : a pandas DataFrame with one row per run, and a dict. Columns: variant, learning_rate, seed,
        validation_loss, test_loss (nats per image; NaN where it is not finite), validation_exact, test_exact (shares)

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    import pandas

    with reading(f"The recorded race in {file}", restore("data/variants", "record_variant_race.py")):
        record = read_json(file)
        for row in record["rows"]:
            str(row["variant"])
            for name in ("learning_rate", "seed", "validation_exact", "test_exact"):
                number(row[name], 0)
            for name in LOSSES:
                if row[name] is not None:
                    number(row[name], 0)
        runs = pandas.DataFrame(record["rows"])
        runs[list(LOSSES)] = runs[list(LOSSES)].astype(float)
        return runs, dict(record["recipe"])


def by_variant(runs, value: str):
    """Mean, standard error over seeds and number of seeds of a column, at each variant's chosen learning rate.

    Parameters
    ----------
    runs : DataFrame of `load_variants`
    value : a column of numbers

    Returns
    -------
    DataFrame, indexed by variant in the order of the record: mean, error (deviation with n − 1, over √n), n
    """
    groups = runs[runs["chosen"]].groupby("variant", sort=False)[value]
    found = groups.agg(mean="mean", error="sem", n="count")
    return found
