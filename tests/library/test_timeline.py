"""timeline: the estimate's own peak, its own two moments, and what a real step's trace looks like."""

import random

import pytest
import torch

from lab_utils.counts import ARCHITECTURES
from lab_utils.errors import LabError
from lab_utils.memory import METHODS, MemoryEstimate, estimate, tensor_peak, tensor_trace, timeline


def some_steps(count: int = 150):
    """(method, checkpointing, estimate) of random settings."""
    draw = random.Random(0)
    for _ in range(count):
        method, checkpointing = draw.choice(METHODS), draw.random() < 0.5
        yield method, checkpointing, estimate(
            draw.choice(list(ARCHITECTURES)), method, draw.choice((1, 8, 64)), batch_size=draw.choice((1, 4, 32)),
            sequence_length=draw.choice((64, 512, 4096)), gradient_checkpointing=checkpointing,
            device=draw.choice(("cpu", "cuda")),
        )  # fmt: skip


def test_its_peak_is_the_estimates_to_the_byte():
    for method, checkpointing, one in some_steps():
        moments = timeline(one, method, checkpointing)
        assert max(each.total_bytes for each in moments) == one.total_bytes
        parts = [each.parts for each in moments]
        assert all(moment in parts for moment in one.both_moments().values())


def test_it_starts_and_ends_with_what_always_stays():
    for method, checkpointing, one in some_steps(20):
        moments = timeline(one, method, checkpointing)
        assert moments[0].total_bytes == moments[-1].total_bytes == one.resident_bytes
        assert [each.at for each in moments] == sorted({each.at for each in moments})
        phases = [each.phase for each in moments]
        assert list(dict.fromkeys(phases)) == ["forward", "backward", "optimizer"]
        activations = [each.parts["activations"] for each in moments]
        top = activations.index(max(activations))
        assert activations[: top + 1] == sorted(activations[: top + 1])
        assert activations[top:] == sorted(activations[top:], reverse=True)
        gradients = [each.parts["gradients"] for each in moments]
        assert gradients[:-1] == sorted(gradients[:-1]) and max(gradients) == one.gradients_bytes


def test_a_backward_pass_is_as_wide_as_its_products():
    widths = {}
    for method in METHODS:
        for checkpointing in (False, True):
            one = estimate("SmolLM2-135M", method, gradient_checkpointing=checkpointing)
            at = [each.at for each in timeline(one, method, checkpointing) if each.phase == "backward"]
            widths[method, checkpointing] = at[2] - at[1]
    assert widths == {("full", False): 2, ("full", True): 3, ("lora", False): 1, ("lora", True): 2,
                      ("qlora", False): 1, ("qlora", True): 2}  # fmt: skip


def test_what_says_nothing_of_layers_is_refused():
    with pytest.raises(LabError, match="single layers"):
        timeline(MemoryEstimate(1, 0, 0, 0, 0, 5, 5, 5), "lora")
    with pytest.raises(LabError, match="method"):
        timeline(estimate("GPT-2", "lora"), "dora")


def test_a_trace_rises_forward_and_has_the_measured_peak():
    """Eight layers that each keep 40,000 bytes: half are there halfway through, and the peak is `tensor_peak`'s."""
    layers = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.Tanh()) for _ in range(8)))
    optimizer, x = torch.optim.SGD(layers.parameters(), lr=0.0), torch.ones(100, 100)

    def step():
        layers(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    trace, peak = tensor_trace(step, bins=50), tensor_peak(step)
    assert list(trace) == ["forward", "backward", "optimizer"]
    assert max(held for rows in trace.values() for _, held in rows) == peak
    forward = [held for _, held in trace["forward"]]
    assert forward[-1] >= 8 * 40_000 and forward[0] <= 80_000
    assert trace["backward"][-1][1] >= 4 * 8 * 10_100 and trace["optimizer"][-1][1] < forward[-1]
    assert all(0 <= share <= 1 for rows in trace.values() for share, _ in rows)
