"""What a report is made of, before it is HTML or Markdown: sections of text, tables, lists, code and one picture."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    said: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; all of its cells are texts."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Code:
    """A piece of a program."""

    text: str
    language: str = "python"


@dataclass(frozen=True)
class Picture:
    """An SVG that was drawn here, and what it shows in a sentence: Markdown has the sentence only."""

    svg: str
    said: str


@dataclass(frozen=True)
class Section:
    """A part of a report under its own heading; `of_card` is the heading that the hub's model cards give it."""

    title: str
    blocks: tuple = field(default_factory=tuple)
    of_card: str = ""
