"""lora_keys: every spelling of a tensor's name means the tensor that peft names so, and none is taken for another."""

import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.lora.keys import PREFIX, canonical, parse

SAVED = f"{PREFIX}model.layers.0.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    "spelling",
    [
        SAVED, "model.layers.0.q_proj.lora_A.weight", f"{PREFIX}model.layers.0.q_proj.lora_A.default.weight",
        f"module.{SAVED}", f"_orig_mod.{SAVED}", f"{PREFIX}_orig_mod.model.layers.0.q_proj.lora_A.weight",
        "model.layers._checkpoint_wrapped_module.0.q_proj._checkpoint_wrapped_module.lora_A.weight",
        f"{PREFIX}model._fsdp_wrapped_module.layers.0.q_proj.lora_A.mine.weight",
        "model.layers.0.q_proj.lora_A.weight.weight",  # an adapter that is called "weight"
    ],
)  # fmt: skip
def test_every_spelling_is_the_name_that_peft_writes(spelling):
    assert list(canonical({spelling: torch.zeros(1)})) == [SAVED]


@pytest.mark.parametrize(
    "saved",
    [
        f"{PREFIX}m.q.lora_B.bias", f"{PREFIX}m.e.lora_embedding_A", f"{PREFIX}m.e.lora_embedding_B",
        f"{PREFIX}m.q.lora_magnitude_vector", f"{PREFIX}lm_head.weight", f"{PREFIX}m.e.base_layer.weight",
        f"{PREFIX}m.q.vera_lambda_b", f"{PREFIX}my_orig_mod.q.lora_A.weight",
    ],
)  # fmt: skip
def test_what_peft_writes_stays(saved):
    assert parse(saved).saved == saved
    assert parse(saved.removeprefix(PREFIX)).saved == saved


def test_names_with_the_adapters_name_inside():
    assert parse("m.e.lora_embedding_A.default").saved == f"{PREFIX}m.e.lora_embedding_A"
    assert parse("m.q.lora_magnitude_vector.default.weight").saved == f"{PREFIX}m.q.lora_magnitude_vector"
    assert parse("lm_head.modules_to_save.default.weight").saved == f"{PREFIX}lm_head.weight"
    assert parse("m.q.lora_B.default.bias") == ("m.q", "lora_B", True)


def test_two_adapters_in_one_file_are_refused():
    state = {f"m.q.lora_A.{name}.weight": torch.zeros(1) for name in ("first", "second")}
    with pytest.raises(LabError, match=r"x\.safetensors holds two tensors for .*lora_A\.first.*lora_A\.second"):
        canonical(state, "x.safetensors")
