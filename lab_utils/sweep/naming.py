"""The settings of a sweep by name, each by what it changes of the centre."""

from ..errors import LabError
from .summary import CENTRE
from .trial import SETTINGS

LAYERS = {"qv": "q and v", "attention": "q, k, v, o"}
BASES = {"none": "bfloat16 base", "int8": "int8 base", "fp4": "FP4 base"}
SAME = ("model", "task", "steps", "batch_size")  # what no setting of a sweep may differ in


def by_name(runs) -> dict:
    """Every setting that was run with the seeds of the centre: name -> its runs, a row per seed.

    The centre is the first; then what changes least, with full fine-tuning and prompts at the end.

    Parameters
    ----------
    runs : DataFrame of `load_sweep`; runs that failed are left out, and so are seeds that the centre has not

    Raises
    ------
    LabError
        The runs differ in model, task, steps or batch size, or the centre has fewer than two seeds.
    """
    done = runs[runs["problem"] == ""]
    for name in SAME:
        found = sorted({str(value) for value in done[name]})
        if len(found) > 1:
            raise LabError(f"The sweep's rows differ in {name}: {', '.join(found)}. Show those of one at a time.")
    setting = ["method", "shots", *(name for name in SETTINGS if name != "seed")]
    groups = [part.sort_values("seed") for _, part in done.groupby(setting, sort=False)]
    named = {name_of(part.iloc[0]): part for part in sorted(groups, key=lambda part: _order(part.iloc[0]))}
    seeds = set(named["centre"]["seed"]) if "centre" in named else set()
    if len(seeds) < 2:
        raise LabError("The sweep has no two runs with its middle setting (NF4, all layers, r = 8, α = 2r, rate 2e-3).")
    return {
        name: part[part["seed"].isin(seeds)].reset_index(drop=True)
        for name, part in named.items() if seeds <= set(part["seed"])
    }  # fmt: skip


def name_of(row) -> str:
    """A setting in words: what it changes of the centre."""
    if row["method"] == "prompt":
        return f"no training, {row['shots']} solved in the prompt"
    if row["method"] == "full":
        return f"full fine-tune, lr {row['learning_rate']:g}"
    words = {
        "target_modules": LAYERS.get(row["target_modules"], str(row["target_modules"])), "rank": f"r = {row['rank']}",
        "scaling": f"α = {row['alpha']:.3g}" + (", α/√r" if row["use_rslora"] else ""),
        "learning_rate": f"lr {row['learning_rate']:g}",
        "quantization": BASES.get(row["quantization"], str(row["quantization"])),
        "train_examples": f"{row['train_examples']} messages", "dropout": f"dropout {row['dropout']:g}",
    }  # fmt: skip
    changed = [name for name in words if row[name] != CENTRE[name]]
    if "target_modules" in changed and "rank" not in changed:
        changed.insert(1, "rank")  # which layers says little without the rank
    return ", ".join(words[name] for name in changed) or "centre"


def _order(row) -> tuple:
    """Adapters first, by how many settings change, then by which and by its value."""
    names = ("dropout", "train_examples", "quantization", "rank", "target_modules", "scaling", "learning_rate")
    method = ("adapter", "full", "prompt").index(row["method"])
    changed = [] if method else [name for name in names if row[name] != CENTRE[name]]
    places = [names.index(name) for name in changed]
    values = [str(row[name]).zfill(9) for name in changed]
    return method, len(changed), places, values, row["learning_rate"], row["shots"]
