"""Writes the card of a run: one HTML file and one Markdown file in its folder, and the adapter's model card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..decoding import as_pairs, say_cut
from ..errors import LabError, shown
from ..evaluate.held_out import with_text
from ..files import read_text
from ..finetune import open_run
from ..outputs import explained, output_folder, save
from ..printing import say
from ..tasks import OwnTask
from . import facts
from .blocks import Section
from .comparing import Scored, asked, baselines, first_rows
from .html_page import html_page
from .markdown_page import MARK, markdown_page

HTML, MARKDOWN, README = "report_card.html", "report_card.md", "README.md"
UNFILLED = "[More Information Needed]"  # what peft writes wherever it knows nothing


@dataclass(frozen=True)
class Card:
    """A card that was written.

    Attributes
    ----------
    html, markdown : Path
    model_card : Path of the adapter's README.md, or None where a person's own was left alone
    scored : tuple of Scored, the adapter first
    """

    html: Path
    markdown: Path
    model_card: Path | None
    scored: tuple[Scored, ...]

    def __str__(self) -> str:
        said = [*facts.verdict(self.scored)] if self.scored else []
        kept = f", model card {self.model_card}" if self.model_card else "; the adapter's README.md was left as it is"
        return " ".join([*said, f"Card: {self.html} and {self.markdown.name}{kept}."])


def report_card(run, own: OwnTask | None = None, *, answers: Sequence[Scored] | None = None, split: str = "test",
                limit: int = 100, shots: int = 4) -> Card:  # fmt: skip
    """Write what is known about a run, in its folder.

    Parameters
    ----------
    run : finetune.Run, or the folder of one, which is opened
    own : OwnTask, default the run's own; of a task of the pages, data and scores are left out
    answers : what was scored already, the adapter first (`scored`, `baselines`); default: score both now, which takes
        as long as answering `limit` examples three times
    split : str, which examples are answered
    limit : int, how many
    shots : int, examples in the prompt of the last baseline; 0: without that

    Returns
    -------
    Card

    Raises
    ------
    LabError
        `run` is not a run, the split has no rows, or the disk refuses; or as `finetune.open_run`.
    """
    if isinstance(run, (str, Path)):
        run = open_run(run, own)
    if not all(hasattr(run, name) for name in ("recipe", "output_dir", "history", "model", "tokenizer")):
        raise LabError(f"run={shown(run)} is out of range: what finetune returns, or the folder of a run.")
    own = run.recipe.task if own is None and isinstance(run.recipe.task, OwnTask) else own
    if answers is None:
        answers = _answers(run, own, split, limit, shots) if own is not None else ()
    report = own.report(run.tokenizer, run.recipe.max_length) if own is not None else None
    sections = all_sections(run, own, answers, report)
    title = f"{facts.task_name(run, own)} on {facts.base_name(run)}"
    folder = output_folder(run.output_dir)
    text = markdown_page(title, sections, facts.card_data(run, own, answers))
    card = Card(
        save(folder / HTML, html_page(f"Report card: {title}", sections)), save(folder / MARKDOWN, text),
        _model_card(run.output_dir / "adapter" / README, text), tuple(answers),
    )  # fmt: skip
    say(str(card))
    return card


def _answers(run, own: OwnTask, split: str, limit: int, shots: int) -> list[Scored]:
    """The adapter's answers and what costs nothing, on the same rows."""
    rows = first_rows(own, split, limit)
    with_text(own[split], own.name, split)  # says how many have none
    say_cut(run.tokenizer, own, as_pairs(rows))
    adapter = asked("the adapter", run.model, run.tokenizer, own, rows)
    return [adapter, *baselines(run.model, run.tokenizer, own, split, limit, shots)]


def all_sections(run, own, answers: Sequence[Scored], report) -> list[Section]:
    """The sections of a card, in the order in which they are read."""
    return [
        facts.summary(run, own, answers), facts.results(answers), facts.worst(answers), facts.data(run, own, report),
        facts.recipe(run), facts.history(run), facts.loading(run, own), facts.limits(own), facts.surroundings(),
    ]  # fmt: skip


def _model_card(path: Path, text: str) -> Path | None:
    """Write the adapter's README.md, unless a person has written one."""
    with explained(path.parent, "read"):
        if not path.parent.is_dir():
            return None
        there = read_text(path) if path.exists() else ""
    if there and MARK not in there and UNFILLED not in there:
        return None
    return save(path, text)
