"""In what two runs differ apart from their recipe, in words, and whether what a checkpoint holds can be compared."""

import sys

from ..errors import LabError, shown

TOLERANCE = 0.01  # of their size: bfloat16 rounds by up to 0.004
WHAT = {"data": "other training data", "tokens": "another tokenizer or chat template", "base": "another base model"}


def differences(saved: dict, now: dict) -> list[str]:
    """In what two runs differ, in words; what only one of them knows is not compared.

    Parameters
    ----------
    saved, now : dicts of "data", "tokens" (digests), "rows" (int, of the data) and "base" (of `base_identity`), or of
        some of them
    """
    found = []
    for part in WHAT.keys() & saved.keys() & now.keys():
        there, here = saved[part], now[part]
        if part == "base":
            settings = _other_settings(there.get("config", {}), here.get("config", {}))
            if settings or not _one_base(there, here):
                names = f"{there['name']} there, {here['name']} here"
                found.append((part, f" ({settings or names})"))
        elif there != here:
            rows = {one.get("rows") for one in (saved, now)} if part == "data" else set()
            counted = f" ({saved['rows']:,} rows there, {now['rows']:,} here)" if len(rows - {None}) == 2 else ""
            found.append((part, counted))
    if "data" in dict(found):
        found = [(part, text) for part, text in found if part != "tokens"]  # the tokens differ because the data do
    return [f"{WHAT[part]}{text}" for part, text in sorted(found)]


def refuse_other(folder, saved: dict, now: dict) -> None:
    """Raise a LabError if a run's data or base are others than this call's; nothing is deleted.

    Parameters
    ----------
    folder : path of the run
    saved, now : as in `differences`

    Raises
    ------
    LabError
        What differs is named.
    """
    if found := differences(saved, now):
        raise LabError(
            f"{folder} holds a run of the same recipe, with {' and '.join(found)}. Take another output_dir, or pass "
            "resume=False to start again (the old run is kept in `previous/`)."
        )


def is_identity(saved: dict) -> bool:
    """Can what a checkpoint holds be compared: has each part the form that this module gives it?"""
    base = saved.get("base", {"name": "", "shapes": "", "weights": "", "made": "", "sample": []})
    if not isinstance(base, dict) or not isinstance(base.get("config", {}), dict):
        return False
    texts = [saved.get("data", ""), saved.get("tokens", ""), base.get("order", "")]
    texts += [base.get(name) for name in ("name", "shapes", "weights", "made")]
    if type(saved.get("rows", 0)) is not int:
        return False
    samples = base.get("samples", [])
    if not all(isinstance(one, str) for one in texts) or not isinstance(samples, list):
        return False
    return all(isinstance(one, list) and all(map(is_number, one)) for one in [base.get("sample"), *samples])


def is_number(value: object) -> bool:
    """Is it a finite number, as JSON has them?"""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _other_settings(there: dict, here: dict) -> str:
    """In what two configurations differ, in words; what only one has is another version's of transformers."""
    found = []
    for name in sorted(there.keys() & here.keys()):
        one, other = there[name], here[name]
        if isinstance(one, dict) and isinstance(other, dict):
            one, other = ({key: each[key] for key in one.keys() & other.keys()} for each in (one, other))
        if one != other:
            found.append(f"{name}: {shown(one)} there, {shown(other)} here")
    return "; ".join(found)


def _one_base(there: dict, here: dict) -> bool:
    """Are two bases one and the same, but for rounding where they were made on different machines?"""
    if there["shapes"] != here["shapes"]:
        return False
    if there["weights"] == here["weights"] and there.get("order", here["order"]) == here["order"]:
        return True
    if there["made"] == here["made"]:
        return False
    pairs = [(there["sample"], here["sample"])]
    if "samples" in there:
        if len(there["samples"]) != len(here["samples"]):
            return False
        pairs += zip(there["samples"], here["samples"], strict=True)
    return all(_nearly_equal(*pair) for pair in pairs)


def _nearly_equal(there: list[float], here: list[float]) -> bool:
    """Are two samples of one tensor the same, but for rounding?"""
    size = max(map(abs, there), default=0.0)
    same = len(there) == len(here)
    return same and all(abs(a - b) <= TOLERANCE * size for a, b in zip(there, here, strict=True))
