"""Exercise of page 08 on scoring: which fields of the answers are right, and how often."""

import json
import re

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

NAMES, DAYS = ("Mei", "Ali", "Chulock"), ("Monday", "Friday")
WAYS = "same word lower longer number text float true less more around behind talk talk".split()
TALK = ("Sure, I can help.", "", "{'name': 'Mei'}", "[]", "7")


def field_scores_spec(outputs: list[str], answers: list[str], fields: list[str]) -> Tensor:
    """For each field, count the outputs that have it as the answer has it, in value and type; divide by all outputs."""
    shares = []
    for field in fields:
        hits = 0
        for output, answer in zip(outputs, answers, strict=True):
            wanted = json.loads(answer)
            try:
                found = json.loads(output)
            except ValueError:
                continue
            if not isinstance(found, dict) or field not in found or field not in wanted:
                continue
            if type(found[field]) is type(wanted[field]) and found[field] == wanted[field]:
                hits += 1
        shares.append(hits / len(outputs))
    return torch.tensor(shares)


def field_scores(outputs: list[str], answers: list[str], fields: list[str]) -> Tensor:
    right = torch.zeros(len(outputs), len(fields))
    for row, (output, answer) in enumerate(zip(outputs, answers, strict=True)):
        try:
            found, wanted = json.loads(output), json.loads(answer)
        except ValueError:
            continue  # not JSON: no field is right
        for column, name in enumerate(fields):
            if isinstance(found, dict) and name in found and name in wanted:
                pair = found[name], wanted[name]
                right[row, column] = pair[0] == pair[1] and type(pair[0]) is type(pair[1])
    return right.mean(dim=0)


def _read(text: str):
    """What a text holds as JSON: a dict, or one without keys."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _braces(text: str):
    """The widest piece from one brace to another, whatever is around it."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    return _read(found.group()) if found else {}


def _beginning(text: str):
    """The JSON that a text starts with, whatever comes behind it."""
    try:
        return _read(json.dumps(json.JSONDecoder().raw_decode(text)[0]))
    except ValueError:
        return {}


def _is_same(found: dict, wanted: dict, name: str) -> bool:
    return name in found and name in wanted and (type(found[name]), found[name]) == (type(wanted[name]), wanted[name])


def _fields(same=_is_same, read=_read, rows=lambda output: True, total=None):
    """field_scores with another sense of same: (found, wanted, name) -> bool, other rows, or another divisor."""

    def wrong(outputs, answers, fields):
        pairs = [(read(one), json.loads(other)) for one, other in zip(outputs, answers, strict=True) if rows(one)]
        counts = [sum(bool(same(found, wanted, name)) for found, wanted in pairs) for name in fields]
        by = [total(pairs, name) if total else max(len(pairs), 1) for name in fields]
        return torch.tensor([count / number for count, number in zip(counts, by, strict=True)])

    return wrong


def _has(compare):
    """Do both have the field, and is `compare(found, wanted)` true of its values?"""
    return lambda found, wanted, name: name in found and name in wanted and compare(found[name], wanted[name])


def _low(value) -> str:
    return str(value).lower()


def _nobodys(found, wanted, name):
    """Is a field that both leave out right too?"""
    one, other = found.get(name), wanted.get(name)
    return type(one) is type(other) and one == other


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _unprotected(first):
    """field_scores that takes every field for granted, and looks at the outputs (0) or the answers (1) first."""

    def wrong(outputs, answers, fields):
        pairs = zip(outputs, answers, strict=True) if first == 0 else zip(answers, outputs, strict=True)
        rows = [[json.loads(one)[name] == json.loads(other)[name] for name in fields] for one, other in pairs]
        return torch.tensor(rows).float().mean(dim=0)

    return wrong


def _in_the_text(outputs, answers, fields):
    shares = []
    for name in fields:
        pairs = zip(outputs, map(json.loads, answers), strict=True)
        shares.append(sum(name in wanted and str(wanted[name]) in text for text, wanted in pairs) / len(outputs))
    return torch.tensor(shares)


def _written(found: str, way: str, talk: str) -> str:
    """What a model wrote: JSON, JSON in other words, JSON that does not stop, or talk."""
    if way == "behind":
        return found + found
    return {"talk": talk, "around": f"Sure: {found} Anything else?"}.get(way, found)


@st.composite
def _answered(draw):
    """Two to four answers, one in four without a day, and what a model wrote: right, nearly right, or talk."""
    outputs, answers = [], []
    for _ in range(draw(st.integers(2, 4))):
        wanted = {"name": draw(st.sampled_from(NAMES)), "qty": draw(st.integers(1, 9))}
        if draw(st.integers(0, 3)):
            wanted["day"] = draw(st.sampled_from(DAYS))
        found = dict(wanted)
        way = draw(st.sampled_from(WAYS))
        if way == "word":
            found["name"] = draw(st.sampled_from([name for name in NAMES if name != wanted["name"]]))
        elif way in ("lower", "longer"):
            found["name"] = found["name"].lower() if way == "lower" else found["name"] + " Wu"
        elif way == "number":
            found["qty"] += 1
        elif way == "true":
            wanted["qty"], found["qty"] = 1, True
        elif way in ("text", "float"):
            found["qty"] = str(found["qty"]) if way == "text" else float(found["qty"])
        elif way == "less":
            del found[draw(st.sampled_from(list(found)))]
        elif way == "more":
            found["item"] = "rake"
        outputs.append(_written(json.dumps(found), way, draw(st.sampled_from(TALK))))
        answers.append(json.dumps(wanted))
    return outputs, answers, ["name", "qty", "day"]


_RIGHT = '{"name": "Mei", "qty": 2, "day": "Monday"}'
_DEMO = (
    ['{"name": "Mei", "qty": "2", "day": "Friday"}', "Sure, I can help.", _RIGHT, '{"name": "Ali", "qty": 9}'],
    [_RIGHT, _RIGHT, _RIGHT, '{"name": "Ali", "qty": 9}'],
    ["name", "qty", "day"],
)

EXERCISES = (
    Exercise(
        name="field_scores", page=8, title="Which fields are right, and how often",
        spec=field_scores_spec, solution=field_scores, inputs=_answered(), demo=_DEMO, any_width=True,
        mistakes=(
            Mistake(
                "missing taken for the same as missing",
                "`.get` gives None for both, and None equals None. A field counts where the output and the answer have "
                "it.",
                wrong=(_fields(_nobodys), _fields(lambda found, wanted, name: found.get(name) == wanted.get(name))),
            ),
            Mistake(
                "what is not JSON left out",
                "An answer that cannot be read is wrong in every field. Divide by all outputs, or a model that mostly "
                "chats looks good.",
                wrong=(_fields(rows=_is_object), _fields(rows=_is_json)),
            ),
            Mistake(
                "stops at what is not JSON",
                "A model may write anything: catch the ValueError that json.loads raises, ask whether a field is there,"
                " and count it as wrong if not.",
                wrong=(_fields(read=json.loads), _unprotected(0), _unprotected(1)),
            ),
            Mistake(
                "stops at JSON that is not an object",
                "`[]` and `7` are JSON too, and have no fields: ask isinstance(found, dict).",
                wrong=(
                    lambda outputs, answers, fields: _fields(
                        lambda found, wanted, name: name in wanted and found.get(name) == wanted[name],
                        read=lambda text: json.loads(text) if _is_json(text) else {},
                    )(outputs, answers, fields),
                    _fields(read=lambda text: json.loads(text) if _is_json(text) else {}),
                ),
            ),
            Mistake(
                "JSON cut out of other words",
                "The desk's program reads the whole output. What has words around its JSON, or does not stop behind "
                "it, is not JSON: give json.loads the text as it is.",
                wrong=(_fields(read=_braces), _fields(read=_beginning)),
            ),
            Mistake(
                '"2" taken for 2',
                "The desk's program adds numbers up: compare the values as they are, not their letters.",
                wrong=(_fields(_has(lambda one, other: str(one) == str(other))),),
            ),
            Mistake(
                "2.0 or True taken for a whole number",
                "Python says 2.0 == 2 and True == 1, and isinstance(True, int) too. Compare type(…) with type(…).",
                wrong=(
                    _fields(_has(lambda one, other: one == other)),
                    _fields(_has(lambda one, other: isinstance(one, type(other)) and one == other)),
                ),
            ),
            Mistake(
                "upper and lower case taken for the same",
                "mei is not Mei: the values are compared as they are.",
                wrong=(
                    _fields(_has(lambda one, other: type(one) is type(other) and _low(one) == _low(other))),
                    _fields(_has(lambda one, other: _low(one) == _low(other))),
                ),
            ),
            Mistake(
                "a part taken for the whole",
                "Mei Wu is not Mei: the values have to be the same, not one in the other.",
                wrong=(
                    _fields(_has(lambda one, other: type(one) is type(other) and str(other) in str(one))),
                    _fields(_has(lambda one, other: str(other) in str(one))),
                ),
            ),
            Mistake(
                "an extra key spoils the rest",
                "Each field is judged by itself; what else the output holds is another question.",
                wrong=(
                    _fields(lambda f, w, name: f.keys() == w.keys() and _is_same(f, w, name)),
                    _fields(lambda f, w, name: f.keys() <= w.keys() and _is_same(f, w, name)),
                ),
            ),
            Mistake(
                "whole answers instead of fields",
                "One wrong field does not make the others wrong: that is exact match.",
                wrong=(
                    _fields(lambda found, wanted, name: all(_is_same(found, wanted, one) for one in wanted)),
                    _fields(lambda found, wanted, name: name in wanted and found == wanted),
                ),
            ),
            Mistake(
                "a missing field left out",
                "An output without the field is wrong there: divide by the number of outputs.",
                wrong=(_fields(total=lambda pairs, name: max(sum(name in found for found, _ in pairs), 1)),),
            ),
            Mistake(
                "searched for in the text",
                "The value has to be in its own field. Parse the output and compare field by field.",
                wrong=(_in_the_text,),
            ),
            Mistake("counts instead of shares", "Divide by the number of outputs.",
                    wrong=(_fields(total=lambda pairs, name: 1),)),
        ),
        hints=(
            "What is right about an output that is not JSON? What about a key that neither side has?",
            "Read both sides with json.loads, in a try. For each field: is it in both, with one type and one value?",
            "Fill a matrix of outputs × fields with 1 where `name in found and name in wanted` and type and value are "
            "the same; then its mean over the rows.",
        ),
        reward="Every doubt is decided against the model. So nobody can say that the score flatters it. And compare: "
        "who writes 1 and Friday every time has 47 quantities and 17 days of the 100 handwritten messages right.",
    ),
)  # fmt: skip
