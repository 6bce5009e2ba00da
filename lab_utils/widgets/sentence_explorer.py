"""The quantizer on the whole model: choose bits, block and zero-point, and read what the model then writes."""

import traitlets

from .. import plots
from ..errors import LabError, choose
from ..recorded import sentences_by_bits
from ..recorded.sentences import BITS, BLOCKS
from .explorer import FOLDER, STYLE, Explorer, script
from .values import Switch, Word

QUESTION = (
    "What is the capital of France, asked at 3 bits in blocks of 32: is Paris in the answer with absmax, with "
    "zero-point, with both?"
)
CHOICES = ("with both", "only with absmax", "only with zero-point", "with neither")
BLOCK_WORDS = tuple(str(one) for one in BLOCKS)


class _OneOf(traitlets.Int):
    """A whole number out of a few."""

    def validate(self, obj, value) -> int:
        return choose(self.name, value, BITS)


class SentenceExplorer(Explorer):
    """Sliders for bits and block, a tick for zero-point, a choice of questions; the answers were recorded.

    Parameters
    ----------
    bits : int, one of `recorded.sentences.BITS`
    blocksize : str, "32", "64", "256" or "row"
    zero_point : bool
    asked : str, one of the recorded prompts; default is the first
    record : recorded.sentences.SentencesRecord, default the one of `recorded.sentences_by_bits`

    Attributes
    ----------
    bits, blocksize, zero_point, asked : as above, at every moment

    Raises
    ------
    LabError
        A value that was not recorded, or the record cannot be read.
    """

    _esm = script("sentence_explorer")
    _css = STYLE + (FOLDER / "sentences.css").read_text(encoding="utf-8")
    _moved = ("bits", "blocksize", "zero_point", "asked")
    rows = traitlets.List().tag(sync=True)
    prompts = traitlets.List().tag(sync=True)
    bits = _OneOf(6).tag(sync=True)
    blocksize = Word("64", allowed=BLOCK_WORDS).tag(sync=True)
    zero_point = Switch(False).tag(sync=True)
    asked = traitlets.Unicode().tag(sync=True)

    def __init__(self, question: str = QUESTION, choices=CHOICES, record=None, **settings):
        for name in settings:
            choose("setting", name, self._moved)
        record = sentences_by_bits() if record is None else record
        self._prompts = list(record.prompts)
        kept = ("bits", "zero_point", "bits_per_parameter", "loss", "loss_change", "loss_change_half", "answers")
        rows = [{**{name: row[name] for name in kept}, "blocksize": str(row["blocksize"])} for row in record.rows]
        settings = {"asked": self._prompts[0], **settings}
        super().__init__(question=question, choices=list(choices), rows=rows, prompts=self._prompts, **settings)

    @traitlets.validate("asked")
    def _recorded(self, proposal) -> str:
        if proposal["value"] not in self._prompts:
            raise LabError(f"asked={proposal['value']!r} was not recorded: choose one of {self._prompts}.")
        return proposal["value"]

    def row(self) -> dict:
        """The record of what is chosen: bits_per_parameter, loss, its change over 16 bits, answers."""
        wanted = (self.bits, self.blocksize, self.zero_point)
        return next(one for one in self.rows if (one["bits"], one["blocksize"], one["zero_point"]) == wanted)

    def answer(self) -> str:
        """What the model writes at what is chosen."""
        return self.row()["answers"][self._prompts.index(self.asked)]

    def summary(self) -> str:
        one = self.row()
        where = "whole rows" if self.blocksize == "row" else f"blocks of {self.blocksize}"
        return (
            f"{self.bits} bits in {where}, {'zero-point' if self.zero_point else 'absmax'}: "
            f"{one['bits_per_parameter']:.2f} bits per weight with the constants, loss {one['loss']:.2f} nats per "
            f"token, {one['loss_change']:.2f} ± {one['loss_change_half']:.2f} above 16 bits."
        )

    def figure(self):
        one = self.row()
        title = f"{self.asked}  At {self.summary().partition(':')[0]}:\n“{self.answer() or '(nothing)'}”"
        return plots.loss_at_bits(one["bits_per_parameter"], one["loss"], self.rows[0]["loss"], title)
