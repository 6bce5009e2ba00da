"""The peak of a training step beside page 07's estimate of it."""

import gc

from ..finetune import attach_adapter, build_optimizer, build_supervised
from ..finetune.optimizer import descend
from ..memory import estimate
from ..models import load_base
from .card import need_bytes
from .sections import Finding, Setting, Skipped
from .stand_in import MODEL, shape, standing_in, write_model
from .training import recipe

WITHIN = 0.25
MIB = 2**20
STEPS = ((1, 256, False), (4, 256, False), (8, 512, False), (8, 512, True))  # examples, tokens, checkpointing
TINY_STEPS = ((2, 64, False), (2, 64, True))


def peaks(setting: Setting) -> Finding:
    """Several shapes of model and batch: what torch counted against `memory.estimate`."""
    values, ratios = {}, []
    for name in setting.size(("SmolLM2-135M", "SmolLM2-1.7B"), ("tiny",)):
        folder = write_model(setting.scratch / name, name)
        for batch, length, checkpointing in setting.size(STEPS, TINY_STEPS):
            case = f"{name}, {batch} × {length}{', checkpointing' if checkpointing else ''}"
            try:
                with standing_in(folder):
                    values[case] = one = _peak(name, batch, length, checkpointing)
            except Skipped as reason:
                values[case] = str(reason)
                continue
            ratios.append(one["peak / estimate"])
    if not ratios:
        raise Skipped("this card has no room for any of the steps")
    text = f"{min(ratios):.2f} to {max(ratios):.2f} times the estimate, {len(ratios)} steps"
    return Finding(all(abs(ratio - 1) <= WITHIN for ratio in ratios), text, values)


def _peak(name: str, batch: int, length: int, checkpointing: bool) -> dict:
    """Of the third step of a training, everything in it: weights, adapter, moments, activations."""
    import torch

    from ..device import find_device

    gc.collect()  # what an earlier step left is not to be given back during this one
    device, one = find_device(), shape(name)
    start = torch.cuda.memory_allocated()
    model, _ = load_base(MODEL, "nf4", verbose=False)
    adapted = attach_adapter(model, recipe(1, rank=8))
    if checkpointing:
        adapted.activation_checkpointing_enable({"use_reentrant": False})
    optimizer = build_optimizer(adapted, 1e-4, device)
    eight_bit = "8bit" in type(optimizer).__name__
    paged = "Paged" in type(optimizer).__name__  # pages are not counted by torch
    said = estimate(
        one, "qlora", rank=8, batch_size=batch, sequence_length=length, dtype=device.compute_dtype, device="cuda",
        moments="8bit" if eight_bit else "float32", gradient_checkpointing=checkpointing,
    )  # fmt: skip
    expected = said.total_bytes - (said.optimizer_bytes if paged else 0)
    need_bytes(int(1.5 * said.total_bytes), f"a step of {name} with {batch} × {length} tokens")
    step = step_on(adapted, optimizer, device, batch, length)
    step(), step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - start
    return {"peak MiB": peak / MIB, "estimate MiB": expected / MIB, "peak / estimate": peak / expected,
            "reserved MiB": torch.cuda.max_memory_reserved() / MIB, "optimizer": type(optimizer).__name__}  # fmt: skip


def step_on(adapted, optimizer, device, batch: int, length: int):
    """A function that takes one training step on random tokens, every one of them supervised."""
    import torch

    loss_of = build_supervised(adapted)
    ids = torch.randint(3, 1000, (batch, length), generator=torch.Generator().manual_seed(0)).to("cuda")
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    scaler = torch.amp.GradScaler("cuda", enabled=device.mixed_precision == "fp16")

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=device.torch_dtype):
            loss = loss_of(**inputs) / ids.numel()
        descend(loss, optimizer, scaler)
        return float(loss.detach())

    return step
