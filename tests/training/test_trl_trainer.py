"""What TRL's trainer needs on every card: one GPU for one process, and adapters in float32."""

from types import SimpleNamespace

import torch
from transformers import TrainingArguments

from lab_utils.finetune import float32_adapters, one_card


def test_a_trainer_in_one_process_uses_one_card(tmp_path):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    assert one_card(arguments).n_gpu <= 1
    arguments._n_gpu = 2  # as transformers counts two T4s
    assert arguments.train_batch_size == 8
    assert one_card(arguments) is arguments and arguments.n_gpu == 1
    assert arguments.train_batch_size == 4  # the recipe's, not twice as many


def test_what_is_trained_is_float32_and_the_rest_as_it_was():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).to(torch.bfloat16)
    model[0].requires_grad_(False)
    same = model[1].weight
    trainer = SimpleNamespace(model=model)
    assert float32_adapters(trainer) is trainer
    assert model[1].weight is same and same.dtype == model[1].bias.dtype == torch.float32
    assert model[0].weight.dtype == torch.bfloat16
