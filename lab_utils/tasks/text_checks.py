"""What can be wrong inside a text: traces of another encoding, control tokens, personal data, answers cut short."""

import re
from collections.abc import Iterable

# UTF-8 that was read as cp1252 or latin-1: "Ã©" for "é", "â€™" for an apostrophe.
MISREAD = re.compile(
    "Ã[\x80-\xbf¡-¿©®ŠšŸŒœŽž‚„…†‡ˆ‰‹‘’“”•–—˜™›]"
    "|â€[\x80-\xbf™œ\x9d“”¦¢\"]|Â[\xa0-\xbf]|ï»¿|â\x80|ð[Ÿ\x9f]"
)
HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f​⁠﻿‪-‮⁦-⁩]")
ENTITY = re.compile(r"&(?:amp|lt|gt|quot|nbsp|apos|#\d{2,5}|#x[0-9a-fA-F]{2,5});")
CONTROL = re.compile(
    r"<\|[\w ./-]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|"
    r"\[(?:CLS|SEP|PAD|UNK|MASK|AVAILABLE_TOOLS|TOOL_CALLS)\]|<(?:think|/think|tool_call|/tool_call)>"
)
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![\w@])")
DIGITS = re.compile(r"(?<![\d.,:/-])\d(?:[ -]?\d){12,18}(?![\d]|[.,:/-]\d)")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
PHONE = re.compile(
    r"(?<![\w.,-])(?:(?:\+|00)\d{1,3}[ ./()-]{0,2}(?:\d[ ./()-]{0,2}){6,12}\d|"  # +44 20 7946 0958
    r"\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}|"  # (212) 555-0123
    r"0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5})(?![\w-]|[.,]\d)"  # 0171 123 4567
)
FINISHED = tuple(".!?…。！？।)]}\"'»”’`>:;*|")
CLOSERS = {"(": ")", "[": "]", "{": "}"}


def encoding_faults(text: str) -> Iterable[str]:
    """Which traces of a wrong encoding a text has: "misread", "replaced", "hidden", "entities"."""
    if MISREAD.search(text):
        yield "misread"
    if "�" in text:
        yield "replaced"
    if HIDDEN.search(text):
        yield "hidden"
    if ENTITY.search(text):
        yield "entities"


def personal_data(text: str) -> Iterable[str]:
    """Which kinds of personal data a text seems to hold: "e-mail", "phone", "card", "bank account". Hints, no more."""
    if EMAIL.search(text):
        yield "e-mail"
    cards = [match for match in DIGITS.finditer(text) if luhn(match[0])]
    if cards:
        yield "card"
    accounts = [match for match in IBAN.finditer(text) if is_iban(match[0])]
    if accounts:
        yield "bank account"
    taken = [match.span() for match in (*cards, *accounts)]
    for match in PHONE.finditer(text):
        if not any(begin < match.end() and match.start() < end for begin, end in taken):
            yield "phone"
            return


def luhn(number: str) -> bool:
    """Has a number of 13 to 19 digits the check digit of a payment card?

    From the right, every second digit is doubled (and 9 taken off above 9); the sum of all is a multiple of 10. A
    random number has it one time in ten; numbers of one repeated digit are none.

    Source: ISO/IEC 7812-1, annex B (the Luhn formula).
    """
    digits = [int(one) for one in number if one.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Has a text the check digits of an international bank account number? Source: ISO 13616 (mod 97 is 1)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def is_cut_short(answer: str) -> bool:
    """Does a text of some length stop in the middle: without a sentence's end, or inside brackets or a code block?"""
    text = answer.rstrip()
    if text.count("```") % 2:
        return True
    return bool(text) and not text.endswith(FINISHED) and (text[-1].isalnum() or text[-1] in ",-–(/&")


def is_open_json(answer: str) -> bool:
    """Does a text that begins as JSON never close its brackets?"""
    text = answer.strip()
    if not text.startswith(("{", "[")):
        return False
    waiting, quoted, escaped = [], False, False
    for one in text:
        if escaped:
            escaped = False
        elif one == "\\":
            escaped = quoted
        elif one == '"':
            quoted = not quoted
        elif not quoted and one in CLOSERS:
            waiting.append(CLOSERS[one])
        elif not quoted and waiting and one == waiting[-1]:
            waiting.pop()
    return bool(waiting) or quoted
