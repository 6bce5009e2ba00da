"""The one kind of error that the lab raises on purpose."""


class LabError(Exception):
    """Something went wrong that the reader can mend: the text says what happened and what to do next."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the message, without forty frames of library code."""
        return [f"LabError: {self}"]


def choose(kind: str, value: object, allowed) -> None:
    """Raise a LabError that names `value` and what is allowed, unless it is allowed."""
    if value not in list(allowed):  # a list: `value` may be unhashable
        names = ", ".join(str(name) for name in allowed)
        raise LabError(f"Unknown {kind} {value!r}. Choose one of: {names}.")
