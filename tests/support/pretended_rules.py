"""What a pretended card must let through, and what it answers; with the faults, all in one process.

python tests/support/pretended_rules.py 2xT4
"""

import copy
import importlib.util
import sys

import pretended_card
import torch
from pretended_faults import FAULTS, card, loaded, scaled, whole
from torch import nn
from torch.nn import functional as F

from lab_utils.pretended import enable, enabled, overflowing


class Asks(nn.Module):
    """A layer that makes a tensor where its input is said to be."""

    def forward(self, x):
        return x * torch.arange(x.shape[-1], device=x.device)


class AsksBackwards(torch.autograd.Function):
    """A gradient that needs a tensor where its input is said to be."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * torch.full_like(x, 2.0) * torch.ones(x.shape, device=x.device)


def checkpointed(layer, x):
    from torch.utils.checkpoint import checkpoint

    checkpoint(layer, x, use_reentrant=False).sum().backward()
    return str(x.grad.device)


def device_name(tensor):
    return str(tensor.device)


def float16_sum():
    """The sum of 4096 products of 1 and 1: beyond 2048 float16 cannot count by one, so it is summed in float32."""
    ones = torch.ones(1, 4096, dtype=torch.float16, device="cuda")
    out = torch.empty(1, 1, dtype=torch.float16, device="cuda")
    torch.mm(ones, ones.T, out=out)
    return [float(ones @ ones.T), float(out), float(torch.zeros_like(out).addmm_(ones, ones.T)), str(out.device)]


def float32_results():
    """Products of float16 with `out_dtype`, which only CUDA has: [value, dtype] of mm, bmm and addmm; then of out=."""
    ones = torch.ones(1, 4096, dtype=torch.float16, device="cuda")
    kind, one = torch.float32, torch.ones(1, 1, device="cuda")
    results = [torch.mm(ones, ones.T, kind), torch.bmm(ones[None], ones.T[None], kind)]
    results.append(torch.addmm(0 * one, ones, ones.T, out_dtype=kind))
    torch.addmm(one, ones, ones.T, out_dtype=kind, out=one)
    return [[[float(result), str(result.dtype)] for result in results], float(one), str(one.dtype)]


def saved_for_backward():
    """The devices that a pack hook of autograd sees."""
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: seen.append(device_name(one)) or one, lambda one: one):
        (card(3, requires_grad=True) ** 2).sum()
    return sorted({*seen})


def fused():
    """torch's fused AdamW on the card: its moments' and its step's device, and whether the weight moved."""
    weight = nn.Parameter(card(4))
    optimizer, before = torch.optim.AdamW([weight], fused=True), weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    state = optimizer.state[weight]
    return [device_name(state["exp_avg"]), device_name(state["step"]), not torch.equal(before, weight.detach())]


def dtypes(kind: str, on: str):
    """What a product and a softmax are computed in under autocast for `kind`, of tensors on `on`."""
    x, w = torch.ones(2, 3, device=on), torch.ones(4, 3, device=on)
    with torch.autocast(kind, torch.bfloat16):
        y = F.linear(x, w)
        return [str(one.dtype).removeprefix("torch.") for one in (y, y.softmax(-1), F.layer_norm(y, (4,)), y * 2)]


def memory():
    """(used, peak, still reserved, free) of a mebibyte that came and went, as differences; then after empty_cache."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, free = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]
    block = torch.empty(2**22, dtype=torch.uint8, device="cuda")
    used = torch.cuda.memory_allocated() - before
    del block
    after = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    kept = free - torch.cuda.mem_get_info()[0]
    torch.cuda.empty_cache()
    return [used, *after, kept, free - torch.cuda.mem_get_info()[0]]


def random_numbers():
    """The card's numbers do not move the CPU's, are the same after a seed, and come back with their state."""
    cpu = torch.get_rng_state()
    torch.manual_seed(3)
    first, state = card(4), torch.cuda.get_rng_state()
    dropped = F.dropout(torch.ones(64, device="cuda"), 0.5)
    torch.cuda.set_rng_state(state)
    again = F.dropout(torch.ones(64, device="cuda"), 0.5)
    torch.manual_seed(3)
    other_cpu = torch.get_rng_state()
    card(4)
    return [
        torch.equal(dropped, again), torch.equal(torch.get_rng_state(), other_cpu),
        torch.equal(first, randn_after_seed(3)), not torch.equal(cpu, other_cpu),
    ]  # fmt: skip


def randn_after_seed(seed):
    torch.manual_seed(seed)
    return card(4)


def trained(kind: str):
    """bitsandbytes' paged 8-bit AdamW on one tensor: its state's device, whether paged, and whether it moved."""
    import bitsandbytes

    weight = nn.Parameter(card(256, 512))
    optimizer = bitsandbytes.optim.PagedAdamW8bit([weight], 0.1)
    weight.grad, before = torch.ones_like(weight), weight.detach().clone()
    optimizer.step()
    state = optimizer.state[weight]["state1"]
    return [str(state.device), state.is_paged, not torch.equal(before, weight.detach())]


def quantized(kind: str):
    """A linear layer of bitsandbytes moved to the card: the weight's type, where it computes, a gradient's device."""
    import bitsandbytes

    plain = nn.Linear(64, 32, bias=False)
    made = {
        "4 bits": lambda: bitsandbytes.nn.Linear4bit(64, 32, bias=False, quant_type="nf4", compute_dtype=torch.float16),
        "int8": lambda: bitsandbytes.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False),
    }[kind]()
    made.load_state_dict(plain.state_dict())
    made = made.to("cuda")
    x = card(3, 64, dtype=torch.float16, requires_grad=True)
    y = made(x)
    y.sum().backward()
    error = float((y.float().cpu() - plain(x.detach().float().cpu())).norm() / y.float().norm().cpu())
    return [str(made.weight.dtype), str(y.device), str(x.grad.device), error < 0.2, torch.isfinite(y).all().item()]


ALLOWED = {
    "one number from the CPU": lambda: float((card(3) * torch.tensor(0.0)).sum()),
    "indices of the CPU": lambda: device_name(card(5)[torch.tensor([1, 2])]),
    "a copy from the CPU": lambda: device_name(torch.empty(3, device="cuda").copy_(torch.ones(3))),
    "a tensor on its input's device": lambda: device_name(Asks()(card(2, 3))),
    "a gradient's own tensor": lambda: [(x := card(3, requires_grad=True)), AsksBackwards.apply(x).sum().backward(),
                                        device_name(x.grad)][-1],
    "recomputed": lambda: checkpointed(Asks(), card(2, 3, requires_grad=True)),
    "to and back, with gradients": lambda: [(x := torch.ones(3, requires_grad=True)),
                                            (x.to("cuda") * 2).cpu().sum().backward(), x.grad.tolist(),
                                            device_name(x.grad)][-2:],
    "numpy after cpu": lambda: card(3).cpu().numpy().shape[0],
    "a deep copy": lambda: device_name(copy.deepcopy(nn.BatchNorm1d(3).cuda()).running_mean),
    "a module moved": lambda: sorted({device_name(p) for p in nn.Linear(2, 2).to("cuda").parameters()}),
    "a number names a card": lambda: [device_name(torch.ones(2).to(0)), str(torch.device(0))],
    "integers multiplied as floats": lambda: (whole(2, 2).float() @ whole(2, 2).float()).tolist(),
    "the card's generator": lambda: device_name(card(3, generator=torch.Generator("cuda").manual_seed(1))),
    "float32 unscaled": lambda: scaled(torch.float32),
    "float16 sums": float16_sum,
    "float32 results of float16": float32_results,
    "saved for backward": saved_for_backward,
    "fused AdamW": fused,
    "autocast on the card": lambda: dtypes("cuda", "cuda"),
    "the CPU's autocast on the card": lambda: dtypes("cpu", "cuda"),
    "the card's autocast on the CPU": lambda: dtypes("cuda", "cpu"),
    "memory": memory,
    "random numbers": random_numbers,
    "loaded to the CPU": lambda: device_name(loaded(map_location="cpu")),
    "4 bits": lambda: quantized("4 bits"),
    "int8": lambda: quantized("int8"),
    "pages": lambda: trained("paged"),
    "without triton": lambda: importlib.util.find_spec("triton") is None,
    "events": lambda: elapsed() >= 0.0,
    "facts": lambda: [torch.cuda.get_device_name(), list(torch.cuda.get_device_capability()),
                      torch.cuda.device_count(), torch.cuda.is_bf16_supported(including_emulation=False),
                      enabled().supported],
}  # fmt: skip


def elapsed() -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def chosen():
    from lab_utils.device import find_device

    return str(find_device())


def overflown():
    """Two steps that are to overflow, and the third: (moved, scale) of each."""
    with overflowing(2):
        return [scaled(torch.float32) for _ in range(3)]


ALLOWED |= {
    "overflow": overflown,
    "the second card": lambda: device_name(torch.ones(2, device="cuda:1") * 2),
    "from one card to the other": lambda: device_name(torch.ones(2, device="cuda:0").to("cuda:1")),
    "enabled again": lambda: enable(sys.argv[1]) is enabled(),
    "another card": lambda: enable("L4"),
}
WITHOUT_KERNELS = {
    "first kernel": lambda: torch.ones(2, device="cuda"),
    "product": lambda: torch.empty(2, device="cuda") * 2,
    "copied": lambda: device_name(torch.ones(2).to("cuda")),
    "chosen": lambda: chosen(),
}

if __name__ == "__main__":
    checks = {f"fault: {name}": check for name, check in FAULTS.items()} | ALLOWED
    pretended_card.main(WITHOUT_KERNELS if sys.argv[1] == "P100" else checks)
