"""How many bytes training a language model takes, part by part, before you try it (see `estimates` for a step's peak).

The step is the lab's own (`lab_utils.finetune`): logits only at the supervised positions, one batch per
update, gradients freed after it. tests/library/test_memory.py compares the tensors' bytes with real ones, and the peak
with the measurements of `data/record_memory.py`.
"""

from collections.abc import Iterable
from inspect import signature

from ..counts.architectures import Architecture, named
from ..errors import LabError, choose, flag, whole
from .estimates import DTYPE_BYTES, MOMENTS, MemoryEstimate, step_estimate
from .estimates import moments_bytes as moments_bytes  # handed on

METHODS = ("full", "lora", "qlora")
DEVICES = ("cpu", "cuda")
BLOCK, NESTED_BLOCK = 64, 256  # weights that share an absmax; absmax that share a second one


def nf4_bytes(numbers: int, double_quant: bool = True) -> int:
    """Bytes that bitsandbytes keeps for one matrix in 4 bits with blocks of 64.

    Half a byte per number; for each block a float32 absmax. With `double_quant` the absmax is one byte, with a float32
    for each 256 of them and one float32 offset. Each matrix has its own table of 16 values, and of 256 with
    `double_quant`: for a large one that is negligible.

    Raises
    ------
    LabError
        `numbers` is not a whole number of 1 or more, or `double_quant` neither True nor False.

    Source: Dettmers et al. 2023 (QLoRA), section 3. https://arxiv.org/abs/2305.14314
    """
    numbers, double_quant = whole("numbers", numbers), flag("double_quant", double_quant)
    packed, blocks = -(-numbers // 2), -(-numbers // BLOCK)
    nested = blocks + 4 * -(-blocks // NESTED_BLOCK) + 4 + 4 * 256
    return packed + 4 * 16 + (nested if double_quant else 4 * blocks)


def as_record(architecture: Architecture | str) -> dict:
    """Everything that `estimate` needs of a model, as plain numbers and strings ready for JSON.

    Returns
    -------
    dict: name, hidden, layers, heads, width (heads × head size), intermediate, vocabulary, positions, tied, gated,
    total, and modules: {name: {out, in, count, group, source}}. `count` is how many times the module occurs in the
    model; modules of one `source` read the same tensor.

    Raises
    ------
    LabError
        The architecture is unknown.
    """
    architecture = named(architecture)
    linears = architecture.linears()
    last = {one.group: name for name, one in linears.items()}  # reads the output of its group's other modules
    return {
        "name": architecture.name,
        "hidden": architecture.hidden,
        "layers": architecture.n_layers,
        "heads": architecture.heads,
        "width": architecture.heads * architecture.head_size,
        "intermediate": architecture.intermediate,
        "vocabulary": architecture.vocabulary,
        "positions": architecture.positions,
        "tied": architecture.tied,
        "gated": architecture.gated,
        "total": architecture.total_parameters(),
        "modules": {
            name: {
                "out": one.out_features, "in": one.in_features, "count": architecture.copies(name), "group": one.group,
                "source": f"{one.group} {'made' if name == last[one.group] else 'given'}",
            }
            for name, one in linears.items()
        },
    }  # fmt: skip


def estimate(
    architecture: Architecture | str,
    method: str,
    rank: int = 8,
    target_modules: str | Iterable[str] = "all-linear",
    batch_size: int = 1,
    sequence_length: int = 512,
    *,
    supervised_tokens: int | None = None,
    dtype: str = "bfloat16",
    adapter_dtype: str = "float32",
    moments: str = "float32",
    gradient_checkpointing: bool = False,
    double_quant: bool = True,
    rest_dtype: str | None = None,
    device: str = "cpu",
    foreach: bool = False,
) -> MemoryEstimate:
    """Bytes that a training step takes at its peak, as tensors; the allocator and the libraries come on top.

    Exact: weights, adapter, gradients and moments, as bytes of tensors. With "qlora" the linear layers of the
    transformer layers are in NF4, everything else in `rest_dtype`: the embedding, which is read row by row and not
    multiplied; the output matrix, which is the embedding or as sensitive; an encoder's head; norms and biases, which
    are small and one-dimensional. Buffers, and AdamW's 4-byte step counter per tensor, are left out.

    A model: activations and what comes on top, see `lab_utils.memory.activations`. They are counted on a Llama; other
    families are taken for one with their sizes. tests/library/test_memory_published.py holds all of it beside what
    others measured, and says where and why it is off.

    Parameters
    ----------
    architecture : Architecture, or a name in `ARCHITECTURES`
    method : "full" (every weight), "lora", or "qlora" (NF4 base)
    rank, target_modules : of the adapters, as in `counts.lora_parameters`; without effect on "full"
    batch_size : int >= 1, examples per step
    sequence_length : int >= 1, tokens of the longest example, to which all are padded
    supervised_tokens : int >= 1, positions of the batch with a label; default all
    dtype : "float32", "bfloat16" or "float16", of the weights that are not in 4 bits, and of the arithmetic
    adapter_dtype : likewise, of the adapters and their gradients; those of "full" have `dtype`
    moments : "float32", "bfloat16", "float16" or "8bit", of AdamW; torch.optim.AdamW takes the trained numbers' dtype
    gradient_checkpointing : bool, keep each layer's input alone and compute the rest again
    double_quant : bool, of "qlora"
    rest_dtype : "float32", "bfloat16" or "float16", of "qlora": of the weights that are not in 4 bits, and of what
        goes from layer to layer, for a 4-bit layer answers in the dtype of its input. Default is `dtype`, as this lab
        trains. "float32" is what peft's `prepare_model_for_kbit_training` makes of them, without autocast
    device : "cpu", the lab's own 4-bit layers and eager attention; or "cuda", peft's layers and attention without
        stored weights
    foreach : bool, the optimizer updates all tensors together, as `torch.optim.AdamW` does on CUDA unless it is told
        fused=True: it then holds the roots of all second moments at once, in their dtype. Without effect on
        moments in 8 bits, which are another optimizer's

    Returns
    -------
    MemoryEstimate

    Raises
    ------
    LabError
        Names the value that is unknown or out of range.
    """
    architecture, rank = named(architecture), whole("rank", rank)
    for kind, value, allowed in (
        ("method", method, METHODS), ("dtype", dtype, DTYPE_BYTES), ("adapter_dtype", adapter_dtype, DTYPE_BYTES),
        ("rest_dtype", dtype if rest_dtype is None else rest_dtype, DTYPE_BYTES), ("moments", moments, MOMENTS),
        ("device", device, DEVICES),
    ):  # fmt: skip
        choose(kind, value, allowed)
    batch_size, sequence_length = whole("batch_size", batch_size), whole("sequence_length", sequence_length)
    tokens, supervised = batch_size * sequence_length, supervised_tokens
    if supervised is None:
        supervised = tokens
    supervised = whole("supervised_tokens", supervised, 1, tokens, "the tokens of the batch")
    gradient_checkpointing = flag("gradient_checkpointing", gradient_checkpointing)
    double_quant = flag("double_quant", double_quant)
    foreach = flag("foreach", foreach)

    chosen = architecture.select(target_modules)
    record, full, lab, packed = as_record(architecture), method == "full", device == "cpu", method == "qlora"
    size = DTYPE_BYTES[rest_dtype] if packed and rest_dtype is not None else DTYPE_BYTES[dtype]
    trained_size = size if full else DTYPE_BYTES[adapter_dtype]
    targets = [record["modules"][name] for name in (architecture.select("all-linear") if full else chosen)]
    tensors = _trained_tensors(record, targets, None if full else rank)
    trained = sum(numbers * count for numbers, count in tensors)
    weights, unpacked = _weights_bytes(record, targets, size, packed, double_quant, lab)
    return step_estimate(
        record, targets, tensors, tokens=tokens, length=sequence_length, supervised=supervised, method=method,
        rank=rank, size=size, inner_size=DTYPE_BYTES[dtype], trained_size=trained_size, moments=moments,
        checkpointing=gradient_checkpointing, lab=lab, weights_bytes=weights, unpacked_bytes=unpacked,
        adapter_bytes=0 if full else trained_size * trained, foreach=foreach,
    )  # fmt: skip


def checked_settings(settings: dict) -> dict:
    """Arguments of `estimate` by name, checked, and with target modules that can be read more than once.

    Raises
    ------
    LabError
        One is missing or unknown; or as `estimate`.
    """
    known = signature(estimate).parameters
    for name, parameter in known.items():
        if name not in settings and parameter.default is parameter.empty:
            raise LabError(f"{name} is missing.")
    for name in settings:
        choose("setting", name, known)
    architecture, targets = named(settings["architecture"]), settings.get("target_modules", "all-linear")
    targets = targets if isinstance(targets, str) else architecture.select(targets)
    return {**settings, "architecture": architecture, "target_modules": targets}


def _trained_tensors(record: dict, targets: list[dict], rank: int | None) -> list[tuple[int, int]]:
    """(numbers, times) of every kind of trained tensor; norms and biases count as vectors as wide as the model."""
    if rank is not None:
        return [(rank * side, one["count"]) for one in targets for side in (one["in"], one["out"])]
    found = [(one["out"] * one["in"], one["count"]) for one in record["modules"].values()]
    found.append((record["vocabulary"] * record["hidden"], 1 if record["tied"] else 2))
    found.append((record["positions"] * record["hidden"], 1))
    rest = record["total"] - sum(numbers * count for numbers, count in found)
    return [*found, (record["hidden"], rest // record["hidden"]), (rest % record["hidden"], 1)]


def _weights_bytes(record, targets, size: int, qlora: bool, double_quant: bool, lab: bool) -> tuple[int, int]:
    """Bytes of the base, and of the absmax that the lab's own layers keep unpacked."""
    if not qlora:
        return size * record["total"], 0
    matrices = [one for one in record["modules"].values() if one["group"] != "head"]
    rest = record["total"] - sum(one["count"] * one["out"] * one["in"] for one in matrices)
    packed = sum(one["count"] * nf4_bytes(one["out"] * one["in"], double_quant) for one in matrices)
    copies = sum(one["count"] * 4 * -(-one["out"] * one["in"] // BLOCK) for one in targets if one["group"] != "head")
    return size * rest + packed, copies if lab and double_quant else 0
