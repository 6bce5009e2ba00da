"""What is checked, in which order, how long it may take, and what a failure means."""

from dataclasses import dataclass, field
from pathlib import Path

from ..folders import NOTEBOOKS

MODELS_NEED = ("transformers", "peft", "bitsandbytes", "accelerate")
FIRST_PAGES = ("08", "10", "06", "05", "07", "12", "00")  # those that compute most on a card
PAGE_SECONDS = 90
SLOWER = 20  # times a pretended card may be slower than a real one


@dataclass(frozen=True)
class Section:
    """One part of the check.

    Attributes
    ----------
    name : str, as `--only` takes it
    title : str, what is true if it passes
    function : "module:function" in this room; it gets a Setting, and returns a Finding or raises
    seconds : int, the most that it may take
    remedy : str, what an instructor does where it fails
    required : bool, a failure is a failure of the whole check
    needs : names of packages; where one is missing, the section is skipped
    measures : bool, its numbers are speed or memory, and mean nothing on a pretended card
    gate : bool, where it fails nothing else can be tried
    argument : str, for the function, after the Setting
    """

    name: str
    title: str
    function: str
    seconds: int
    remedy: str = ""
    required: bool = True
    needs: tuple[str, ...] = MODELS_NEED
    measures: bool = False
    gate: bool = False
    argument: str = ""

    def allowed_seconds(self, pretended: str) -> float:
        """The most that it may take; on a pretended card, whose times mean nothing, much more."""
        return self.seconds * (SLOWER if pretended else 1)


@dataclass(frozen=True)
class Setting:
    """What a section is told.

    Attributes
    ----------
    pretended : str, the card that is pretended, "" on a real one
    scratch : Path, a folder for the section's files; it is deleted at the end
    """

    pretended: str
    scratch: Path

    def size(self, real, pretended):
        """A size for a real card, or a tiny one for a pretended card."""
        return pretended if self.pretended else real


@dataclass(frozen=True)
class Finding:
    """What a section found.

    Attributes
    ----------
    passed : bool
    text : str, one sentence for the table
    values : dict of numbers and texts for the report
    """

    passed: bool
    text: str
    values: dict = field(default_factory=dict)


class Skipped(Exception):
    """Raised by a section that cannot be tried here; the text says why."""


ON_THE_CPU = "Train on the CPU: LORA_LAB_DEVICE=cpu."
FROM_THE_SITE = "Show that page from site/, or with LORA_LAB_DEVICE=cpu."


def _pages() -> list[Path]:
    """The course's pages, those that compute most on a card first."""
    pages = {page.stem.partition("_")[0]: page for page in sorted(NOTEBOOKS.glob("*_*.ipynb"))}
    first = [pages.pop(number) for number in FIRST_PAGES if number in pages]
    return [*first, *pages.values()]


SECTIONS = (
    Section("card", "torch, bitsandbytes and the lab can use this card", "card:card", 60,
            "Page 00 says what to install; or teach on the CPU: LORA_LAB_DEVICE=cpu.", needs=("torch",), gate=True),
    Section("codes", "4-bit codes are the same from the lab and from bitsandbytes, on the CPU and on the card",
            "codes:codes", 40, "Pages 05 and 06 compute on the CPU, and are right. Send the report.",
            needs=("bitsandbytes",)),
    Section("overflow", "training in float16 goes on after steps that overflow", "training:overflow", 40, ON_THE_CPU),
    Section("trl", "TRL trains a 4-bit model as page 08 does", "trl_trainer:trains", 60,
            "Leave section 10 of page 08 out.", needs=(*MODELS_NEED, "trl", "datasets")),
    Section("learns", "a tiny job is learned in every dtype of this card", "training:learns", 90, ON_THE_CPU),
    Section("step", "a training step has the gradients of plain peft and of float32, and AdamW's update",
            "one_step:step", 60, ON_THE_CPU),
    Section("resume", "a training that was killed goes on from its checkpoint", "training:resume", 90,
            "Let trainings run to their end, and leave section 8 of page 08 out."),
    Section("merges", "merges into dequantized weights are exact, into 4 bits refused; many adapters share a base",
            "merges:merges", 60, "Show page 10 from site/, or with LORA_LAB_DEVICE=cpu."),
    Section("paged", "the paged optimizer pages, and steps as the one that does not", "optimizers:paged", 40,
            "No page fails by it. Send the report."),
    *(
        Section(f"page-{page.stem.partition('_')[0]}", f"every cell of page {page.stem} runs in fast mode",
                "pages:page", PAGE_SECONDS, FROM_THE_SITE, needs=(*MODELS_NEED, "IPython"), argument=page.stem)
        for page in _pages()
    ),
    Section("memory", "the peak of a training step is within 25 % of page 07's estimate", "memory:peaks", 90,
            "Say the measured number. Send the report.", required=False, measures=True),
    Section("speed", "a step takes at most 1.15 times TRL's", "speed:speed", 120, "Send the report.", required=False,
            measures=True, needs=(*MODELS_NEED, "trl", "datasets")),
    Section("large", "a model of 8 billion parameters is loaded in 4 bits and trained within 15 GiB", "large:large",
            150, "Promise no such model on this card.", measures=True),
)  # fmt: skip
NAMES = tuple(section.name for section in SECTIONS)
