"""activations: the count against what autograd saves in a forward pass, on models small enough to build."""

import pytest
import torch
from memory_models import TINY, tiny

from lab_utils.finetune.answer_loss import build_supervised
from lab_utils.memory.activations import kept_bytes, logits_bytes
from lab_utils.memory.saved import saved_bytes
from lab_utils.memory.step import estimate

BATCH, LENGTH, ANSWER = 3, 48, 10
WITHIN = 0.02  # left out: a number a token in each norm


def saved_in_a_step(model, checkpointing: bool) -> int:
    """Bytes that autograd saves in a forward pass over one batch."""
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    ids = torch.arange(BATCH * LENGTH).reshape(BATCH, LENGTH) % 90 + 3
    labels = torch.full_like(ids, -100)
    labels[:, -ANSWER:] = ids[:, -ANSWER:]
    loss = build_supervised(model)
    return saved_bytes(model, lambda: loss(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels))


def saved_and_counted(layers: int, name: str, method: str, dtype: str, checkpointing: bool, targets) -> torch.Tensor:
    """Bytes that autograd saves in a forward pass, and the activations of `estimate`."""
    from peft import LoraConfig, get_peft_model

    model, shape = tiny(name, layers)
    model = model.to(getattr(torch, dtype)).train()
    if method == "lora":
        model = get_peft_model(model, LoraConfig(r=8, target_modules=list(shape.select(targets))))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    saved = saved_in_a_step(model, checkpointing)
    one = estimate(
        shape, method, 8, targets, BATCH, LENGTH, supervised_tokens=BATCH * ANSWER, dtype=dtype,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    return torch.tensor([saved, one.activations_bytes])


def measure(name: str, method: str, dtype: str, checkpointing: bool = False, targets="all-linear") -> list[int]:
    """The same of three layers more: what is once in a model, and the first layer's lower part, drop out."""
    deep, shallow = (saved_and_counted(n, name, method, dtype, checkpointing, targets) for n in (5, 2))
    return (deep - shallow).tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_count_is_what_autograd_saves(method, dtype):
    saved, counted = measure("llama, untied", method, dtype)
    assert counted == pytest.approx(saved, rel=WITHIN)


@pytest.mark.parametrize("targets", ["qv", "attention", "mlp", ["o_proj"], ["gate_proj", "down_proj"]])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_linear_layers_keep_no_input(targets, dtype):
    saved, counted = measure("mistral", "lora", dtype, targets=targets)
    assert counted == pytest.approx(saved, rel=WITHIN)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_with_checkpointing_the_layers_inputs_are_kept_alone(method):
    saved, counted = measure("llama, tied", method, "bfloat16", True)
    assert counted == pytest.approx(saved, rel=WITHIN)


def test_qwens_layer_is_a_llamas():
    saved, counted = measure("qwen2", "full", "float32")
    assert counted == pytest.approx(saved, rel=WITHIN)


@pytest.mark.parametrize("name", [name for name in TINY if name in ("gemma", "gpt2")])
def test_other_families_are_near(name):
    """Gemma's norm and GPT-2's GELU are made of more steps, each of which saves something."""
    saved, counted = measure(name, "full", "float32")
    assert 0.6 * saved < counted <= saved


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny Llamas of two depths on disk, and their shapes."""
    found = {}
    for layers in (2, 5):
        model, shape = tiny("llama, untied", layers)
        model.save_pretrained(tmp_path_factory.mktemp(f"llama{layers}"))
        found[layers] = str(tmp_path_factory.getbasetemp() / f"llama{layers}0"), shape
    return found


def four_bit_saved_and_counted(folder: str, shape, rest: str | None, fast: bool, targets, checkpointing: bool):
    """As `saved_and_counted`, of a base in 4 bits; the lab's own layers and eager attention, or peft's and SDPA."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from lab_utils.finetune.fourbit import speed_up

    how = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=how, dtype=torch.bfloat16, attn_implementation="eager" if fast else "sdpa"
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if rest == "float32":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = get_peft_model(model.train(), LoraConfig(r=8, target_modules=list(shape.select(targets))))
    if fast:
        speed_up(model)
    saved = saved_in_a_step(model, checkpointing)
    one = estimate(
        shape, "qlora", 8, targets, BATCH, LENGTH, supervised_tokens=BATCH * ANSWER, rest_dtype=rest,
        gradient_checkpointing=checkpointing, device="cpu" if fast else "cuda",
    )  # fmt: skip
    return torch.tensor([saved, one.activations_bytes])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", "qv"])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("rest", [None, "float32"])
def test_of_a_4_bit_base_too_whatever_the_rest_is_in(folders, rest, fast, targets, checkpointing):
    """With SDPA and the rest in float32, attention's output is what `o_proj` reads: kept once, counted twice (7 %)."""
    deep, shallow = (
        four_bit_saved_and_counted(*folders[layers], rest, fast, targets, checkpointing) for layers in (5, 2)
    )
    saved, counted = (deep - shallow).tolist()
    assert counted == pytest.approx(saved, rel=WITHIN if fast or rest is None else 0.07)


def test_a_layer_by_hand():
    # 5 tokens; per token: norms 2·4·8, q k v 3·2·6, MLP 3·2·10, attention 2 heads · 5 · (4 + 2), inputs 28: in all 248.
    assert kept_bytes(5, 5, hidden=8, width=6, intermediate=10, heads=2, size=2, inputs=28) == 5 * 248
    assert kept_bytes(5, 0, hidden=8, width=6, intermediate=10, heads=2, size=2, inputs=28) == 5 * (248 - 60)
    assert kept_bytes(1, 0, hidden=1, width=0, intermediate=1, heads=1, size=4, inputs=0, branches=1) == 8 + 4
    assert logits_bytes(38, 1000) == 456_000
