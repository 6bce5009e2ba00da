"""Full fine-tuning: the layers' matrices and nothing else are trained, as a plain loop written here trains them."""

import math

import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.finetune.batches import plan_batches
from lab_utils.finetune.full import load_full, matrices, train_full, training_steps
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.supervision import encode_split
from lab_utils.tasks.registry import TASKS

NAMES = ("item", "drone", "gong", "projector", "tent", "canoe")
ROWS = [{"prompt": f"{count} {name}s please", "answer": f'{{"{name}":{count}}}'} for count, name in enumerate(NAMES)]


@pytest.fixture
def full(tiny_llama):
    """A tiny model as `load_full` would return it."""
    model = tiny_llama(49152).requires_grad_(False)
    for module in matrices(model).values():
        module.weight.requires_grad_(True)
    return model


def test_the_matrices_are_those_of_the_layers(tiny_llama):
    """Seven a layer; the head is none of them, tied to the embedding or not."""
    for tied in (True, False):
        found = matrices(tiny_llama(tie_word_embeddings=tied))
        assert len(found) == 2 * 7 and not any("lm_head" in name for name in found)
        # hidden 64, two of four heads for k and v, 128 between
        assert sum(module.weight.numel() for module in found.values()) == 2 * (2 * 64**2 + 2 * 32 * 64 + 3 * 128 * 64)


def hand_loop(model, tokenizer, recipe) -> list[float]:
    """The same training in plain words: transformers' own loss, one example at a time, no padding."""
    examples = encode_split(tokenizer, TASKS[recipe.task], ROWS, recipe.max_length)
    plan = plan_batches([len(example.input_ids) for example in examples], recipe.batch_size, recipe.steps, recipe.seed)
    trained = [p for name, p in model.named_parameters() if "_proj" in name]
    optimizer = torch.optim.AdamW(trained, lr=1.0, weight_decay=recipe.weight_decay, fused=False)
    losses = []
    for step, indices in enumerate(plan):
        total, count = 0.0, 0
        for index in indices:
            ids = torch.tensor([examples[index].input_ids])
            labels = ids.clone()
            labels[:, : examples[index].prompt_length] = -100
            answer = ids.shape[1] - examples[index].prompt_length
            total, count = total + model(input_ids=ids, labels=labels).loss * answer, count + answer
        loss = total / count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("changes", [{}, {"weight_decay": 0.1, "max_grad_norm": 0.05, "seed": 3}], ids=["plain", "all"])
def test_training_equals_a_plain_loop(full, tiny_llama, tokenizer, changes):
    recipe = Recipe(steps=4, batch_size=2, learning_rate=3e-3, **changes)
    reference = tiny_llama(49152)
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    expected = hand_loop(reference, tokenizer, recipe)
    assert expected[0] != pytest.approx(expected[-1], rel=0.01)  # it does learn: else the rest would hold nothing
    assert train_full(full, tokenizer, recipe, ROWS) == pytest.approx(expected, rel=1e-4)
    assert not full.training
    for name, tensor in full.state_dict().items():
        if "_proj" in name:
            torch.testing.assert_close(tensor, reference.state_dict()[name], rtol=1e-3, atol=1e-4)
            assert not torch.equal(tensor, before[name]), name
        else:
            assert torch.equal(tensor, before[name]), name


def test_progress_is_a_line_a_step(full, tokenizer):
    lines = []
    losses = train_full(full, tokenizer, Recipe(steps=2, batch_size=2), ROWS, on_step=lines.append)
    assert lines == [f"step {i + 1} of 2, loss {loss:.4f}" for i, loss in enumerate(losses)]


def test_a_loss_that_is_not_finite_ends_it(full, tokenizer):
    with torch.no_grad():
        full.model.layers[1].mlp.down_proj.weight.fill_(math.nan)
    with pytest.raises(LabError, match=r"loss is nan at step 1: lower learning_rate \(0\.002\)"):
        train_full(full, tokenizer, Recipe(steps=2, batch_size=2), ROWS)


def test_a_gradient_that_is_not_finite_ends_it(full, tokenizer):
    matrices(full)["model.layers.0.mlp.up_proj"].weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(LabError, match=r"gradient is (nan|inf) at step 1: lower learning_rate"):
        train_full(full, tokenizer, Recipe(steps=2, batch_size=2), ROWS)


@pytest.mark.parametrize("row", [{"instruction": "a", "output": "b"}, {"prompt": "a", "answer": None}, "a"])
def test_a_row_that_is_none_is_named(full, tokenizer, row):
    with pytest.raises(LabError, match="training example 2"):
        train_full(full, tokenizer, Recipe(steps=2, batch_size=2), [ROWS[0], row])


def test_a_model_without_layers_is_named(tokenizer):
    with pytest.raises(LabError, match="Embedding has no linear module"):
        train_full(torch.nn.Embedding(2, 2), tokenizer, Recipe(steps=2), ROWS)


def test_the_real_model_is_loaded_in_float32_with_gradients_for_its_matrices():
    model, _ = load_full(Recipe(model="smollm2-135m"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # 30 layers: q, o 576×576; k, v 192×576; gate, up 1536×576; down 576×1536
    expected = 30 * (2 * 576**2 + 2 * 192 * 576 + 3 * 1536 * 576)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected == 106_168_320
    assert sum(module.weight.numel() for module in matrices(model).values()) == expected


def test_a_run_goes_on_after_steps_that_are_done(tiny_llama, tokenizer):
    """Model and optimizer given over as they are: the same batches, rates and losses as without a break."""
    recipe = Recipe(steps=6, batch_size=2, learning_rate=3e-3)

    def build():
        model = tiny_llama(49152)
        return model, torch.optim.AdamW([module.weight for module in matrices(model).values()], recipe.learning_rate)

    model, optimizer = build()
    whole = list(training_steps(model, tokenizer, recipe, ROWS, optimizer))
    model, optimizer = build()
    steps = training_steps(model, tokenizer, recipe, ROWS, optimizer)
    first = [next(steps) for _ in range(2)]
    again, fresh = build()
    again.load_state_dict(model.state_dict())
    fresh.load_state_dict(optimizer.state_dict())
    assert first + list(training_steps(again, tokenizer, recipe, ROWS, fresh, done=2)) == whole
