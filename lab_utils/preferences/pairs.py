"""Pairs of answers, a better and a worse one: near misses of a booking, made by rule."""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from ..errors import LabError, choose, listed, shown, whole
from ..tasks.data_lines import check_row
from ..tasks.registry import find_task

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _number(answer: dict, rng: random.Random) -> dict | None:
    """One more or one less, never less than one."""
    steps = [-1, 1] if answer["qty"] > 1 else [1]
    return {**answer, "qty": answer["qty"] + rng.choice(steps)}


def _capital(answer: dict, rng: random.Random) -> dict | None:
    """The name without its first capital; None where it has none."""
    name = answer["name"]
    place = next((place for place, letter in enumerate(name) if letter.isupper()), None)
    return None if place is None else {**answer, "name": name[:place] + name[place].lower() + name[place + 1 :]}


def _day(answer: dict, rng: random.Random) -> dict | None:
    """Another day of the week."""
    return {**answer, "day": rng.choice([day for day in DAYS if day != answer["day"]])}


MISTAKES: Mapping[str, Callable] = MappingProxyType({"number": _number, "capital": _capital, "day": _day})


def near_miss(answer: str, mistake: str, rng: random.Random) -> str | None:
    """A booking with one mistake in it.

    Parameters
    ----------
    answer : str, a right answer of the task "bookings"
    mistake : name in `MISTAKES`: "number" (one more or less), "capital" (the name's is lost), "day" (another one)
    rng : random.Random

    Returns
    -------
    str, written as the answer is; None if the mistake cannot be made in it

    Raises
    ------
    LabError
        The mistake is unknown, or the answer is not a booking.

    >>> near_miss('{"name":" Anna","qty":1,"item":" tents","day":"Friday","time":"10:00"}', "number", random.Random(0))
    '{"name":" Anna","qty":2,"item":" tents","day":"Friday","time":"10:00"}'
    """
    make = MISTAKES[choose("mistake", mistake, MISTAKES)]
    try:
        found = make(json.loads(answer), rng)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise LabError(
            f"The answer {shown(answer)} is not a booking, a JSON object with name, qty and day: near misses are made "
            "of those only. Give pairs of your own as rows of prompt, chosen and rejected."
        ) from error
    return None if found is None else json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def booking_pairs(rows: Iterable[Mapping], seed: int = 0, mistakes: Iterable[str] = tuple(MISTAKES)) -> list[dict]:
    """For each booking its right answer and a near miss: the same pairs every time.

    Parameters
    ----------
    rows : rows of {"prompt", "answer"} of the task "bookings", such as `load_task("bookings")["train"]`
    seed : int >= 0
    mistakes : names in `MISTAKES`, one of which is drawn for each row; where it cannot be made, another one

    Returns
    -------
    list of {"prompt", "chosen", "rejected", "mistake"}, all str

    Raises
    ------
    LabError
        A row is not a booking, or no mistake is named.
    """
    names = [choose("mistake", one, MISTAKES) for one in listed(mistakes) or ()]
    if not names:
        raise LabError(f"mistakes={shown(mistakes)} is out of range: at least one of {', '.join(MISTAKES)}.")
    rng, pairs = random.Random(whole("seed", seed, 0)), []
    for number, row in enumerate(rows, 1):
        check_row(row, f"example {number}")
        for mistake in rng.sample(names, len(names)):
            wrong = near_miss(row["answer"], mistake, rng)
            if wrong is not None:
                pairs.append({"prompt": row["prompt"], "chosen": row["answer"], "rejected": wrong, "mistake": mistake})
                break
    return pairs


def pair_logprobs(model, tokenizer, pairs: Iterable[Mapping], task: str = "bookings", batch_size: int = 8) -> tuple:
    """How likely a model finds both answers of each pair, and how long they are.

    Parameters
    ----------
    model, tokenizer : of transformers, with or without adapters
    pairs : rows of {"prompt", "chosen", "rejected"}
    task : a name in `TASKS`, or a Task; it gives the system message
    batch_size : int, pairs that are read together

    Returns
    -------
    (logprobs, tokens) : Tensors, shape (pairs, 2), the chosen answer first: float32 in nats, int64 with the end of turn

    Raises
    ------
    LabError
        A pair is none.
    """
    import torch

    from ..finetune import collate, encode
    from ..finetune.conversation import padding_token
    from .logprobs import answer_logprobs, answer_mask

    task, rows = find_task(task), check_pairs(pairs)
    encoded = [encode(tokenizer, task, row["prompt"], row[name]) for row in rows for name in ("chosen", "rejected")]
    device, was_training = next(model.parameters()).device, model.training
    found, lengths = [], []
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(encoded), 2 * batch_size):
                batch = collate(encoded[start : start + 2 * batch_size], padding_token(tokenizer))
                batch = {name: one.to(device) for name, one in batch.items()}
                found.append(answer_logprobs(model, batch).sum(1).cpu())
                lengths.append(answer_mask(batch["labels"]).sum(1).cpu())
    finally:
        model.train(was_training)
    return torch.cat(found).view(-1, 2), torch.cat(lengths).view(-1, 2)


def check_pairs(pairs: Iterable[Mapping]) -> list[dict]:
    """Pairs as a list of {"prompt", "chosen", "rejected"}, each one checked.

    Raises
    ------
    LabError
        There is none, a text is missing, or the two answers of a pair are the same: its number is named.
    """
    if isinstance(pairs, (str, bytes, Mapping)) or not isinstance(pairs, Iterable):
        raise LabError(f"pairs={shown(pairs)} is out of range: rows of prompt, chosen and rejected, all three text.")
    found = [_checked(number, row) for number, row in enumerate(pairs, 1)]
    if not found:
        raise LabError("There are no pairs: give at least one row of prompt, chosen and rejected.")
    return found


def _checked(number: int, row: Mapping) -> dict:
    """A pair's three texts."""
    names = ("prompt", "chosen", "rejected")
    if not isinstance(row, Mapping) or not all(isinstance(row.get(name), str) and row[name].strip() for name in names):
        raise LabError(f"pair {number}: {shown(row)} is not a pair. Each needs prompt, chosen and rejected, all text.")
    if row["chosen"] == row["rejected"]:
        raise LabError(
            f"pair {number}: chosen and rejected are the same ({shown(row['chosen'])}). Leave that pair out."
        )
    return {name: str(row[name]) for name in names}
