"""What the linter says of single rows: empty, of another type, cut short, misread, with somebody's phone number."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator

from .copy_checks import short_place
from .findings import Finding, clipped, counted
from .intake import Tally
from .text_checks import CONTROL, encoding_faults, is_cut_short, is_open_json, personal_data

RARE = 5  # rows; a label with fewer can neither be learnt nor scored
LONG_ANSWER = 40  # characters, in the median: shorter ones are labels or values, which end without a full stop
WORDS = {
    ("encodings", "misread"): ("problem", "have letters of a text that was read in another encoding, such as Ã© for é. "
                               "Read the file again as what it is: encoding='utf-8' or 'cp1252'"),
    ("encodings", "replaced"): ("problem", "hold the replacement character �: letters were lost before this file"),
    ("encodings", "hidden"): ("look", "hold invisible or control characters, which are tokens to a model"),
    ("encodings", "entities"): ("look", "hold HTML's spelling of characters, such as &amp;"),
    ("control tokens", ""): ("look", "spell a control token, such as <|im_end|> or [INST]. This lab reads it as text; "
                             "other programs take it for a command"),
    ("unfinished", "open"): ("problem", "have an answer that opens a bracket or a quote as JSON and never closes it"),
    ("unfinished", "cut"): ("look", "have an answer that stops in the middle of a sentence, where most end with a full "
                            "stop. Were they cut off? A model learns to stop there too"),
    ("turns", "last"): ("look", "end with a turn that nobody answers; what comes after the last answer is not trained"),
    ("turns", "order"): ("look", "have two turns of one role after each other, or begin with the assistant. Some chat "
                         "templates refuse that"),
    ("personal data", "e-mail"): ("hint", "seem to hold an e-mail address"),
    ("personal data", "phone"): ("hint", "seem to hold a phone number"),
    ("personal data", "card"): ("hint", "seem to hold the number of a payment card (its check digit fits)"),
    ("personal data", "bank account"): ("hint", "seem to hold a bank account's number (its check digits fit)"),
}  # fmt: skip


def control_pattern(tokenizer) -> re.Pattern:
    """What looks like a control token: those of many models, and this tokenizer's."""
    own = {str(one) for one in getattr(tokenizer, "all_special_tokens", ())}
    own = sorted((one for one in own if len(one) > 2), key=len, reverse=True)
    return re.compile("|".join([CONTROL.pattern, *map(re.escape, own)]))


def faults(own, row: dict, control: re.Pattern) -> Iterator[tuple[str, str]]:
    """What is wrong with one row, as (check, what)."""
    turns = row.get("messages")
    texts = [turn["content"] for turn in turns] if turns else [row["prompt"], row["answer"]]
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"] if turns else [row["answer"]]
    for kind in dict.fromkeys(kind for text in texts for kind in encoding_faults(text)):
        yield "encodings", kind
    for kind in dict.fromkeys(kind for text in texts for kind in personal_data(text)):
        yield "personal data", kind
    if any(control.search(text) for text in texts):
        yield "control tokens", ""
    last = next((text for text in reversed(answers) if text.strip()), "")
    if is_open_json(last):
        yield "unfinished", "open"
    elif own.metric not in ("labels", "fields") and is_cut_short(last):
        yield "unfinished", "cut"
    if len(last) >= LONG_ANSWER:
        yield "long", ""
    if turns:
        yield from _order(turns)


def _order(turns: list[dict]) -> Iterator[tuple[str, str]]:
    roles = [turn["role"] for turn in turns if turn["role"] in ("user", "assistant")]
    after_tool = any(turn["role"] == "tool" for turn in turns)
    if roles[-1] == "user":
        yield "turns", "last"
    if roles[0] == "assistant" or (not after_tool and any(a == b for a, b in itertools.pairwise(roles))):
        yield "turns", "order"


def in_words(own, texts: dict[tuple[str, str], Tally], rows: int) -> Iterator[Finding]:
    """The findings of the checks of single rows."""
    long = texts.get(("long", ""), Tally()).count
    for (kind, what), (level, said) in WORDS.items():
        tally = texts.get((kind, what))
        if tally is None:
            continue
        if what == "cut" and (long < rows / 2 or tally.count > rows / 2):
            continue  # short answers, or a style without full stops
        said = said if tally.count > 1 else _singular(said)
        places = tuple(short_place(own, split, line) for line, split in tally.first)
        yield Finding(kind, level, tally.count, f"{counted(tally.count, 'row')} {said}.", places)


def _singular(said: str) -> str:
    verb, rest = said.split(" ", 1)
    return f"{ {'have': 'has'}.get(verb, verb + 's') } {rest}"


def of_intakes(own) -> Iterator[Finding]:
    """What was seen while the files were read: rows with nothing in them, values of unlike types."""
    for one in own.intakes:
        for reason, tally in one.left_out.items():
            yield Finding(
                "empty", "look", tally.count, f"{counted(tally.count, 'row has', 'rows have')} {reason}: left out.",
                tuple(one.place(number).rpartition(", ")[2] for number in tally.first),
            )  # fmt: skip
        for column, types in one.types.items():
            if len(types) > 1:
                most = max(types, key=lambda name: types[name].count)
                for name, tally in types.items():
                    if name != most:
                        yield _of_type(one, column, name, tally, most)
        if one.silent.count:
            said = f"{counted(one.silent.count, 'conversation has', 'conversations have')} a turn of the assistant "
            places = tuple(one.place(number).rpartition(", ")[2] for number in one.silent.first)
            said += "that says nothing: it is not learned, and later turns are learned after it. Fill or delete it."
            yield Finding("empty", "look", one.silent.count, said, places)
        if one.ungrouped.count:
            alone = f"{counted(one.ungrouped.count, 'row has', 'rows have')} no group: each counts as its own."
            places = tuple(one.place(number).rpartition(", ")[2] for number in one.ungrouped.first)
            yield Finding("groups", "look", one.ungrouped.count, alone, places)


def _of_type(intake, column: str, name: str, tally: Tally, most: str) -> Finding:
    said = f"{counted(tally.count, 'value')} of {column!r} {'is' if tally.count == 1 else 'are'} {name}, not {most}"
    places = tuple(intake.place(number).rpartition(", ")[2] for number in tally.first)
    return Finding("types", "look", tally.count, f"{said}: taken as text.", places)


def of_labels(own, labels: dict[str, Counter]) -> Iterator[Finding]:
    """How the labels are spread, and which are nearly the same word."""
    if not labels:
        return
    totals = {label: sum(counts.values()) for label, counts in labels.items()}
    yield from _balance(totals)
    alike: dict[str, list[str]] = {}
    for label in totals:
        alike.setdefault("".join(one for one in label.lower() if one.isalnum()), []).append(label)
    for spellings in alike.values():
        if len(spellings) > 1:
            spellings.sort(key=lambda label: -totals[label])
            named = ", ".join(f"{label!r} ({totals[label]:,})" for label in spellings)
            fewer = sum(totals[label] for label in spellings[1:])
            yield Finding("labels", "problem", fewer, f"One label is spelt in {len(spellings)} ways: {named}.")
    for split in own.splits:
        missing = [label for label, counts in labels.items() if not counts[split]]
        if missing:
            named = ", ".join(map(clipped, missing[:5])) + (" …" if len(missing) > 5 else "")
            unseen = split == "train"
            yield Finding("labels", "problem" if unseen else "look", len(missing), (
                f"{counted(len(missing), 'label')} {'cannot be learnt: no row in' if unseen else 'without a row in'} "
                f"{split}: {named}."
            ))  # fmt: skip


def _balance(totals: dict[str, int]) -> Iterator[Finding]:
    rows, most = sum(totals.values()), max(totals, key=lambda label: totals[label])
    share = totals[most] / rows
    if len(totals) == 1:
        yield Finding("labels", "problem", rows, f"Every answer is {clipped(most)!r}: there is nothing to learn.")
    elif share > max(0.5, 1.5 / len(totals)):
        yield Finding("labels", "look", totals[most], (
            f"{clipped(most)!r} is {share:.0%} of all answers. Saying always that is right so often: compare with it."
        ))  # fmt: skip
    rare = sorted(label for label, count in totals.items() if count < RARE)
    if rare:
        named = ", ".join(f"{clipped(label)!r} ({totals[label]})" for label in rare[:5])
        said = f"{counted(len(rare), 'label has', 'labels have')} fewer than {RARE} rows: {named}"
        yield Finding("labels", "look", sum(totals[label] for label in rare), said + (" …" if len(rare) > 5 else "."))


def of_size(own) -> Iterator[Finding]:
    """Is there enough to learn from, and to measure with?"""
    train = len(own["train"]) if "train" in own.splits else 0
    if train < 50:
        said = f"Only {counted(train, 'row')} to train on: a few dozen teach a form at best."
        yield Finding("size", "look", train, said)
    test = len(own["test"]) if "test" in own.splits else 0
    if test < 100:
        wide = 100 * 0.98 / max(test, 1) ** 0.5  # 1.96 · sqrt(¼ / n)
        how = f"an interval of ± {min(wide, 50):.0f} points at a score of 50 %" if test else "nothing to score with"
        yield Finding("size", "look", test, f"{counted(test, 'row')} in test: {how}.")
