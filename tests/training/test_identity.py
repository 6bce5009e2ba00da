"""What identifies a run: other data, tokens or weights are told apart, and the same ones on another machine are not."""

from types import SimpleNamespace

import pytest
import torch

from lab_utils.device import Device
from lab_utils.errors import LabError
from lab_utils.finetune.adapter import attach_adapter, take_off_adapter
from lab_utils.finetune.identity import base_identity, data_digest, differences, refuse_other, tokens_digest
from lab_utils.finetune.recipe import Recipe

HERE, THERE = Device("cpu", "this one", "float32", ""), Device("cpu", "another one", "float32", "")
ROWS = [{"prompt": "a", "answer": "b"}, {"prompt": "c", "answer": "d"}]


def test_data_differ_in_content_order_number_and_the_place_of_a_border():
    digest = data_digest(ROWS)
    assert digest == data_digest(iter(ROWS)) and len(digest) == 16
    others = [
        ROWS[::-1], ROWS[:1], [*ROWS, ROWS[0]], [], [{"prompt": "ab", "answer": ""}, ROWS[1]],
        [{"prompt": "a", "answer": "b "}, ROWS[1]], [{"prompt": "b", "answer": "a"}, ROWS[1]],
    ]  # fmt: skip
    digests = [digest, *map(data_digest, others)]
    assert len(set(digests)) == len(digests)


def test_tokens_differ_in_ids_and_in_where_the_answer_begins():
    def examples(*pairs):
        return [SimpleNamespace(input_ids=ids, prompt_length=length) for ids, length in pairs]

    digests = [
        tokens_digest(examples(*pairs)) for pairs in ([([1, 2, 3], 2)], [([1, 2, 3], 1)], [([1, 2, 4], 2)], [])
    ]
    assert len(set(digests)) == 4


def test_the_base_is_the_same_with_and_without_an_adapter(tiny_llama):
    model = tiny_llama()
    bare = base_identity(model, HERE)
    adapted = attach_adapter(model, Recipe(rank=2))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    assert base_identity(adapted, HERE) == bare == base_identity(take_off_adapter(adapted), HERE)


@pytest.mark.parametrize("name", ["layers.1.mlp.down_proj", "norm", "embed_tokens"])
def test_one_changed_number_makes_another_base(tiny_llama, name):
    model, saved = tiny_llama(), base_identity(tiny_llama(), HERE)
    with torch.no_grad():
        model.get_parameter(f"model.{name}.weight").view(-1)[-1] += 1
    assert differences({"base": saved}, {"base": base_identity(model, HERE)})


def test_one_changed_code_makes_another_base_in_four_bits(nf4_base):
    saved = base_identity(nf4_base, HERE)
    assert saved == base_identity(nf4_base, HERE)
    packed = nf4_base.model.layers[3].mlp.up_proj.weight.data
    packed.view(-1)[100] ^= 1
    try:
        assert base_identity(nf4_base, HERE)["weights"] != saved["weights"]
    finally:
        packed.view(-1)[100] ^= 1


def test_other_sizes_make_another_base_wherever_they_are(tiny_llama):
    saved = {"base": base_identity(tiny_llama(), HERE)}
    for changes in ({"num_hidden_layers": 1}, {"intermediate_size": 96}, {"vocabulary": 62}):
        assert differences(saved, {"base": base_identity(tiny_llama(**changes), THERE)})


def test_rounding_on_another_machine_makes_no_other_base(tiny_llama):
    """In bfloat16 every weight is another number, by up to 1 in 256 of its size."""
    saved = {"base": base_identity(tiny_llama(), HERE)}
    rounded = tiny_llama().to(torch.bfloat16)
    assert differences(saved, {"base": base_identity(rounded, THERE)}) == []
    assert differences(saved, {"base": base_identity(rounded, HERE)})
    torch.manual_seed(1)
    for parameter in rounded.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert differences(saved, {"base": base_identity(rounded, THERE)})


def test_what_differs_is_named_and_what_one_does_not_know_is_not_compared():
    now = {"data": "1", "tokens": "2"}
    assert differences({}, now) == differences({"data": "1"}, now) == differences(now, now) == []
    assert differences({"data": "0", "tokens": "0"}, now) == ["other training data"]
    assert "tokenizer" in differences({"data": "1", "tokens": "0"}, now)[0]
    with pytest.raises(LabError, match=r"somewhere holds a run .* with other training data.*resume=False"):
        refuse_other("somewhere", {"data": "0"}, now)
