"""A merge that checks itself: the result is held against the unmerged adapter, and refused where it strays.

The yardstick is what the dtype's own rounding does to the logits, measured on a few examples. No function here changes
the model.
"""

import math

import torch

from ..errors import LabError, choose
from ..models.registry import base_model
from . import plain_copy as plain
from .finite_weights import refuse_nonfinite
from .places import check_adapter, into_dequantized, into_four_bits, into_original, is_repacked
from .plain_copy import is_four_bit

WAYS = ("dequantized", "original", "4-bit")
ROUNDING_FACTOR = 2.0  # how many times the dtype's own rounding a merge may lie from the adapter's logits


def unmerged(model, dtype: torch.dtype):
    """The model with its adapters, not merged, every weight a plain one in `dtype`: the yardstick of a merge."""
    return plain.copy_of(model, plain.unmerged_layer, dtype)


def rounding(model, probe, dtype: torch.dtype) -> float:
    """How far a dtype's arithmetic alone moves the unmerged model's logits on a probe.

    That is the distance between the model's logits computed in `dtype` and in the next wider one: float32 for 16-bit
    dtypes, float64 for float32. No merge takes part in it.

    Parameters
    ----------
    model : peft model
    probe : see `merge`
    dtype : torch.bfloat16, torch.float16 or torch.float32

    Returns
    -------
    float, root mean square over tokens and vocabulary, in the unit of the logits
    """
    wide = torch.float64 if dtype == torch.float32 else torch.float32
    return distance(unmerged(model, dtype), unmerged(model, wide), probe)


def distance(one, other, probe) -> float:
    """Root mean square difference of two models' logits over the probe's real tokens and the vocabulary."""
    return _distance(logits(one, probe), logits(other, probe))


def logits(model, probe) -> torch.Tensor:
    """The logits at every real token of a probe, without gradients, in eval mode; the model is left as it was.

    Parameters
    ----------
    probe : int64 Tensor (rows, length) of token ids, or a dict with "input_ids" and "attention_mask"

    Returns
    -------
    float Tensor (real tokens, vocabulary), in the dtype that the model computes in

    Raises
    ------
    LabError
        The probe has no token, or one that the model does not know.
    """
    batch = {"input_ids": probe} if isinstance(probe, torch.Tensor) else dict(probe)
    _check_probe(model, batch)
    ids = batch["input_ids"].to(next(model.parameters()).device)
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).to(ids.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), plain.not_repacking(model):
            return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
    finally:
        model.train(was_training)


def _check_probe(model, batch: dict) -> None:
    """Raise a LabError unless the probe is a table of tokens that the model knows, with one at least."""
    ids, entries = batch.get("input_ids"), base_model(model).get_input_embeddings().weight.shape[0]
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.is_floating_point():
        shape = f"has shape {tuple(ids.shape)}, {ids.dtype}" if isinstance(ids, torch.Tensor) else f"is {ids!r}"
        raise LabError(f"The probe's input_ids {shape}: an int64 Tensor (rows, length) is needed.")
    mask = batch.get("attention_mask")
    if not ids.numel() or (mask is not None and not bool(mask.bool().any())):
        raise LabError("The probe has no token: give a few examples, as probe_batch(tokenizer, rows) makes them.")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= entries:
        wrong = low if low < 0 else high
        raise LabError(f"The probe has token {wrong}, and the model knows 0 to {entries - 1}: use its own tokenizer.")


def merge(model, probe, into: str = "dequantized", *, original=None, dtype: torch.dtype | None = None):
    """Merge the active adapters, and return the result only if it answers as the unmerged model does.

    Logits on the probe are held against each other, by root mean square difference. The yardstick is the dtype's own
    rounding there (see `rounding`), measured and not assumed; right merges lie at 0.8 to 1.3 roundings.

    1. the model's logits lie within `ROUNDING_FACTOR` roundings of its compute dtype from those that follow from the
       weights read out of it, in wider arithmetic: what is about to be merged is what the model computes with;
    2. the merged model's lie within `ROUNDING_FACTOR` roundings of its dtype from the same.

    Parameters
    ----------
    model : peft model with LoRA, rsLoRA or DoRA on linear layers, on a 4-bit or an unquantized base; left as it is
    probe : int64 Tensor (rows, length) of token ids, or a dict with "input_ids" and "attention_mask", as `probe_batch`
        makes; a few dozen tokens of the kind that the adapter was trained on
    into : "dequantized", "original" or "4-bit"
        For an unquantized base "dequantized" means its own weights.
    original : transformers model, for into="original"
    dtype : torch.dtype of the result, default the base's. float32 is checked in float64, in 8 bytes per parameter.

    Returns
    -------
    transformers model in eval mode that shares no tensor with `model`

    Raises
    ------
    LabError
        The logits differ by more: the message says by how much, and what to do. Adapter or base hold NaN or infinity:
        tensor, place and which of the two are named. Or the adapter cannot be merged here.
    """
    choose("way to merge", into, WAYS)
    if (original is None) == (into == "original"):
        raise LabError("`original` and into='original' belong together: give both, or neither.")
    check_adapter(model)
    refuse_nonfinite(model)
    own = _compute_dtype(model)
    dtype = own if into == "4-bit" else dtype or base_model(model).dtype
    wide = torch.float64 if torch.float32 in (own, dtype) else torch.float32
    exact = logits(unmerged(model, wide), probe)
    floor = {one: _distance(logits(unmerged(model, one), probe), exact) for one in {own, dtype}}
    for one in sorted(floor, key=str):
        _check_finite(exact, floor[one], one)
    found = _distance(logits(model, probe), exact)
    if is_repacked(model):
        raise LabError(f"Not merged: the weights as they can be read put the logits {found:.3g} off. {REPACKED}")
    _check(found, floor[own], own, "misread")
    if into == "dequantized":
        merged = into_dequantized(model, dtype)
    else:
        merged = into_original(model, original, dtype) if into == "original" else into_four_bits(model)
    _check(_distance(logits(merged, probe), exact), floor[dtype], dtype, into)
    return merged


REPACKED = (
    "bitsandbytes has repacked this model's 4-bit weights for inference, so what is read from them is not what it "
    "computes with. Load the base again with load_base, which forbids that, put the adapter on, and merge."
)
ADVICE = {
    "misread": "The weights read from this model are not what it computes with, so no merge of them would be right. "
    "Load the base again, put the adapter on, and merge before anything else.",
    "original": "The adapter was trained on other weights than these. Merge with into='dequantized', or train the "
    "adapter on the unquantized base (quantization='none').",
    "4-bit": "Rounding back to the levels that the base lies on takes most of so small an update away. Merge with "
    "into='dequantized' and keep 16 bits, or serve the 4-bit base with the adapter unmerged. A smaller file: round the "
    "dequantized merge to a format with other levels (merging.what_is_left), and measure what it answers.",
    "dequantized": "The result's dtype cannot hold the update. Merge into a wider one, dtype=torch.float32.",
}


def _check_finite(exact: torch.Tensor, floor: float, dtype: torch.dtype) -> None:
    """Raise a LabError if finite weights give logits on the probe that are not finite."""
    name = str(dtype).removeprefix("torch.")
    if not bool(exact.isfinite().all()):
        raise LabError("Not merged: the adapter's logits on the probe are not finite, though all weights are.")
    if not math.isfinite(floor):
        raise LabError(
            f"Not merged: in {name} the model's logits on the probe are not finite, though its weights are: numbers in "
            f"between exceed {torch.finfo(dtype).max:g}. Load the base and merge in torch.bfloat16 or torch.float32."
        )


def _check(found: float, floor: float, dtype: torch.dtype, what: str) -> None:
    """Raise a LabError if a distance is more than `ROUNDING_FACTOR` times the dtype's rounding, or no number."""
    if not found <= ROUNDING_FACTOR * floor:
        whose = "the model's own logits" if what == "misread" else "the merged model's logits"
        raise LabError(
            f"Not merged: {whose} lie {found:.3g} from the adapter's (root mean square on the probe), and rounding to "
            f"{str(dtype).removeprefix('torch.')} explains {floor:.3g}; {ROUNDING_FACTOR:g} times that is allowed. "
            + ADVICE[what]
        )


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).square().mean().sqrt())


def _compute_dtype(model) -> torch.dtype:
    """The coarsest dtype that the model computes in."""
    base = base_model(model)
    found = [base.dtype, *(layer.compute_dtype for layer in base.modules() if is_four_bit(layer))]
    return max((dtype for dtype in found if dtype), key=lambda dtype: torch.finfo(dtype).eps)
