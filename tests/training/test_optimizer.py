"""The optimizer: only of what is trained, and a step whose gradient is no number changes nothing."""

import pytest
import torch

from lab_utils.device import Device
from lab_utils.errors import LabError
from lab_utils.finetune.optimizer import build_optimizer, decide_optimizer, descend

CPU = Device("cpu", "any", "float32", "")


def test_the_optimizer_is_paged_on_cuda_only():
    assert decide_optimizer("cuda") == "paged_adamw_8bit"
    assert decide_optimizer("cuda", paged=False) == "adamw"
    assert decide_optimizer("cpu") == "adamw"


def test_a_model_with_nothing_to_train_is_named():
    with pytest.raises(LabError, match="Linear has nothing to train: put an adapter on it"):
        build_optimizer(torch.nn.Linear(2, 2).requires_grad_(False), 1e-3, CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_is_refused_and_nothing_is_changed(value):
    layer = torch.nn.Linear(2, 2)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    optimizer, off = build_optimizer(layer, 0.1, CPU), torch.amp.GradScaler("cpu", enabled=False)
    layer.weight.register_hook(lambda gradient: gradient * value)
    with pytest.raises(LabError, match=r"gradient is (nan|inf), with a loss of .*: lower the learning rate"):
        descend(layer(torch.ones(1, 2)).square().sum(), optimizer, off)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_with_loss_scaling_such_a_step_is_left_out():
    layer = torch.nn.Linear(2, 2)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    optimizer, scaler = build_optimizer(layer, 0.1, CPU), torch.amp.GradScaler("cpu")
    handle = layer.weight.register_hook(lambda gradient: gradient * float("inf"))
    descend(layer(torch.ones(1, 2)).square().sum(), optimizer, scaler)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    handle.remove()
    optimizer.zero_grad()
    descend(layer(torch.ones(1, 2)).square().sum(), optimizer, scaler)
    assert not torch.equal(layer.weight, before["weight"])
