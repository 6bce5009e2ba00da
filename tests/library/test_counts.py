"""counts: the LoRA paper's counts, sizes worked by hand, and every cell of an article's two tables."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.counts import (
    ARCHITECTURES,
    PRINTED_COUNTS,
    PRINTED_DECOMPOSITION,
    PRINTED_SHARES,
    SIZES,
    adapter_bytes,
    article_tables,
    decomposition_table,
    differing_cells,
    lora_parameters,
    lora_parameters_by_module,
    rank_table,
    training_bytes,
)
from lab_utils.counts.article_tables import square_matrix
from lab_utils.counts.parameters import as_records
from lab_utils.errors import LabError

GPT3, LLAMA = ARCHITECTURES["GPT-3"], ARCHITECTURES["Llama-2-7B"]
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


# ---- LoRA on a model ----


@pytest.mark.parametrize(
    ("rank", "targets", "numbers"),
    [  # Hu et al. 2021, table 15, GPT-3 175B
        (2, "v_proj", 4_718_592), (1, "qv", 4_718_592),
        (2, "qv", 9_437_184), (1, QKVO, 9_437_184),
        (4, "qv", 18_874_368), (2, QKVO, 18_874_368),
        (8, "qv", 37_748_736), (4, QKVO, 37_748_736),
        (64, "qv", 301_989_888), (64, QKVO, 603_979_776),
    ],
)  # fmt: skip
def test_the_lora_papers_counts_for_gpt3(rank, targets, numbers):
    assert lora_parameters(GPT3, rank, targets) == numbers


def test_the_lora_papers_counts_for_encoders():
    """Hu et al. 2021, table 2: 0.3M, 0.8M and 4.7M."""
    assert lora_parameters(ARCHITECTURES["RoBERTa-base"], 8, "qv") == 294_912
    assert lora_parameters(ARCHITECTURES["RoBERTa-large"], 8, "qv") == 786_432
    assert lora_parameters(ARCHITECTURES["DeBERTa-v2-XXL"], 16, "qv") == 4_718_592


def test_by_module_by_hand():
    assert lora_parameters_by_module(ARCHITECTURES["Llama-3-8B"], 8, ("q_proj", "v_proj", "down_proj")) == {
        "q_proj": 32 * 8 * (4096 + 4096), "v_proj": 32 * 8 * (1024 + 4096), "down_proj": 32 * 8 * (4096 + 14336)
    }  # fmt: skip
    head = lora_parameters_by_module(ARCHITECTURES["RoBERTa-base"], 2, "lm_head.dense")
    assert head == {"lm_head.dense": 2 * (768 + 768)}  # once in the model, not once a layer


def test_fusing_query_key_and_value_saves_two_of_three_A():
    """Three adapters of a (h, h) matrix have 6h numbers a rank; one of a (3h, h) matrix has 4h."""
    apart = lora_parameters(GPT3, 1, ("q_proj", "k_proj", "v_proj"))
    fused = lora_parameters(replace(GPT3, family="gpt2"), 1, "c_attn")
    assert (apart, fused) == (96 * 6 * 12288, 96 * 4 * 12288)


@settings(deadline=None)
@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(1, 300), st.data())
def test_counts_grow_with_the_rank_and_add_up_over_modules(name, rank, data):
    architecture = ARCHITECTURES[name]
    chosen = data.draw(st.sets(st.sampled_from(list(architecture.linears())), min_size=1))
    numbers = lora_parameters_by_module(architecture, rank, sorted(chosen))
    assert set(numbers) == chosen
    assert sum(numbers.values()) == lora_parameters(architecture, rank, sorted(chosen))
    assert sum(numbers.values()) == rank * sum(lora_parameters(architecture, 1, one) for one in chosen)


@pytest.mark.parametrize("rank", [0, -1, 8.0, "8", True, None, math.nan])
def test_a_bad_rank_is_refused_and_named(rank):
    for count in (lora_parameters, lora_parameters_by_module, adapter_bytes):
        with pytest.raises(LabError) as caught:
            count(LLAMA, rank, "qv")
        assert repr(rank) in str(caught.value) and "1 or more" in str(caught.value)


def test_an_unknown_target_is_refused():
    with pytest.raises(LabError, match=r"GPT-3 has no module 'c_attn'.*q_proj"):
        lora_parameters(GPT3, 8, "c_attn")


@pytest.mark.parametrize("architecture", [None, {}, ["GPT-3"], "GPT-9", 5])
def test_an_unknown_architecture_is_named(architecture):
    for count in (lora_parameters, lora_parameters_by_module, adapter_bytes, training_bytes):
        with pytest.raises(LabError, match="Unknown architecture"):
            count(architecture, 4, "qv")


def test_names_numpys_numbers_and_generators_are_taken():
    assert lora_parameters("GPT-3", np.int8(4), (name for name in ("q_proj", "v_proj"))) == 18_874_368
    assert type(lora_parameters("GPT-3", np.int8(4), "qv")) is int
    assert adapter_bytes("GPT-3", np.int64(4), "qv", bytes_per_parameter=0.5) == 18_874_368 / 2
    assert lora_parameters(LLAMA, 10**6, "q_proj") == 32 * 10**6 * 2 * 4096  # as peft builds it


@pytest.mark.parametrize("name", ["weight_bytes", "gradient_bytes", "adam_bytes"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "2", True, None])
def test_bytes_that_are_no_number_are_named(name, value):
    with pytest.raises(LabError, match=name):
        training_bytes(LLAMA, 4, **{name: value})
    with pytest.raises(LabError, match="bytes_per_parameter"):
        adapter_bytes(LLAMA, 4, bytes_per_parameter=value)


@pytest.mark.parametrize("value", [0, -1, 2.5, math.nan, 10**400, True])
def test_the_square_matrix_refuses_what_is_none(value):
    with pytest.raises(LabError, match="parameters="):
        square_matrix(value, 1)
    with pytest.raises(LabError, match="rank="):
        square_matrix(100, value)


# ---- Bytes ----


def test_the_35_megabyte_checkpoint():
    """Hu et al. 2021, section 4.2: 350 GB become 35 MB, with rank 4 on query and value, in 16 bits."""
    assert adapter_bytes(GPT3, 4, "qv") == 2 * 18_874_368 == 36 * 2**20
    assert adapter_bytes(GPT3, 4, "qv", bytes_per_parameter=4) == 72 * 2**20


def test_adapter_bytes_are_those_of_a_file(tmp_path):
    import torch
    from safetensors.torch import save_file

    shapes = ARCHITECTURES["SmolLM2-135M"].linear_shapes()
    tensors = {}
    for layer in range(30):
        for name, (out, into) in shapes.items():
            tensors[f"{layer}.{name}.lora_A"] = torch.zeros(8, into, dtype=torch.bfloat16)
            tensors[f"{layer}.{name}.lora_B"] = torch.zeros(out, 8, dtype=torch.bfloat16)
    file = tmp_path / "adapter.safetensors"
    save_file(tensors, file)
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size - header == adapter_bytes(ARCHITECTURES["SmolLM2-135M"], 8)


def test_training_bytes_are_those_of_adam():
    """A small model of the same family, trained for one step: 4-byte numbers throughout."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    small = replace(
        LLAMA, hidden=32, n_layers=2, heads=4, kv_heads=4, head_size=8, intermediate=48, vocabulary=50
    )
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    moments = [value for one in optimizer.state.values() for value in one.values() if value.dim()]
    sizes = {
        "weights": list(model.parameters()), "gradients": [one.grad for one in model.parameters()], "adam": moments
    }  # fmt: skip
    assert training_bytes(small, weight_bytes=4, gradient_bytes=4, adam_bytes=8) == {
        part: sum(one.nbytes for one in tensors) for part, tensors in sizes.items()
    }


def test_training_bytes_by_hand():
    total, adapter = 6_738_415_616, 4_194_304  # Llama-2-7B, rank 8 on query and value
    assert training_bytes(LLAMA) == {"weights": 2 * total, "gradients": 2 * total, "adam": 8 * total}
    assert training_bytes(LLAMA, 8, "qv") == {
        "weights": 2 * (total + adapter), "gradients": 2 * adapter, "adam": 8 * adapter
    }  # fmt: skip
    halves = training_bytes(LLAMA, 8, "qv", weight_bytes=1, gradient_bytes=4, adam_bytes=2)
    assert halves == {"weights": total + adapter, "gradients": 4 * adapter, "adam": 2 * adapter}
    with pytest.raises(LabError, match="rank=0"):
        training_bytes(LLAMA, 0)


def test_more_than_780_gigabytes_at_65_billion():
    """Dettmers et al. 2023 (QLoRA), section 1: more than 780 GB, for 65e9 parameters of 12 bytes."""
    assert sum(training_bytes(ARCHITECTURES["LLaMA-65B"]).values()) / 65_285_660_672 == pytest.approx(780e9 / 65e9)


def test_records_are_json_and_say_the_same():
    records = json.loads(json.dumps(as_records()))
    assert [one["name"] for one in records] == list(ARCHITECTURES)
    for record in records:
        architecture = ARCHITECTURES[record["name"]]
        assert record["total"] == architecture.total_parameters() and record["n_layers"] == architecture.n_layers
        for group in ("attention", "mlp"):
            mine = sum(5 * (m["out"] + m["in"]) * m["count"] for m in record["modules"] if m["group"] == group)
            assert mine == lora_parameters(architecture, 5, group)
        every = sum(5 * m["ranks"] * (m["out"] + m["in"]) * m["count"] for m in record["modules"])
        assert every == lora_parameters(architecture, 5, "all-linear")


# ---- The article's tables ----


def test_the_first_table_by_hand():
    rows = decomposition_table()
    assert [row["parameters"] for row in rows] == [25, 100, 2500, 10**6, 13 * 10**9]
    assert [row["side"] for row in rows[:4]] == [5, 10, 50, 1000]
    assert [row["adapter_parameters"] for row in rows] == [10, 20, 100, 2000, 228_035]
    assert [row["share"] for row in rows[:4]] == pytest.approx([0.4, 0.2, 0.04, 0.002])
    assert f"{rows[4]['side']:.2f}" == "114017.54" and f"{100 * rows[4]['share']:.5f}" == "0.00175"


@pytest.mark.parametrize("row", rank_table(), ids=lambda row: f"{row['model']}-{row['rank']}")
def test_every_printed_count_and_share_is_reproduced(row):
    column = list(SIZES).index(row["model"])
    assert f"{row['adapter_parameters']:,}" == PRINTED_COUNTS[row["rank"]][column]
    assert f"{100 * row['share']:.3f}%" == PRINTED_SHARES[row["rank"]][column]
    assert row["share"] == pytest.approx(2 * row["rank"] * row["side"] / row["parameters"])
    assert row["side"] ** 2 == pytest.approx(row["parameters"])


def test_the_tables_are_complete():
    assert len(rank_table()) == len({(row["model"], row["rank"]) for row in rank_table()}) == 36
    assert PRINTED_COUNTS.keys() == PRINTED_SHARES.keys() == {1, 2, 4, 8, 16, 512, 1024, 8192, 16384}
    assert len(decomposition_table()) == len(PRINTED_DECOMPOSITION) == 5


def test_the_only_wrong_cell_is_the_share_of_13_billion():
    wrong = [cell for cell in differing_cells() if cell["kind"] == "wrong"]
    assert wrong == [
        {
            "table": "decomposition", "row": "13,000,000,000", "column": "share", "printed": "0.001%",
            "computed": "0.00175%", "kind": "wrong", "reason": "to as many decimals it is 0.002%",
        }
    ]  # fmt: skip


def test_rounded_cells_by_hand():
    cells = {(one["row"], one["column"]): one for one in differing_cells() if one["kind"] == "rounded"}
    side = cells.pop(("13,000,000,000", "side"))
    assert (side["printed"], side["computed"]) == ("114k x 114k", "114,018") and "12,996,000,000" in side["reason"]
    assert cells.pop(("13,000,000,000", "rank 1"))["computed"] == "228,035"
    assert {key: (one["printed"], one["computed"]) for key, one in cells.items()} == {
        ("rank 1", "7B"): ("0.002%", "0.00239%"),
        ("rank 1", "13B"): ("0.002%", "0.00175%"),
        ("rank 1", "70B"): ("0.001%", "0.000756%"),
        ("rank 1", "180B"): ("0.000%", "0.000471%"),
        ("rank 2", "13B"): ("0.004%", "0.00351%"),
        ("rank 2", "70B"): ("0.002%", "0.00151%"),
    }
    assert all(one["table"] == "shares" for one in cells.values())
    assert "nothing" in cells["rank 1", "180B"]["reason"] and "32% off" in cells["rank 1", "70B"]["reason"]


@pytest.mark.parametrize(
    ("table", "key", "cells", "where"),
    [
        ("PRINTED_COUNTS", 8, ("1,338,656", "1,824,281", "4,233,203", "6,788,225"), ("counts", "rank 8", "70B")),
        ("PRINTED_SHARES", 512, ("1.224%", "0.898%", "0.387%", "0.242%"), ("shares", "rank 512", "180B")),
    ],
)
def test_a_misprint_would_be_found(monkeypatch, table, key, cells, where):
    before = len(differing_cells())
    monkeypatch.setattr(article_tables, table, {**getattr(article_tables, table), key: cells})
    found = [one for one in differing_cells() if (one["table"], one["row"], one["column"]) == where]
    assert len(differing_cells()) == before + 1 and [one["kind"] for one in found] == ["wrong"]
