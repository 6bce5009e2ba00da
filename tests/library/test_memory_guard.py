"""The guard before training: what it expects of a step, beside `memory.estimate` and the bytes that a step takes."""

import pytest
import torch
from memory_models import TINY, Live, tiny
from pefts_forward import slow_down

from lab_utils.counts.architectures import Architecture
from lab_utils.finetune.adapter import attach_adapter
from lab_utils.finetune.answer_loss import build_supervised
from lab_utils.finetune.fourbit import speed_up
from lab_utils.finetune.model_sizes import model_record
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.step_memory import step_memory
from lab_utils.finetune.supervision import IGNORED
from lab_utils.memory import estimate
from lab_utils.memory.saved import own_storages
from lab_utils.memory.step import as_record
from lab_utils.models.registry import quantization_config

WITHIN = 0.12  # of the bytes that a step takes; of a real model a tenth, see test_memory.py
SHAPE = Architecture(
    name="small", family="llama", hidden=192, n_layers=4, heads=6, kv_heads=2, head_size=32, intermediate=512,
    vocabulary=4096,
)  # fmt: skip


def build(folder, dtype=torch.bfloat16):
    """A random Llama of `SHAPE` in nf4 with adapters of rank 8."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from lab_utils.device import Device

    config = LlamaConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, intermediate_size=512,
        vocab_size=4096, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    device = Device("cpu", "any", str(dtype).removeprefix("torch."), "as said")
    base = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantization_config("nf4", device), dtype=dtype, attn_implementation="eager"
    )
    return attach_adapter(base, Recipe(rank=8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(tmp_path_factory.mktemp("small"))


def prepare(model, examples: int, length: int, answer: int, checkpointing: bool, fused: bool):
    """A training step (a function that returns its loss), and what is expected of it."""
    (speed_up if fused else slow_down)(model)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()
    model.zero_grad(set_to_none=True)
    ids = torch.randint(3, 4096, (examples, length), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, IGNORED)
    labels[:, -answer:] = ids[:, -answer:]
    mask = torch.ones_like(ids)
    mask[0, -1], labels[0, -1] = 0, IGNORED  # some padding, as in a real batch
    loss, size = build_supervised(model), model.get_base_model().dtype.itemsize
    supervised = int((labels != IGNORED).sum())
    need = step_memory(
        model, [(examples, length, supervised)], inner_size=size, checkpointing=checkpointing, fused=fused
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


STEPS = [  # examples, length, answer, checkpointing, fused
    (2, 64, 32, False, True),  # many logits
    (1, 192, 20, False, True),  # long: attention matrices
    (2, 80, 38, True, True),  # the logits are the peak
    (1, 384, 12, True, True),  # the recomputed layer is
    (2, 64, 32, False, False),  # peft's own forward
]


@pytest.mark.parametrize(("examples", "length", "answer", "checkpointing", "fused"), STEPS)
def test_what_is_expected_of_a_step_is_what_it_takes(model, examples, length, answer, checkpointing, fused):
    step, need = prepare(model, examples, length, answer, checkpointing, fused)
    with Live(own_storages(model)) as live:
        step().backward()
    assert need.total_bytes - need.optimizer_bytes == pytest.approx(live.peak, rel=WITHIN)


def test_the_same_in_float32_as_on_most_processors(tmp_path):
    model = build(tmp_path, torch.float32)
    step, need = prepare(model, 1, 128, 20, checkpointing=False, fused=True)
    with Live(own_storages(model)) as live:
        step().backward()
    assert need.total_bytes - need.optimizer_bytes == pytest.approx(live.peak, rel=WITHIN)


@pytest.mark.parametrize(("examples", "length", "answer", "checkpointing", "fused"), STEPS[:4])
def test_of_a_llama_it_is_the_estimate_of_page_07(model, examples, length, answer, checkpointing, fused):
    """Model and adapter are there already."""
    _, need = prepare(model, examples, length, answer, checkpointing, fused)
    one = estimate(
        SHAPE, "qlora", batch_size=examples, sequence_length=length, supervised_tokens=examples * answer - 1,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    there = one.weights_bytes + one.unpacked_bytes + one.adapter_bytes
    assert need.total_bytes == one.total_bytes - there
    assert need.parts() == {**one.parts(), "weights": 0, "adapter": 0}


@pytest.mark.parametrize("name", [name for name in TINY if name != "gpt2"])
def test_a_loaded_model_has_the_sizes_of_its_published_shape(name):
    model, shape = tiny(name)
    record, found = as_record(shape), model_record(model)
    assert {key: one for key, one in found.items() if key != "modules"}.items() <= record.items()
    short = {key.rpartition(".")[2]: one for key, one in found["modules"].items()}
    assert short == record["modules"]


def test_the_largest_of_all_steps_counts(model):
    """Neither the longest example nor the one with most tokens need be the peak."""
    batches = [(4, 30, 8), (1, 110, 2), (2, 55, 110), (2, 55, 10)]
    alone = [
        step_memory(model, [batch], inner_size=2, checkpointing=False, fused=True).total_bytes for batch in batches
    ]
    together = step_memory(model, batches, inner_size=2, checkpointing=False, fused=True).total_bytes
    assert together == max(alone) == alone[2]


def test_gradients_and_optimizer_are_counted_exactly(model):
    step, need = prepare(model, 1, 16, 4, checkpointing=False, fused=True)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-9)
    step().backward()
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if value.dim()]
    assert need.gradients_bytes == sum(parameter.grad.numel() * 4 for parameter in parameters)
    assert need.optimizer_bytes == sum(tensor.numel() * tensor.element_size() for tensor in state)
