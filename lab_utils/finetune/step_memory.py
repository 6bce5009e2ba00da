"""The bytes that the largest step of a run takes on top of its loaded model, by the memory model of page 07."""

from collections.abc import Iterable

from ..memory.estimates import MemoryEstimate, step_estimate
from ..models.registry import base_model
from .model_sizes import model_record


def step_memory(
    model, batches: Iterable[tuple[int, int, int]], *, inner_size: int, checkpointing: bool, fused: bool,
    moments: str = "float32",
) -> MemoryEstimate:  # fmt: skip
    """An estimate of the step that takes most: model and adapter, which are there already, are left out.

    Parameters
    ----------
    model : peft model with its adapters, on the device
    batches : (examples, tokens of the longest, positions with a label) of each step
    inner_size : int, bytes of a number in the compute dtype
    checkpointing : bool, activations recomputed in the backward pass
    fused : bool, the adapters compute with `fourbit.FourBitLoRA`; on plain weights that needs no more than peft's way
    moments : a name in `memory.estimates.MOMENTS`, of AdamW

    Returns
    -------
    MemoryEstimate, without weights and adapter. For a Llama equal to `memory.estimate`; for a family whose layers
    differ from Llama's, a Llama with its sizes.
    """
    record, base = model_record(model), base_model(model)
    size = base.get_input_embeddings().weight.element_size()
    targets, tensors, rank = _adapted(model, record)
    packed = any(hasattr(parameter, "quant_state") for parameter in base.parameters())
    eager = getattr(base.config, "_attn_implementation", None) == "eager"
    how = {
        "method": "qlora" if packed and (fused or not eager) else "lora", "rank": rank, "size": size,
        "inner_size": inner_size, "trained_size": 4, "moments": moments, "checkpointing": checkpointing,
        "lab": (packed and fused) or eager,
    }  # fmt: skip
    estimates = [
        step_estimate(
            record, targets, tensors, tokens=examples * longest, length=longest, supervised=supervised, **how
        )
        for examples, longest, supervised in set(batches)
    ]
    return max(estimates, key=lambda one: one.total_bytes)


def _adapted(model, record: dict) -> tuple[list[dict], list[tuple[int, int]], int]:
    """The modules of `record` that have an adapter, (numbers, times) of the trained tensors, and the rank."""
    names = {name.partition(".lora_A")[0] for name, one in model.named_parameters() if one.requires_grad}
    targets = [one for name, one in record["modules"].items() if any(each.endswith(f".{name}") for each in names)]
    trained = [one for one in model.parameters() if one.requires_grad]
    ranks = [min(one.shape) for one in trained if one.dim() == 2]
    return targets, [(one.numel(), 1) for one in trained], max(ranks, default=1)
