"""What is printed into a page: long sentences in lines that fit, because JupyterLab breaks wider ones inside words."""

import re
from textwrap import TextWrapper

WIDTH = 74  # characters that fit on a page of 1024 pixels with the list of files beside it
WHOLE = re.compile(r"`[^`\n]+`|(?<![\w.])\w[\w.]*\([^()\n]*\)")  # code in backticks, and a call: one look per word
HELD = "\ue000"  # takes the place of a space at which a line may not end


def folded(text: str, width: int = WIDTH) -> str:
    """A text in lines of `width` characters, broken between words; where it has a line break there is one.

    Paths, URLs, calls and code in backticks are never broken, so a line may be wider. A line that begins at
    the margin goes on two spaces in, another as far in as it begins.
    """
    return "\n".join(_folded(line, width) for line in text.split("\n"))


def say(text: str) -> None:
    """Print a text, `folded`."""
    put(folded(text))


def put(text: str) -> None:
    """Print a text as it is; what the terminal's or the file's encoding lacks is printed as an escape."""
    try:
        print(text)
    except UnicodeEncodeError as error:
        print(text.encode(error.encoding, "backslashreplace").decode(error.encoding))


def _folded(line: str, width: int) -> str:
    """One line in as many as it takes."""
    if len(line) <= width:
        return line
    edge = re.match(" *", line).group() or "  "
    fold = TextWrapper(width, subsequent_indent=edge, break_long_words=False, break_on_hyphens=False)
    return fold.fill(WHOLE.sub(lambda found: found[0].replace(" ", HELD), line)).replace(HELD, " ")
