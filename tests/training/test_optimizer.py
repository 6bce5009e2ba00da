"""The optimizer: only of what is trained, and a step whose gradient is not a number changes nothing."""

import pytest
import torch

from lab_utils.device import Device
from lab_utils.errors import LabError
from lab_utils.finetune import optimizer as module
from lab_utils.finetune.optimizer import FEW, build_optimizer, decide_optimizer, descend, optimizer_of, set_rate

CPU = Device("cpu", "any", "float32", "")


def test_the_optimizer_is_paged_only_where_that_is_what_makes_a_step_fit():
    """On CUDA, with many trained numbers, one process, and moments in float32 that do not fit."""
    assert decide_optimizer("cuda", FEW, fits=False) == "paged_adamw_8bit"
    for settings in ({"kind": "cpu"}, {"trained": FEW - 1}, {"fits": True}, {"sharded": True}):
        assert decide_optimizer(**{"kind": "cuda", "trained": FEW, "fits": False, **settings}) == "adamw"


def test_a_state_tells_its_optimizer():
    from bitsandbytes.optim import PagedAdamW8bit

    layer = torch.nn.Linear(64, 128)
    for optimizer, name in ((torch.optim.AdamW(layer.parameters()), "adamw"),
                            (PagedAdamW8bit(layer.parameters()), "paged_adamw_8bit")):
        assert optimizer_of(optimizer.state_dict()) is None
        layer(torch.ones(1, 64)).sum().backward()
        optimizer.step()
        assert optimizer_of(optimizer.state_dict()) == name
        assert isinstance(build_optimizer(layer, 1e-3, CPU, name=name), type(optimizer))


def test_an_optimizer_that_cannot_be_had_is_named(monkeypatch):
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(LabError, match=r"paged_adamw_8bit .*the run is sharded"):
        build_optimizer(layer, 1e-3, CPU, name="paged_adamw_8bit", sharded=True)
    monkeypatch.setattr(module, "four_bit_problem", lambda: "there is no bitsandbytes")
    with pytest.raises(LabError, match=r"paged_adamw_8bit .*there is no bitsandbytes"):
        build_optimizer(layer, 1e-3, CPU, name="paged_adamw_8bit")
    with pytest.raises(LabError, match="Unknown optimizer 'sgd'"):
        build_optimizer(layer, 1e-3, CPU, name="sgd")


def test_groups_keep_their_share_of_the_rate():
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW([{"params": [layer.weight], "share": 16.0}, {"params": [layer.bias]}])
    set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [4.0, 0.25]


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
