"""Solutions of page 12 against diffusers and peft."""

import peft
import pytest
import torch

from lab_utils.checks import EXERCISES
from lab_utils.checks.engine import examples

SOLVED = {name: exercise.solution for name, exercise in EXERCISES.items() if exercise.page == 12}


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noise_is_added_as_diffusers_adds_it(schedule):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule=schedule)
    torch.manual_seed(0)
    picture, noise, times = torch.randn(5, 3, 4, 6), torch.randn(5, 3, 4, 6), torch.tensor([0, 100, 500, 900, 999])
    kept = scheduler.alphas_cumprod[times]
    expected = scheduler.add_noise(picture, noise, times)
    assert torch.allclose(SOLVED["add_noise"](picture, noise, kept), expected, atol=1e-6)


def test_the_variance_stays_what_it_was():
    torch.manual_seed(0)
    picture, noise = torch.randn(2, 4, 3, 100, 100, dtype=torch.float64)
    noisy = SOLVED["add_noise"](picture, noise, torch.tensor([0.1, 0.4, 0.7, 0.99], dtype=torch.float64))
    assert noisy.flatten(1).var(1).tolist() == pytest.approx([1] * 4, abs=0.05)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 5)])
def test_the_update_is_pefts_and_what_a_merge_adds(kernel):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, kernel, bias=False))
    before = model[0].weight.detach().clone()
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["0"], init_lora_weights=False)
    layer = peft.get_peft_model(model, config).base_model.model[0]
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert A.shape == (2, 3, *kernel) and B.shape == (5, 2, 1, 1)
    ours = SOLVED["convolution_update"](A, B, 3.0)
    assert torch.allclose(ours, layer.get_delta_weight("default"), atol=1e-6) and ours.abs().max() > 0.01
    layer.merge()
    assert torch.allclose(ours, layer.base_layer.weight - before, atol=1e-6)


def test_guidance_is_diffusers():
    from diffusers.guiders import ClassifierFreeGuidance

    for unconditional, conditional, scale in examples(EXERCISES["guided"]):
        guider = ClassifierFreeGuidance(guidance_scale=scale)
        guider.set_state(step=0, num_inference_steps=1, timestep=torch.tensor(0))
        theirs = guider.forward(conditional, unconditional).pred
        assert torch.allclose(SOLVED["guided"](unconditional, conditional, scale), theirs)
    assert torch.equal(SOLVED["guided"](unconditional, conditional, 1.0), conditional)
    assert torch.equal(SOLVED["guided"](unconditional, conditional, 0.0), unconditional)
