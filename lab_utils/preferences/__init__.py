"""Training by preference (DPO) and by reward (GRPO): pure losses, equal to TRL's, and trainers above them (page 16).

The reference model is the same model with its adapter switched off, or set back to how it began: see `reference`.
"""

from .dpo import Preferred, dpo_loss
from .grpo import group_advantages, grpo_loss, token_distances, token_losses, token_weights
from .logprobs import adapter_state, answer_logprobs, answer_mask, reference, sequence_logprobs, token_logprobs
from .pairs import MISTAKES, booking_pairs, near_miss, pair_logprobs
from .recipes import PreferenceRecipe, RewardRecipe
from .record import PairCourse, PreferenceRun, recorded_courses, recorded_runs, recorded_samples, recorded_start
from .rewards import REWARDS, rewarder
from .run import prefer, reward
from .sampling import sample_groups
from .small_policy import SMALL_REWARDS, Answer, SmallStep, share, small_run, start_logits
from .starts import begin
from .verified import own_answers, own_pairs, own_right

__all__ = [
    "MISTAKES", "REWARDS", "SMALL_REWARDS", "Answer", "PairCourse", "PreferenceRecipe", "PreferenceRun", "Preferred",
    "RewardRecipe", "SmallStep", "adapter_state", "answer_logprobs", "answer_mask", "begin", "booking_pairs",
    "dpo_loss", "group_advantages", "grpo_loss", "near_miss", "own_answers", "own_pairs", "own_right", "pair_logprobs",
    "prefer", "recorded_courses", "recorded_runs", "recorded_samples", "recorded_start", "reference", "reward",
    "rewarder", "sample_groups", "sequence_logprobs", "share", "small_run", "start_logits", "token_distances",
    "token_logprobs", "token_losses", "token_weights",
]  # fmt: skip
