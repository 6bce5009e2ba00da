"""The points of the sweep explorer: runs of a recorded sweep, put together by setting. Its JavaScript does the same."""

import math
import statistics
from collections.abc import Sequence

from ..errors import LabError
from ..sweep import Trial

CENTRE = {
    "layers": "all-linear", "base": "nf4", "rank": 8, "alpha": "2r", "learning rate": 0.002, "examples": 128,
    "dropout": 0,
}  # fmt: skip
# name -> (what it reads of a run, the settings that may differ between points, base of its logarithm or 0)
AXES = {
    "trained numbers": ("trainable_parameters", ("layers", "rank"), 10),
    "training time, CPU s": ("training_cpu_seconds", ("layers", "rank"), 0),
    "rank": ("rank", ("rank",), 2),
    "alpha": ("alpha_over_r", ("alpha",), 2),
    "learning rate": ("learning rate", ("learning rate",), 10),
    "examples": ("examples", ("examples",), 2),
}
QUALITIES = {
    "validation loss": "validation_loss", "validation exact": "validation_exact", "test exact": "test_exact",
}  # fmt: skip
COLOURS = ("layers", "nothing", "base", "rank", "alpha", "learning rate", "examples", "dropout")
NUMBERS = ("trainable_parameters", "training_cpu_seconds", *QUALITIES.values())


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and its standard error with n − 1 in the variance; None for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def runs_of(rows: Sequence[dict]) -> tuple[list[dict], list[dict]]:
    """The rows of a sweep's table that have results: (adapters, others).

    An adapter is a dict with the keys of `CENTRE`, those of `NUMBERS`, "seed" and "alpha_over_r", its scaling times its
    rank. Its "alpha" is a list of all rules that lead to its scaling at its rank (see `_rules`): a run belongs to each,
    because only the scaling matters in training. Others are dicts with "name", "order", "seed" and `NUMBERS`.

    Raises
    ------
    LabError
        The rows differ in model, task, steps or batch size, or the setting in the middle of the sweep has no run.
    """
    done = [row for row in rows if not row["problem"]]
    for name in ("model", "task", "steps", "batch_size"):
        found = sorted({str(row[name]) for row in done})
        if len(found) > 1:
            raise LabError(f"The sweep's rows differ in {name}: {', '.join(found)}. Show those of one at a time.")
    pairs = [(Trial.from_row(row), row) for row in done]
    rules = _rules(trial.recipe for trial, _ in pairs if trial.method == "adapter")
    adapters, others = [], []
    for trial, row in pairs:
        recipe = trial.recipe
        numbers = {name: float(row[name] or 0) for name in NUMBERS} | {"seed": recipe.seed}
        if trial.method == "adapter":
            scaling = recipe.alpha / (math.sqrt(recipe.rank) if recipe.use_rslora else recipe.rank)
            layers = recipe.target_modules
            settings = {
                "layers": layers if isinstance(layers, str) else "+".join(layers), "base": recipe.quantization,
                "rank": recipe.rank, "alpha": [name for name, rule in rules.items() if
                                               math.isclose(rule(recipe.rank), scaling, rel_tol=1e-4)],
                "learning rate": recipe.learning_rate, "examples": recipe.train_examples or "all",
                "dropout": recipe.dropout,
            }  # fmt: skip
            adapters.append(settings | numbers | {"alpha_over_r": round(scaling * recipe.rank, 3)})
        else:
            prompt = f"no training, {trial.shots} examples shown"
            name = prompt if trial.method == "prompt" else f"full fine-tune, lr {recipe.learning_rate:g}"
            others.append({"name": name, "order": [trial.method, trial.shots, recipe.learning_rate]} | numbers)
    if not group(adapters, "rank", "nothing", {}):
        raise LabError("The sweep has no run with its middle setting (NF4, all layers, α = 2r, learning rate 2e-3).")
    return adapters, others


def _rules(recipes) -> dict:
    """How alpha was set across ranks, name -> scaling as a function of the rank: "2r"; "16", over r; "5.66 over √r".

    An alpha that was tried at only one rank is not a rule.
    """
    rules, ranks = {"2r": lambda rank: 2.0}, {"2r": {0, 1}}
    for recipe in recipes:
        if recipe.use_rslora:
            name, rule = f"{recipe.alpha:.3g} over √r", lambda rank, alpha=recipe.alpha: alpha / math.sqrt(rank)
        elif recipe.alpha != 2 * recipe.rank:
            name, rule = f"{recipe.alpha:g}", lambda rank, alpha=recipe.alpha: alpha / rank
        else:
            continue
        rules[name] = rule
        ranks.setdefault(name, set()).add(recipe.rank)
    return {name: rule for name, rule in rules.items() if len(ranks[name]) > 1}


def free_settings(x: str, colour: str) -> tuple[str, ...]:
    """The settings in which points may differ, in the order of `CENTRE`."""
    free = (*AXES[x][1], colour)
    return tuple(name for name in CENTRE if name in free)


def group(adapters: Sequence[dict], x: str, colour: str, held: dict) -> list[dict]:
    """Runs that differ in nothing but their seed, together; one entry per point, from left to right.

    Parameters
    ----------
    adapters : as `runs_of` returns them
    x : str, a name in `AXES`
    colour : str, of `COLOURS`
    held : dict setting -> value, where a setting that is not free is held at something else than in `CENTRE`

    Returns
    -------
    list of {"settings": dict, "x": float, "runs": list of dict}; x is the runs' median. A run is in several
    of them only if ranks differ, alpha is the color, and several rules give the same scaling at its rank.
    """
    free, fixed, found = free_settings(x, colour), CENTRE | held, {}
    for run in adapters:
        if any(not _is(run, name, fixed[name]) for name in CENTRE if name not in free):
            continue
        number = "alpha" in free and (x == "alpha" or "rank" not in free)
        rules = [run["alpha_over_r"]] if number else run["alpha"] if "alpha" in free else [fixed["alpha"]]
        for rule in rules:
            settings = {name: rule if name == "alpha" else run[name] for name in CENTRE}
            found.setdefault(tuple(settings.values()), {"settings": settings, "runs": []})["runs"].append(run)
    for one in found.values():
        one["x"] = statistics.median(run[AXES[x][0]] for run in one["runs"])
    return sorted(found.values(), key=lambda one: (one["x"], *map(order, one["settings"].values())))


def _is(run: dict, name: str, value) -> bool:
    return value in run[name] if name == "alpha" else run[name] == value


def order(value) -> tuple:
    """Numbers first, by size, then texts."""
    return (1, 0.0, value) if isinstance(value, str) else (0, value, "")


def references(others: Sequence[dict]) -> list[dict]:
    """What adapters are compared with, {"name", "runs"}: a full fine-tune, and the prompt with the most examples in it.

    Of several full fine-tunes that with the most seeds is taken; among those, the one with the lowest validation loss.
    """
    found: dict[str, list] = {}
    for run in others:
        found.setdefault(run["name"], []).append(run)

    def merit(runs: list) -> tuple:
        method, shots, _ = runs[0]["order"]
        loss = mean_and_error([run["validation_loss"] for run in runs])[0]
        return (shots, 0, 0) if method == "prompt" else (0, len(runs), -loss)

    best = {}
    for runs in found.values():
        method = runs[0]["order"][0]
        best[method] = max(best.get(method, runs), runs, key=merit)
    return [{"name": runs[0]["name"], "runs": runs} for _, runs in sorted(best.items())]


def as_list(value) -> list:
    """A run's alpha rules as they are, any other setting in its own list."""
    return value if isinstance(value, list) else [value]


def named(settings: dict) -> str:
    """A point's settings in words."""
    alpha = settings["alpha"]
    alpha = f"{alpha:g}" if isinstance(alpha, float) else alpha
    return (
        f"{settings['base']}, {settings['layers']}, r = {settings['rank']}, α = {alpha}, lr "
        f"{settings['learning rate']:g}, {settings['examples']} examples, dropout {settings['dropout']:g}"
    )


def quality(name: str, point: dict) -> str:
    """A mean with its standard error and the number of seeds, in words."""
    digits, factor, unit = (4, 1, "") if name.endswith("loss") else (1, 100, " %")
    if point["error"] is None:
        return f"{name} {factor * point['mean']:.{digits}f}{unit}, one seed"
    return (
        f"{name} {factor * point['mean']:.{digits}f} ± {factor * point['error']:.{digits}f}{unit}, {point['n']} seeds"
    )
