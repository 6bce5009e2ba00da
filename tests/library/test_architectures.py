"""architectures: shapes, totals and chosen modules against models that transformers builds and peft adapts."""

import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from lab_utils.counts.architectures import ARCHITECTURES, GROUPS, SIZES, Architecture, named
from lab_utils.counts.parameters import lora_parameters, lora_parameters_by_module
from lab_utils.errors import LabError

# name: total, LoRA of rank 8 on query and value, on all linear layers; the GPT-3 row's last number has q, k, v fused
REFERENCE = {
    "GPT-2": (124439808, 294912, 1179648),
    "GPT-2-M": (354823168, 786432, 3145728),
    "GPT-2-L": (774030080, 1474560, 5898240),
    "GPT-2-XL": (1557611200, 2457600, 9830400),
    "GPT-3": (174604259328, 37748736, 150994944),
    "RoBERTa-base": (124697433, 294912, 1339392),
    "RoBERTa-large": (355412057, 786432, 3555328),
    "DeBERTa-v2-XXL": (1567041636, 2359296, 10641408),
    "LLaMA-33B": (32528943616, 12779520, 60948480),
    "LLaMA-65B": (65285660672, 20971520, 99942400),
    "Llama-2-7B": (6738415616, 4194304, 19988480),
    "Llama-2-13B": (13015864320, 6553600, 31293440),
    "Llama-2-70B": (68976648192, 16384000, 103546880),
    "Llama-3-8B": (8030261248, 3407872, 20971520),
    "Llama-3-70B": (70553706496, 16384000, 103546880),
    "Mistral-7B": (7241732096, 3407872, 20971520),
    "Falcon-180B": (179522565120, 19660800, 133693440),
    "SmolLM2-135M": (134515008, 460800, 2442240),
    "SmolLM2-360M": (361821120, 819200, 4341760),
    "SmolLM2-1.7B": (1711376384, 1572864, 9043968),
    "Qwen2.5-0.5B": (494032768, 540672, 4399104),
    "Qwen2.5-1.5B": (1543714304, 1089536, 9232384),
    "Qwen2.5-3B": (3085938688, 1843200, 14966784),
    "Qwen2.5-7B": (7615616512, 2523136, 20185088),
    "Qwen3-0.6B": (596049920, 1146880, 5046272),
    "Qwen3-8B": (8190735360, 3833856, 21823488),
    "Gemma-3-1B": (999885952, 745472, 6522880),
    "Gemma-2B": (2506172416, 921600, 9805824),
}
ONE_OF_EACH = (
    "GPT-2", "RoBERTa-base", "DeBERTa-v2-XXL", "Llama-2-7B", "Llama-3-8B", "Mistral-7B", "Falcon-180B", "Qwen2.5-0.5B",
    "Gemma-2B",
)  # fmt: skip
QKVO, SHARED = ("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "v_proj", "down_proj")
NAMED = {  # target_modules as peft takes them, with names that match one module and names that match several
    "GPT-2": [("c_attn",), ("c_proj",), ("attn.c_proj",), ("mlp.c_proj", "c_fc")],
    "RoBERTa-base": [("query", "value"), ("dense",), ("attention.output.dense",), ("lm_head.dense", "key")],
    "DeBERTa-v2-XXL": [("query_proj", "value_proj"), ("dense",), ("intermediate.dense", "transform.dense")],
    "Llama-3-8B": [QKVO, SHARED],
    "Mistral-7B": [QKVO, ("gate_proj", "up_proj")],
    "Falcon-180B": [("query_key_value",), ("dense",), ("dense_h_to_4h", "dense_4h_to_h")],
    "Qwen2.5-0.5B": [QKVO, ("k_proj",)],
    "Gemma-2B": [QKVO, SHARED],
}


def build(a: Architecture):
    """The model on the meta device, without memory for its weights, from a transformers configuration."""
    import torch
    import transformers

    size = {"vocab_size": a.vocabulary, "hidden_size": a.hidden, "num_hidden_layers": a.n_layers}
    size |= {"num_attention_heads": a.heads, "intermediate_size": a.intermediate, "tie_word_embeddings": a.tied}
    grouped = {**size, "num_key_value_heads": a.kv_heads}
    if a.name == "Mistral-7B":
        config = transformers.MistralConfig(**grouped)
    elif a.family == "llama":
        config = transformers.LlamaConfig(**grouped)
    elif a.family == "qwen2":
        config = transformers.Qwen2Config(**grouped)
    elif a.family in ("gemma", "gemma3", "qwen3"):
        made = {"gemma": "GemmaConfig", "gemma3": "Gemma3TextConfig", "qwen3": "Qwen3Config"}[a.family]
        config = getattr(transformers, made)(**grouped, head_dim=a.head_size)
    elif a.family in ("gpt2", "gpt3"):
        config = transformers.GPT2Config(
            vocab_size=a.vocabulary, n_embd=a.hidden, n_layer=a.n_layers, n_head=a.heads, n_positions=a.positions
        )
    elif a.family == "falcon":
        config = transformers.FalconConfig(
            **size, num_kv_heads=a.kv_heads, ffn_hidden_size=a.intermediate, new_decoder_architecture=True, alibi=False,
            bias=False, parallel_attn=True,
        )  # fmt: skip
    elif a.family == "roberta":
        config = transformers.RobertaConfig(**size, max_position_embeddings=a.positions, type_vocab_size=1)
    else:
        config = transformers.DebertaV2Config(
            **size, type_vocab_size=0, position_buckets=a.positions // 2, norm_rel_ebd="layer_norm", conv_act="gelu",
            share_att_key=True, pos_att_type="p2c|c2p", relative_attention=True, position_biased_input=False,
            conv_kernel_size=3,
        )  # fmt: skip
    masked = a.family in ("roberta", "deberta-v2")
    make = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return make.from_config(config)


@pytest.fixture(scope="module")
def peft_counts():
    """A function from an architecture, rank and peft's target_modules to {module name: trained numbers} by peft."""

    def count(architecture: Architecture, rank: int, target_modules) -> dict[str, int]:
        from peft import LoraConfig, get_peft_model

        targets = target_modules if isinstance(target_modules, str) else list(target_modules)
        model = get_peft_model(
            build(architecture),
            LoraConfig(r=rank, target_modules=targets, fan_in_fan_out=architecture.family in ("gpt2", "gpt3")),
            low_cpu_mem_usage=True,
        )
        numbers = {}
        for name, one in model.named_parameters():
            if one.requires_grad:
                module = name.partition(".lora_")[0]
                numbers[module] = numbers.get(module, 0) + one.numel()
        return numbers

    return count


def listed_name(architecture: Architecture, path: str) -> str:
    """The architecture's name for the module at `path`: the longest that fits."""
    return max((name for name in architecture.linears() if f".{path}".endswith(f".{name}")), key=len)


def by_module(architecture: Architecture, counts: dict[str, int]) -> dict[str, int]:
    """peft's counts, added up under the architecture's module names."""
    sums = {}
    for path, numbers in counts.items():
        name = listed_name(architecture, path)
        sums[name] = sums.get(name, 0) + numbers
    return sums


def test_every_listed_model_is_there():
    assert list(ARCHITECTURES) == list(REFERENCE)
    assert all(name == one.name for name, one in ARCHITECTURES.items())


@pytest.mark.parametrize("name", REFERENCE)
def test_totals_and_adapters_of_rank_8(name):
    architecture, (total, qv, every) = ARCHITECTURES[name], REFERENCE[name]
    assert architecture.total_parameters() == total
    assert lora_parameters(architecture, 8, "qv") == qv
    if name == "GPT-3":  # its own row has q, k and v apart; as transformers' GPT-2 has them, in one matrix:
        assert lora_parameters(architecture, 8) == 8 * 96 * 18 * 12288
        architecture = replace(architecture, family="gpt2")
    assert lora_parameters(architecture, 8) == every


@pytest.mark.parametrize("name", REFERENCE)
def test_totals_are_those_of_the_model_that_transformers_builds(name):
    model = build(ARCHITECTURES[name])
    assert ARCHITECTURES[name].total_parameters() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_shapes_are_those_of_the_model_that_transformers_builds(name):
    architecture = replace(ARCHITECTURES[name], n_layers=2)
    model = build(architecture)
    output = model.get_output_embeddings()
    found = {}
    for path, module in model.named_modules():
        kind = type(module).__name__
        if "Linear" in kind or (kind == "Conv1D" and hasattr(module, "nf")):
            shape = tuple(module.weight.shape)[:: 1 if "Linear" in kind else -1]
            if module is not output:
                found.setdefault(listed_name(architecture, path), []).append(shape)
    shapes = {**architecture.linear_shapes(), **architecture.extra_shapes()}
    assert found == {module: [shape] * architecture.copies(module) for module, shape in shapes.items()}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_all_linear_is_what_peft_adapts(name, peft_counts):
    architecture = ARCHITECTURES[name]
    found = by_module(architecture, peft_counts(architecture, 8, "all-linear"))
    assert found == lora_parameters_by_module(architecture, 8, "all-linear")


@pytest.mark.parametrize(("name", "targets"), [(name, one) for name, several in NAMED.items() for one in several])
def test_names_choose_what_they_choose_in_peft(name, targets, peft_counts):
    architecture = replace(ARCHITECTURES[name], n_layers=2)
    found = by_module(architecture, peft_counts(architecture, 3, targets))
    assert found == lora_parameters_by_module(architecture, 3, targets)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_groups_part_the_model(name):
    architecture = ARCHITECTURES[name]
    attention, mlp, qv, every = (set(architecture.select(one)) for one in ("attention", "mlp", "qv", "all-linear"))
    head = set(architecture.extra_shapes())
    assert attention | mlp | head == every == set(architecture.linears())
    assert len(attention) + len(mlp) + len(head) == len(every)
    assert qv < attention
    assert bool(head) == (architecture.family in ("roberta", "deberta-v2"))


def test_query_and_value_by_name():
    assert ARCHITECTURES["Llama-3-8B"].select("qv") == ("q_proj", "v_proj")
    assert ARCHITECTURES["GPT-3"].select("qv") == ("q_proj", "v_proj")
    assert ARCHITECTURES["GPT-2"].select("qv") == ("c_attn",)  # fused: the key is in it
    assert ARCHITECTURES["Falcon-180B"].select("qv") == ("query_key_value",)
    assert ARCHITECTURES["RoBERTa-base"].select("qv") == ("query", "value")
    assert ARCHITECTURES["DeBERTa-v2-XXL"].select("qv") == ("query_proj", "value_proj")


def test_grouped_queries_by_hand():
    """Llama-3-8B: 32 query heads and 8 key and value heads of 128."""
    shapes = ARCHITECTURES["Llama-3-8B"].linear_shapes()
    assert shapes["q_proj"] == (4096, 4096) and shapes["k_proj"] == shapes["v_proj"] == (1024, 4096)
    assert shapes["gate_proj"] == (14336, 4096) and shapes["down_proj"] == (4096, 14336)
    gemma = ARCHITECTURES["Gemma-2B"].linear_shapes()  # one key and value head, of 256
    assert gemma["q_proj"] == (2048, 2048) and gemma["k_proj"] == (256, 2048)


def test_selection_mixes_groups_and_names_counts_once_and_keeps_the_models_order():
    llama = ARCHITECTURES["Llama-2-7B"]
    assert llama.select(["mlp", "q_proj", "up_proj", "q_proj"]) == ("q_proj", "gate_proj", "up_proj", "down_proj")
    assert llama.select("o_proj") == llama.select(("o_proj",)) == ("o_proj",)
    roberta = ARCHITECTURES["RoBERTa-base"]
    assert roberta.select("output.dense") == ("output.dense",)  # its own name: that module alone
    assert len(roberta.select("dense")) == 4


@pytest.mark.parametrize("name", ["GPT-2", "Llama-2-7B"])
@pytest.mark.parametrize("targets", ["wq", ["attention", "wq"], "proj", "", [""], [], (), None, 5, [None], [["x"]]])
def test_an_unknown_target_is_refused_and_the_modules_are_listed(name, targets):
    with pytest.raises(LabError) as caught:
        ARCHITECTURES[name].select(targets)
    text = str(caught.value)
    assert all(module in text for module in (*ARCHITECTURES[name].linears(), *GROUPS))
    bad = "wq" if targets == ["attention", "wq"] else targets
    assert repr(bad[0] if isinstance(bad, list) and bad else bad) in text


def test_an_unknown_family_is_refused_and_nothing_can_be_changed():
    with pytest.raises(LabError, match=r"'t5'.*llama"):
        replace(ARCHITECTURES["GPT-2"], family="t5")
    with pytest.raises(FrozenInstanceError):
        ARCHITECTURES["GPT-2"].hidden = 3
    with pytest.raises(TypeError):
        ARCHITECTURES["mine"] = ARCHITECTURES["GPT-2"]


# ---- What a shape may be ----

SHAPE = {"name": "mine", "family": "llama", "hidden": 48, "n_layers": 3, "heads": 6, "kv_heads": 2, "head_size": 8,
         "intermediate": 80, "vocabulary": 97}  # fmt: skip


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [0, -1, 8.0, "8", True, None, math.nan, [8], 10**30])
def test_a_size_is_a_whole_number_above_0_or_the_field_is_named(field, value):
    with pytest.raises(LabError, match=f"{field}="):
        Architecture(**SHAPE | {field: value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"positions": -1}, "positions=-1"), ({"tied": "no"}, "tied='no'"), ({"tied": 1}, "tied=1"),
        ({"name": None}, "name=None"), ({"family": ["llama"]}, "Unknown family"), ({"norms_per_layer": -1}, "layer=-1"),
        ({"norms_per_layer": 1.5}, "norms_per_layer=1.5"), ({"outside": -1}, "outside=-1"),
        ({"mlp_bias": "yes"}, "mlp_bias='yes'"), ({"query_key_norms": "rms"}, "query_key_norms 'rms'"),
        ({"kv_heads": 4}, "kv_heads=4 does not divide heads=6"), ({"kv_heads": 12}, "kv_heads=12 does not divide"),
        ({"family": "gpt2"}, "kv_heads=2"), ({"family": "roberta", "kv_heads": 6, "head_size": 9}, "hidden=48"),
        ({"family": "falcon", "heads": 5, "kv_heads": 1}, "make 40, .*hidden=48"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change, named):
    with pytest.raises(LabError, match=named):
        Architecture(**SHAPE | change)


def test_heads_may_be_wider_than_the_model_where_the_family_allows_it():
    assert Architecture(**SHAPE | {"head_size": 16}).linear_shapes()["o_proj"] == (48, 96)


def test_numpys_numbers_are_taken_and_become_plain_ones():
    mine = Architecture(**SHAPE | {"hidden": np.int64(48), "vocabulary": np.int32(97), "tied": np.True_})
    assert mine == Architecture(**SHAPE) and hash(mine) == hash(Architecture(**SHAPE))
    assert json.loads(json.dumps(vars(mine))) == vars(mine)
    large = Architecture(**SHAPE | {"n_layers": np.int8(100), "vocabulary": np.int32(2**31 - 1)})
    assert large.total_parameters() > 48 * (2**31 - 1)  # nothing overflows


def test_what_a_model_has_beyond_its_family_is_counted_by_hand():
    plain, norm = Architecture(**SHAPE).total_parameters(), 48
    extra = {
        "attention_bias": 3 * (48 + 2 * 16), "output_bias": 3 * 48, "mlp_bias": 3 * (2 * 80 + 48),
        "norm_bias": (2 * 3 + 1) * norm,
    }  # fmt: skip
    for field, numbers in extra.items():
        assert Architecture(**SHAPE, **{field: True}).total_parameters() - plain == numbers, field
    assert Architecture(**SHAPE, norms_per_layer=4).total_parameters() - plain == 3 * 2 * norm
    assert Architecture(**SHAPE, query_key_norms="head").total_parameters() - plain == 3 * 2 * 8
    assert Architecture(**SHAPE, query_key_norms="width").total_parameters() - plain == 3 * (6 + 2) * 8
    assert Architecture(**SHAPE, outside=0).total_parameters() - plain == -norm


def test_target_modules_may_come_in_anything_that_lists_them():
    llama = ARCHITECTURES["Llama-2-7B"]
    for targets in ({"q_proj", "v_proj"}, {"q_proj": 1, "v_proj": 2}, np.array(["q_proj", "v_proj"])):
        assert llama.select(targets) == ("q_proj", "v_proj")
    assert llama.select(name for name in ("v_proj", "q_proj")) == ("q_proj", "v_proj")
    for targets in (b"q_proj", iter([]), ["q_proj", np.ones(2)], [b"q_proj"]):
        with pytest.raises(LabError, match="Choose among"):
            llama.select(targets)


@pytest.mark.parametrize("value", [None, 5, {}, [], ["GPT-2"], b"GPT-2", "gpt-2", np.ones(2)])
def test_an_architecture_is_one_or_the_name_of_one(value):
    assert named("GPT-2") is named(ARCHITECTURES["GPT-2"])
    with pytest.raises(LabError, match="Unknown architecture"):
        named(value)
    with pytest.raises(LabError, match="Unknown module"):
        ARCHITECTURES["GPT-2"].copies(value)
