"""The parts of the course, in order: what the site's index, the README and page 00 group the pages by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of the course.

    Attributes
    ----------
    name : str
    line : str, one sentence on what it is about
    pages : tuple of str, the numbers or letters of its pages
    """

    name: str
    line: str
    pages: tuple[str, ...]


PARTS = (
    Part("Foundations", "What LoRA trains, built by hand and then counted.", ("00", "01", "02", "03", "04")),
    Part("Four bits", "How a weight becomes four bits, and what fits on your machine then.", ("05", "06", "07")),
    Part("The fine-tune", "Train a language model, choose its settings, ship it.", ("08", "09", "10")),
    Part("The field", "What came after LoRA; pictures; many machines.", ("11", "12", "13")),
    Part("Your own work", "Your own file, looked at before it is trained on, and judged after.", ("14", "15", "16")),
    Part("The museum", "Accidents that raise no error, to be recognized and fixed.", ("A",)),
)
OTHERS = "More pages"


def grouped(stems: list[str]) -> dict[Part, list[str]]:
    """File names without ending, by part and in the order given; empty parts are left out.

    A page is known by what is before the first underscore, as in `01_rank_one`. Pages of no part come last, under
    "More pages".
    """
    part_of = {page: part for part in PARTS for page in part.pages}
    rest = Part(OTHERS, "", ())
    found = {part: [] for part in (*PARTS, rest)}
    for stem in stems:
        found[part_of.get(stem.partition("_")[0], rest)].append(stem)
    return {part: members for part, members in found.items() if members}
