"""memory: the guard of `finetune` against the bytes that a training step of the real model takes."""

import pytest
import torch
from memory_models import Live

from lab_utils.device import Device
from lab_utils.errors import LabError
from lab_utils.finetune.adapter import attach_adapter
from lab_utils.finetune.fourbit import slow_down, speed_up
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.supervision import IGNORED, build_supervised
from lab_utils.memory.saved import own_storages, saved_bytes
from lab_utils.memory.step import training_step_bytes
from lab_utils.models.registry import load_base

WITHIN = 0.25  # what the guard promises


@pytest.fixture(scope="module")
def model():
    base, _ = load_base("smollm2-135m", "nf4", verbose=False)
    return attach_adapter(base, Recipe(rank=8))


def prepare(model, examples: int, length: int, answer: int, checkpointing: bool, fused: bool):
    """A training step (a function that returns its loss) and what `training_step_bytes` predicts for it."""
    (speed_up if fused else slow_down)(model)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()
    model.zero_grad(set_to_none=True)
    ids = torch.randint(3, 49152, (examples, length), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, IGNORED)
    labels[:, -answer:] = ids[:, -answer:]
    mask = torch.ones_like(ids)
    mask[0, -1], labels[0, -1] = 0, IGNORED  # some padding, as in a real batch
    loss, config = build_supervised(model), model.get_base_model().config
    need = training_step_bytes(
        tokens=examples * length,
        longest=length,
        supervised_tokens=int((labels != IGNORED).sum()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        dtype_bytes=model.get_base_model().dtype.itemsize,
        checkpointing=checkpointing,
        fused=fused,
    )
    return lambda: loss(input_ids=ids, attention_mask=mask, labels=labels), need


def test_the_counter_counts():
    """1,000 floats live, 2,000 more that die, then 1,500: the peak is 3,000 floats, the end 2,500."""
    with Live(own=set()) as live:
        first = torch.ones(1000)
        view = first[10:]  # a view costs nothing
        second = first.new_zeros(2000)
        del second
        third = torch.ones(1500)
        view.add_(1)
    assert live.peak == 4 * 3000 and live.count() == 4 * 2500
    del third


@pytest.mark.parametrize(
    ("examples", "length", "answer", "checkpointing", "fused"),
    [
        (2, 64, 32, False, True),  # many logits
        (1, 192, 20, False, True),  # long: attention matrices
        (2, 80, 38, True, True),  # the logits are the peak
        (1, 384, 12, True, True),  # the recomputed layer is
        (2, 64, 32, False, False),  # peft's own forward
    ],
)
def test_activations_and_logits_are_a_steps_peak(model, examples, length, answer, checkpointing, fused):
    step, need = prepare(model, examples, length, answer, checkpointing, fused)
    with Live(own_storages(model)) as live:
        step().backward()
    # At the peak, where the backward pass begins, the adapters have no gradients yet.
    assert need["activations"] + need["logits"] == pytest.approx(live.peak, rel=WITHIN)


def test_the_same_in_float32_as_on_most_processors():
    base, _ = load_base("smollm2-135m", "nf4", Device("cpu", "any", "float32", "no bfloat16"), verbose=False)
    model = attach_adapter(base, Recipe(rank=8))
    step, need = prepare(model, 1, 128, 20, checkpointing=False, fused=False)
    with Live(own_storages(model)) as live:
        step().backward()
    assert need["activations"] + need["logits"] == pytest.approx(live.peak, rel=WITHIN)


@pytest.mark.parametrize("fused", [True, False])
def test_activations_are_what_autograd_saves(model, fused):
    step, need = prepare(model, 1, 96, 30, checkpointing=False, fused=fused)
    log_probabilities = need["logits"] / 3  # of the three, the one that is saved
    assert need["activations"] + log_probabilities == pytest.approx(saved_bytes(model, step), rel=WITHIN)


def test_gradients_and_optimizer_are_counted_exactly(model):
    step, need = prepare(model, 1, 16, 4, checkpointing=False, fused=True)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-9)
    step().backward()
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if value.dim()]
    for part, tensors in {
        "adapter": parameters, "gradients": [parameter.grad for parameter in parameters], "optimizer": state
    }.items():
        assert need[part] == sum(tensor.numel() * tensor.element_size() for tensor in tensors), part


def shape(**changes) -> dict:
    settings = {
        "tokens": 64, "longest": 16, "supervised_tokens": 8, "layers": 2, "hidden": 32, "intermediate": 96, "heads": 4,
        "vocabulary": 100, "trainable_parameters": 10, "dtype_bytes": 2, "checkpointing": False, "fused": True,
    }
    return {**settings, **changes}


def test_the_formula_by_hand():
    need = training_step_bytes(**shape())
    # Hidden-sized: 6 of 2 bytes and 2 of 4; intermediate-sized: 4 of 2; attention: 4 heads, once 4 bytes, once 2.
    layer = 64 * ((6 * 2 + 2 * 4) * 32 + 4 * 2 * 96 + (4 + 2) * 16 * 4)  # 114,688
    assert need == {
        "adapter": 40, "gradients": 40, "optimizer": 80, "activations": 2 * layer, "logits": 8 * 100 * 12
    }
    inputs = 2 * 64 * 32 * 2  # of both layers
    assert training_step_bytes(**shape(checkpointing=True))["activations"] == inputs + layer - need["logits"]
    large = training_step_bytes(**shape(checkpointing=True, vocabulary=10_000))  # logits larger than a layer
    assert large["activations"] == inputs
    peft_layer = 64 * ((3 * 2 + 8 * 4) * 32 + (3 * 2 + 4) * 96 + (4 + 2) * 16 * 4)
    assert training_step_bytes(**shape(fused=False))["activations"] == 2 * peft_layer
    for fused in (True, False):  # in float32 peft's copies are none
        wide = training_step_bytes(**shape(dtype_bytes=4, fused=fused))
        assert wide["activations"] == 2 * 64 * (8 * 4 * 32 + 4 * 4 * 96 + 4 * 16 * 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokens", 0), ("heads", None), ("intermediate", 96.0), ("supervised_tokens", -1), ("vocabulary", True),
     ("dtype_bytes", "2"), ("checkpointing", "no"), ("fused", 1), ("hidden", float("nan"))],
)  # fmt: skip
def test_a_shape_that_is_none_is_named(name, value):
    with pytest.raises(LabError, match=f"{name}="):
        training_step_bytes(**shape(**{name: value}))
