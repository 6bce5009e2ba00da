"""The paged 8-bit optimizer: does it page, does it step as the one that does not, and what does a step of each take?"""

import statistics
import time

from .sections import Finding, Setting

SIZES = (200_000, 5_000, 100)  # numbers in a tensor; bitsandbytes pages from 100,000 on, and has 8 bits from 4,096 on
STEPS = 3
TENSORS = 420  # adapters of SmolLM2-135M: 30 layers of 7 matrices, A and B
RATE = 1e-2


def paged(setting: Setting) -> Finding:
    """Equal steps of PagedAdamW8bit and AdamW8bit, and the times of both and of torch's fused AdamW."""
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    (ours, pages), (theirs, _) = (_stepped(kind) for kind in (PagedAdamW8bit, AdamW8bit))
    off = [float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True)]
    values = {"the large tensor is paged": pages, "largest difference of a number": max(off)}
    values["seconds of one step for 420 tensors" + (" (pretended)" if setting.pretended else "")] = _times(setting)
    problems = [] if pages else ["its large tensor is not paged"]
    problems += [] if max(off) == 0 else [f"its steps differ by {max(off):.3g}"]
    return Finding(not problems, "; ".join(problems) or "paged, and equal number for number", values)


def _stepped(kind) -> tuple[list, bool]:
    """(parameters after some steps on given gradients, are the first one's moments in pages?)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(size, generator=generator).to("cuda")) for size in SIZES]
    optimizer = kind(parameters, lr=RATE)
    for _ in range(STEPS):
        for one in parameters:
            one.grad = torch.randn(one.shape, generator=generator).to("cuda")
        optimizer.step()
    torch.cuda.synchronize()
    moments = optimizer.state[parameters[0]]["state1"]
    return [one.detach() for one in parameters], bool(getattr(moments, "is_paged", False))


def _times(setting: Setting) -> dict[str, float]:
    """Median seconds of a step over tensors as adapters have them, by optimizer."""
    import torch
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    found = {}
    ways = {"PagedAdamW8bit": PagedAdamW8bit, "AdamW8bit": AdamW8bit,
            "fused AdamW": lambda held, lr: torch.optim.AdamW(held, lr=lr, fused=True)}  # fmt: skip
    for name, build in ways.items():
        parameters = [torch.nn.Parameter(torch.zeros(8, 576, device="cuda")) for _ in range(setting.size(TENSORS, 4))]
        for one in parameters:
            one.grad = torch.ones_like(one)
        optimizer, seconds = build(parameters, lr=RATE), []
        for _ in range(setting.size(10, 2)):
            torch.cuda.synchronize()
            began = time.perf_counter()
            optimizer.step()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        found[name] = statistics.median(seconds[1:])
    return found
