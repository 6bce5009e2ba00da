"""What each way to merge costs: loss, distance to the adapter, bytes, seconds; and what peft's merge leaves of ΔW."""

import math
import time
from collections.abc import Collection
from dataclasses import dataclass

import torch

from ..errors import LabError, choose
from ..finetune import answer_logits, collate, encode_split
from ..finetune.conversation import padding_token
from ..models import footprint
from ..models.registry import base_model
from ..tasks import Task, find_task
from . import places
from .checked import unmerged
from .finite_weights import refuse_nonfinite
from .plain_copy import is_four_bit, not_repacking

CHUNK = 64  # tokens whose probabilities over the vocabulary are held in float64 at a time


def probe_batch(tokenizer, rows, task: str | Task = "bookings", max_length: int = 256) -> dict[str, torch.Tensor]:
    """Examples as one padded batch: what `merging.merge` takes as a probe, and `compare_merges` as a yardstick.

    Parameters
    ----------
    rows : list of {"prompt": str, "answer": str}, not empty
    task : str, a name in `TASKS`, or a Task
    max_length : int, tokens; longer examples are left out

    Returns
    -------
    dict of int64 Tensors (rows, longest): input_ids, attention_mask, labels (-100 on the prompt and the padding)
    """
    return collate(encode_split(tokenizer, find_task(task), list(rows), max_length), padding_token(tokenizer))


def compare_merges(model, batch: dict, original=None, *, skip: Collection[str] = ()) -> list[dict]:
    """Merge in every way, and measure each on the same answers; nothing is generated, `model` is left as it is.

    Everything is measured on the answers' tokens, with the right tokens before them. The adapter's logits, which `kl`,
    `max_difference` and `top1` refer to, are those of the unmerged adapter on the same weights computed in float32.

    Parameters
    ----------
    model : peft model with an active adapter
    batch : dict, as `probe_batch` returns it
    original : transformers model, optional, the base without quantization; without it that way is left out
    skip : names of ways to merge that are left out too, to save their time

    Returns
    -------
    list of dict, one a way:
        way : str
        loss : float, mean cross entropy of an answer's token, in nats
        kl : float, mean Kullback-Leibler divergence from the adapter's next-token probabilities to these, in nats
        max_difference : float, largest difference of a logit
        top1 : float in [0, 1], share of tokens with the same first choice
        size_bytes : int, of the tensors that would be shipped
        seconds : float, the time the merge took; 0 where nothing is merged
        note : str, empty, or why the numbers of this way are None

    Raises
    ------
    LabError
        The model has no active adapter, it cannot be merged here, adapter or base hold NaN or infinity, the batch holds
        no answers, or `skip` names something that is not a way here.
    """
    places.check_adapter(model)
    refuse_nonfinite(model)
    if not bool((batch["labels"] >= 0).any()):
        raise LabError("The batch holds no answers: every label is -100. Make it with probe_batch.")
    exact, targets = _answers(unmerged(model, torch.float32), batch)
    dtype = base_model(model).dtype
    with model.disable_adapter():
        rows = [_row("base, no adapter", model, batch, exact, targets)]
    rows.append(_row("adapter, unmerged", model, batch, exact, targets))
    ways = {}
    for one in dict.fromkeys((torch.float32, dtype)):
        ways[f"into dequantized, {_name(one)}"] = lambda one=one: places.into_dequantized(model, one)
    if original is not None:
        ways[f"into original, {_name(dtype)}"] = lambda: places.into_original(model, original, dtype)
    if any(is_four_bit(layer) for layer in base_model(model).modules()):
        ways["back onto its own 4 bits"] = lambda: places.into_four_bits(model)
        ways[REPACKED] = None
    for way in skip:
        choose("way to skip", way, ways)
        del ways[way]
    if REPACKED in ways:
        ways[REPACKED] = _repacked_merge(model, dtype)
    for way, merge in ways.items():
        if merge is None:
            rows.append(dict.fromkeys(rows[0]) | {"way": way, "note": UNPACKED})
            continue
        merged, seconds = _timed(merge, base_model(model).device)
        rows.append(_row(way, merged, batch, exact, targets, seconds))
    return rows


def _timed(merge, device: torch.device) -> tuple:
    """What `merge` returns, and its seconds: a GPU may still be computing when a call returns."""
    began = time.perf_counter()
    merged = merge()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return merged, time.perf_counter() - began


REPACKED = "repacked, then merged"
UNPACKED = (
    "skipped: bitsandbytes repacks 4-bit weights on CPUs with AVX512-BF16 only. There, a merge after one unguarded "
    "forward reads scrambled weights, and the model knows nothing any more."
)


def _repacked_merge(model, dtype: torch.dtype):
    """A function that merges a copy whose weights were repacked before; None where nothing repacks."""
    if not places.can_repack() or base_model(model).device.type != "cpu":
        return None
    twin = places.repacked(model)
    return lambda: places.into_dequantized(twin, dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _answers(model, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """(float32 logits, targets) at the answers' tokens, in eval mode and without gradients."""
    device = base_model(model).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), not_repacking(model):
            logits, targets, _ = answer_logits(model, **{name: one.to(device) for name, one in batch.items()})
    finally:
        model.train(was_training)
    return logits.float(), targets


def _row(way: str, model, batch: dict, exact: torch.Tensor, targets: torch.Tensor, seconds: float = 0.0) -> dict:
    """The measurements of one way against the adapter's logits `exact` (tokens, vocabulary)."""
    logits, _ = _answers(model, batch)
    bare = way.startswith("base")  # the adapter is there, but not in use
    divergence = 0.0
    for start in range(0, len(logits), CHUNK):
        part = slice(start, start + CHUNK)
        theirs, ours = exact[part].double().log_softmax(-1), logits[part].double().log_softmax(-1)
        divergence += float((theirs.exp() * (theirs - ours)).sum())
    return {
        "way": way,
        "loss": float(torch.nn.functional.cross_entropy(logits, targets)),
        "kl": divergence / len(logits),
        "max_difference": float((logits - exact).abs().max()),
        "top1": float((logits.argmax(-1) == exact.argmax(-1)).float().mean()),
        "size_bytes": sum(size for part, size in footprint(model).items() if part != "adapter" or not bare),
        "seconds": seconds,
        "note": "",
    }


@dataclass(frozen=True)
class Survival:
    """What rounding W + ΔW back to the base's own 4 bits leaves of ΔW in one layer.

    Attributes
    ----------
    layer : str
    codes : int, 4-bit codes in the layer, one per weight
    changed : float in [0, 1], share of the codes that differ after the merge
    relative_size : float, ‖ΔW‖ / ‖W‖, Frobenius
    kept : float, ⟨ΔW', ΔW⟩ / ‖ΔW‖²; ΔW' is what the weights really change by, 1 means that all of ΔW arrives
    cosine : float in [-1, 1], between ΔW' and ΔW: how much of what arrives is ΔW, and not rounding
    """

    layer: str
    codes: int
    changed: float
    relative_size: float
    kept: float
    cosine: float


def adapted_layers(model) -> list[str]:
    """Names of the layers of a peft model's base that carry a LoRA adapter, in the order of the model."""
    return [name for name, module in base_model(model).named_modules() if hasattr(module, "lora_A")]


def delta_weights(model, layers: list[str]) -> dict[str, torch.Tensor]:
    """ΔW of the active adapters in each of these layers, float32 (out, in), by name as `adapted_layers` gives it."""
    return {name: _delta(base_model(model).get_submodule(name)) for name in layers}


def survival(model, layer: str, scale: float = 1.0) -> Survival:
    """Round one layer's W + ΔW back to its own 4 bits, as peft's `merge_and_unload` does, and measure what arrives.

    Parameters
    ----------
    model : peft model on a 4-bit base, whose weights have not been repacked; left as it is
    layer : str, a name of `adapted_layers(model)`
    scale : float, multiplies ΔW: how large would it have to be to survive?

    Returns
    -------
    Survival

    Raises
    ------
    LabError
        No such layer, it is not in 4 bits, its update is zero, adapter or base hold NaN or infinity, or `scale` is no
        finite number.
    """
    import bitsandbytes.functional as bnb

    choose("layer", layer, adapted_layers(model))
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise LabError(f"scale={scale!r} is out of range: a finite number.")
    refuse_nonfinite(model)
    module = base_model(model).get_submodule(layer)
    if not is_four_bit(module.base_layer) or places.is_repacked(model):
        raise LabError(f"{layer} cannot be looked at: it is not in 4 bits, or bitsandbytes has repacked it.")
    weight = module.base_layer.weight
    state = weight.quant_state
    before = bnb.dequantize_4bit(weight.data, state).float()
    delta = scale * _delta(module)
    if not bool(delta.any()):
        raise LabError(f"The update of {layer} is zero: B is untrained, or scale={scale} takes it away.")
    packed, new_state = bnb.quantize_4bit(
        before + delta, blocksize=state.blocksize, compress_statistics=state.nested, quant_type=state.quant_type
    )
    arrived = bnb.dequantize_4bit(packed, new_state).float() - before
    flips = packed.flatten() ^ weight.data.view(torch.uint8).flatten()
    changed = int((flips >> 4 != 0).sum() + (flips & 15 != 0).sum())
    inner = float((arrived * delta).sum())
    norms = float(arrived.norm()), float(delta.norm())
    return Survival(
        layer=layer,
        codes=before.numel(),
        changed=changed / before.numel(),
        relative_size=norms[1] / float(before.norm()),
        kept=inner / norms[1] ** 2,
        cosine=inner / (norms[0] * norms[1]) if norms[0] else 0.0,
    )


def _delta(module) -> torch.Tensor:
    """ΔW of a peft layer's active adapters, float32 (out, in)."""
    with torch.no_grad():
        names = [name for name in module.active_adapters if name in module.lora_A]
        return sum(module.get_delta_weight(name).float() for name in names)
