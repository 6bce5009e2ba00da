"""Training by preference and by reward: the laws of the pure functions, and pairs made by rule."""

import json
import math
import random

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from lab_utils.errors import LabError
from lab_utils.finetune import Encoded, attach_adapter, collate
from lab_utils.models.registry import load_tokenizer
from lab_utils.preferences import (
    MISTAKES,
    PreferenceRecipe,
    RewardRecipe,
    adapter_state,
    answer_logprobs,
    booking_pairs,
    dpo_loss,
    group_advantages,
    grpo_loss,
    near_miss,
    reference,
    rewarder,
    sample_groups,
    sequence_logprobs,
    token_distances,
    token_logprobs,
    token_losses,
    token_weights,
)
from lab_utils.tasks import TASKS, load_task

BATCH = collate([Encoded([3, 4, 5, 6, 7], 2), Encoded([8, 9, 10], 1)], 2)
BOOKING = '{"name":" Anna Lee","qty":1,"item":" tents","day":"Friday","time":"10:00"}'


def adapted(tiny_llama):
    """The tiny model with a trained adapter: its B is not zero."""
    model = attach_adapter(tiny_llama(), PreferenceRecipe(rank=2, alpha=4))
    for name, one in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.1)
    return model


def test_logprobs_are_minus_the_cross_entropy_of_the_answers_tokens(tiny_llama):
    model = adapted(tiny_llama)
    logits = model(input_ids=BATCH["input_ids"], attention_mask=BATCH["attention_mask"]).logits
    expected = -cross_entropy(logits[:, :-1].transpose(1, 2), BATCH["labels"][:, 1:], reduction="none")
    found = token_logprobs(logits, BATCH["labels"])
    assert_close(found, expected)
    assert found[0, 0] == 0 and (found[0, 1:] < 0).all() and (found[1, 2:] == 0).all()  # prompt and padding have none
    assert_close(sequence_logprobs(logits, BATCH["labels"]), expected.sum(1))
    assert_close(answer_logprobs(model, BATCH, 0.7), token_logprobs(logits, BATCH["labels"], 0.7))


def test_the_prompts_words_change_no_gradient_of_their_own():
    logits = torch.randn(1, 4, 5, requires_grad=True)
    sequence_logprobs(logits, torch.tensor([[-100, -100, 3, 1]])).sum().backward()
    assert (logits.grad[0].abs().sum(-1) > 0).tolist() == [False, True, True, False]


def test_the_reference_is_the_model_without_its_adapter_or_with_the_one_it_began_with(tiny_llama):
    model = adapted(tiny_llama)
    start, base = adapter_state(model), tiny_llama()
    at_first = answer_logprobs(model, BATCH).detach()
    for name, one in model.named_parameters():
        if name in start:
            one.data = one.data + 0.1
    own = adapter_state(model)
    with torch.no_grad():
        now = answer_logprobs(model, BATCH)
        with reference(model):
            assert_close(answer_logprobs(model, BATCH), answer_logprobs(base, BATCH))
        with pytest.raises(KeyError), reference(model, start):
            assert not model.training
            assert_close(answer_logprobs(model, BATCH), at_first)
            raise KeyError
        assert_close(answer_logprobs(model, BATCH), now)
    assert model.training and all(one.equal(own[name]) for name, one in model.named_parameters() if name in own)
    assert {name for name, one in model.named_parameters() if one.requires_grad} == own.keys()


def test_dpo_by_hand():
    """Log-ratios of 0.5 and -1: a margin of 1.5 beta."""
    chosen, rejected = torch.tensor([-1.5]), torch.tensor([-4.0])
    before = torch.tensor([-2.0]), torch.tensor([-3.0])
    found = dpo_loss(chosen, rejected, *before, beta=0.2)
    assert float(found.loss) == pytest.approx(math.log(1 + math.exp(-0.3)))
    assert [float(one) for one in (found.chosen_rewards, found.rejected_rewards, found.margins)] == pytest.approx(
        [0.1, -0.2, 0.3]
    )
    assert found.accuracy == 1 and dpo_loss(rejected, chosen, *before[::-1]).accuracy == 0
    assert float(dpo_loss(chosen, rejected, *before, 0.2, "hinge").loss) == pytest.approx(0.7)
    lengths = torch.tensor([5]), torch.tensor([10])  # 0.1 and -0.1 per token
    assert float(dpo_loss(chosen, rejected, *before, 0.5, "ipo", lengths).loss) == pytest.approx((0.2 - 1) ** 2)
    per_token = dpo_loss(chosen, rejected, *before, 0.2, "sigmoid_norm", lengths).loss
    assert float(per_token) == pytest.approx(math.log(1 + math.exp(-0.04)))


def test_a_model_that_is_its_reference_has_the_loss_log_2_and_pushes_both_answers_apart():
    chosen, rejected = torch.tensor([-5.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)
    found = dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.4)
    found.loss.backward()
    assert float(found.loss) == pytest.approx(math.log(2)) and found.accuracy == 0
    assert chosen.grad.item() == pytest.approx(-0.2) and rejected.grad.item() == pytest.approx(0.2)  # beta / 2
    assert not found.margins.requires_grad


def test_advantages_know_only_differences_within_a_group():
    rewards = torch.tensor([3.0, 1, 2, 0, 5, 5, 5, 5, -1, 0, 0, 1])
    found = group_advantages(rewards, 4).view(3, 4)
    assert_close(found.sum(1), torch.zeros(3), rtol=0, atol=1e-6)
    assert found[1].tolist() == [0] * 4  # equal rewards: no NaN, no noise, nothing to learn
    assert_close(found[0].std(), torch.tensor(1.0), rtol=1e-3, atol=0)
    shifted = rewards + torch.tensor([10.0, 20, 30]).repeat_interleave(4)
    assert_close(group_advantages(shifted, 4), found.view(-1))
    assert_close(group_advantages(7 * rewards, 4), found.view(-1), rtol=1e-3, atol=1e-6)
    assert_close(group_advantages(7 * rewards, 4, "none"), 7 * group_advantages(rewards, 4, "none"))
    spread = group_advantages(rewards, 4, "none") / group_advantages(rewards, 4, "batch")
    assert_close(spread[rewards != 5][:2], (rewards.std() + 1e-4).expand(2))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.0, 1.0, -1.0, True), (1.5, 1.0, -1.2, False), (0.5, 1.0, -0.5, True),
        (1.0, -1.0, 1.0, True), (1.5, -1.0, 1.5, True), (0.5, -1.0, 0.8, False),
    ],
)  # fmt: skip
def test_a_ratio_is_clipped_only_where_it_has_gone_far_enough_the_right_way(ratio, advantage, loss, moves):
    logprobs = torch.tensor([[math.log(ratio) - 2]], requires_grad=True)
    found = token_losses(logprobs, torch.tensor([advantage]), old=torch.tensor([[-2.0]]))
    found.sum().backward()
    assert found.item() == pytest.approx(loss) and bool(logprobs.grad.any()) == moves


def test_the_distance_is_on_average_the_kl_divergence():
    """Over all words of a distribution, each as often as it is drawn."""
    torch.manual_seed(0)
    mine, theirs = torch.randn(2, 9, dtype=torch.float64).log_softmax(-1)
    expected = (mine.exp() * (mine - theirs)).sum()
    assert_close((mine.exp() * token_distances(mine, theirs)).sum(), expected)
    assert (token_distances(mine, theirs) >= 0).all()


def test_the_gradient_of_the_first_update_is_the_advantage_of_each_token_times_its_weight():
    logprobs, advantages = -torch.rand(3, 4), torch.tensor([1.0, -2, 0])
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]]).bool()
    for loss_type in ("dapo", "bnpo", "grpo", "dr_grpo"):
        one = logprobs.clone().requires_grad_()
        grpo_loss(one, mask, advantages, loss_type=loss_type, longest=8).backward()
        assert_close(one.grad, -advantages[:, None] * token_weights(mask, loss_type, 8))


def test_weights_count_answers_tokens_or_room():
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    assert token_weights(mask, "grpo").sum(1).tolist() == [0.5, 0.5]  # each answer the same
    assert token_weights(mask, "dapo")[mask].tolist() == pytest.approx([0.2] * 5)  # each token the same
    assert token_weights(mask, "dr_grpo", 10)[mask].tolist() == pytest.approx([1 / 20] * 5)  # whatever the lengths are
    assert token_weights(torch.zeros(2, 3, dtype=torch.bool)).sum() == 0


def test_near_misses_differ_in_one_field_and_are_wrong():
    rows = list(load_task("bookings")["train"])[:300]
    pairs, task = booking_pairs(rows, seed=3), TASKS["bookings"]
    assert pairs == booking_pairs(rows, seed=3) != booking_pairs(rows, seed=4)
    assert len(pairs) == 300 and {pair["mistake"] for pair in pairs} == set(MISTAKES)
    field = {"number": "qty", "capital": "name", "day": "day"}
    for row, pair in zip(rows, pairs, strict=True):
        assert pair["prompt"] == row["prompt"] and pair["chosen"] == row["answer"]
        assert not task.is_right(pair["rejected"], pair["chosen"])
        wrong = [name for name, right in task.right_fields(pair["rejected"], pair["chosen"]).items() if not right]
        assert wrong == [field[pair["mistake"]]]
        assert json.dumps(json.loads(pair["rejected"]), ensure_ascii=False, separators=(",", ":")) == pair["rejected"]
        assert json.loads(pair["rejected"])["qty"] >= 1
    assert {pair["mistake"] for pair in booking_pairs(rows[:20], mistakes="day")} == {"day"}


def test_a_mistake_that_cannot_be_made_is_not_made():
    lower = BOOKING.replace("Anna Lee", "anna lee")
    assert near_miss(lower, "capital", random.Random(0)) is None
    assert near_miss(BOOKING, "capital", random.Random(0)) == BOOKING.replace("Anna Lee", "anna Lee")
    assert booking_pairs([{"prompt": "x", "answer": lower}], mistakes=["capital"]) == []


def test_rewards_of_an_answer():
    task, wrong = TASKS["bookings"], BOOKING.replace("Friday", "Monday")
    worth = {name: rewarder(task, name) for name in ("right", "valid", "fields")}
    assert [worth[name](BOOKING, BOOKING) for name in worth] == [1, 1, 1]
    assert [worth[name](wrong, BOOKING) for name in worth] == [0, 1, 0.8]
    assert [worth[name]("{}", BOOKING) for name in worth] == [0, 1, 0]  # what a judge of form alone can be paid with
    assert rewarder(task, "own", lambda output, answer: len(output))("abc", "") == 3


def test_samples_follow_the_models_probabilities_at_their_temperature(tiny_llama):
    tokenizer = load_tokenizer()
    model = tiny_llama(len(tokenizer))
    prompt = [5, 6, 7]
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1]
    likeliest = set(logits.argsort(descending=True)[:400].tolist())
    for temperature in (1.0, 0.5):
        torch.manual_seed(0)
        drawn = sample_groups(model, tokenizer, [prompt], 400, temperature, room=1)
        share = sum(one[0] in likeliest for one in drawn) / 400
        expected = float((logits / temperature).softmax(-1)[sorted(likeliest)].sum())
        assert 0.1 < expected < 0.95 and abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 400)


def test_an_answer_ends_at_its_end_of_turn():
    from lab_utils.preferences.sampling import _cut

    assert _cut([5, 6, 2, 2, 2], [2]) == [5, 6, 2] and _cut([2], [2]) == [2] and _cut([5, 6], [2]) == [5, 6]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dpo_loss(*[torch.zeros(1)] * 4, loss_type="dpo"), "Unknown loss_type 'dpo'"),
        (lambda: dpo_loss(*[torch.zeros(1)] * 4, beta=0), "beta=0 is out of range"),
        (lambda: dpo_loss(*[torch.zeros(1)] * 4, loss_type="ipo"), "give lengths="),
        (lambda: group_advantages(torch.zeros(5), 2), "one number per answer, 2 for each prompt"),
        (lambda: group_advantages(torch.zeros(4), 1), "group_size=1 is out of range"),
        (lambda: token_losses(torch.zeros(1, 1), torch.zeros(1), beta=0.1), "give reference, or beta=0"),
        (lambda: token_weights(torch.ones(1, 1).bool(), "dr_grpo"), "give longest, in tokens"),
        (lambda: booking_pairs([{"prompt": "a", "answer": "b"}]), "'b' is not a booking"),
        (lambda: booking_pairs([], mistakes=[]), "at least one of number, capital, day"),
        (lambda: booking_pairs([], mistakes="time"), "Unknown mistake 'time'"),
        (lambda: rewarder(TASKS["style"], "fields"), "this task has none"),
        (lambda: rewarder(TASKS["style"], "own"), "do not go together"),
        (lambda: rewarder(TASKS["style"], "right", len), "do not go together"),
        (lambda: rewarder(TASKS["style"], "own", lambda output, answer: None)("a", "b"), "The judge gave None"),
        (lambda: rewarder(TASKS["style"], "own", lambda output, answer: 1 / 0)("a", "b"), "raised ZeroDivisionError"),
        (lambda: PreferenceRecipe(beta=-1), "beta=-1 is out of range"),
        (lambda: PreferenceRecipe(validate_every=5), "validate_every=5 is read by finetune alone"),
        (lambda: RewardRecipe(group_size=1), "group_size=1 is out of range"),
        (lambda: RewardRecipe(reward="nice"), "Unknown reward 'nice'"),
        (lambda: RewardRecipe(scale_rewards="std"), "Unknown scale_rewards 'std'"),
    ],
)
def test_what_is_refused_names_the_value_and_the_way_out(call, words):
    with pytest.raises(LabError, match=words):
        call()
