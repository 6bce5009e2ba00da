"""What an interval lets one say: "clear" where it leaves zero out, "not clear" where it holds it."""


class Verdict:
    """Of what has a `low` and a `high`: is a difference with this interval clear?"""

    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Does the interval leave zero out?"""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """"clear" or "not clear"."""
        return "clear" if self.clear else "not clear"
