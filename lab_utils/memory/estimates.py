"""The bytes of one training step, part by part, from a model's sizes: those of a published shape, or of a loaded model.

Two moments decide the peak of a step. When the backward pass begins, every activation is there and no gradient yet;
when it ends, every gradient is there and no activation. Weights, adapter and optimizer states are there in both.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import choose, whole
from .activations import layer_bytes, logits_bytes

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MOMENTS = (*DTYPE_BYTES, "8bit")
SMALLEST_8BIT = 4096  # bitsandbytes keeps the moments of smaller tensors in float32


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one training step.

    Attributes
    ----------
    weights_bytes : int, the base model, quantized or not
    unpacked_bytes : int, first-level absmax in float32, which `fourbit.FrozenWeight` keeps too (CPU, "qlora")
    adapter_bytes, gradients_bytes, optimizer_bytes : int
    activations_bytes : int, what the forward pass keeps for the backward pass: of all layers, or with gradient
        checkpointing the input of each
    begin_bytes : int, what is added as the backward pass begins: the logits' three float32 tensors, or one
        layer's work, whichever is larger
    end_bytes : int, what is there as it ends, without the gradients
    layers : int, transformer layers; of an estimate that says nothing of single layers, 0
    kept_bytes, gradient_bytes : int, a layer's share of the activations and of the gradients
    work_bytes : int, what the backward pass of one layer takes while it runs, the layer computed again included
    head_bytes : int, the gradient of the output matrix, which is there before those of the layers; 0 where frozen
    update_bytes : int, what the optimizer's step takes while it runs; 0 for one that goes tensor by tensor
    """

    weights_bytes: int
    unpacked_bytes: int
    adapter_bytes: int
    optimizer_bytes: int
    gradients_bytes: int
    activations_bytes: int
    begin_bytes: int
    end_bytes: int
    layers: int = 0
    kept_bytes: int = 0
    gradient_bytes: int = 0
    work_bytes: int = 0
    head_bytes: int = 0
    update_bytes: int = 0

    @property
    def resident_bytes(self) -> int:
        """What is always there, from the second step on."""
        return self.weights_bytes + self.unpacked_bytes + self.adapter_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> int:
        """The peak: the larger of the two moments."""
        return max(sum(parts.values()) for parts in self.both_moments().values())

    def parts(self) -> dict[str, int]:
        """What the peak is made of; adds up to `total_bytes`. Gradients and activations are never both in it."""
        begins, ends = self.both_moments().values()
        return begins if sum(begins.values()) > sum(ends.values()) else ends

    def both_moments(self) -> dict[str, dict[str, int]]:
        """What is in memory as the backward pass begins, and as it ends: each a dict part -> bytes.

        In between activations go and gradients come, layer by layer; the peak is the larger of the two. An optimizer
        whose step takes more than what is there as the pass ends counts as its end.
        """
        always = {
            "weights": self.weights_bytes + self.unpacked_bytes,
            "adapter": self.adapter_bytes,
            "optimizer": self.optimizer_bytes,
        }
        begins = {"gradients": 0, "activations": self.activations_bytes, "transients": self.begin_bytes}
        ends = {"gradients": self.gradients_bytes, "activations": 0}
        ends["transients"] = max(self.end_bytes, self.update_bytes)
        return {"backward begins": always | begins, "backward ends": always | ends}


def moments_bytes(numbers: int, moments: str) -> int:
    """Bytes of AdamW's two moments of one tensor; "8bit" adds a float32 for each 256 numbers, as bitsandbytes does.

    Raises
    ------
    LabError
        `numbers` is not a whole number of 0 or more, or `moments` is not in `MOMENTS`.
    """
    numbers, moments = whole("numbers", numbers, 0), choose("moments", moments, MOMENTS)
    if moments != "8bit":
        return 2 * DTYPE_BYTES[moments] * numbers
    return 8 * numbers if numbers < SMALLEST_8BIT else 2 * (numbers + 4 * -(-numbers // 256))


def step_estimate(
    record: dict, targets: list[dict], tensors: Iterable[tuple[int, int]], *, tokens: int, length: int,
    supervised: int, method: str, rank: int, size: int, inner_size: int, trained_size: int, moments: str,
    checkpointing: bool, lab: bool, weights_bytes: int = 0, unpacked_bytes: int = 0, adapter_bytes: int = 0,
    foreach: bool = False,
) -> MemoryEstimate:
    """The bytes of a step of a model whose sizes are known.

    Parameters
    ----------
    record : dict with "hidden", "layers", "heads", "width", "intermediate", "vocabulary", "tied", "gated" and
        "modules", as `memory.step.as_record` gives it
    targets : list of its modules that are trained or have an adapter
    tensors : (numbers, times) of every kind of trained tensor
    tokens, length, supervised : int, of the batch with padding, of its longest example, and positions with a label
    method : "full", "lora" or "qlora"
    rank : int
    size, inner_size, trained_size : int, bytes of a number passed from layer to layer, inside a 4-bit layer, and
        trained
    moments : a name in `MOMENTS`
    checkpointing : bool
    lab : bool, eager attention and the lab's 4-bit layers; else attention that stores no weights, and peft's layers
    weights_bytes, unpacked_bytes, adapter_bytes : int, what is handed on. 0 leaves an estimate of what comes on top of
        a model that is there already.
    foreach : bool, as in `memory.estimate`

    Returns
    -------
    MemoryEstimate
    """
    full, tensors = method == "full", list(tensors)
    kept, work = layer_bytes(
        record, targets, tokens=tokens, length=length, size=size, adapter_size=trained_size, method=method,
        rank=rank, lab=lab, inner_size=inner_size,
    )  # fmt: skip
    given = tokens * record["hidden"] * size  # what a layer reads
    final = tokens * record["hidden"] * (4 + size * full)  # of the norm after the last layer
    logits, head = size * supervised * record["vocabulary"], size * record["vocabulary"] * record["hidden"]
    again = kept + work if checkpointing else work
    gradients = trained_size * sum(numbers * count for numbers, count in tensors)
    outside = full * head * (1 if record["tied"] else 2)  # gradients of the output matrix and of the embedding
    optimizer = sum(count * moments_bytes(numbers, moments) for numbers, count in tensors)
    update = optimizer // 2 if foreach and moments != "8bit" else 0  # the roots of all second moments, side by side
    return MemoryEstimate(
        weights_bytes=weights_bytes,
        unpacked_bytes=unpacked_bytes,
        adapter_bytes=adapter_bytes,
        optimizer_bytes=optimizer,
        gradients_bytes=gradients,
        activations_bytes=record["layers"] * (given if checkpointing else kept) + final,
        begin_bytes=max(logits_bytes(supervised, record["vocabulary"]), full * (head + logits),
                        full * head + again - final),
        end_bytes=max(2 * head if full and record["tied"] else 0, again),  # a tied matrix has two gradients to add
        layers=record["layers"],
        kept_bytes=given if checkpointing else kept,
        gradient_bytes=max(gradients - outside, 0) // record["layers"],
        work_bytes=again,
        head_bytes=full * head,
        update_bytes=update,
    )  # fmt: skip
