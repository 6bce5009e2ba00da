"""What tells one run from another beyond its recipe: the data that are read, and the base that is adapted.

Both are written into every checkpoint as digests. Weights of one base differ in their last bits where another
processor quantized them, or in another dtype; those are compared by a sample of each tensor's values and not bit by
bit. Records of earlier versions, which hold less, are compared by what they hold.
"""

import hashlib
import json
from collections.abc import Iterable

from ..device import Device
from ..models.registry import base_model
from .fit import check_values

SAMPLED = 64  # values of the largest tensor that are kept
OF_EACH = 8  # values of each tensor that are kept
BLOCK = 1021  # words of eight bytes that are added up together; a prime, so that no row of a matrix is a block
# What a configuration holds apart from what the model computes: where it is from, how it is loaded and run, its text.
NOT_COMPARED = (
    "name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype",
    "quantization_config", "use_cache", "return_dict", "output_attentions", "output_hidden_states", "torchscript",
    "id2label", "label2id", "problem_type", "initializer_range", "task_specific_params", "auto_map",
)  # fmt: skip


def data_digest(rows: Iterable[dict]) -> str:
    """Sixteen hex digits that differ for other prompts, answers or messages, or for another order of them.

    Parameters
    ----------
    rows : iterable of {"prompt": str, "answer": str}, or of {"messages": list, "tools": list or None}
    """
    digest = hashlib.sha256()
    for row in rows:
        names = ("messages", "tools") if "messages" in row else ("prompt", "answer")
        digest.update(json.dumps([row.get(name) for name in names], default=str).encode())
    return digest.hexdigest()[:16]


def tokens_digest(examples: Iterable) -> str:
    """The same for examples as tokens (`supervision.Encoded`): it tells another tokenizer or chat template too."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(told_of(example))
    return digest.hexdigest()[:16]


def told_of(example) -> bytes:
    """What identifies one example as tokens: where its answers are, and its tokens."""
    return json.dumps([example.prompt_length, example.input_ids, *example.spans]).encode()


def base_identity(model, device: Device) -> dict:
    """What identifies a base model, without the adapters that may be on it.

    Parameters
    ----------
    model : transformers model, in 4 bits or not, or a peft model
    device : Device where it was loaded

    Returns
    -------
    dict ready for JSON: "name" (for messages), "config" (the settings that decide what the model computes), "shapes",
    "weights" and "order" (digests; only the last tells that numbers changed places), "sample" (list of floats, of the
    largest tensor) and "samples" (of each), and "made": what the weights' last bits depend on

    Raises
    ------
    LabError
        A weight is on the device "meta".
    """
    base, shapes, sums, order, floats, samples = base_model(model), [], [], hashlib.sha256(), [], []
    check_values(base)
    rows_scaled = {id(module.weight): module for module in base.modules() if hasattr(module, "state")}  # of LLM.int8
    for name, one in base.named_parameters():
        if "lora_" in name:
            continue
        name = name.replace(".base_layer.", ".")
        state = getattr(one, "quant_state", None)
        shapes.append([name, list(one.shape if state is None else state.shape)])
        for tensor in [one] if state is None else [one, state.absmax]:
            total, told = _checksum(tensor)
            sums.append(total)
            order.update(told)
        scales = _scales(one, rows_scaled.get(id(one)))
        if scales is not None:
            order.update(_checksum(scales)[1])
        if state is None and one.is_floating_point() and one.numel():
            floats.append(one.detach())
        samples.append(_few(one.detach() if scales is None else scales))
    return {
        "name": str(getattr(base, "name_or_path", "") or type(base).__name__),
        "config": _settings(base),
        "shapes": _digest(shapes),
        "weights": _digest(sums),
        "order": order.hexdigest()[:16],
        "sample": _sample(floats),
        "samples": samples,
        "made": f"{device.kind} {device.name} {device.compute_dtype}",
    }


def _settings(base) -> dict:
    """A model's configuration as JSON, without what says nothing about what it computes.

    Token numbers are left out too: they are in the tokens' digest.
    """
    found = base.config.to_dict() if hasattr(base, "config") else {}
    compared = {
        name: one for name, one in found.items()
        if name not in NOT_COMPARED and not name.startswith("_") and not name.endswith("_token_id")
    }  # fmt: skip
    return json.loads(json.dumps(compared, default=str, skipkeys=True))


def _checksum(tensor) -> tuple[int, bytes]:
    """All bytes of a tensor added up in words of eight, and what tells their order: quick, and equal on every device.

    For the order they are laid out as a table, and the sums of its rows and of its columns are what is told.
    """
    import torch

    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    words = data[: len(data) // 8 * 8].clone() if data.data_ptr() % 8 else data[: len(data) // 8 * 8]
    rest = data[len(words) :].tolist()
    words = words.view(torch.int64)
    table = words[: len(words) // BLOCK * BLOCK].view(-1, BLOCK)
    left = words[table.numel() :]
    rows = table.sum(1)
    told = torch.cat([rows, table.sum(0), left]).cpu().numpy().tobytes() + bytes(rest)
    return int(rows.sum() + left.sum()) + sum(rest), told


def _sample(tensors: list) -> list[float]:
    """`SAMPLED` values, from the largest of `tensors`, evenly spaced."""
    if not tensors:
        return []
    flat = max(tensors, key=lambda tensor: tensor.numel()).reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED].float().tolist()


def _few(tensor) -> list[float]:
    """`OF_EACH` values of a tensor, from places all over it, in the digits that bfloat16 does not round away."""
    if not tensor.numel():
        return []
    places = [(number * 2654435761 + 40503) % tensor.numel() for number in range(1, OF_EACH + 1)]
    return [float(f"{value:.4g}") for value in tensor.reshape(-1)[places].float().tolist()]


def _scales(weight, layer):
    """What the codes of a quantized weight are scaled by, one for each block or row; None of one that is not.

    The layer of LLM.int8 takes the scales over from its weight when it is first used.
    """
    if layer is not None:
        return weight.SCB if getattr(weight, "SCB", None) is not None else layer.state.SCB
    state = getattr(weight, "quant_state", None)
    if state is None or not state.nested:
        return state and state.absmax
    blocks = state.state2
    scales = blocks.code[state.absmax.long()] * blocks.absmax.repeat_interleave(blocks.blocksize)[: len(state.absmax)]
    return scales + state.offset


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
