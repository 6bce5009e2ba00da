"""What the embedded model writes at fewer bits; `data/record_sentences.py` recorded it, see data/README.md."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import LabError
from ..files import read_text
from ..folders import DATA
from ..normal import Z
from ..recorded_files import number, reading, restore

SENTENCES = DATA / "bits" / "sentences.jsonl"
TOKENS_TO_WRITE = 48
PARAGRAPHS = 24  # of data/prose/prose.txt, from its beginning
BITS, BLOCKS = (2, 3, 4, 6, 8), (32, 64, 256, "row")
GRID = tuple(
    {"bits": bits, "blocksize": blocksize, "zero_point": zero_point}
    for bits in BITS for blocksize in BLOCKS for zero_point in (False, True)
)  # fmt: skip


@dataclass(frozen=True)
class SentencesRecord:
    """Answers and losses of the embedded model, by bits, block and zero-point.

    Attributes
    ----------
    prompts : list of str
    rows : list of dict; the first is that of 16 bits, then one for each setting of `GRID`, in its order
        bits, blocksize, zero_point : the setting, as `evaluate.read_and_write` takes it
        bits_per_parameter : float, constants included
        loss, loss_change, loss_change_error : float, nats per token on the text; change over 16 bits, and the
            standard error of its mean
        loss_change_half : float, half the width of the change's 95 % interval
        answers : list of str, one per prompt
    text : dict of "sha256", "paragraphs", "tokens"
    provenance : dict
    """

    prompts: list[str]
    rows: list[dict] = field(repr=False)
    text: dict = field(repr=False)
    provenance: dict = field(repr=False)

    @staticmethod
    def passage() -> str:
        """The text that was read: the beginning of the course's prose."""
        return "\n\n".join(read_text(DATA / "prose" / "prose.txt").split("\n\n")[:PARAGRAPHS]) + "\n"


def sentences_by_bits(file: str | Path = SENTENCES) -> SentencesRecord:
    """What the embedded model writes at fewer bits, as `data/record_sentences.py` recorded it.

    Raises
    ------
    LabError
        The file is missing, damaged, or not finished.
    """
    with reading(f"The recorded sentences in {file}", restore("data/bits", "record_sentences.py")):
        top, *rows = (json.loads(line) for line in read_text(file).strip().split("\n"))
        found = {_setting(row): _row(row, len(top["prompts"])) for row in rows}
        wanted = [(16, 64, False), *(tuple(one.values()) for one in GRID)]
        if missing := [one for one in wanted if one not in found]:
            raise LabError(f"{file} lacks {len(missing)} of {len(wanted)} settings")
        ordered = [found[one] for one in wanted]
        return SentencesRecord(top["prompts"], ordered, top["text"], top["provenance"])


def _setting(row: dict) -> tuple:
    return row["bits"], row["blocksize"], row["zero_point"]


def _row(row: dict, prompts: int) -> dict:
    """A line, once its numbers and answers were looked at."""
    for name in ("bits_per_parameter", "loss", "loss_change", "loss_change_error", "seconds"):
        number(row[name])
    if len(row["answers"]) != prompts or not all(isinstance(one, str) for one in row["answers"]):
        raise ValueError(f"answers: {prompts} texts are needed")
    return {**row, "loss_change_half": Z * row["loss_change_error"]}
