"""One fault of each kind that a pretended card must catch: see pretended_card.py."""

import io
import multiprocessing
import os
import threading

import numpy as np
import pretended_card
import torch
from torch import nn
from torch.nn import functional as F


def card(*shape, **options):
    return torch.randn(*shape, device="cuda", **options)


def whole(*shape):
    return torch.ones(*shape, dtype=torch.int64, device="cuda")


def scaled(dtype):
    """A step that GradScaler scales; returns (did the weights move, the scale)."""
    weight = nn.Parameter(card(4, 4).to(dtype))
    before, scaler = weight.detach().clone(), torch.amp.GradScaler("cuda", init_scale=8.0)
    optimizer = torch.optim.SGD([weight], 0.1)
    scaler.scale((weight.float() ** 2).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    return not torch.equal(before, weight.detach()), scaler.get_scale()


def in_a_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(pretended_card.answer(function)))
    thread.start()
    thread.join()
    return found[0]


def in_a_fork(function):
    if not hasattr(os, "fork"):
        return "no forks on this system"
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(pretended_card.answer(function)))
    process.start()
    process.join()
    return queue.get()


def too_much():
    torch.cuda.set_per_process_memory_fraction(0.001)
    try:
        return card(2**23).shape[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def saved() -> io.BytesIO:
    file = io.BytesIO()
    torch.save({"weight": card(3)}, file)
    file.seek(0)
    return file


def loaded(**options):
    return torch.load(saved(), weights_only=True, **options)["weight"]


FAULTS = {
    "two devices": lambda: card(3, 4) @ torch.ones(4, 2),
    "two devices, in place": lambda: torch.ones(3).add_(card(3)),
    "two devices, in out=": lambda: torch.mm(card(2, 2), card(2, 2), out=torch.empty(2, 2)),
    "two devices, in a list": lambda: torch.cat([card(2), torch.ones(2)]),
    "one number from the CPU, joined": lambda: torch.stack([card(2).sum(), torch.tensor(1.0)]),
    "an optimizer's moments": lambda: torch._foreach_add([card(2)], [torch.ones(2)]),
    "tokens on the CPU": lambda: F.embedding(torch.tensor([1, 2]), card(5, 3)),
    "a batch on the CPU": lambda: nn.Linear(3, 2).to("cuda")(torch.ones(1, 3)),
    "a loss with labels on the CPU": lambda: F.cross_entropy(card(2, 5), torch.tensor([1, 2])),
    "a CPU tensor indexed by the card": lambda: torch.ones(5)[torch.tensor([1], device="cuda")],
    "values of the CPU written by index": lambda: card(5).index_put_((whole(2),), torch.ones(2)),
    "two cards": lambda: torch.ones(2, device="cuda:0") + torch.ones(2, device="cuda:1"),
    "nothing to copy": lambda: torch.empty(2, device="meta").cpu(),
    "nothing to copy to the card": lambda: torch.empty(2, device="meta").cuda(),
    "numpy": lambda: card(3).numpy(),
    "numpy of a parameter": lambda: nn.Parameter(card(3)).detach().numpy(),
    "np.asarray": lambda: np.asarray(card(3)),
    "the CPU's generator": lambda: card(3, generator=torch.Generator()),
    "the CPU's generator, in place": lambda: card(3).normal_(generator=torch.Generator()),
    "the card's generator": lambda: torch.randn(3, generator=torch.Generator("cuda")),
    "a product of integers": lambda: whole(2, 2) @ whole(2, 2),
    "a batched product of integers": lambda: torch.einsum("bij,bjk->bik", whole(2, 2, 2), whole(2, 2, 2)),
    "a histogram": lambda: torch.histogram(card(8), 4),
    "a forked process": lambda: in_a_fork(lambda: card(3) * 2),
    "bfloat16 unscaled": lambda: scaled(torch.bfloat16),
    "a checkpoint loaded to the card it came from": lambda: loaded() + torch.ones(3),
    "two devices, in a thread": lambda: in_a_thread(lambda: card(3) + torch.ones(3)),
    "two devices, in a layer's own tensor": lambda: nn.LayerNorm(4)(card(2, 4)),
    "more than the card has": too_much,
}  # fmt: skip
