"""evaluate.changed_weights: what is changed within the block, what comes back after it, and what is refused."""

import math

import pytest
import torch
from letter_tokens import TEXT, letters

from lab_utils.errors import LabError
from lab_utils.evaluate import changed_weights, token_losses


def test_weights_are_changed_within_the_block_and_only_there(tiny_llama):
    """Doubled in the layers, untouched in embedding, norms and head; back to the bit afterwards."""
    model = tiny_llama(tie_word_embeddings=False).bfloat16()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with changed_weights(model, lambda weight: 2 * weight) as errors:
        for name, tensor in model.state_dict().items():
            factor = 2 if "_proj" in name else 1
            assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, factor * before[name]), name
    assert len(errors) == 14 and set(errors.values()) == {1.0}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with changed_weights(model, torch.zeros_like, skip=()) as errors:
        assert "lm_head" in errors and not model.lm_head.weight.any()


def test_an_unchanged_model_loses_nothing_and_a_changed_one_does(tiny_llama):
    model = tiny_llama()
    losses = token_losses(model, letters, TEXT)
    with changed_weights(model, torch.clone) as errors:
        assert torch.equal(token_losses(model, letters, TEXT), losses) and set(errors.values()) == {0.0}
    with changed_weights(model, torch.zeros_like):
        assert not torch.allclose(token_losses(model, letters, TEXT), losses, atol=1e-2)


def test_one_name_alone_to_skip_is_that_name_and_no_part_of_it(tiny_llama):
    model = tiny_llama()
    names = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    with changed_weights(model, torch.clone, skip="q_proj_and_more") as errors:
        assert set(errors) == names
    with changed_weights(model, torch.clone, skip="q_proj") as errors:
        assert set(errors) == {name for name in names if not name.endswith("q_proj")}


def test_weights_come_back_after_an_error(tiny_llama):
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shapes = []

    def fail_at_the_third(weight):
        shapes.append(weight.shape)
        if len(shapes) == 3:
            raise RuntimeError("third")
        return torch.zeros_like(weight)

    with pytest.raises(RuntimeError, match="third"), changed_weights(model, fail_at_the_third):
        pass
    with pytest.raises(LabError, match="shape"), changed_weights(model, lambda weight: weight[:1]):
        pass
    with pytest.raises(RuntimeError, match="inside"), changed_weights(model, torch.zeros_like):
        raise RuntimeError("inside")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_change_that_gives_nan_is_named(tiny_llama):
    def spoil(weight):
        changed = weight.clone()
        changed[1, 2] = math.nan
        return changed

    with pytest.raises(LabError, match=r"the changed model.*q_proj\.weight.*1.*2.*`change`"):
        with changed_weights(tiny_llama(), spoil):
            pass
    broken = tiny_llama()
    broken.model.layers[1].mlp.up_proj.weight.data[3, 0] = math.inf
    with pytest.raises(LabError, match=r"layers\.1\.mlp\.up_proj\.weight.*3.*0"):
        with changed_weights(broken, torch.clone):
            pass


def test_a_quantized_model_or_one_without_linear_weights_is_refused(nf4_base):
    with pytest.raises(LabError, match=r"q_proj is quantized already.*quantization='none'"):
        with changed_weights(nf4_base, torch.clone):
            pass
    with pytest.raises(LabError, match="no linear weight"), changed_weights(torch.nn.ReLU(), torch.clone):
        pass
