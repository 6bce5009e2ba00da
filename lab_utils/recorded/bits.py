"""The recorded cost of fewer bits; `data/record_bits.py` measured it, see data/README.md."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from ..files import read_json
from ..folders import DATA
from ..normal import Z
from ..recorded_files import number, reading, restore

BITS = DATA / "bits"


@dataclass(frozen=True)
class FormatRecord:
    """What one number format does to the models it was tried on.

    Models: "smollm2-135m", the embedded one, whose weights were 4-bit before; "minilm", an encoder of sentences, and
    "digits", the reader of `lab_utils.lora.digits`, whose weights never were; "gaussian", one matrix of random numbers.

    Attributes
    ----------
    bits : int, of a code: 16, 8, 4, 3 or 2
    bits_per_parameter : float, absmax values and other constants included, in the embedded model's layers
    perplexity : float, of the embedded model on data/prose/prose.txt, as `evaluate.perplexity` gives it
    loss_change : float, mean increase of the loss over bfloat16 weights on that text, in nats per token
    loss_change_error : float, standard error of that mean; the change is noise if it is not well above it
    digits_accuracy : float in [0, 1], of the reader on 597 digits
    encoder_cosine : float, mean cosine between the encoder's vectors of sentences and those of its float32 weights
    encoder_neighbours : float in [0, 1], share of sentences whose nearest other sentence stays the same
    relative_rms : dict model -> float, ‖error‖ / ‖W‖ over all matrices together
    relative_rms_by_module : dict module -> float, the same for each matrix of the embedded model's layers
    """

    bits: int
    bits_per_parameter: float
    perplexity: float
    loss_change: float
    loss_change_error: float
    digits_accuracy: float
    encoder_cosine: float
    encoder_neighbours: float
    relative_rms: dict[str, float] = field(repr=False)
    relative_rms_by_module: dict[str, float] = field(repr=False)

    @property
    def loss_change_half(self) -> float:
        """Half the width of the 95 % interval of `loss_change`."""
        return Z * self.loss_change_error

    def sqnr_db(self, model: str = "smollm2-135m") -> float:
        """Signal-to-quantization-noise ratio of a model's weights in dB; infinite without error."""
        error = self.relative_rms[model]
        return -20 * math.log10(error) if error else math.inf


@dataclass(frozen=True)
class BitsRecord:
    """Perplexity and weight errors by number of bits.

    Attributes
    ----------
    formats : dict name -> FormatRecord: "bf16", "int8 by channel", "int8 by tensor", "nf4", "nf4 double", "fp4",
        "q4_1", "int4 block 64", "int4 by channel", "int3 block 64", "int2 zero-point block 64", "int2 block 64"
    llm_int8 : dict of "perplexity", "loss_change", "loss_change_error": bitsandbytes' 8-bit layers, which also
        round a layer's input
    values_in_a_block : dict model -> int, the most different values among any 32 consecutive weights: 16 after Q4_1
    twice : dict model -> dict of "q4_1", "nf4", "nf4 after q4_1, against q4_1", "nf4 after q4_1, against the original"
        -> float, relative errors of models that were never in 4 bits
    text : dict of "sha256", "words", "tokens", "sentences", "window", "stride"
    provenance : dict, command, date, processor, threads, compute dtype, seconds, encoder, versions
    """

    formats: dict[str, FormatRecord]
    llm_int8: dict[str, float]
    values_in_a_block: dict[str, int]
    twice: dict[str, dict[str, float]] = field(repr=False)
    text: dict = field(repr=False)
    provenance: dict = field(repr=False)


def perplexity_by_bits(folder: str | Path = BITS) -> BitsRecord:
    """What fewer bits cost, as `data/record_bits.py` measured it.

    Parameters
    ----------
    folder : path, holds `bits.json`

    Raises
    ------
    LabError
        The file is missing or damaged, or incomplete, as after `--quick`.
    """
    with reading(f"The recorded bits in {folder}", restore("data/bits", "record_bits.py")):
        record = read_json(Path(folder) / "bits.json")
        modules, by_module = record["modules"], record["relative_rms_by_module"]
        return BitsRecord(
            formats={
                name: _format(values, dict(zip(modules, by_module[name], strict=True)))
                for name, values in record["methods"].items()
            },
            **{name: record[name] for name in ("llm_int8", "values_in_a_block", "twice", "text", "provenance")},
        )


def _format(values: dict, by_module: dict[str, float]) -> FormatRecord:
    """One format's record; an error names what is missing or is not a number."""
    made = FormatRecord(**values, relative_rms_by_module=by_module)
    for model in ("smollm2-135m", "minilm", "digits", "gaussian"):
        made.relative_rms[model]
    for name, value in vars(made).items():
        for one in value.values() if name.startswith("relative_rms") else [value]:
            number(one)
    return made
