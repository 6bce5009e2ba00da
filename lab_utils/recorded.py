"""Recorded results of the embedded model: a full fine-tune's weight update, what fewer bits cost, what memory it takes.

`data/record_update.py`, `record_bits.py` and `record_memory.py` measured them; data/README.md says what lies there.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .errors import LabError
from .files import read_json
from .recorded_files import number, reading, restore
from .tasks import DATA

FOLDER = DATA / "update"
MEMORY = DATA / "memory" / "measurements.json"
BITS = DATA / "bits"
RANKS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class WeightUpdate:
    """ΔW = W_after − W_before of a full fine-tune, for the 210 matrices of the embedded model's 30 layers.

    A module's name is as in the model: "model.layers.15.self_attn.v_proj".

    Attributes
    ----------
    singular_values : dict module -> float32 Tensor (min(out, in),), of ΔW, descending
    weight_singular_values : the same of W_before, rounded to float16's eleven bits
    relative_norm : dict module -> float, ‖ΔW‖ / ‖W_before‖, Frobenius
    delta : dict module -> float32 Tensor (out, in), the whole ΔW of a few matrices, rounded to eleven bits an entry
    loss_by_rank : dict rank -> float, loss on held-out messages, in nats an answer token, when every ΔW is cut to
        its best fit of that rank; 0 is the base, None the whole ΔW
    exact_by_rank : dict rank -> float in [0, 1], exact match on held-out messages, likewise, for a few ranks
    energy : dict of "update", "weight", "random" -> dict rank -> float in [0, 1], share of the squared singular values
        in the first `rank` directions, mean over ΔW, over W_before, over Gaussian matrices of the same shapes
    recipe : dict, how it was trained, and "test_examples", "exact_examples": how many messages it was measured on
    provenance : dict, command, date, processor, seconds, versions
    """

    singular_values: dict[str, Tensor] = field(repr=False)
    weight_singular_values: dict[str, Tensor] = field(repr=False)
    relative_norm: dict[str, float] = field(repr=False)
    delta: dict[str, Tensor] = field(repr=False)
    loss_by_rank: dict[int | None, float]
    exact_by_rank: dict[int | None, float]
    energy: dict[str, dict[int, float]] = field(repr=False)
    recipe: dict = field(repr=False)
    provenance: dict = field(repr=False)


def weight_update(folder: str | Path = FOLDER) -> WeightUpdate:
    """The recorded update. Read once a process: change copies of its tensors only.

    Parameters
    ----------
    folder : path, holds `update.safetensors` and `update.json`

    Raises
    ------
    LabError
        A file is missing or damaged, or the two do not belong together.
    """
    return _read(Path(folder))


@cache
def _read(folder: Path) -> WeightUpdate:
    """Both files, checked and put together."""
    with reading(f"The recorded update in {folder}", restore("data/update", "record_update.py")):
        packed = (folder / "update.safetensors").read_bytes()
        record = read_json(folder / "update.json")
        if hashlib.sha256(packed).hexdigest() != record["sha256"]:
            raise LabError("update.safetensors is not the file that update.json describes")
        return _put_together(packed, record)


def _put_together(packed: bytes, record: dict) -> WeightUpdate:
    """The tensors and the record as one."""
    from safetensors.torch import load

    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load(packed).items():
        group, module = key.split("/")
        groups.setdefault(group, {})[module] = tensor.float()
    measured = record["measured"]
    return WeightUpdate(
        singular_values=groups["singular_values"],
        weight_singular_values=groups["weight_singular_values"],
        relative_norm={module: value.item() for module, value in groups["relative_norm"].items()},
        delta={module: values / groups["scale"][module] for module, values in groups["delta"].items()},
        loss_by_rank=_by_rank(measured["loss_by_rank"], (0, *RANKS, None)),
        exact_by_rank=_by_rank(measured["exact_by_rank"], (0, None)),
        energy={name: _by_rank(measured["energy"][name], RANKS) for name in ("update", "weight", "random")},
        recipe=record["recipe"] | {name: measured[name] for name in ("test_examples", "exact_examples")},
        provenance=record["provenance"],
    )


def _by_rank(values: dict[str, float], needed: Iterable[int | None]) -> dict:
    """JSON's text keys as numbers, "full" as None; a KeyError names a rank that is needed and missing."""
    found = {None if rank == "full" else int(rank): number(value) for rank, value in values.items()}
    for rank in needed:
        found[rank]
    return found


def memory_measurements(file: str | Path = MEMORY) -> dict:
    """What training steps of the embedded model took in memory.

    Returns
    -------
    dict: "provenance" (dict), and "measurements", a list of dicts with
        arguments : of `memory.estimate`, by name
        resident_bytes : dict of int, tensors that stay between steps: weights, unpacked, adapter, optimizer
        tensor_peak_bytes : int, these and what torch's allocator handed out besides, at the peak of a step
        process_peak_bytes : int, these and what the process grew by in a step
        overhead_bytes : int, what the process held between two steps besides tensors: Python's objects, libraries
        seconds : float, with loading

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    with reading(f"The memory measurements in {file}", restore("data/memory", "record_memory.py")):
        record = read_json(file)
        return {"provenance": record["provenance"], "measurements": _measurements(record["measurements"])}


def _measurements(recorded: list[dict]) -> list[dict]:
    """Each measurement as `memory_measurements` hands it out."""
    rows = []
    for row in recorded:
        settings, measured = dict(row["settings"]), row["measured"]
        resident = sum(number(value, 0) for value in measured["resident_bytes"].values())
        answer = min(settings.pop("answer"), settings["sequence_length"] - 1)  # the first token is nobody's target
        full = settings["method"] == "full"
        rows.append(
            {
                "arguments": settings | {
                    "architecture": "SmolLM2-135M",
                    "supervised_tokens": settings["batch_size"] * answer,
                    "moments": settings["dtype"] if full else "float32",
                },
                "resident_bytes": measured["resident_bytes"],
                "tensor_peak_bytes": resident + number(measured["tensor_growth_bytes"]),
                "process_peak_bytes": resident + number(measured["process_growth_bytes"]),
                "overhead_bytes": number(measured["process_bytes"]) - resident,
                "seconds": number(measured["seconds"], 0),
            }
        )  # fmt: skip
    return rows


def energy_shares(spectra: Iterable[Tensor]) -> dict[int, float]:
    """Share of the squared singular values in the first r directions, for each r of `RANKS`, mean of the matrices.

    Parameters
    ----------
    spectra : 1-d Tensors, singular values, descending, not all zero

    Returns
    -------
    dict rank -> float in [0, 1], to 5 decimals
    """
    squares = [values.double().square() for values in spectra]
    return {
        rank: round(sum((s[:rank].sum() / s.sum()).item() for s in squares) / len(squares), 5) for rank in RANKS
    }  # fmt: skip


def random_spectra(shapes: Iterable[tuple[int, int]], seed: int) -> list[Tensor]:
    """Singular values of a Gaussian matrix of each shape; equal shapes share one.

    Parameters
    ----------
    shapes : of (out, in)
    seed : int

    Returns
    -------
    list of float32 Tensors (min(out, in),), one for each of `shapes`
    """
    shapes = [tuple(shape) for shape in shapes]
    generator = torch.Generator().manual_seed(seed)
    found = {shape: torch.linalg.svdvals(torch.randn(shape, generator=generator)) for shape in sorted(set(shapes))}
    return [found[shape] for shape in shapes]


@dataclass(frozen=True)
class FormatRecord:
    """What one number format does to the models it was tried on.

    Models: "smollm2-135m", the embedded one, whose weights were 4-bit before; "minilm", an encoder of sentences, and
    "digits", the reader of `lab_utils.digits`, whose weights never were; "gaussian", one matrix of random numbers.

    Attributes
    ----------
    bits : int, of a code: 16, 8, 4, 3 or 2
    bits_per_parameter : float, absmax values and other constants included, in the embedded model's layers
    perplexity : float, of the embedded model on data/prose/prose.txt, as `evaluate.perplexity` gives it
    loss_change : float, how much a token of that text costs more than with bfloat16 weights, mean, in nats
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
    llm_int8 : dict of "perplexity", "loss_change", "loss_change_error": bitsandbytes' 8-bit layers, which round what
        goes into a layer too
    values_in_a_block : dict model -> int, the most different values among any 32 weights in a row: 16 after Q4_1
    twice : dict model -> dict of "q4_1", "nf4", "nf4 after q4_1, against q4_1", "nf4 after q4_1, against the original"
        -> float, relative errors of models that never were 4-bit
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
        The file is missing or damaged, or a part of it is missing, as after `--quick`.
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
    """One format's record; a ValueError names what is not a number."""
    made = FormatRecord(**values, relative_rms_by_module=by_module)
    for name, value in vars(made).items():
        for one in value.values() if name.startswith("relative_rms") else [value]:
            number(one)
    return made
