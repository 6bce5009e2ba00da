"""Printed text with its sentences in one line each again, as `lab_utils.printing.folded` was given them."""

import re


def unfolded(text: str) -> str:
    """A line that begins two spaces in is taken for the rest of the line above."""
    return re.sub(r"\n {2}(?=\S)", " ", text)
