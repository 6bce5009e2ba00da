"""Our losses, rewards, advantages, gradients and steps against the installed TRL's, on one tiny model in float32."""

import copy

import pytest
import torch
from torch.testing import assert_close

from lab_utils.finetune import attach_adapter, encode, prompt_text
from lab_utils.models.registry import load_tokenizer
from lab_utils.preferences import (
    PreferenceRecipe,
    adapter_state,
    answer_logprobs,
    answer_mask,
    dpo_loss,
    group_advantages,
    grpo_loss,
    prefer,
    reference,
)
from lab_utils.tasks import TASKS

EXACT = {"rtol": 1e-5, "atol": 1e-6}
RECIPE = PreferenceRecipe(
    quantization="none", rank=4, alpha=8, steps=1, batch_size=2, learning_rate=1e-2, warmup=0.0, beta=0.3,
)  # fmt: skip
PAIRS = [
    {"prompt": "Three tents for Anna on Friday.", "chosen": '{"name":" Anna","qty":3}', "rejected": '{"qty":2}'},
    {"prompt": "One rake, Ben.", "chosen": '{"name":" Ben","qty":1}', "rejected": '{"name":" ben","qty":1,"day":"?"}'},
]
QUIET = {
    "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "gradient_checkpointing": False,
    "max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "save_strategy": "no",
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


def adapted(tiny_llama, tokenizer, trained: bool = True):
    """The tiny model with an adapter, whose B is not zero where it is `trained`."""
    model = attach_adapter(tiny_llama(len(tokenizer)), RECIPE)
    if trained:
        torch.manual_seed(1)
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.data.normal_(std=0.05)
    return model


def as_text(tokenizer, pair: dict) -> dict:
    """A pair as TRL reads it when no template is wanted: it adds the end of turn itself."""
    return {**pair, "prompt": prompt_text(tokenizer, TASKS["bookings"], pair["prompt"])}


def dpo_trainer(model, tokenizer, folder, **settings):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(str(folder), max_length=None, **{**QUIET, "beta": RECIPE.beta, **settings})
    rows = Dataset.from_list([as_text(tokenizer, pair) for pair in PAIRS])
    return DPOTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)


def gradients(model) -> dict:
    found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    return found


def as_labels(inputs: dict) -> dict:
    """TRL's batch in our form: labels where it has a mask."""
    mask = inputs["completion_mask"]
    return {
        "input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"],
        "labels": inputs["input_ids"].masked_fill(mask == 0, -100),
    }  # fmt: skip


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo", "sigmoid_norm"])
def test_dpo_loss_gradients_and_rewards_equal_trl(loss_type, tiny_llama, tokenizer, tmp_path):
    trainer = dpo_trainer(adapted(tiny_llama, tokenizer), tokenizer, tmp_path, loss_type=[loss_type])
    model, start = trainer.model.train(), adapter_state(trainer.model)  # TRL keeps a copy of this adapter, "ref"
    for name, one in model.named_parameters():
        if name in start and "lora_B" in name:
            one.data += 0.05
    rows = list(trainer.train_dataset)
    assert [row["prompt_ids"] + row["rejected_ids"] for row in rows] == [
        encode(tokenizer, TASKS["bookings"], pair["prompt"], pair["rejected"]).input_ids for pair in PAIRS
    ]
    inputs = trainer.data_collator(rows)
    theirs = trainer.compute_loss(model, inputs)
    theirs.backward()
    their_gradients = gradients(model)

    batch = as_labels(inputs)
    lengths = tuple(answer_mask(batch["labels"]).sum(1).chunk(2))
    now = answer_logprobs(model, batch).sum(1).chunk(2)
    with torch.no_grad(), reference(model, start):
        before = answer_logprobs(model, batch).sum(1).chunk(2)
    ours = dpo_loss(*now, *before, RECIPE.beta, loss_type, lengths)
    ours.loss.backward()
    assert_close(ours.loss, theirs, **EXACT)
    assert_close(gradients(model), their_gradients, **EXACT)
    said = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    values = {"chosen": ours.chosen_rewards, "rejected": ours.rejected_rewards, "margins": ours.margins}
    for name, value in values.items():  # differences of log-probabilities of -100 to -200, whose last digit is 1.5e-5
        assert float(value.mean()) == pytest.approx(said[f"rewards/{name}"], abs=1.5e-5)
    assert ours.accuracy == said["rewards/accuracies"]
    assert_close([float(one.mean()) for one in now], [said["logps/chosen"], said["logps/rejected"]], **EXACT)


def test_a_step_of_prefer_is_a_step_of_trl(tiny_llama, tokenizer, tmp_path):
    """From a fresh adapter, whose reference is the base: TRL's is a copy of that adapter, which changes nothing."""
    trainer = dpo_trainer(adapted(tiny_llama, tokenizer, trained=False), tokenizer, tmp_path / "trl")
    trainer.train()
    run = prefer(RECIPE, tmp_path / "ours", base=(tiny_llama(len(tokenizer)), tokenizer), pairs=PAIRS, progress=False)
    theirs = {name: one for name, one in trainer.model.named_parameters() if ".default." in name}
    ours = adapter_state(run.model)
    assert ours.keys() == theirs.keys() and len(ours) == 28  # 7 linear layers, twice, A and B
    for name, one in ours.items():
        # Adam's first step is as long whatever the gradient's size is: where that is nearly zero, rounding decides
        close = (one - theirs[name]).abs() < 1e-5
        assert close.float().mean() > 0.99, name
    assert run.history[0]["loss"] == pytest.approx(trainer.state.log_history[-1]["train_loss"], rel=1e-5)


def grpo_trainer(model, tokenizer, folder, **settings):
    """A trainer after one step with its own sampling, with what it computed its loss from in `seen`."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    class Watched(GRPOTrainer):
        def _compute_loss(self, model, inputs):
            self.seen = copy.deepcopy({name: one for name, one in inputs.items() if one is not None})
            loss = super()._compute_loss(model, inputs)
            self.their_loss = loss.detach().clone()
            return loss

        def training_step(self, *arguments, **options):
            found = super().training_step(*arguments, **options)
            self.their_gradients = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
            return found

    def letters(completions, **columns):
        found = [float(sum(letter in "aeiou" for letter in one)) for one in completions]
        letters.found = found
        return found

    arguments = GRPOConfig(
        str(folder), num_generations=3, max_completion_length=7,
        **{**QUIET, "per_device_train_batch_size": 6, "learning_rate": 0.0, **settings},
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": "Three tents"}, {"prompt": "One rake for Ben, please."}])
    trainer = Watched(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, reward_funcs=letters)
    trainer.train()
    trainer.rewards = letters.found
    return trainer


SETTINGS = [  # TRL's defaults first
    {},
    {"loss_type": "grpo", "beta": 0.2, "scale_rewards": "batch"},
    {"loss_type": "dr_grpo", "beta": 0.2, "scale_rewards": "none", "temperature": 0.7},
    {"loss_type": "bnpo", "epsilon": 0.05, "epsilon_high": 0.3, "beta": 0.04},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.get("loss_type", "defaults"))
def test_grpo_advantages_loss_and_gradients_equal_trl(settings, tiny_llama, tokenizer, tmp_path):
    trainer = grpo_trainer(adapted(tiny_llama, tokenizer, trained="beta" in settings), tokenizer, tmp_path, **settings)
    model, seen, how = trainer.model, trainer.seen, trainer.args
    with torch.no_grad():
        order = torch.tensor(trainer.rewards)
    advantages = group_advantages(order, 3, settings.get("scale_rewards", "group"))
    assert_close(advantages.sort().values, seen["advantages"].sort().values, **EXACT)  # TRL has shuffled the answers

    batch = {
        "input_ids": torch.cat([seen["prompt_ids"], seen["completion_ids"]], 1),
        "attention_mask": torch.cat([seen["prompt_mask"], seen["completion_mask"]], 1),
    }
    answers = torch.cat([torch.zeros_like(seen["prompt_mask"]), seen["completion_mask"]], 1)
    batch["labels"] = batch["input_ids"].masked_fill(answers == 0, -100)
    now, mask = answer_logprobs(model, batch, how.temperature), answer_mask(batch["labels"])
    before = None
    if how.beta:
        with torch.no_grad():
            model.set_adapter("ref")
            before = answer_logprobs(model, batch, how.temperature)
            model.set_adapter("default")
    ours = grpo_loss(
        now, mask, seen["advantages"], None, before, beta=how.beta, epsilon=how.epsilon, epsilon_high=how.epsilon_high,
        loss_type=how.loss_type, longest=7,
    )  # fmt: skip
    model.zero_grad()
    ours.backward()
    assert_close(ours, trainer.their_loss, **EXACT)
    assert_close(gradients(model), trainer.their_gradients, rtol=1e-4, atol=1e-6)


def test_clipped_ratios_equal_trl(tiny_llama, tokenizer, tmp_path):
    """With the sampler's numbers moved away from the model's, so that ratios leave the range on both sides."""
    trainer = grpo_trainer(adapted(tiny_llama, tokenizer), tokenizer, tmp_path, epsilon=0.1, epsilon_high=0.4)
    seen, how, model = dict(trainer.seen), trainer.args, trainer.model
    seen["old_per_token_logps"] = -torch.rand(seen["completion_ids"].shape) * 20
    batch = torch.cat([seen["prompt_ids"], seen["completion_ids"]], 1)
    length = seen["completion_ids"].shape[1]
    attention = torch.cat([seen["prompt_mask"], seen["completion_mask"]], 1)
    now, _, _ = trainer._get_per_token_logps_and_entropies(model, batch, attention, length)
    seen["old_per_token_logps"] = now.detach() + torch.linspace(-1, 1, now.numel()).view(now.shape)
    theirs = trainer._compute_loss(model, seen)
    ours = grpo_loss(
        now, seen["completion_mask"].bool(), seen["advantages"], seen["old_per_token_logps"],
        epsilon=how.epsilon, epsilon_high=how.epsilon_high,
    )  # fmt: skip
    assert_close(ours, theirs.to(ours), **EXACT)
