"""The recorded comparison of LoRA and its variants on one task; `data/record_variants.py` measured it."""

import json
from pathlib import Path

from .errors import LabError
from .tasks import DATA

FILE = DATA / "variants" / "variants.json"


def load_variants(file: str | Path = FILE):
    """The recorded runs, and how they were made.

    Returns
    -------
    (runs, recipe) : a pandas DataFrame with a row a run, and a dict. Columns: variant, seed, learning_rate,
        trainable_parameters, optimizer_bytes, saved_activation_bytes, cpu_seconds_a_step, training_losses (list, nats
        an answer token, one a step), relative_update (‖W' − W‖ / ‖W‖), validation_loss, validation_exact, test_loss,
        test_exact (NaN where not measured), settings, cpu, threads, date, versions; and `chosen`: is this the learning
        rate that did better on the validation messages

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    import pandas

    try:
        record = json.loads(Path(file).read_text(encoding="utf-8"))
        runs = pandas.DataFrame(record["rows"])
        runs["chosen"] = runs["learning_rate"] == runs["variant"].map(record["chosen"])
        return runs, record["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        mend = "Restore it with `git checkout -- data/variants`, or make it anew with `python data/record_variants.py`."
        raise LabError(f"The recorded variants in {file} cannot be read ({error!r}). {mend}") from error


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
