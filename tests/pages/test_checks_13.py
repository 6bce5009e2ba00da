"""Solutions of page 13 against torch, `lab_utils.machines.sharding` and numbers worked by hand."""

import pytest
import torch
import torch.nn.functional as F

from lab_utils import checks
from lab_utils.checks.engine import examples
from lab_utils.machines.sharding import STRATEGIES, Communication, sharded
from lab_utils.memory.step import estimate

EXERCISES = {name: exercise for name, exercise in checks.EXERCISES.items() if exercise.page == 13}


def test_the_loss_is_that_of_all_tokens_on_one_process():
    generator = torch.Generator().manual_seed(0)
    logits, answers = torch.randn(12, 5, generator=generator), torch.randint(0, 5, (12,), generator=generator)
    losses = F.cross_entropy(logits, answers, reduction="none")
    for counts in ([12], [6, 6], [1, 2, 9], [0, 12]):
        sums = torch.stack([part.sum() for part in losses.split(counts)])
        solved = EXERCISES["global_loss"].solution(sums, torch.tensor(counts))
        assert float(solved) == pytest.approx(float(F.cross_entropy(logits, answers)), rel=1e-5)
    assert float(EXERCISES["global_loss"].solution(torch.tensor([6.0, 30.0]), torch.tensor([2, 30]))) == 1.125  # reward


def test_a_ring_takes_what_the_library_counts_and_its_turns_on_top():
    ring = EXERCISES["ring_seconds"].solution
    for size, processes, speed, wait in examples(EXERCISES["ring_seconds"]):
        exchange = Communication(processes, {"all_reduce": size, "all_gather": 0, "reduce_scatter": 0})
        assert ring(size, processes, speed, 0.0) == pytest.approx(exchange.seconds(speed))
        turns = 2 * (processes - 1)
        assert ring(size, processes, speed, wait) - ring(size, processes, speed, 0.0) == pytest.approx(turns * wait)


def test_the_ring_of_the_reward_by_hand():
    long, short = ([EXERCISES["ring_seconds"].solution(size, n, 1e9, 50e-6) for n in (8, 512)] for size in (80e6, 4e3))
    assert [round(seconds, 2) for seconds in long] == [0.14, 0.21] and round(long[1] / long[0], 1) == 1.5
    assert [round(seconds * 1e3, 1) for seconds in short] == [0.7, 51.1] and round(short[1] / short[0]) == 72
    assert 1022 * 50e-6 / short[1] > 0.99  # nearly all of it is waiting


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_process_keeps_what_the_library_says_less_what_is_there_for_a_moment(strategy):
    whole = estimate("Llama-2-7B", "full")
    held = sharded("Llama-2-7B", "full", 8, strategy).local
    kept = EXERCISES["per_process_bytes"].solution(
        whole.weights_bytes, whole.gradients_bytes, whole.optimizer_bytes, 8, strategy
    )
    assert kept == held.weights_bytes + held.gradients_bytes + held.optimizer_bytes


def test_eight_gpus_of_40_gb_by_hand():
    sizes = 14_000_000_000, 14_000_000_000, 56_000_000_000
    kept = [EXERCISES["per_process_bytes"].solution(*sizes, 8, strategy) / 1e9 for strategy in STRATEGIES]
    assert kept == [84, 35, 22.75, 10.5]  # the reward and the page say so


def test_the_example_that_is_shown_first_does_not_answer_what_the_page_asks_to_predict():
    asked = {"global_loss": "6.0, 30.0", "ring_seconds": "80000000", "per_process_bytes": "14000000000"}
    for name, numbers in asked.items():
        assert numbers not in str([getattr(one, "tolist", lambda one=one: one)() for one in EXERCISES[name].demo])
