"""Bytes that a training step's forward pass keeps for the backward pass, counted tensor by tensor for a layer of Llama.

Per token, one layer keeps

    the inputs of both norms, in float32                                          2 × hidden
    query, key and value, heads repeated; width = heads × head size               3 × width
    attention weights in float32, and once more in a 16-bit dtype (eager only)    heads × length
    both branches of the gated MLP, and the activated one                         3 × intermediate
    the inputs of trained linear layers; q, k, v share one, gate and up too       hidden, width, intermediate

peft's layers over a 16-bit base cast their input to the adapter's float32, one copy each. A frozen linear layer
keeps nothing, because the gradient of its input needs only its weight. So an adapter on few modules saves activations
too. tests/library/test_activations.py compares all this with what autograd saves (`lab_utils.memory.saved`).
"""


def kept_bytes(
    tokens: int, length: int, hidden: int, width: int, intermediate: int, heads: int, size: int, inputs: int,
    branches: int = 3,
) -> int:
    """Bytes that one layer keeps.

    Parameters
    ----------
    tokens : int, of the whole batch
    length : int, tokens of the longest example; 0 where attention weights are not stored
    hidden, width, intermediate, heads : int, the layer's shape
    size : int, bytes of a number in the compute dtype
    inputs : int, bytes per token of the trained linear layers' inputs
    branches : int, intermediate-sized tensors that the MLP keeps; 1 for one without a gate
    """
    attention = length * heads * (4 if size == 4 else 4 + size)
    return tokens * (2 * 4 * hidden + 3 * size * width + branches * size * intermediate + attention + inputs)


def logits_bytes(supervised: int, vocabulary: int) -> int:
    """Three float32 tensors at the same time: log-probabilities, their gradient, the logits' gradient."""
    return 3 * 4 * supervised * vocabulary


def layer_bytes(
    record: dict, targets: list[dict], *, tokens: int, length: int, size: int, adapter_size: int, method: str,
    rank: int, lab: bool, inner_size: int,
) -> tuple[int, int]:
    """Bytes that one layer keeps, and bytes that computing it takes on top, at most.

    Parameters
    ----------
    record : dict, of `memory.as_record`
    targets : list of its modules that are trained or have an adapter
    tokens, length : int, as in `kept_bytes`
    size, adapter_size : int, bytes of a number passed from layer to layer, and of one in the adapter
    method : "full", "lora" or "qlora"
    rank : int
    lab : bool, eager attention and the lab's 4-bit layers; else attention that stores no weights, and peft's layers
    inner_size : int, bytes of a number inside a 4-bit layer, which is `size` unless the rest is in a wider dtype

    Returns
    -------
    (int, int)
    """
    hidden, intermediate, inner = record["hidden"], record["intermediate"], [t for t in targets if t["group"] != "head"]
    own = method == "qlora" and lab
    copied = method != "full" and size < adapter_size and not own
    if own and size != inner_size:  # each layer casts its own input
        inputs = inner_size * sum(one["in"] for one in inner)
    elif copied:
        inputs = adapter_size * sum(one["in"] for one in inner)
    else:
        inputs = size * sum({one["source"]: one["in"] for one in inner}.values())
    if method == "full":
        inputs += 2 * size * hidden  # a norm that learns keeps what it scales
    else:
        inputs += rank * (inner_size if own else adapter_size) * len(inner)  # x Aᵀ
    kept = kept_bytes(
        tokens, length if lab else 0, hidden, record["width"], intermediate, record["heads"], size, inputs,
        branches=3 if record["gated"] else 1,
    )  # fmt: skip
    # Backward through the MLP: two gradients of its width, or with the casts of peft's layers six in 16 bits.
    work = tokens * (12 * intermediate + 8 * hidden if copied else 2 * size * intermediate)
    if method == "qlora":  # one matrix, dequantized
        work += inner_size * max(one["out"] * one["in"] for one in record["modules"].values())
    if lab:  # gradients of the attention weights; what the MLP kept is gone by then
        work = max(work, tokens * ((8 if size == 4 else 4) * length * record["heads"] - 3 * size * intermediate))
    return kept, work
