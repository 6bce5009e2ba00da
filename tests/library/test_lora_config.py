"""lora_config: every field of peft's LoraConfig is decided by what it does to the numbers, with peft as the judge."""

import dataclasses
import json
import math

import pytest
import torch
from lora_models import assert_same_bits, build_gpt2, logits, peft, peft_random, pefts_known_warnings

from lab_utils.errors import LabError
from lab_utils.lora.facts import read_facts
from lab_utils.lora.files import CONFIG, read_adapter
from lab_utils.lora.peft_config import CHANGES, FIELDS, INIT, KEEPS_BASE, OTHERS, READ
from lab_utils.lora.states import load_adapter
from lab_utils.lora.whole_model import inject

pytestmark = [*pefts_known_warnings, pytest.mark.filterwarnings("ignore:.*eva_config|.*corda_config|.*loftq_config")]


def saved(build, folder, change=None, **config):
    """A folder as peft saves it, with `change` written into its config; and peft's model."""
    theirs = peft_random(build(), **{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **config})
    theirs.save_pretrained(folder)
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **(change or {})}))
    return theirs


def ours(build, folder):
    state, settings = read_adapter(folder)
    return load_adapter(inject(build(), **settings), state)


def test_every_field_of_the_installed_peft_is_decided():
    assert FIELDS.keys() == {field.name for field in dataclasses.fields(peft.LoraConfig)}


def test_what_peft_calls_a_variant_is_no_note():
    """peft marks the fields that choose another forward pass; two of them do so only while training."""
    variants = {field.name for field in dataclasses.fields(peft.LoraConfig) if field.metadata.get("is_lora_variant")}
    training_only = {"velora_config", "monteclora_config"}
    by_tensors = {"use_bdlora", "use_dora"}
    assert {name for name in variants if FIELDS[name] == CHANGES} == variants - training_only - by_tensors


HARMLESS = {  # in the config alone: written there after peft saved the adapter
    "alora_invocation_tokens": [], "arrow_config": None, "auto_mapping": {"base_model_class": "X"}, "bias": "all",
    "base_model_name_or_path": "/somewhere/else", "corda_config": {"corda_method": "kpm"}, "ensure_weight_tying": True,
    "eva_config": {"rho": 2.0, "tau": 0.99}, "exclude_modules": ["k_proj", "lm_head"], "fan_in_fan_out": True,
    "inference_mode": False, "kasa_config": None, "layer_replication": None, "layers_pattern": "layers",
    "layers_to_transform": [0, 1], "loftq_config": {"loftq_bits": 4}, "lora_bias": False, "lora_dropout": 0.3,
    "lora_ga_config": {"direction": "ArBr"}, "megatron_config": {"a": 1}, "megatron_core": "another.core",
    "modules_to_save": [], "monteclora_config": {"num_samples": 4}, "peft_version": "99.0", "qalora_group_size": 8,
    "rank_pattern": {"q_proj": 4, "no_such_layer": 9}, "revision": "main", "runtime_config": {"x": 1},
    "alpha_pattern": {"v_proj": 8, ".*nothing.*": 99}, "target_parameters": [], "task_type": "CAUSAL_LM",
    "trainable_token_indices": [], "use_bdlora": {"nblocks": 1, "target_modules_bd_a": ["q_proj"]}, "use_qalora": False,
    "use_rslora": False, "velora_config": {"scale": 2.0}, "a_field_of_tomorrow": None, "another": {},
    "_comment": "from Monday",
}  # fmt: skip


@pytest.mark.parametrize("field", HARMLESS)
def test_an_option_that_changes_no_number_is_accepted(tiny_llama, tmp_path, field):
    theirs = saved(tiny_llama, tmp_path, {field: HARMLESS[field]})
    assert_same_bits(logits(ours(tiny_llama, tmp_path)), logits(theirs))


@pytest.mark.parametrize("key, value", [
    ("merge_weights", True), ("transformers_version", "5.0"), ("a_field_of_tomorrow", {"x": [1]}),
])  # fmt: skip
def test_a_key_that_peft_does_not_know_is_noted_and_passed_over(tiny_llama, tmp_path, key, value):
    theirs = saved(tiny_llama, tmp_path, {key: value})
    with pytest.warns(UserWarning, match=rf"Unexpected keyword arguments \['{key}'\].*ignored"):
        again = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert_same_bits(logits(again), logits(theirs))
    with pytest.warns(UserWarning, match=f"{CONFIG} has {key}=.*peft does not know that"):
        found = ours(tiny_llama, tmp_path)
    assert_same_bits(logits(found), logits(theirs))


@pytest.mark.parametrize("replication", [[[0, 2]], [[0, 1], [1, 2]], [[0, 0], [0, 2]]])
def test_replicating_every_layer_once_changes_nothing(tiny_llama, tmp_path, replication):
    saved(tiny_llama, tmp_path, {"layer_replication": replication})
    theirs = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert_same_bits(logits(ours(tiny_llama, tmp_path)), logits(theirs))
    for layers in (1, 3):
        settings = read_adapter(tmp_path).settings
        with pytest.raises(LabError, match=f"makes a model of 2 layers, and this base has {layers} layers"):
            inject(tiny_llama(num_hidden_layers=layers), **settings)


@pytest.mark.parametrize("init", [*KEEPS_BASE, "Gaussian", "true"])
def test_ways_to_begin_that_leave_the_base_alone_are_accepted(tiny_llama, tmp_path, init):
    theirs = saved(tiny_llama, tmp_path, {"init_lora_weights": {"true": True, "false": False}.get(init, init)})
    assert_same_bits(logits(ours(tiny_llama, tmp_path)), logits(theirs))


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga", "tomorrow"])
def test_ways_to_begin_that_move_the_base_are_refused(tiny_llama, tmp_path, init):
    """The judge is peft: of those that it can begin without data, each leaves another base behind."""
    if init in ("pissa", "pissa_niter_4", "olora"):
        moved = peft.get_peft_model(tiny_llama(), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=init))
        with moved.disable_adapter():
            assert not torch.equal(logits(moved), logits(tiny_llama()))
    saved(tiny_llama, tmp_path, {"init_lora_weights": init})
    with pytest.raises(LabError, match=f"init_lora_weights='{init}'.*path_initial_model"):
        read_adapter(tmp_path)


AS_PEFT_SAVES = {
    "eva": {"init_lora_weights": "eva"}, "mica": {"init_lora_weights": "mica"},
    "orthogonal": {"init_lora_weights": "orthogonal"}, "excluding": {"exclude_modules": ["layers.0.self_attn.q_proj"]},
    "excluding by pattern": {"exclude_modules": r".*layers\.1.*v_proj"}, "all layers": {"layers_to_transform": [0, 1]},
    "one layer": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "one pattern for all": {"rank_pattern": {".*_proj": 2}, "alpha_pattern": {"q_proj|v_proj": 3}},
    "bias of a model without": {"bias": "all"}, "a pattern": {"target_modules": r".*\.0\..*(k|down)_proj"},
    "mixed, every layer": {"target_modules": "all-linear"}, "velora": {"velora": True}, "monteclora": {"monte": True},
    "in blocks, of which there is one": {"blocks": True},
}  # fmt: skip


@pytest.mark.parametrize("case", AS_PEFT_SAVES)
def test_what_peft_saved_with_an_option_computes_the_same_here(tiny_llama, tmp_path, case):
    from peft.tuners.lora.config import BdLoraConfig, MontecloraConfig, VeloraConfig

    config = dict(AS_PEFT_SAVES[case])
    if config.pop("velora", False):
        config["velora_config"] = VeloraConfig(num_groups=8)
    if config.pop("monte", False):
        config["monteclora_config"] = MontecloraConfig(num_samples=2, buffer_size=2)
    if config.pop("blocks", False):
        config["use_bdlora"] = BdLoraConfig(target_modules_bd_a=["q_proj"], target_modules_bd_b=["v_proj"])
    theirs = saved(tiny_llama, tmp_path, **config)
    assert_same_bits(logits(ours(tiny_llama, tmp_path)), logits(theirs))


CHANGING = {
    "trained biases": ({"bias": "all"}, "bias='all'.*biases were trained"),
    "two ranks": ({"rank_pattern": {"attn.c_proj": 2}}, "rank_pattern="),
    "two alphas": ({"alpha_pattern": {"attn.c_proj": 2}}, "alpha_pattern="),
    "dora": ({"use_dora": True}, "use_dora=True"), "biases of B": ({"lora_bias": True}, "lora_bias=True"),
    "a whole module": (
        {"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\].*trained as a whole.*Train with"
    ),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGING)
def test_an_option_that_changes_numbers_is_named_with_the_way_out(tmp_path, case):
    config, message = CHANGING[case]
    saved(build_gpt2, tmp_path, **{"target_modules": ["c_attn", "attn.c_proj"], **config})
    with pytest.raises(LabError, match=f"{CONFIG} uses.*{message}"):
        read_adapter(tmp_path)


CONTRADICTIONS = [
    ({"r": 8}, "says r=8, and lora_A and lora_B of .*q_proj have rank 4"),
    ({"rank_pattern": {"v_proj": 8}}, r"rank_pattern=.*v_proj have rank 4"),
    ({"r": True}, "r=True"), ({"r": "4"}, "r='4'"), ({"r": 0}, "r=0"),
    ({"lora_alpha": "8"}, "alpha='8' is out of range"), ({"lora_alpha": math.nan}, "alpha=nan"),
    ({"lora_alpha": math.inf}, "alpha=inf"), ({"lora_dropout": 1.5}, "dropout=1.5"),
    ({"use_rslora": 1}, "use_rslora=1"), ({"use_bdlora": 1}, "use_bdlora=1"),
    ({"alpha_pattern": {"q_proj": "x"}}, "alpha='x'"), ({"alpha_pattern": {"(": 2}}, "not a regular expression"),
    ({"alpha_pattern": [1]}, "an object"), ({"target_modules": "("}, "not a regular expression"),
    ({"target_modules": ["q_proj"]}, r"leaves out .*v_proj"), ({"target_modules": 3}, "target_modules=3"),
    ({"target_modules": ["q_proj", 3]}, "a list of names"), ({"exclude_modules": "(", "r": 4}, "regular expression"),
    ({"exclude_modules": ["v_proj"]}, "leaves out .*v_proj"), ({"layers_to_transform": [0]}, r"leaves out .*layers\.1"),
    ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"), ({"layer_replication": [[1, 2]]}, "repeats layers"),
    ({"layer_replication": [0, 2]}, "layer_replication"), ({"layer_replication": "x"}, "layer_replication='x'"),
    ({"use_bdlora": {"nblocks": 2, "target_modules_bd_a": 5}}, "target_modules_bd_a=5 in use_bdlora.*a list of names"),
    ({"use_bdlora": {"nblocks": 2, "target_modules_bd_b": "q_proj"}}, "target_modules_bd_b='q_proj'"),
    ({"use_bdlora": {"target_modules_bd_a": [None]}}, r"target_modules_bd_a=\[None\]"),
    ({"lora_alpha": 10**400}, r"alpha=\(a number of 1,329 bits\)"), ({"lora_dropout": 10**400}, "dropout=.*1,329 bits"),
    ({"kasa_config": {"x": 1}}, "kasa_config"),
    ({"use_bdlora": {"nblocks": 2, "target_modules_bd_a": ["q_proj"]}}, "use_bdlora"),
    ({"peft_type": None}, "does not say peft_type"), ({"peft_type": ["LORA"]}, "and not 'LORA'"),
    ({"target_modules": None, "target_parameters": ["x"]}, "target_parameters="),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS, ids=str)
def test_what_cannot_be_is_named_with_its_file(tiny_llama, tmp_path, change, message):
    saved(tiny_llama, tmp_path, change)
    with pytest.raises(LabError, match=message) as caught:
        read_adapter(tmp_path)
    assert str(tmp_path / CONFIG) in str(caught.value)


@pytest.mark.parametrize("config", [[], None, "text", 3, {}, {"peft_type": "LORA"}])
def test_a_config_that_is_none(config):
    with pytest.raises(LabError, match=r"x\.json"):
        read_facts(config, {"m.lora_A.weight": torch.zeros(1, 2), "m.lora_B.weight": torch.zeros(2, 1)}, "x.json")


def test_the_scaling_of_each_layer():
    state = {"a.q.lora_A.weight": torch.zeros(4, 8), "a.q.lora_B.weight": torch.zeros(8, 4)}
    state |= {"a.v.lora_A.weight": torch.zeros(2, 8), "a.v.lora_B.weight": torch.zeros(8, 2)}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q", "v"]}
    config |= {"rank_pattern": {"v": 2}, "alpha_pattern": {"v": 6}}
    facts = read_facts(config, state, "x.json")
    assert facts.layers == {"a.q": (4, 8), "a.v": (2, 6)}
    assert (facts.scaling("a.q"), facts.scaling("a.v")) == (2, 3)
    facts = read_facts({**config, "use_rslora": True}, state, "x.json")
    assert (facts.scaling("a.q"), facts.scaling("a.v")) == (8 / 2, 6 / math.sqrt(2))


def test_the_words_for_each_decision_are_used():
    assert {READ, CHANGES, OTHERS, INIT} < set(FIELDS.values())
