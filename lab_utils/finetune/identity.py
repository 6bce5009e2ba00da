"""What tells one run from another besides its recipe: the data that are read, and the base that is adapted.

Both are written into every checkpoint as digests. Weights of one base differ in their last bits where another
processor quantized them, or in another dtype; those are compared by a sample of values and not bit by bit.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

from ..device import Device
from ..errors import LabError
from ..models.registry import base_model

SAMPLED = 64  # values of the base that are kept
TOLERANCE = 0.01  # of their size: bfloat16 rounds by up to 0.004
WHAT = {"data": "other training data", "tokens": "another tokenizer or chat template", "base": "another base model"}


def data_digest(rows: Iterable[dict]) -> str:
    """Sixteen hex digits that differ for other prompts or answers, or for another order of them.

    Parameters
    ----------
    rows : iterable of {"prompt": str, "answer": str}
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row["prompt"], row["answer"]]).encode())
    return digest.hexdigest()[:16]


def tokens_digest(examples: Sequence) -> str:
    """The same for examples as tokens (`supervision.Encoded`): it tells another tokenizer or chat template too."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.prompt_length, example.input_ids]).encode())
    return digest.hexdigest()[:16]


def base_identity(model, device: Device) -> dict:
    """What identifies a base model, without the adapters that may be on it.

    Parameters
    ----------
    model : transformers model, in 4 bits or not, or a peft model
    device : Device where it was loaded

    Returns
    -------
    dict ready for JSON: "name" (for messages), "shapes" and "weights" (digests), "sample" (list of floats), and
    "made": what the weights' last bits depend on
    """
    shapes, sums, floats = [], [], []
    for name, one in base_model(model).named_parameters():
        if "lora_" in name:
            continue
        name = name.replace(".base_layer.", ".")
        state = getattr(one, "quant_state", None)
        shapes.append([name, list(one.shape if state is None else state.shape)])
        sums += [_checksum(one)] + ([] if state is None else [_checksum(state.absmax)])
        if state is None and one.is_floating_point() and one.numel():
            floats.append(one.detach())
    return {
        "name": str(getattr(base_model(model), "name_or_path", "") or type(base_model(model)).__name__),
        "shapes": _digest(shapes),
        "weights": _digest(sums),
        "sample": _sample(floats),
        "made": f"{device.kind} {device.name} {device.compute_dtype}",
    }


def differences(saved: dict, now: dict) -> list[str]:
    """In what two runs differ, in words; what only one of them knows is not compared.

    Parameters
    ----------
    saved, now : dicts of "data", "tokens" (digests) and "base" (of `base_identity`), or of some of them
    """
    found = []
    for part in WHAT.keys() & saved.keys() & now.keys():
        there, here = saved[part], now[part]
        if part == "base":
            if not _one_base(there, here):
                found.append((part, f" ({there['name']} there, {here['name']} here)"))
        elif there != here:
            found.append((part, ""))
    if "data" in dict(found):
        found = [(part, text) for part, text in found if part != "tokens"]  # the tokens differ because the data do
    return [f"{WHAT[part]}{text}" for part, text in sorted(found)]


def refuse_other(folder, saved: dict, now: dict) -> None:
    """Raise a LabError if a run's data or base are others than this call's; nothing is deleted.

    Parameters
    ----------
    folder : path of the run
    saved, now : as in `differences`

    Raises
    ------
    LabError
        What differs is named.
    """
    if found := differences(saved, now):
        raise LabError(
            f"{folder} holds a run of the same recipe, with {' and '.join(found)}. Take another output_dir, or pass "
            "resume=False to start again (the old run is kept in `previous/`)."
        )


def _one_base(there: dict, here: dict) -> bool:
    """Are two bases one and the same, but for rounding where they were made on different machines?"""
    if there["shapes"] != here["shapes"]:
        return False
    if there["weights"] == here["weights"]:
        return True
    if there["made"] == here["made"] or len(there["sample"]) != len(here["sample"]):
        return False
    size = max(map(abs, there["sample"]), default=0.0)
    return all(abs(a - b) <= TOLERANCE * size for a, b in zip(there["sample"], here["sample"], strict=True))


def _checksum(tensor) -> int:
    """All bytes of a tensor added up in words of eight: quick, and the same on every device."""
    import torch

    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    words = data[: len(data) // 8 * 8].clone() if data.data_ptr() % 8 else data[: len(data) // 8 * 8]
    return int(words.view(torch.int64).sum()) + sum(data[len(words) :].tolist())


def _sample(tensors: list) -> list[float]:
    """`SAMPLED` values, from the largest of `tensors`, evenly spaced."""
    if not tensors:
        return []
    flat = max(tensors, key=lambda tensor: tensor.numel()).reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED].float().tolist()


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
