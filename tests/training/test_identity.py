"""What identifies a run: other data, tokens or weights are told apart, and the same ones on another machine are not."""


import pytest
import torch

from lab_utils.device import Device
from lab_utils.errors import LabError
from lab_utils.finetune.adapter import attach_adapter, take_off_adapter
from lab_utils.finetune.identity import base_identity, data_digest, tokens_digest
from lab_utils.finetune.identity_differences import differences, is_identity, refuse_other
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.supervision import Encoded

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
        return [Encoded(*pair) for pair in pairs]

    several = ([([1, 2, 3], 2)], [([1, 2, 3], 1)], [([1, 2, 4], 2)], [([1, 2, 3], 1, ((1, 2),))], [])
    assert len({tokens_digest(examples(*pairs)) for pairs in several}) == 5


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


@pytest.mark.parametrize("changes", [
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"rms_norm_eps": 1e-3}, {"hidden_act": "gelu"},
    {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}, {"attention_dropout": 0.1},
    {"max_position_embeddings": 256},
], ids=lambda changes: next(iter(changes)))  # fmt: skip
@pytest.mark.parametrize("there", [HERE, THERE], ids=["here", "there"])
def test_the_same_weights_with_other_settings_are_another_base_and_the_setting_is_named(tiny_llama, changes, there):
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    model, other = tiny_llama(**shape), tiny_llama(**{**shape, **changes})
    if "head_dim" not in changes:
        other.load_state_dict(model.state_dict())
    found = differences({"base": base_identity(model, HERE)}, {"base": base_identity(other, there)})
    assert len(found) == 1 and f"{next(iter(changes))}: " in found[0] and " there, " in found[0]


def test_where_a_base_is_from_and_how_it_is_run_is_not_compared(tiny_llama):
    model, saved = tiny_llama(), base_identity(tiny_llama(), HERE)
    for name, value in (("name_or_path", "elsewhere"), ("use_cache", False), ("pad_token_id", 5), ("dtype", "float16"),
                        ("transformers_version", "9.0"), ("_attn_implementation", "sdpa")):  # fmt: skip
        setattr(model.config, name, value)
    now = base_identity(model, HERE)
    assert now["config"] == saved["config"] and differences({"base": saved}, {"base": now}) == []
    newer = now | {"config": now["config"] | {"a_setting_of_a_later_version": 1}}
    newer["config"]["rope_parameters"] = now["config"]["rope_parameters"] | {"added": 1}
    assert differences({"base": saved}, {"base": newer}) == differences({"base": newer}, {"base": saved}) == []


@pytest.mark.parametrize(("name", "change"), [
    ("embed_tokens", lambda one: one[[2, 1, 0, *range(3, 61)]]), ("embed_tokens", lambda one: one.flip(0)),
    ("layers.0.mlp.up_proj", lambda one: one.flip(1)), ("layers.1.self_attn.o_proj", lambda one: one.flip(0)),
    ("layers.1.self_attn.q_proj", lambda one: one.T),
], ids=["embedding rows", "embedding flipped", "columns", "rows", "transposed"])  # fmt: skip
def test_numbers_that_changed_places_make_another_base(tiny_llama, name, change):
    model, saved = tiny_llama(), base_identity(tiny_llama(), HERE)
    with torch.no_grad():
        weight = model.get_parameter(f"model.{name}.weight")
        weight.copy_(change(weight.clone()))
    assert differences({"base": saved}, {"base": base_identity(model, HERE)})


def test_two_layers_that_changed_places_make_another_base_wherever_they_are(tiny_llama):
    model, saved = tiny_llama(), base_identity(tiny_llama(), HERE)
    first, second = (layer.mlp for layer in model.model.layers)
    model.model.layers[0].mlp, model.model.layers[1].mlp = second, first
    for machine in (HERE, THERE):
        assert differences({"base": saved}, {"base": base_identity(model, machine)})


@pytest.mark.parametrize(
    "name", ["layers.0.self_attn.k_proj", "layers.1.mlp.down_proj", "layers.1.input_layernorm", "norm", "embed_tokens"]
)
def test_every_tensor_is_sampled_for_another_machine(tiny_llama, name):
    model, saved = tiny_llama(), base_identity(tiny_llama(), HERE)
    with torch.no_grad():
        model.get_parameter(f"model.{name}.weight").mul_(1.1)
    assert differences({"base": saved}, {"base": base_identity(model, THERE)})


def test_four_bit_scales_are_sampled_for_another_machine(nf4_base):
    saved = base_identity(nf4_base, HERE)
    state = nf4_base.model.layers[7].mlp.up_proj.weight.quant_state
    scales = state.state2.absmax if state.nested else state.absmax
    scales.mul_(2)
    try:
        for machine in (HERE, THERE):
            assert differences({"base": saved}, {"base": base_identity(nf4_base, machine)})
    finally:
        scales.div_(2)
    assert differences({"base": saved}, {"base": base_identity(nf4_base, THERE)}) == []


def test_a_record_of_an_earlier_version_is_compared_by_what_it_holds(tiny_llama):
    now = base_identity(tiny_llama(), HERE)
    old = {name: now[name] for name in ("name", "shapes", "weights", "sample", "made")}
    assert differences({"base": old}, {"base": now}) == []
    assert differences({"base": old}, {"base": base_identity(tiny_llama().to(torch.bfloat16), THERE)}) == []
    assert differences({"base": old | {"weights": "0"}}, {"base": now})


def test_a_base_without_values_is_refused_by_name(tiny_llama):
    with pytest.raises(LabError, match=r"model\.embed_tokens\.weight of this base has no values.*'meta'"):
        base_identity(tiny_llama().to("meta"), HERE)


@pytest.mark.parametrize("part", ["name", "shapes", "weights", "made", "sample", "samples", "config", "order"])
@pytest.mark.parametrize("value", [None, 5, {"a": None}, [None], [[None]], [True], [float("nan")]], ids=repr)
def test_what_cannot_be_compared_is_no_identity(tiny_llama, part, value):
    now = base_identity(tiny_llama(), HERE)
    assert is_identity({}) and is_identity({"data": "1", "tokens": "2", "base": now})
    assert not is_identity({"base": value}) and not is_identity({"data": value}) and not is_identity({"tokens": value})
    assert not is_identity({"base": {}})
    good = {part: now[part]} == {part: value} or (part == "config" and isinstance(value, dict))
    assert is_identity({"base": now | {part: value}}) == good


def test_what_differs_is_named_and_what_one_does_not_know_is_not_compared():
    now = {"data": "1", "tokens": "2"}
    assert differences({}, now) == differences({"data": "1"}, now) == differences(now, now) == []
    assert differences({"data": "0", "tokens": "0"}, now) == ["other training data"]
    counted = differences({"data": "0", "rows": 1200}, now | {"rows": 7})
    assert counted == ["other training data (1,200 rows there, 7 here)"]
    assert differences({"data": "0", "rows": 7}, now) == differences({"data": "0"}, now) == ["other training data"]
    assert is_identity({"rows": 7}) and not is_identity({"rows": "7"})
    assert "tokenizer" in differences({"data": "1", "tokens": "0"}, now)[0]
    with pytest.raises(LabError, match=r"somewhere holds a run .* with other training data.*resume=False"):
        refuse_other("somewhere", {"data": "0"}, now)


def test_eight_bit_scales_are_compared_before_and_after_the_first_use():
    from lab_utils.models.registry import load_base

    model, _ = load_base("smollm2-135m", "int8", verbose=False)
    saved = base_identity(model, HERE)
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))
    assert base_identity(model, HERE) == saved
    model.model.layers[4].mlp.up_proj.state.SCB.mul_(2)
    for machine in (HERE, THERE):
        assert differences({"base": saved}, {"base": base_identity(model, machine)})
