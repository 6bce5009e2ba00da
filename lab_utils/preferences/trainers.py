"""The steps of training by preference and by reward; the loop, its checkpoints and its locks are `finetune`'s."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from ..finetune import Encoded, build_optimizer, collate, plan_batches, speed_up
from ..finetune.conversation import decode_answer, stop_tokens
from ..finetune.optimizer import set_rate
from ..finetune.step_memory import step_memory
from ..finetune.trainer import Trainer
from ..memory.free import free_memory_bytes
from ..tasks.registry import find_task
from .dpo import dpo_loss
from .grpo import group_advantages, token_distances, token_losses, token_weights
from .logprobs import answer_logprobs, answer_mask, reference
from .rewards import rewarder
from .sampling import sample_groups


class StepTrainer(Trainer):
    """One process's run: `parts` says what a step's loss is made of, and this class takes the step.

    Parameters
    ----------
    recipe : PreferenceRecipe or RewardRecipe
    device : Device
    accelerator : of `finetune.processes.accelerate`, of one process
    model : peft model
    lengths : list of int, tokens of each example, by which batches are planned
    padding : int, token id
    start : dict of the adapter's numbers at the start, or None for a fresh one (see `logprobs.reference`)
    optimizer : str, the name of a resumed run's optimizer
    """

    def __init__(self, recipe, device, accelerator, model, lengths, padding: int, start: dict | None, optimizer=None):
        self.recipe, self.device, self.accelerator, self.model = recipe, device, accelerator, model
        self.pad_token_id, self.start, self.lengths = padding, start, lengths
        self.rank, self.world = 0, 1
        self.moved, self.gradient_norm, self.skipped_in_a_row = False, 0.0, 0
        self.plan = plan_batches(lengths, recipe.batch_size, recipe.steps, recipe.seed)
        if recipe.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            model.activation_checkpointing_disable()
        self.fused = speed_up(model) > 0
        self.parameters = [one for one in model.parameters() if one.requires_grad]
        self.need = self.step_need()
        optimizer = build_optimizer(
            model, recipe.learning_rate, device, weight_decay=recipe.weight_decay, name=optimizer,
            fits=sum(self.need.values()) <= free_memory_bytes(device.kind),
        )  # fmt: skip
        self.logprobs, self.optimizer = accelerator.prepare(
            _logprobs_module(model), optimizer, device_placement=[False, True]
        )
        torch.manual_seed(recipe.seed + 1)

    def largest(self) -> tuple[int, int, int]:
        """(rows, tokens of the longest, answer tokens) of what goes through the model at once, at most."""
        raise NotImplementedError

    def parts(self, step: int) -> Iterator[tuple[Tensor, dict]]:
        """(loss, numbers to record) of each part of a step's batch; losses and numbers of all parts add up."""
        raise NotImplementedError

    def rounds(self, step: int) -> Iterator[Iterator[tuple[Tensor, dict]]]:
        """The parts of each update that a step makes; one update, unless a trainer makes several."""
        yield self.parts(step)

    def step_need(self) -> dict[str, int]:
        """Bytes that the largest part of a step takes on top of the loaded model."""
        one = step_memory(
            self.model, [self.largest()], inner_size=self.device.torch_dtype.itemsize,
            checkpointing=self.recipe.gradient_checkpointing, fused=self.fused,
        )  # fmt: skip
        return {part: size for part, size in one.parts().items() if size}

    def take_step(self, step: int) -> dict:
        """Forward, backward and update, once per round; returns the step's row of the history, of its first round."""
        began, rate, first = time.perf_counter(), self.recipe.learning_rate_at(step), None
        set_rate(self.optimizer, rate)
        for parts in self.rounds(step):
            row = self._update_with(parts)
            first = first or row
            self._check_finite(step, row["loss"])
        if self.device.kind == "cuda":
            torch.cuda.synchronize()
        return {"step": step + 1, "learning_rate": rate, **first, "seconds": time.perf_counter() - began}

    def _update_with(self, parts) -> dict:
        """One update by the sum of the parts' losses: that sum, "loss", and the sums of their numbers."""
        row = {"loss": 0.0}
        for loss, numbers in parts:
            self.accelerator.backward(loss)
            found = {"loss": float(loss.detach()), **numbers}
            row |= {name: row.get(name, 0) + value for name, value in found.items()}
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.recipe.max_grad_norm)
        skipped = self._update()
        self.optimizer.zero_grad()
        self.gradient_norm = float(norm)
        return row | ({"skipped": int(skipped)} if self.accelerator.scaler else {})

    def on_device(self, examples: list[Encoded]) -> dict:
        """Examples as one padded batch on the model's device."""
        batch = collate(examples, self.pad_token_id)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def reference_logprobs(self, batch: dict, temperature: float = 1.0) -> Tensor:
        """`answer_logprobs` of the reference, which is this model with another adapter, or without one."""
        with torch.no_grad(), reference(self.model, self.start):
            return self.logprobs(batch, temperature)


class PreferenceTrainer(StepTrainer):
    """Direct preference optimization. `pairs` is a list of (chosen, rejected), both Encoded; the rest as StepTrainer.

    A row of its history has, beside loss, learning_rate, tokens (read) and seconds: chosen_reward, rejected_reward,
    margin (means over the pairs), accuracy (share of pairs with a margin above 0), and chosen_logprob, rejected_logprob
    (means, in nats per answer).
    """

    def __init__(self, *arguments, pairs: list[tuple[Encoded, Encoded]], **options):
        self.pairs = pairs
        super().__init__(*arguments, **options)

    def largest(self) -> tuple[int, int, int]:
        """(rows, tokens of the longest, answer tokens) of a batch of the longest pairs."""
        rows = 2 * self.recipe.batch_size
        answers = max(one.supervised() for pair in self.pairs for one in pair)
        return rows, max(self.lengths), rows * answers

    def parts(self, step: int) -> Iterator[tuple[Tensor, dict]]:
        """The whole batch as one part: chosen answers above, rejected ones below."""
        pairs = [self.pairs[index] for index in self.plan[step]]
        batch = self.on_device([pair[0] for pair in pairs] + [pair[1] for pair in pairs])
        chosen, rejected = self.logprobs(batch).sum(1).chunk(2)
        lengths = tuple(answer_mask(batch["labels"]).sum(1).chunk(2))
        before = self.reference_logprobs(batch).sum(1).chunk(2)
        found = dpo_loss(chosen, rejected, *before, self.recipe.beta, self.recipe.loss_type, lengths)
        numbers = {
            "chosen_reward": float(found.chosen_rewards.mean()),
            "rejected_reward": float(found.rejected_rewards.mean()),
            "margin": float(found.margins.mean()),
            "accuracy": found.accuracy,
            "chosen_logprob": float(chosen.detach().mean()),
            "rejected_logprob": float(rejected.detach().mean()),
            "tokens": int(batch["attention_mask"].sum()),
        }
        yield found.loss, numbers


class RewardTrainer(StepTrainer):
    """Group relative policy optimization; the rest as StepTrainer.

    Parameters
    ----------
    prompts : list of lists of token ids
    answers : list of str, what each prompt's reward function is told
    worth : function (output, answer) -> float, the reward
    tokenizer : of transformers
    room : int, most tokens of a sampled answer

    A row of its history has, beside loss, learning_rate, tokens (read) and seconds: reward (mean), right (share of
    answers that the task's own verifier calls right, whatever the reward is), informative (share of groups whose
    rewards differ), length (mean tokens of an answer), cut (share of answers that did not end), and distance (from the
    reference, mean per token; 0 where beta is).
    """

    def __init__(
        self, *arguments, prompts: list[list[int]], answers: list[str], worth, tokenizer, room: int, **options
    ):
        self.prompts, self.answers, self.worth = prompts, answers, worth
        self.tokenizer, self.room = tokenizer, room
        super().__init__(*arguments, **options)
        self.truth = rewarder(find_task(self.recipe.task), "right")

    def largest(self) -> tuple[int, int, int]:
        """(rows, tokens of the longest, answer tokens) of as many answers as go through the model at once."""
        rows = min(self.recipe.rows_at_once, self.recipe.batch_size * self.recipe.group_size)
        return rows, max(self.lengths) + self.room, rows * self.room

    def check_moves(self, row: dict) -> None:
        """As `Trainer.check_moves`, once a group's rewards have differed: before that there is nothing to learn."""
        if row["informative"]:
            super().check_moves(row)

    def rounds(self, step: int) -> Iterator[Iterator[tuple[Tensor, dict]]]:
        """Sample once, then update `recipe.updates` times; the later ones are held against the first one's numbers."""
        samples, advantages, numbers = self._sampled(self.plan[step])
        weights = token_weights(_mask(samples), self.recipe.loss_type, self.room)
        old: list[Tensor] = []
        for _ in range(self.recipe.updates):
            yield self._parts(samples, advantages, weights, numbers, old)

    def _sampled(self, indices: list[int]) -> tuple[list[Encoded], Tensor, dict]:
        """Sampled answers behind their prompts, their advantages, and what is recorded of them."""
        recipe, prompts = self.recipe, [self.prompts[index] for index in indices]
        drawn = sample_groups(self.model, self.tokenizer, prompts, recipe.group_size, recipe.temperature, self.room)
        owners = [index for index in indices for _ in range(recipe.group_size)]
        samples = [
            Encoded([*self.prompts[index], *tokens], len(self.prompts[index]))
            for index, tokens in zip(owners, drawn, strict=True)
        ]
        texts = [(decode_answer(self.tokenizer, one), self.answers[at]) for at, one in zip(owners, drawn, strict=True)]
        rewards = torch.tensor([self.worth(*one) for one in texts], dtype=torch.float32)
        groups = rewards.view(-1, recipe.group_size)
        stops = stop_tokens(self.tokenizer)
        numbers = {
            "reward": float(rewards.mean()),
            "right": sum(self.truth(*one) for one in texts) / len(texts),
            "informative": float((groups != groups[:, :1]).any(1).float().mean()),
            "length": sum(map(len, drawn)) / len(drawn),
            "cut": sum(tokens[-1] not in stops for tokens in drawn) / len(drawn),
            "tokens": sum(len(one.input_ids) for one in samples),
        }
        return samples, group_advantages(rewards, recipe.group_size, recipe.scale_rewards), numbers

    def _parts(self, samples, advantages, weights, numbers: dict, old: list[Tensor]) -> Iterator[tuple[Tensor, dict]]:
        """The loss of `rows_at_once` answers at a time; `old` is filled by the first update and read by later ones."""
        size, recipe = self.recipe.rows_at_once, self.recipe
        first = not old
        for place, start in enumerate(range(0, len(samples), size)):
            batch = self.on_device(samples[start : start + size])
            logprobs = self.logprobs(batch, recipe.temperature)
            if first:
                old.append(logprobs.detach())
            before = self.reference_logprobs(batch, recipe.temperature) if recipe.beta else None
            share = weights[start : start + size, : logprobs.shape[1]].to(logprobs.device)
            gains = advantages[start : start + size].to(logprobs.device)
            losses = token_losses(
                logprobs, gains, old[place], before, recipe.beta, recipe.epsilon, recipe.epsilon_high
            )  # fmt: skip
            far = 0.0
            if before is not None:
                inside = answer_mask(batch["labels"])
                far = float(token_distances(logprobs.detach(), before)[inside].sum()) / int((weights > 0).sum())
            yield (losses * share).sum(), {**(numbers if not place else {}), "distance": far}


def _mask(samples: list[Encoded]) -> Tensor:
    """`answer_mask` of all samples together, padded to the longest of them."""
    return answer_mask(collate(samples, 0)["labels"])


def _logprobs_module(model):
    """`answer_logprobs` as a module, which accelerate can prepare: on a GPU it computes in the device's precision."""

    class AnswerLogprobs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch: dict, temperature: float = 1.0) -> Tensor:
            return answer_logprobs(self.model, batch, temperature)

    return AnswerLogprobs()
