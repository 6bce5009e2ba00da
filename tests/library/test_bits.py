"""The recorded cost of fewer bits: it agrees with itself, with live weights, with other libraries and with theory."""

import hashlib
import inspect
import json
import math

import data_scripts
import numpy as np
import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.evaluate import changed_weights, perplexity
from lab_utils.folders import DATA
from lab_utils.recorded.bits import BITS, perplexity_by_bits

TEXT = DATA / "prose" / "prose.txt"
MODULES = ("model.layers.15.self_attn.v_proj", "model.layers.29.mlp.down_proj")


@pytest.fixture(scope="module")
def record():
    return perplexity_by_bits()


@pytest.fixture(scope="module")
def recorder():
    """data/record_bits.py as a module."""
    return data_scripts.load("record_bits")


@pytest.fixture(scope="module")
def weights():
    """Every matrix of the embedded model's layers in float32, by module."""
    from safetensors import safe_open

    from lab_utils.models.embedded import embedded_folder

    with safe_open(embedded_folder() / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if ".layers." in name and "norm" not in name]
        return {name.removesuffix(".weight"): file.get_tensor(name).float() for name in names}


def relative(weight: torch.Tensor, approximation) -> float:
    """‖error‖ / ‖W‖ in float64, apart from the library's."""
    weight, approximation = weight.double().numpy(), np.asarray(approximation, dtype=np.float64)
    return float(np.sqrt(((approximation - weight) ** 2).sum() / (weight**2).sum()))


# The text.


def test_the_recorded_text_is_the_one_in_the_repository(record, tokenizer):
    text = TEXT.read_text(encoding="utf-8")
    assert record.text["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert record.text["words"] == len(text.split()) >= 3000
    assert record.text["tokens"] == len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_text_is_plain(tokenizer):
    text = TEXT.read_text(encoding="utf-8")
    assert text.isascii() and text.endswith("\n") and "  " not in text and "\t" not in text
    paragraphs = text.strip().split("\n\n")
    assert len(paragraphs) == len(set(paragraphs)) >= 80


def test_windows_are_perplexitys_own_defaults(record):
    defaults = {name: parameter.default for name, parameter in inspect.signature(perplexity).parameters.items()}
    assert (record.text["window"], record.text["stride"]) == (defaults["window"], defaults["stride"])


# The record and the live weights.


@pytest.mark.parametrize("module", MODULES)
def test_weight_errors_recompute_from_the_live_model(record, recorder, weights, module):
    assert record.formats.keys() == recorder.METHODS.keys()
    for name, (bits, there_and_back) in recorder.METHODS.items():
        found = relative(weights[module], there_and_back(weights[module])[0])
        assert found == pytest.approx(record.formats[name].relative_rms_by_module[module], rel=1e-3), name
        assert bits == record.formats[name].bits


def test_weight_errors_are_those_of_other_libraries(record, weights):
    """NF4 and FP4 by bitsandbytes, Q4_1 by gguf, whole numbers by numpy."""
    import bitsandbytes.functional as bnb
    from gguf.quants import GGMLQuantizationType, dequantize, quantize

    weight = weights[MODULES[0]]
    for quant_type, double, name in (("nf4", False, "nf4"), ("nf4", True, "nf4 double"), ("fp4", False, "fp4")):
        packed = bnb.quantize_4bit(weight, blocksize=64, quant_type=quant_type, compress_statistics=double)
        expected = relative(weight, bnb.dequantize_4bit(*packed))
        assert record.formats[name].relative_rms_by_module[MODULES[0]] == pytest.approx(expected, rel=1e-3)
    kind = GGMLQuantizationType.Q4_1
    expected = relative(weight, dequantize(quantize(weight.numpy(), kind), kind))
    assert record.formats["q4_1"].relative_rms_by_module[MODULES[0]] == pytest.approx(expected, rel=0.02)
    for bits in (4, 3, 2):
        blocks, top = weight.numpy().reshape(-1, 64), 2 ** (bits - 1) - 1
        step = np.abs(blocks).max(axis=1, keepdims=True) / top
        expected = relative(weight, (np.round(blocks / step) * step).reshape(weight.shape))
        name = f"int{bits} block 64"
        assert record.formats[name].relative_rms_by_module[MODULES[0]] == pytest.approx(expected, rel=1e-3)


def test_gaussian_errors_recompute_and_match_theory(record, recorder):
    """A rounding error is spread evenly over a step, so its root mean square is step / √12."""
    weight = torch.randn(576, 1536, generator=torch.Generator().manual_seed(0))
    for name, (_, there_and_back) in recorder.METHODS.items():
        assert relative(weight, there_and_back(weight)[0]) == pytest.approx(
            record.formats[name].relative_rms["gaussian"], rel=1e-3
        )
    expected = float(weight.abs().max()) / 127 / math.sqrt(12)
    assert record.formats["int8 by tensor"].relative_rms["gaussian"] == pytest.approx(expected, rel=0.01)


def test_the_whole_is_the_sum_of_its_matrices(record, weights):
    """Squares add up: Σ error² over all matrices is Σ (relative error)² ‖W‖²."""
    squares = {name: float(weight.double().square().sum()) for name, weight in weights.items()}
    assert len(squares) == 210
    for row in record.formats.values():
        assert row.relative_rms_by_module.keys() == squares.keys()
        total = sum(error**2 * squares[name] for name, error in row.relative_rms_by_module.items())
        expected = math.sqrt(total / sum(squares.values()))
        assert row.relative_rms["smollm2-135m"] == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_perplexity_and_change_of_loss_say_the_same(record):
    base = record.formats["bf16"]
    assert base.loss_change == 0 and 1 < base.perplexity < 49152
    for row in record.formats.values():
        assert row.perplexity == pytest.approx(base.perplexity * math.exp(row.loss_change), rel=1e-4)
    found = record.llm_int8
    assert found["perplexity"] == pytest.approx(base.perplexity * math.exp(found["loss_change"]), rel=1e-4)


def test_bits_per_parameter_by_hand(record):
    """A float32 for 64 weights is half a bit each; double-quantized 8/64 + 32/(64·256); Q4_1 has two float16 for 32."""
    bits = {name: row.bits_per_parameter for name, row in record.formats.items()}
    assert bits["bf16"] == 16 and bits["q4_1"] == 5
    assert bits["nf4"] == bits["fp4"] == bits["int4 block 64"] == 4.5
    assert bits["nf4 double"] == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-3)
    assert bits["int2 block 64"] == 2.5 and bits["int2 zero-point block 64"] == 2 + 40 / 64
    assert 8 < bits["int8 by tensor"] < 8.001 < bits["int8 by channel"] < 8.1


def test_sqnr_is_the_error_in_decibels(record):
    """A tenth of the size is a hundredth of the power: 20 dB."""
    row = record.formats["nf4"]
    assert row.sqnr_db() == pytest.approx(10 * math.log10(1 / row.relative_rms["smollm2-135m"] ** 2))
    assert record.formats["bf16"].sqnr_db() == math.inf and 50 < record.formats["bf16"].sqnr_db("minilm") < 60


# What page 05 tells.


@pytest.mark.parametrize("model", ["smollm2-135m", "minilm", "digits", "gaussian"])
def test_the_error_grows_as_bits_go(record, model):
    error = {name: row.relative_rms[model] for name, row in record.formats.items()}
    assert error["bf16"] < error["int8 by channel"] < min(error["int8 by tensor"], error["nf4"])
    assert error["nf4"] < error["int4 block 64"] < error["int3 block 64"] < error["int2 block 64"]
    assert error["int4 block 64"] < error["int4 by channel"] or model == "digits"  # there a row is a block of 64
    assert error["nf4"] < error["fp4"] and error["int4 block 64"] < error["fp4"]
    assert error["nf4 double"] == pytest.approx(error["nf4"], rel=0.01)


def test_perplexity_grows_as_bits_go(record):
    found = {name: row.perplexity for name, row in record.formats.items()}
    order = ["bf16", "nf4", "fp4", "int4 block 64", "int4 by channel", "int3 block 64", "int2 block 64"]
    assert [found[name] for name in order] == sorted(found[name] for name in order)
    eight, four = record.formats["int8 by channel"], record.formats["nf4"]
    assert abs(eight.loss_change) < 4 * eight.loss_change_error < 0.02
    assert four.loss_change > 10 * four.loss_change_error


def test_one_scale_for_a_whole_matrix_can_waste_half_the_bits(record):
    """Outliers: the encoder's weights are nearer in 4 bits by blocks of 64 than in 8 bits by tensor."""
    error = {name: row.relative_rms["minilm"] for name, row in record.formats.items()}
    assert error["nf4"] < error["int8 by tensor"] and error["int8 by channel"] < error["int8 by tensor"] / 5


def test_a_larger_weight_error_can_cost_less(record):
    """FP4 against int4 in blocks of 64: FP4 misses the weights by more and predicts better, but only here."""
    fp4, int4 = record.formats["fp4"], record.formats["int4 block 64"]
    assert fp4.relative_rms["smollm2-135m"] > int4.relative_rms["smollm2-135m"] and fp4.perplexity < int4.perplexity
    assert fp4.relative_rms["minilm"] > int4.relative_rms["minilm"] and fp4.encoder_cosine < int4.encoder_cosine


def test_the_embedded_model_still_sits_on_the_grid_of_q4_1(record, recorder, weights):
    """Blocks of 32 with at most 16 values: that format again changes no bit, and other formats gain nothing."""
    assert record.values_in_a_block == {"smollm2-135m": 16, "minilm": 32, "digits": 32, "gaussian": 32}
    assert recorder.values_in_a_block({name: weights[name] for name in MODULES}) == 16
    assert all(torch.equal(recorder.q4_1(weights[name])[0].bfloat16().float(), weights[name]) for name in MODULES)
    assert record.formats["q4_1"].loss_change == 0
    again = record.formats["q4_1"].relative_rms
    assert again["smollm2-135m"] < 0.002 < 0.06 < min(again["minilm"], again["digits"], again["gaussian"])
    for name in ("nf4", "fp4", "int4 block 64", "int3 block 64"):
        errors = record.formats[name].relative_rms
        assert errors["smollm2-135m"] == pytest.approx(errors["gaussian"], rel=0.06)


@pytest.mark.parametrize("model", ["minilm", "digits", "gaussian"])
def test_two_quantizations_add_like_independent_errors(record, model):
    """NF4 misses weights that came through Q4_1 by as much as fresh ones; the first loss is unseen."""
    found = record.twice[model]
    seen, total = found["nf4 after q4_1, against q4_1"], found["nf4 after q4_1, against the original"]
    assert seen == pytest.approx(found["nf4"], rel=0.03)
    assert total == pytest.approx(math.hypot(found["q4_1"], seen), rel=0.02)
    assert found["nf4"] == pytest.approx(record.formats["nf4"].relative_rms[model], rel=1e-4)


# Reading it, and the command that made it.


def test_provenance_is_complete_and_the_file_is_small(record):
    assert record.provenance["command"] == "python data/record_bits.py"
    assert record.provenance.keys() >= {"date", "cpu", "threads", "compute_dtype", "seconds", "encoder", "versions"}
    assert (BITS / "bits.json").stat().st_size <= 100_000


def test_a_missing_damaged_or_partial_file_is_refused_with_the_fix(tmp_path):
    with pytest.raises(LabError, match=r"git checkout -- data/bits.*record_bits\.py"):
        perplexity_by_bits(tmp_path)
    whole = json.loads((BITS / "bits.json").read_text())
    lacking_encoder = json.loads(json.dumps(whole))
    del lacking_encoder["methods"]["nf4"]["encoder_cosine"]
    short = whole | {"modules": whole["modules"][1:]}
    for text in ("{", "[]", "null", json.dumps(lacking_encoder), json.dumps(short)):
        (tmp_path / "bits.json").write_text(text)
        with pytest.raises(LabError, match=r"cannot be read.*Restore it"):
            perplexity_by_bits(tmp_path)


def test_change_of_loss_by_hand(recorder):
    """Losses 1, 3, 3 against 1, 2, 3: change 0, 1, 0, mean 1/3, standard deviation 1/√3, standard error 1/3."""
    found = recorder.compare(torch.tensor([1.0, 3.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert found == pytest.approx({"perplexity": math.exp(7 / 3), "loss_change": 1 / 3, "loss_change_error": 1 / 3})


def test_nearest_neighbours_by_hand(recorder):
    """Cosines: 0 and 1 0.6, 1 and 2 0.8, 0 and 2 none."""
    assert recorder.nearest(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])).tolist() == [1, 2, 1]


def test_once_measures_the_changed_model_and_puts_it_back(recorder, tiny_llama):
    """Halving every weight leaves an error of a half."""
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found, measured = recorder.once(
        model, lambda weight: (weight / 2, 3.0), lambda: {"q": model.model.layers[0].self_attn.q_proj.weight.clone()}
    )
    assert torch.equal(measured["q"], before["model.layers.0.self_attn.q_proj.weight"] / 2)
    assert found["relative_rms"] == pytest.approx(0.5) and found["bits_per_parameter"] == 3
    assert len(found["errors"]) == 14 and set(found["errors"].values()) == {0.5}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_written_reads_back_and_a_failed_write_leaves_the_old_file(recorder, tmp_path):
    value = {"a": {"b": [1 / 3, 2.0, "c"]}, "d": 5, "e": []}
    recorder.write(tmp_path, value)
    text = (tmp_path / "bits.json").read_text()
    assert json.loads(text) == {"a": {"b": [0.333333, 2.0, "c"]}, "d": 5, "e": []} and text.count("\n") == 7
    with pytest.raises(TypeError):
        recorder.write(tmp_path, {"not for JSON": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["bits.json"] and (tmp_path / "bits.json").read_text() == text


def test_the_encoders_vectors_move_by_what_is_recorded(recorder, record):
    text = TEXT.read_text(encoding="utf-8")
    network, moved = recorder.of_encoder([line for line in text.splitlines() if line.count(" ") > 4])
    found, measured = recorder.once(network, recorder.METHODS["nf4"][1], moved)
    nf4 = record.formats["nf4"]
    assert found["relative_rms"] == pytest.approx(nf4.relative_rms["minilm"], rel=1e-4)
    assert measured["encoder_cosine"] == pytest.approx(nf4.encoder_cosine, abs=1e-4)
    assert measured["encoder_neighbours"] == pytest.approx(nf4.encoder_neighbours, abs=0.02)


@pytest.mark.training
def test_the_command_runs_end_to_end(recorder, record, tmp_path):
    """Three formats on 367 tokens (35 s on one core); the same perplexity as `evaluate` gives."""
    from lab_utils.models.registry import load_base

    recorder.main(["--quick", "--output", str(tmp_path)])
    made = json.loads((tmp_path / "bits.json").read_text())
    assert list(made["methods"]) == list(recorder.QUICK)
    for name, values in made["methods"].items():
        assert values["relative_rms"] == pytest.approx(
            {model: record.formats[name].relative_rms[model] for model in values["relative_rms"]}, rel=1e-3
        )
    model, tokenizer = load_base("smollm2-135m", "none", verbose=False)
    text = TEXT.read_text()[:1500]
    assert made["methods"]["bf16"]["perplexity"] == pytest.approx(perplexity(model, tokenizer, text), rel=1e-4)
    with changed_weights(model, lambda weight: recorder.METHODS["nf4"][1](weight)[0]):
        assert made["methods"]["nf4"]["perplexity"] == pytest.approx(perplexity(model, tokenizer, text), rel=1e-3)
    with pytest.raises(LabError, match="cannot be read"):  # a part of the record is missing
        perplexity_by_bits(tmp_path)
