"""Solutions of page 16 against the library's losses, and numbers worked by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from lab_utils import checks, preferences
from lab_utils.checks.engine import examples
from lab_utils.lora import LoRALinear

EXERCISES = {name: exercise for name, exercise in checks.EXERCISES.items() if exercise.page == 16}


def solved(name, *inputs):
    return EXERCISES[name].solution(*inputs)


def inputs_of(name):
    return [EXERCISES[name].demo, *examples(EXERCISES[name])]


def test_the_solutions_are_the_librarys_functions():
    for logits, labels in inputs_of("answer_logprob"):
        expected = preferences.sequence_logprobs(logits[None], labels[None])[0]
        assert_close(solved("answer_logprob", logits, labels), expected)
    for inputs in inputs_of("preference_loss"):
        assert_close(solved("preference_loss", *inputs), preferences.dpo_loss(*inputs).loss)
    for rewards, size in inputs_of("advantages"):
        assert_close(solved("advantages", rewards, size), preferences.group_advantages(rewards, size))
    for now, old, gains, epsilon in inputs_of("clipped_losses"):
        expected = preferences.token_losses(now, gains, old, epsilon=epsilon)
        assert_close(solved("clipped_losses", now, old, gains, epsilon), expected)
    for losses, mask in inputs_of("token_mean"):
        assert_close(solved("token_mean", losses, mask), (losses * preferences.token_weights(mask, "dapo")).sum(),
                     check_dtype=False)  # fmt: skip


def test_the_log_ratio_is_that_of_a_lora_layer():
    for x, W, A, B, scaling, token in inputs_of("log_ratio"):
        if A.shape[0] > min(W.shape):
            continue  # a rank that the layer refuses
        layer = LoRALinear(torch.nn.Linear(*W.shape[::-1], bias=False), A.shape[0], scaling * A.shape[0])
        layer.to(W.dtype)
        layer.base_layer.weight.data, layer.lora_A.data, layer.lora_B.data = W, A, B
        now, base = layer(x).log_softmax(-1), layer.base_layer(x).log_softmax(-1)
        assert_close(solved("log_ratio", x, W, A, B, scaling, token), (now - base)[token])


def test_what_the_rewards_and_the_page_say_by_hand():
    """Of the worked examples: a margin of 1.5, a mean of means of 2.5, equal rewards at 0, one side clipped."""
    loss = solved("preference_loss", *EXERCISES["preference_loss"].demo)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1.5))) and float(loss) < math.log(2)
    losses, mask = EXERCISES["token_mean"].demo
    assert solved("token_mean", losses, mask) == 1.75
    assert ((losses * mask).sum(1) / mask.sum(1)).mean() == 2.5
    assert solved("advantages", *EXERCISES["advantages"].demo)[4:].tolist() == [0] * 4
    now, old, gains, epsilon = EXERCISES["clipped_losses"].demo
    found = solved("clipped_losses", now, old, gains, epsilon)
    ratio = (now - old).exp()
    assert found[0].tolist() == pytest.approx([-1, -1.2])
    assert found[1].tolist() == pytest.approx([float(ratio[1, 0]), 0.8])  # up in a bad answer: not clipped
