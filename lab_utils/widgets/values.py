"""What the explorers of sizes share: traits that refuse with a LabError, and numbers written as the browser does."""

from decimal import ROUND_HALF_UP, Context, Decimal

import traitlets

from ..errors import choose, flag, whole


class Count(traitlets.Int):
    """A whole number of 1 or more; numpy's are taken, True is not."""

    def validate(self, obj, value) -> int:
        return whole(self.name, value)


class Switch(traitlets.Bool):
    """True or False, and nothing that merely counts as one of them."""

    def validate(self, obj, value) -> bool:
        return flag(self.name, value)


class Word(traitlets.Unicode):
    """One of the words allowed."""

    def __init__(self, *default, allowed, **options):
        self.allowed = tuple(allowed)
        super().__init__(*default, **options)

    def validate(self, obj, value) -> str:
        return choose(self.name, value, self.allowed)


def three(value: float) -> str:
    """Three significant digits, never with an exponent, halves rounded up: JavaScript's Number(x.toPrecision(3))."""
    rounded = Context(prec=3, rounding=ROUND_HALF_UP).create_decimal(Decimal(value))
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def fixed(value: float, digits: int) -> str:
    """So many digits, halves away from zero: JavaScript's x.toFixed(digits), but what is rounded to 0 has no sign."""
    text = f"{Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"
    return text if text.strip("-0.") else text.lstrip("-")
