"""The report: lines on the screen, gpu-report.json for programs, gpu-report.md to send; written after each section."""

import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..files import write_text
from .sections import SECTIONS, Section

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "trl", "datasets")
JSON_NAME, MARKDOWN_NAME = "gpu-report.json", "gpu-report.md"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
TITLES = {section.name: section.title for section in SECTIONS}


@dataclass(frozen=True)
class Row:
    """What came of one section.

    Attributes
    ----------
    name : str, the section's
    status : "passed", "failed" or "skipped"
    required : bool, a failure is a failure of the whole check
    seconds : float
    text : str, one sentence
    values : dict, what was found; of speed and memory on a pretended card the numbers mean nothing
    not_measured : bool, the numbers are of a pretended card
    details : str, the end of a traceback, or empty
    remedy : str, what to do; empty unless it failed
    """

    name: str
    status: str
    required: bool
    seconds: float
    text: str
    values: dict = field(default_factory=dict)
    not_measured: bool = False
    details: str = ""
    remedy: str = ""

    def line(self) -> str:
        """The section's line of the table."""
        word = self.status if self.status != FAILED else ("FAILED" if self.required else "failed, not required")
        remedy = f"\n{'':<9} {self.remedy}" if self.remedy else ""
        return f"{self.name:<9} {word:<8} {self.seconds:6.1f} s  {self.marked_text}{remedy}"

    @property
    def marked_text(self) -> str:
        """The text; that of a measurement on a pretended card is marked."""
        return self.text + (" (pretended)" if self.not_measured else "")


def row_of(section: Section, status: str, text: str, seconds: float = 0.0, pretended: str = "", **more) -> Row:
    """A section's row; on a pretended card, numbers of speed and memory are marked."""
    return Row(section.name, status, section.required, round(seconds, 2), text,
               not_measured=bool(pretended) and section.measures,
               remedy=section.remedy if status == FAILED else "", **more)  # fmt: skip


@dataclass
class Report:
    """The rows so far, and the two files in `folder` that hold them.

    Attributes
    ----------
    folder : Path
    pretended : str, the card that is pretended, "" on a real one
    rows : list of Row
    finished : bool, False while sections are left, and for ever in a check that was killed
    """

    folder: Path
    pretended: str = ""
    rows: list[Row] = field(default_factory=list)
    finished: bool = False

    def add(self, row: Row) -> None:
        """Take a row in and write both files again."""
        self.rows.append(row)
        self.write()

    def finish(self) -> None:
        """Say in both files that nothing is left."""
        self.finished = True
        self.write()

    def write(self) -> None:
        """Write both files, each whole or not at all."""
        write_text(self.folder / JSON_NAME, json.dumps(self.as_dict(), indent=1, default=str) + "\n")
        write_text(self.folder / MARKDOWN_NAME, self.markdown())

    @property
    def failures(self) -> list[str]:
        """Names of the required sections that failed."""
        return [row.name for row in self.rows if row.status == FAILED and row.required]

    def as_dict(self) -> dict:
        """The report as plain data."""
        return {
            "pretended": self.pretended or None,
            "finished": self.finished,
            "passed": self.finished and not self.failures,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "packages": packages(),
            "sections": [asdict(row) for row in self.rows],
        }

    def verdict(self) -> str:
        """One sentence about all of it."""
        counts = [f"{sum(row.status == one for row in self.rows)} {one}" for one in (PASSED, FAILED, SKIPPED)]
        failed = f" Failed and required: {', '.join(self.failures)}." if self.failures else ""
        unfinished = "" if self.finished else " The check did not come to its end."
        return f"{', '.join(counts)}.{failed}{unfinished}"

    def heading(self) -> str:
        """The card's name; of a pretended card, that it is one."""
        if self.pretended:
            return f"pretended {self.pretended}: a dry run on a CPU. No number below is a measurement of a GPU."
        found = [row.values.get("name") for row in self.rows if row.name == "card"]
        return str((found or [None])[0] or "no card")

    def markdown(self) -> str:
        """The summary that can be sent as an issue."""
        lines = [f"# GPU check: {self.heading()}", "", self.verdict(), ""]
        lines += [f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
                  + ", ".join(f"{name} {found}" for name, found in packages().items()), ""]  # fmt: skip
        lines += ["| section | result | seconds | what was found |", "|---|---|---|---|"]
        for row in self.rows:
            word = row.status + ("" if row.required or row.status != FAILED else ", not required")
            cells = (row.name, word, f"{row.seconds:.1f}", row.marked_text)
            lines.append("| " + " | ".join(one.replace("|", "\\|").replace("\n", " ") for one in cells) + " |")
        for row in self.rows:
            if row.values or row.details or row.remedy:
                lines += ["", f"## {row.name}: {TITLES.get(row.name, '')}", ""]
                lines += ["Of a pretended card: not a measurement.", ""] if row.not_measured else []
                lines += [f"What to do: {row.remedy}", ""] if row.remedy else []
                lines += [f"* {name}: {_shown(value)}" for name, value in row.values.items()]
                lines += ["", "```text", *row.details.splitlines(), "```"] if row.details else []
        return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    """A value in the summary."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "; ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return ", ".join(map(_shown, value)) if isinstance(value, (list, tuple)) else str(value)


def packages() -> dict[str, str]:
    """The versions of the packages that decide what happens on a card; missing ones are called so."""
    found = {"lora-lab": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
