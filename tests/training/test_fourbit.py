"""The fast LoRA layer against peft's own on the same weights."""

import bitsandbytes as bnb
import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from pefts_forward import slow_down

from lab_utils.finetune.fourbit import FrozenWeight, dequantize, speed_up


class TwoLayers(torch.nn.Module):
    """A 4-bit layer with bias, a non-linearity, one without."""

    is_loaded_in_4bit = True  # by this peft knows which layer to put in

    def __init__(self, compute_dtype, quant_type="nf4"):
        super().__init__()
        settings = {"compute_dtype": compute_dtype, "quant_type": quant_type, "compress_statistics": True}
        self.first = bnb.nn.Linear4bit(128, 192, bias=True, **settings)
        self.second = bnb.nn.Linear4bit(192, 64, bias=False, **settings)
        for layer in (self.first, self.second):
            layer.support_avx512bf16_for_cpu = False

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class TwoPlainLayers(torch.nn.Module):
    """The same, not quantized."""

    forward = TwoLayers.forward

    def __init__(self, dtype):
        super().__init__()
        self.first, self.second = torch.nn.Linear(128, 192, dtype=dtype), torch.nn.Linear(192, 64, False, dtype=dtype)


def build(compute_dtype=torch.float32, quant_type="nf4", dropout=0.0, **lora):
    """A peft model on two layers, in 4 bits or plain ("none"), with B away from zero."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules=["first", "second"], **lora)
    plain = quant_type == "none"
    base = TwoPlainLayers(compute_dtype) if plain else TwoLayers(compute_dtype, quant_type).to("cpu")
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    kind = peft.tuners.lora.Linear if plain else peft.tuners.lora.bnb.Linear4bit
    assert type(model.get_base_model().first) is kind
    return model.train()


def outputs_and_gradients(model, dtype=torch.float32, seed=1):
    """Output, gradient of the input, gradients of every A and B for one fixed batch."""
    model.zero_grad()
    torch.manual_seed(seed)
    x = torch.randn(5, 7, 128).to(dtype).requires_grad_()
    torch.manual_seed(seed)  # the same dropout
    y = model(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    found = {"y": y.detach(), "x": x.grad}
    return found | {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("quant_type", ["nf4", "fp4", "none"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_float32_equals_peft(quant_type, dropout):
    model = build(quant_type=quant_type, dropout=dropout)
    expected = outputs_and_gradients(model)
    assert speed_up(model) == 2
    found = outputs_and_gradients(model)
    assert found.keys() == expected.keys() and len(found) == 6
    for name in expected:
        # Two float32 sums in another order.
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(found[name], expected[name], rtol=2e-5, atol=2e-5 * scale)


@pytest.mark.parametrize("quant_type", ["nf4", "none"])
def test_bfloat16_is_as_near_to_the_truth_as_peft(quant_type):
    model = build(torch.bfloat16, quant_type)
    exact = build(torch.float32, quant_type)
    if quant_type == "none":
        exact.load_state_dict(model.state_dict())  # the weights as bfloat16 holds them
    truth = outputs_and_gradients(exact)
    theirs = outputs_and_gradients(model, torch.bfloat16)
    speed_up(model)
    ours = outputs_and_gradients(model, torch.bfloat16)

    def error(found, name):
        return float((found[name].float() - truth[name]).norm() / truth[name].norm())

    for name in truth:
        assert ours[name].dtype == theirs[name].dtype
        assert error(ours, name) < max(1.5 * error(theirs, name), 2**-8), name  # 2**-8: half a bfloat16 step


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_unpacked_absmax_gives_the_same_weights(quant_type):
    weight = build(torch.bfloat16, quant_type).get_base_model().first.base_layer.weight
    assert weight.quant_state.nested
    assert torch.equal(FrozenWeight(weight).dense(torch.float32), dequantize(weight, torch.float32))


def test_a_plain_weight_may_be_exchanged():
    """As the recorders do, which train on one base after another."""
    model = build(quant_type="none")
    speed_up(model)
    base = model.get_base_model().second.base_layer
    base.weight = torch.nn.Parameter(2 * base.weight.detach(), requires_grad=False)
    found = outputs_and_gradients(model)
    slow_down(model)
    for name, expected in outputs_and_gradients(model).items():
        torch.testing.assert_close(found[name], expected, rtol=2e-5, atol=2e-5 * float(expected.abs().max()))


def test_where_the_base_is_trained_too_pefts_way_is_taken():
    model = build(quant_type="none")
    model.get_base_model().second.base_layer.weight.requires_grad_()
    assert speed_up(model) == 1
    outputs_and_gradients(model)
    assert model.get_base_model().second.base_layer.weight.grad is not None


def test_rslora_scaling_is_kept():
    model = build(use_rslora=True)
    expected = outputs_and_gradients(model)["y"]
    speed_up(model)
    torch.testing.assert_close(outputs_and_gradients(model)["y"], expected, rtol=2e-5, atol=1e-5)


def test_base_weights_get_no_gradient_and_do_not_change():
    model = build()
    speed_up(model)
    packed = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    outputs_and_gradients(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None and torch.equal(parameter, packed[name])


def test_disabled_adapter_gives_the_base_layer():
    model = build()
    speed_up(model)
    x = torch.randn(3, 128)
    layers = model.get_base_model()
    with model.disable_adapter():
        found = model(x)
    weight = dequantize(layers.first.base_layer.weight, torch.float32)
    hidden = torch.tanh(x @ weight.T + layers.first.base_layer.bias)
    expected = hidden @ dequantize(layers.second.base_layer.weight, torch.float32).T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_two_active_adapters_take_pefts_way():
    model = build()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["first", "second"]))
    model.base_model.set_adapter(["default", "other"])
    x = torch.randn(3, 128)
    expected = model(x)
    speed_up(model)
    assert torch.equal(model(x), expected)


def test_an_adapter_with_a_bias_takes_pefts_way():
    """Trained with lora_bias=True, by others: B x has its own bias."""
    model = build(lora_bias=True)
    x = torch.randn(3, 128)
    expected = model(x)
    speed_up(model)
    assert torch.equal(model(x), expected)


def test_twice_is_once_and_slow_down_undoes_it():
    model = build()
    expected = outputs_and_gradients(model)
    names = [name for name, _ in model.named_modules()]
    speed_up(model)
    once = outputs_and_gradients(model)
    speed_up(model)
    twice = outputs_and_gradients(model)
    slow_down(model)
    undone = outputs_and_gradients(model)
    assert [name for name, _ in model.named_modules()] == names
    for name in expected:
        assert torch.equal(once[name], twice[name])
        assert torch.equal(undone[name], expected[name])


def test_the_adapter_file_is_the_same(tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "peft")
    speed_up(model)
    model.save_pretrained(tmp_path / "ours")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "peft" / file).read_bytes() == (tmp_path / "ours" / file).read_bytes()


def test_gradients_on_the_real_model(trainable_base):
    """One batch of the course's own data: loss and the gradient of all 210 adapters, fast against peft."""
    from lab_utils.finetune.adapter import attach_adapter
    from lab_utils.finetune.answer_loss import build_supervised
    from lab_utils.finetune.batches import collate
    from lab_utils.finetune.recipe import Recipe
    from lab_utils.finetune.supervision import encode
    from lab_utils.tasks.registry import TASKS, load_task

    base, tokenizer = trainable_base
    rows = load_task("bookings")["train"].select(range(2))
    batch = collate([encode(tokenizer, TASKS["bookings"], r["prompt"], r["answer"]) for r in rows], 2)
    model = attach_adapter(base, Recipe(model="smollm2-135m"))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    results = []
    for prepare in (slow_down, speed_up):
        prepare(model)
        model.zero_grad()
        loss = build_supervised(model)(**batch)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
        results.append((loss.item(), gradient.clone()))
    (loss_peft, theirs), (loss_ours, ours) = results
    assert abs(loss_ours / loss_peft - 1) < 0.01
    assert float(torch.nn.functional.cosine_similarity(theirs, ours, dim=0)) > 0.995
