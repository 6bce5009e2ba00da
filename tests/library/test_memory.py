"""memory: tensors' bytes against real tensors, to the byte; a step's peak against what was measured, within a tenth."""

import json

import data_scripts
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_models import TINY, cases, tiny

from lab_utils.counts.architectures import ARCHITECTURES, Architecture
from lab_utils.errors import LabError
from lab_utils.memory.peak import tensor_peak
from lab_utils.memory.saved import quantized_state, storage_bytes
from lab_utils.memory.step import _trained_tensors, as_record, estimate, moments_bytes, nf4_bytes
from lab_utils.memory.timeline import timeline
from lab_utils.recorded.memory import memory_measurements

PEAK = 0.1  # what the model promises
GB = 10**9


def nbytes(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def adapted(model, targets="all-linear", rank: int = 4):
    """The model with peft's adapters, in float32."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def trained(model, make_optimizer) -> tuple[list, list]:
    """Gradients and moments after a step in which every trained number has a gradient."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = make_optimizer(parameters)
    optimizer.step()
    tables = {"qmap1", "qmap2"}  # two for the whole optimizer
    moments = [
        value for state in optimizer.state.values() for name, value in state.items()
        if isinstance(value, torch.Tensor) and value.dim() and name not in tables
    ]  # fmt: skip
    return [parameter.grad for parameter in parameters], moments


# ---- tensors, to the byte ----


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (5, 13), (64, 1), (65, 3), (192, 576), (128, 128), (130, 127)])
def test_nf4_bytes_are_those_of_bitsandbytes(shape, double_quant):
    import bitsandbytes.functional as bnb

    packed, state = bnb.quantize_4bit(torch.randn(shape), quant_type="nf4", compress_statistics=double_quant)
    held = [packed, state.absmax, state.code]
    if double_quant:
        held += [state.offset, state.state2.absmax, state.state2.code]
    assert nf4_bytes(shape[0] * shape[1], double_quant) == nbytes(held)


def test_nf4_takes_4_127_bits_and_without_double_quantization_4_5():
    n = 4096 * 4096
    assert 8 * nf4_bytes(n, double_quant=False) / n == pytest.approx(4 + 32 / 64, abs=1e-4)
    assert 8 * nf4_bytes(n) / n == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", TINY)
def test_weights_gradients_and_moments_of_full_fine_tuning(name, dtype):
    model, shape = tiny(name)
    model = model.to(getattr(torch, dtype))
    one = estimate(shape, "full", dtype=dtype, moments=dtype)
    gradients, moments = trained(model, torch.optim.AdamW)
    assert one.weights_bytes == nbytes(model.parameters())
    assert one.gradients_bytes == nbytes(gradients)
    assert one.optimizer_bytes == nbytes(moments)
    assert one.adapter_bytes == one.unpacked_bytes == 0


@pytest.mark.parametrize("targets", ["all-linear", "attention", "qv"])
@pytest.mark.parametrize("name", TINY)
def test_adapter_gradients_and_moments_of_lora(name, targets):
    model, shape = tiny(name)
    before = nbytes(model.parameters())
    model = adapted(model, list(shape.select(targets)))
    one = estimate(shape, "lora", 4, targets, dtype="float32")
    gradients, moments = trained(model, torch.optim.AdamW)
    assert one.weights_bytes == before
    assert one.adapter_bytes == nbytes(p for p in model.parameters() if p.requires_grad) == one.gradients_bytes
    assert one.gradients_bytes == nbytes(gradients)
    assert one.optimizer_bytes == nbytes(moments)


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("name", TINY)
def test_a_quantized_model_keeps_embedding_head_norms_and_biases(name, double_quant, tmp_path):
    """transformers and bitsandbytes choose what to quantize; the bytes say that `estimate` chooses the same."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model, shape = tiny(name)
    model.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double_quant)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config, dtype=torch.bfloat16)
    real = nbytes([*model.parameters(), *quantized_state(model)])
    assert estimate(shape, "qlora", 4, double_quant=double_quant).weights_bytes == real


@pytest.mark.parametrize("name", ["llama, untied", "gpt2"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_moments_in_8_bits_are_those_of_bitsandbytes(name, method):
    from bitsandbytes.optim import AdamW8bit

    model, shape = tiny(name)
    if method == "lora":
        model = adapted(model, list(shape.select("all-linear")), rank=32)  # some tensors of 4,096 numbers, some below
    one = estimate(shape, method, 32, dtype="float32", moments="8bit")
    assert one.optimizer_bytes == nbytes(trained(model, AdamW8bit)[1])


@pytest.mark.parametrize("name", TINY)
def test_prepared_for_4_bit_training_the_rest_is_in_float32(name, tmp_path):
    """peft's own function casts it; what the cast model holds is what `rest_dtype` counts, and adapters come on top."""
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model, shape = tiny(name)
    model.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config, dtype=torch.bfloat16)
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    real = nbytes([*model.parameters(), *quantized_state(model)])
    one, plain = estimate(shape, "qlora", 4, rest_dtype="float32"), estimate(shape, "qlora", 4)
    assert one.weights_bytes == real > plain.weights_bytes
    for part in ("adapter_bytes", "gradients_bytes", "optimizer_bytes"):
        assert getattr(one, part) == getattr(plain, part)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_without_4_bit_weights_there_is_no_rest(method):
    assert estimate("GPT-2", method, rest_dtype="float32") == estimate("GPT-2", method)
    same = estimate("GPT-2", "qlora", rest_dtype="bfloat16", dtype="bfloat16")
    assert same == estimate("GPT-2", "qlora", dtype="bfloat16")


def test_the_embedded_model_in_nf4(nf4_base):
    from lab_utils.finetune.fourbit import FrozenWeight

    one = estimate("SmolLM2-135M", "qlora", dtype=str(nf4_base.dtype).removeprefix("torch."))
    assert one.weights_bytes == storage_bytes([*nf4_base.parameters(), *quantized_state(nf4_base)])
    quantized = [p for p in nf4_base.parameters() if getattr(p, "quant_state", None) is not None]
    assert one.unpacked_bytes == nbytes(FrozenWeight(weight).absmax for weight in quantized)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_number_of_a_model_is_in_one_trained_tensor(name):
    record = as_record(ARCHITECTURES[name])
    assert sum(numbers * count for numbers, count in _trained_tensors(record, [], None)) == record["total"]


@pytest.mark.parametrize(("foreach", "share"), [(True, 1), (False, 0)])
def test_torchs_foreach_step_takes_the_roots_of_all_second_moments(foreach, share):
    """Measured on 50 equal tensors: one that goes tensor by tensor holds a few of one tensor."""
    parameters = [torch.nn.Parameter(torch.ones(64, 64)) for _ in range(50)]
    optimizer = torch.optim.AdamW(parameters, foreach=foreach)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert tensor_peak(optimizer.step) == pytest.approx(share * nbytes(parameters), abs=4 * nbytes(parameters[:1]))


@pytest.mark.parametrize(("dtype", "method"), [("bfloat16", "full"), ("float32", "full"), ("bfloat16", "lora")])
def test_foreach_is_counted_where_the_optimizer_steps(dtype, method):
    """It adds one copy of what is trained, and nothing where the backward pass takes more."""
    settings = {"method": method, "dtype": dtype, "moments": "bfloat16" if (dtype, method) == ("bfloat16", "full")
                else "float32", "sequence_length": 1, "gradient_checkpointing": True, "device": "cuda"}  # fmt: skip
    plain, one = estimate("Llama-2-7B", **settings), estimate("Llama-2-7B", foreach=True, **settings)
    trained = one.adapter_bytes if method == "lora" else one.weights_bytes
    assert one.update_bytes == trained and plain.update_bytes == 0
    assert one.both_moments()["backward ends"]["transients"] == max(plain.end_bytes, trained)
    moments = timeline(one, method, True)
    assert max(each.total_bytes for each in moments) == one.total_bytes
    steps = [each.parts["transients"] for each in moments if each.phase == "optimizer"]
    assert steps[:-1] == [trained] * (len(steps) - 1) and steps[-1] == 0
    assert estimate("GPT-2", "full", foreach=True, moments="8bit").update_bytes == 0


def test_small_tensors_keep_their_moments_in_float32():
    assert moments_bytes(4095, "8bit") == 8 * 4095
    assert moments_bytes(4097, "8bit") == 2 * 4097 + 2 * 17 * 4


# ---- the peak ----


def test_a_step_by_hand():
    """One layer, rank 2 on q and v, 3 × 5 tokens of which 6 are supervised, bfloat16 base, float32 adapter."""
    shape = Architecture(
        name="by hand", family="llama", hidden=8, n_layers=1, heads=2, kv_heads=1, head_size=4, intermediate=16,
        vocabulary=10, tied=True,
    )  # fmt: skip
    one = estimate(shape, "lora", 2, "qv", 3, 5, supervised_tokens=6)
    numbers = 10 * 8 + (64 + 2 * 32 + 64) + 3 * 128 + 3 * 8  # embedding; q, k, v, o; MLP; norms
    adapter = 2 * (8 + 8) + 2 * (8 + 4)
    # Per token: norms 64; q, k, v 48; MLP 96; attention 2 · 5 · 6; q's and v's inputs in float32 64; x Aᵀ 2 · 2 · 4
    kept = 15 * (64 + 48 + 96 + 60 + 64 + 16)
    final = 15 * 8 * 4
    logits = 12 * 6 * 10
    work = 15 * (12 * 16 + 8 * 8)
    assert vars(one) == {
        "weights_bytes": 2 * numbers, "unpacked_bytes": 0, "adapter_bytes": 4 * adapter, "optimizer_bytes": 8 * adapter,
        "gradients_bytes": 4 * adapter, "activations_bytes": kept + final, "begin_bytes": work - final,
        "end_bytes": work, "layers": 1, "kept_bytes": kept, "gradient_bytes": 4 * adapter, "work_bytes": work,
        "head_bytes": 0, "update_bytes": 0,
    }
    assert work - final > logits and one.total_bytes == 2 * numbers + 12 * adapter + kept + work
    again = estimate(shape, "lora", 2, "qv", 3, 5, supervised_tokens=6, gradient_checkpointing=True)
    assert again.activations_bytes == 15 * 8 * 2 + final and again.begin_bytes == kept + work - final


@pytest.fixture(scope="module")
def recorded():
    return memory_measurements()["measurements"]


def test_the_recorded_measurements_cover_what_is_claimed(recorded):
    assert len(recorded) >= 12
    arguments = [row["arguments"] for row in recorded]
    for name, least in {"method": 3, "dtype": 3, "gradient_checkpointing": 2, "rank": 3, "batch_size": 3,
                        "sequence_length": 4, "target_modules": 2}.items():  # fmt: skip
        assert len({one[name] for one in arguments}) >= least, name
    for method in ("full", "lora", "qlora"):
        assert {one["gradient_checkpointing"] for one in arguments if one["method"] == method} == {True, False}


def test_the_measured_resident_tensors_are_met_to_the_byte(recorded):
    for row in recorded:
        one = estimate(**row["arguments"])
        expected = {"weights": one.weights_bytes, "unpacked": one.unpacked_bytes, "adapter": one.adapter_bytes,
                    "optimizer": one.optimizer_bytes}  # fmt: skip
        assert row["resident_bytes"] == expected, row["arguments"]


@pytest.mark.parametrize("measured", ["tensor_peak_bytes", "process_peak_bytes"])
def test_the_measured_peaks_are_met_within_a_tenth(recorded, measured):
    """Both what torch's allocator handed out and what the operating system saw."""
    for row in recorded:
        assert estimate(**row["arguments"]).total_bytes == pytest.approx(row[measured], rel=PEAK), row["arguments"]


def test_python_objects_and_libraries_would_not_spoil_it(recorded):
    """They are left out of both sides above; put into the measured one alone they cost less than the tenth."""
    for row in recorded:
        whole = row["process_peak_bytes"] + row["overhead_bytes"]
        assert estimate(**row["arguments"]).total_bytes == pytest.approx(whole, rel=PEAK), row["arguments"]


def test_the_step_above_the_resident_tensors_is_met_within_a_tenth_too(recorded):
    """The total would hide a bad guess where weights are most of it."""
    for row in recorded:
        one, resident = estimate(**row["arguments"]), sum(row["resident_bytes"].values())
        step = row["tensor_peak_bytes"] - resident
        assert one.total_bytes - one.resident_bytes == pytest.approx(step, rel=PEAK), row["arguments"]


@pytest.fixture(scope="module")
def recorder():
    """data/record_memory.py as a module."""
    return data_scripts.load("record_memory")


@pytest.mark.training
@pytest.mark.parametrize("case", [{"method": "qlora", "batch_size": 4}])
def test_measured_here_and_now(recorder, case, tmp_path):
    """About 30 s on one idle core: a fresh process loads the embedded model and takes three steps."""
    settings = recorder.DEFAULTS | case
    row = {"settings": settings, "measured": recorder.measure_in_a_child(settings)}
    file = tmp_path / "measurements.json"
    file.write_text(json.dumps({"provenance": {}, "measurements": [row]}), encoding="utf-8")
    (row,) = memory_measurements(file)["measurements"]
    one = estimate(**row["arguments"])
    assert one.total_bytes == pytest.approx(row["tensor_peak_bytes"], rel=PEAK)
    assert one.total_bytes == pytest.approx(row["process_peak_bytes"], rel=PEAK)


def test_measurements_that_cannot_be_read_say_how_to_make_them(tmp_path):
    with pytest.raises(LabError, match="python data/record_memory"):
        memory_measurements(tmp_path / "none.json")


# ---- published figures, and laws ----


def test_65b_takes_more_than_780_gb_in_full_and_less_than_48_with_qlora():
    """QLoRA's abstract. In full: 16-bit weights and gradients, AdamW's moments in float32, 12 bytes per number.

    QLoRA: NF4 with double quantization, rank 64 on every linear layer, 16-bit adapters, one example of 512 tokens at a
    time, checkpointing. It holds with float32 moments on the GPU; paging or 8 bits leave more room.
    """
    full = estimate("LLaMA-65B", "full", batch_size=1, gradient_checkpointing=True, device="cuda")
    assert 780 * GB < full.total_bytes < 1.01 * 12 * ARCHITECTURES["LLaMA-65B"].total_parameters()
    how = {"rank": 64, "adapter_dtype": "bfloat16", "gradient_checkpointing": True, "device": "cuda"}
    qlora = estimate("LLaMA-65B", "qlora", **how)
    assert 40 * GB < qlora.total_bytes < 48 * GB
    assert estimate("LLaMA-65B", "qlora", **how, moments="8bit").total_bytes < qlora.total_bytes - 4 * GB
    assert estimate("LLaMA-65B", "qlora", **how, double_quant=False).weights_bytes - qlora.weights_bytes == (
        pytest.approx(0.373 / 8 * 64.76e9, rel=0.01)  # 3.03 GB, as the paper says
    )
    assert estimate("LLaMA-65B", "lora", **how).total_bytes > 130 * GB


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(
    name=st.sampled_from(tuple(ARCHITECTURES)), method=st.sampled_from(["full", "lora", "qlora"]),
    device=st.sampled_from(["cpu", "cuda"]), dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    batch=st.integers(1, 64), length=st.integers(1, 4096), rank=st.integers(1, 64), checkpointing=st.booleans(),
)  # fmt: skip
def test_more_of_anything_never_takes_less(name, method, device, dtype, batch, length, rank, checkpointing):
    how = {"dtype": dtype, "gradient_checkpointing": checkpointing, "device": device}
    one = estimate(name, method, rank, "all-linear", batch, length, **how)
    sums = [sum(parts.values()) for parts in one.both_moments().values()]
    assert sum(one.parts().values()) == one.total_bytes == max(sums)
    assert one.total_bytes >= one.resident_bytes + one.gradients_bytes
    for more in ({"batch_size": batch + 1}, {"sequence_length": length + 1}, {"rank": rank + 1}):
        other = estimate(**{"architecture": name, "method": method, "rank": rank, "batch_size": batch,
                            "sequence_length": length, **how, **more})  # fmt: skip
        assert other.total_bytes >= one.total_bytes
    if not checkpointing and ARCHITECTURES[name].n_layers > 1:
        again = estimate(name, method, rank, "all-linear", batch, length, **how | {"gradient_checkpointing": True})
        assert again.activations_bytes < one.activations_bytes


def test_the_cases_for_a_twin_are_plain_json_and_reach_every_branch():
    found = cases()
    assert json.loads(json.dumps(found)) == found
    begin = [bool(case["expected"]["parts"]["activations"]) for case in found]
    assert {True, False} == set(begin)
    for case in found:
        arguments = dict(case["arguments"])
        arguments.pop("targets")
        assert estimate(case["record"]["name"], **arguments).total_bytes == case["expected"]["total_bytes"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"architecture": "GPT-5"}, "GPT-5"), ({"method": "dora"}, "dora"), ({"dtype": "int8"}, "int8"),
        ({"adapter_dtype": "int8"}, "adapter_dtype 'int8'"), ({"moments": "4bit"}, "4bit"), ({"device": "tpu"}, "tpu"),
        ({"batch_size": 0}, "batch_size=0"), ({"batch_size": True}, "batch_size=True"),
        ({"sequence_length": 1.5}, "sequence_length=1.5"), ({"supervised_tokens": 513}, "supervised_tokens=513"),
        ({"supervised_tokens": 0}, "supervised_tokens=0"), ({"rank": 0}, "rank=0"), ({"target_modules": "x"}, "x"),
        ({"rest_dtype": "int8"}, "rest_dtype 'int8'"), ({"rest_dtype": ["float32"]}, "Unknown rest_dtype"),
        ({"architecture": None}, "Unknown architecture None"), ({"architecture": {}}, "Unknown architecture"),
        ({"method": ["lora"]}, "Unknown method"), ({"dtype": torch.bfloat16}, "Unknown dtype torch.bfloat16"),
        ({"gradient_checkpointing": "no"}, "gradient_checkpointing='no'"), ({"double_quant": 1}, "double_quant=1"),
        ({"rank": float("nan")}, "rank=nan"), ({"rank": "8"}, "rank='8'"), ({"batch_size": 10**30}, "up to 9,007"),
        ({"sequence_length": -1}, "sequence_length=-1"), ({"target_modules": iter([])}, "names nothing"),
        ({"supervised_tokens": True}, "supervised_tokens=True"), ({"device": None}, "Unknown device None"),
    ],
)  # fmt: skip
def test_nonsense_is_named(arguments, named):
    with pytest.raises(LabError, match=named):
        estimate(**{"architecture": "SmolLM2-135M", "method": "lora", **arguments})


def test_numpys_numbers_and_generators_mean_what_plain_ones_mean():
    """In numpy's own 32 bits the products would overflow."""
    large = {"batch_size": 64, "sequence_length": 8192, "rank": 64}
    for kind in (np.int32, np.int64, np.uint16):
        other = estimate("LLaMA-65B", "lora", **{name: kind(value) for name, value in large.items()})
        assert other == estimate("LLaMA-65B", "lora", **large)
        assert json.dumps(other.parts())
    targets = (name for name in ("q_proj", "v_proj"))
    assert estimate("LLaMA-65B", "lora", target_modules=targets) == estimate("LLaMA-65B", "lora", target_modules="qv")
    assert nf4_bytes(np.int32(2**31 - 1)) == nf4_bytes(2**31 - 1)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None, True, float("nan")])
def test_sizes_that_are_none_are_named(value):
    with pytest.raises(LabError, match="numbers="):
        nf4_bytes(value)
    if value != 0:
        with pytest.raises(LabError, match="numbers="):
            moments_bytes(value, "float32")
    with pytest.raises(LabError, match="Unknown moments"):
        moments_bytes(8, value)
