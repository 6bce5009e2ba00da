"""One linear layer with an adapter: peft's, and one trained with Adam by hand."""

import torch
from lora_models import peft
from torch import nn


class Net(nn.Module):
    """One layer under the name `layer`, for peft needs a model."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def with_adapter(config, *, weight=None):
    """(peft model around one linear layer named "0", its adapted layer)."""
    torch.manual_seed(1)
    base = nn.Sequential(nn.Linear(6, 5, bias=False))
    if weight is not None:
        base[0].weight.data.copy_(weight)
    model = peft.get_peft_model(base, config, adapter_name="first")
    return model, model.base_model.model[0]


def trained(alpha, rate_A, rate_B, steps):
    """ΔW after some steps of Adam on one layer; without eps, clipping and weight decay, B zero at the start."""
    generator = torch.Generator().manual_seed(0)
    A, x, y = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 6), (20, 6), (20, 5)))
    A, B = A.requires_grad_(), torch.zeros(5, 2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([{"params": [A], "lr": rate_A}, {"params": [B], "lr": rate_B}], eps=1e-150)
    for _ in range(steps):
        adam.zero_grad()
        (x @ (alpha / 2 * B @ A).T - y).square().mean().backward()
        adam.step()
    return (alpha / 2 * B @ A).detach()
