"""The explorers without a browser: what they hand to it, what Python reads, and that bad values are refused."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from choosing_explorers import (
    conversation_explorer,
    merge_explorer,
    picture_explorer,
    sweep_explorer,
    variant_explorer,
)
from shown import node, shown
from skill_runs import skill_explorer
from strength_curves import strength_explorer

from lab_utils import counts, lowrank, quantize
from lab_utils.errors import LabError
from lab_utils.memory import step as memory
from lab_utils.widgets.be_the_svd import BeTheSVD
from lab_utils.widgets.budget_explorer import BudgetExplorer
from lab_utils.widgets.cluster_explorer import ClusterExplorer
from lab_utils.widgets.code_explorer import CodeExplorer
from lab_utils.widgets.explorer import FOLDER, to_base64
from lab_utils.widgets.lora_explorer import LoraExplorer
from lab_utils.widgets.merge_explorer import MergeExplorer
from lab_utils.widgets.pair_explorer import PairExplorer
from lab_utils.widgets.parameter_explorer import ParameterExplorer
from lab_utils.widgets.quantizer_explorer import QuantizerExplorer
from lab_utils.widgets.rank_alpha_trainer import RankAlphaTrainer
from lab_utils.widgets.rank_explorer import RankExplorer, stops
from lab_utils.widgets.reward_explorer import RewardExplorer
from lab_utils.widgets.sentence_explorer import SentenceExplorer

PNG = b"\x89PNG"


def decode(text: str) -> np.ndarray:
    """The inverse of `encode`, as the browser does it."""
    return np.frombuffer(base64.b64decode(text), "<i2") / 32767


def rank_explorer():
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(12, 9, generator=generator)
    return RankExplorer({"picture": picture, "noise": torch.randn(5, 20, generator=generator)})


def lora_explorer():
    generator = torch.Generator().manual_seed(0)
    history = [(torch.randn(2, 6, generator=generator), torch.zeros(4, 2))]
    history += [(history[0][0], torch.randn(4, 2, generator=generator)) for _ in range(3)]
    losses = {2: [3.0, 2.5, 2.0, 1.5], 4: [3.0, 2.0, 1.0, 0.5], 6: [3.0, 3.5, 4.0, 4.5]}
    return LoraExplorer(torch.randn(4, 6, generator=generator), history, alpha=4, losses=losses)


def quantizer_explorer():
    return QuantizerExplorer({"gaussian": torch.randn(64, 40, generator=torch.Generator().manual_seed(0))})


def code_explorer():
    return CodeExplorer({"gaussian": torch.randn(64, 64, generator=torch.Generator().manual_seed(0))})


def by_hand():
    return BeTheSVD(torch.tensor([[1.0, 2, 2], [2, 3, 4]]))


EXPLORERS = {
    "rank": rank_explorer, "by hand": by_hand, "parameters": ParameterExplorer, "lora": lora_explorer,
    "trainer": RankAlphaTrainer, "quantizer": quantizer_explorer, "codes": code_explorer, "budget": BudgetExplorer,
    "sweep": sweep_explorer, "merge": merge_explorer, "variants": variant_explorer,
    "pictures": picture_explorer, "cluster": ClusterExplorer, "conversations": conversation_explorer,
    "rewards": RewardExplorer, "pairs": PairExplorer, "strength": strength_explorer, "skill": skill_explorer,
    "sentences": SentenceExplorer,
}  # fmt: skip
each = pytest.mark.parametrize("make", EXPLORERS.values(), ids=EXPLORERS)


@each
def test_the_page_without_widgets_gets_a_picture_and_a_sentence(make):
    data, _ = make()._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(PNG)
    assert re.search(r"\d", data["text/plain"]) and "\n" not in data["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in data


@each
def test_the_state_is_plain_json_and_the_script_one_module(make):
    state = make().get_state()
    json.dumps({name: value for name, value in state.items() if name != "layout"}, allow_nan=False)
    assert state["_esm"].rstrip().endswith("export default { render };")
    assert not re.search(r"^\s*import\b|https?://(?!www\.w3\.org/2000/svg)", state["_esm"], flags=re.MULTILINE)


@each
def test_reset_goes_back_to_the_start(make):
    explorer = make()
    start = {name: explorer.start[name] for name in explorer._moved}
    moved = {"rank": 2, "step": 2, "model": "GPT-2", "task": "mirrored", "bits": 3, "code": "FP4", "gpu": "T4, 16 GB"}
    moved |= {"column": [1.0, 2.0], "into": "int8", "second": 3, "max_length": 9, "compared": True, "rate": 0.064}
    moved |= {"strength": 0.5, "loss": 0.5}
    for name, value in moved.items():
        if name in explorer._moved:
            setattr(explorer, name, value)
    assert {name: getattr(explorer, name) for name in start} != start
    explorer.reset()
    assert {name: getattr(explorer, name) for name in start} == start


def test_encoded_numbers_come_back_to_within_half_a_step():
    values = torch.linspace(-1, 1, 999)
    assert np.abs(decode(to_base64(values)) - values.numpy()).max() <= 0.5 / 32767 + 1e-7
    assert np.abs(decode(to_base64([2.0, -3.0]))).tolist() == [1, 1]  # out of range: the nearest


def test_the_browser_can_rebuild_every_approximation():
    explorer = rank_explorer()
    for record in explorer.matrices:
        weight = explorer._weights[record["name"]]
        count = len(record["singular_values"])
        left, right = decode(record["left"]).reshape(-1, count), decode(record["right"]).reshape(count, -1)
        for rank in range(count + 1):
            B, A = lowrank.best_rank_r(weight, rank)
            rebuilt = (left[:, :rank] * record["singular_values"][:rank]) @ right[:rank]
            assert np.abs(rebuilt - (B @ A).numpy()).max() < 1e-3 * float(weight.norm())


def test_rank_explorer_says_what_the_library_computes():
    explorer = rank_explorer()
    explorer.rank = 3
    B, A = lowrank.best_rank_r(explorer._weights["picture"], 3)
    error = lowrank.relative_error(explorer._weights["picture"], B @ A)
    assert f"relative error {error:.1%}" in explorer.summary()
    assert "63 numbers instead of 108" in explorer.summary()  # 3 · (12 + 9), 12 · 9


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
def test_what_is_missing_is_painted_on_the_scale_below_it():
    """Its largest entry, and where next to nothing is missing a hundredth of the matrix's own scale."""
    explorer = rank_explorer()
    [record, _], weight = explorer.matrices, explorer._weights["picture"]
    for rank, seen in zip((0, 1, 3, 9), shown(explorer, [{"rank": rank} for rank in (0, 1, 3, 9)]), strict=True):
        B, A = lowrank.best_rank_r(weight, rank)
        wanted = max(float((weight - B @ A).abs().max()), record["limit"] / 100)
        [scale] = [float(found[1]) for name in seen["named"] if (found := re.search(r"missing.*±([\d.e-]+)$", name))]
        assert scale == pytest.approx(wanted, rel=0.06)  # two digits


@pytest.mark.parametrize("full", [1, 5, 25, 26, 96, 192, 576])
def test_the_first_ranks_have_most_of_the_sliders_travel(full):
    ranks = stops(full)
    assert ranks[0] == 0 and ranks[-1] == full and ranks == sorted(set(ranks))
    assert ranks[:26] == list(range(min(full, 25) + 1)) and sum(rank <= 25 for rank in ranks) > len(ranks) / 2
    if full < 100:
        assert RankExplorer({"w": torch.ones(full, full + 1)}).matrices[0]["ranks"] == ranks


def of_one_tensor(weight) -> list:
    """Every explorer that takes tensors, with this one as what it takes."""
    history = [(weight[:2], weight[:, :2]), (weight[2:4], weight[:, 2:4])]
    return [
        RankExplorer({"w": weight}), CodeExplorer({"w": weight}), QuantizerExplorer({"w": weight}),
        LoraExplorer(weight, history, alpha=2), MergeExplorer(weight, weight, rank=2),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64", "parameter", "array"])
def test_explorers_take_numbers_of_any_dtype(kind):
    """The same state as for the same numbers in float32."""
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(0)).bfloat16()  # exact in each of them
    given = {"parameter": torch.nn.Parameter(weight), "array": weight.float().numpy()}.get(kind)
    given = weight.to(getattr(torch, kind)) if given is None else given
    assert torch.equal(torch.as_tensor(given).float(), weight.float())
    for one, plain in zip(of_one_tensor(given), of_one_tensor(weight.float()), strict=True):
        assert one.summary() == plain.summary()
        for name in plain.keys:
            if name not in ("_model_id", "layout", "comm"):
                assert getattr(one, name) == getattr(plain, name), name


def test_an_explorer_refuses_what_holds_no_weights():
    packed = torch.zeros(2048, 1, dtype=torch.uint8)
    packed.quant_state = "of bitsandbytes"
    for values, message in (
        (packed, "w holds quantized codes, not weights"), (torch.empty(2048, 4, device="meta"), "w cannot be read"),
        ("words", "w cannot be read as numbers"),
    ):  # fmt: skip
        for make in (RankExplorer, CodeExplorer, QuantizerExplorer):
            with pytest.raises(LabError, match=message):
                make({"w": values})


def test_a_picture_is_grey_and_signed_numbers_are_not():
    assert [record["kind"] for record in rank_explorer().matrices] == ["grey", "signed"]


def test_a_zero_matrix_is_shown_too():
    explorer = RankExplorer({"zero": torch.zeros(3, 4)})
    assert "relative error 0.0%" in explorer.summary()
    assert explorer._repr_mimebundle_()


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (rank_explorer, "rank", 10), (rank_explorer, "rank", -1), (rank_explorer, "matrix", "photo"),
        (ParameterExplorer, "model", "GPT-9"), (ParameterExplorer, "rank", 0),
        (lora_explorer, "step", 4), (lora_explorer, "step", -1), (lora_explorer, "alpha", 5.0),
        (quantizer_explorer, "bits", 9), (quantizer_explorer, "outlier", -1.0), (quantizer_explorer, "method", "nf4"),
        (code_explorer, "level", 17), (code_explorer, "levels", [0.5]), (code_explorer, "blocksize", 100),
        (BudgetExplorer, "gpu", "abacus"), (BudgetExplorer, "batch_size", 0),
        (sweep_explorer, "quality", "speed"), (sweep_explorer, "first", 0), (sweep_explorer, "second", 99),
        (merge_explorer, "percent", 0.7), (merge_explorer, "into", "int2"), (merge_explorer, "grid", "float16"),
        (variant_explorer, "race", "chess"), (variant_explorer, "mode", "by luck"), (variant_explorer, "rate", 0.003),
        (picture_explorer, "rank", 3), (picture_explorer, "strength", 0.6),
        (ClusterExplorer, "processes", 3), (ClusterExplorer, "strategy", "zero4"), (ClusterExplorer, "link", "pigeon"),
        (conversation_explorer, "chat", 7), (conversation_explorer, "max_length", 7),
        (conversation_explorer, "turns", "some"), (conversation_explorer, "long", "shrink"),
        (PairExplorer, "step", 13), (PairExplorer, "pair", 0), (PairExplorer, "learning_rate", 0.5),
        (PairExplorer, "beta", 0.2),
        (RankAlphaTrainer, "rank", 65), (RankAlphaTrainer, "alpha", 0.0), (RankAlphaTrainer, "rule", "alpha"),
        (RankAlphaTrainer, "steps", 101), (RankAlphaTrainer, "seed", -1), (RankAlphaTrainer, "task", "upright"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_and_changes_nothing(make, name, value):
    explorer = make()
    before = getattr(explorer, name)
    with pytest.raises(LabError, match=re.escape(str(value))):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_bad_arguments_are_named():
    with pytest.raises(LabError, match="at least one matrix"):
        RankExplorer({})
    with pytest.raises(LabError, match="attention2"):
        ParameterExplorer(targets=["attention2"])
    with pytest.raises(LabError, match=r"\(3, 2\)"):
        LoraExplorer(torch.zeros(4, 6), [(torch.zeros(2, 6), torch.zeros(3, 2))], alpha=1)
    with pytest.raises(LabError, match="2,048"):
        QuantizerExplorer({"short": torch.zeros(2047)})
    with pytest.raises(LabError, match="at least one layer"):
        CodeExplorer({})
    with pytest.raises(LabError, match="2 losses"):
        LoraExplorer(torch.zeros(4, 6), [(torch.zeros(2, 6), torch.zeros(4, 2))], alpha=1, losses=[1.0, 2.0])
    one = torch.zeros(4, 6), [(torch.zeros(2, 6), torch.zeros(4, 2))]
    for wrong, message in (
        ({"losses": {2: [1.0]}}, "with 1 are needed"), ({"losses": {1: [float("nan")]}}, "not finite"),
        ({"losses": [1.0], "shares": {"mirrored": {1: [0.5], 2: [0.5]}}}, "mirrored has the alphas"),
        ({"steps": [0, 1]}, "one number a recorded step"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=message):
            LoraExplorer(*one, alpha=1, **wrong)


def test_parameter_explorer_counts_as_the_library():
    explorer = ParameterExplorer("GPT-3", rank=4, targets=["q_proj", "v_proj"])
    assert explorer.trained == 18_874_368  # the LoRA paper's 18.9M: section 5, table 15
    assert "18,874,368" in explorer.summary()
    explorer.targets = []
    assert explorer.trained == 0 and "on nothing" in explorer.summary()
    assert explorer._repr_mimebundle_()


def test_parameter_explorer_knows_every_architecture():
    names = [record["name"] for record in ParameterExplorer().architectures]
    assert names == list(counts.ARCHITECTURES)


def test_lora_explorer_adds_what_the_formula_says():
    explorer = lora_explorer()
    assert "0 of 24 entries differ" in explorer.summary()
    explorer.step, explorer.alpha = 2, 6.0
    expected = 6 / 2 * explorer._B[2] @ explorer._A[2]
    assert torch.allclose(explorer._delta(), expected)
    rows, columns, rank = (explorer.sizes[name] for name in ("rows", "columns", "rank"))
    sent_A = decode(explorer.lora_A).reshape(-1, rank, columns)[2] * explorer.scales["lora_A"]
    sent_B = decode(explorer.lora_B).reshape(-1, rows, rank)[2] * explorer.scales["lora_B"]
    assert np.abs(3 * sent_B @ sent_A - expected.numpy()).max() < 1e-3
    assert explorer.shown() == {"loss": 4.0} and "loss 4.00" in explorer.summary()


def test_the_loss_has_the_colour_of_no_share():
    """And each colour that the script draws with has its rules in the style sheet."""
    explorer = lora_explorer()
    script = (FOLDER / "lora_explorer.js").read_text(encoding="utf-8")
    loss, read = script.split("curve.draw(")[1].split("read.draw(")
    kinds = [set(re.findall(r'"(blue|orange|ghost|ink)"', part)) for part in (loss, read)]
    assert kinds == [{"ghost", "ink"}, {"blue", "orange"}]
    assert all(f".line.{kind} {{" in explorer._css for kind in set.union(*kinds))
    assert ".mark.ink {" in explorer._css


def test_the_quantizer_rounds_as_the_library_and_its_outlier_spoils_one_block():
    explorer = quantizer_explorer()
    explorer.blocksize, explorer.outlier = 64, 32.0
    values, rounded = explorer._values()
    assert values[100] == 32 and values[:100].abs().max() < 6
    errors = (values - rounded).reshape(-1, 64).square().mean(1)
    assert errors.argmax() == 1 and errors[1] > 10 * errors[[0, *range(2, 32)]].max()
    assert torch.equal(rounded, quantize.dequantize_absmax(quantize.quantize_absmax(values, 4, blocksize=64)))
    explorer.method = "zero-point"
    rounded = explorer._values()[1]
    assert torch.equal(rounded, quantize.dequantize_zeropoint(quantize.quantize_zeropoint(values, 4, blocksize=64)))


def of_the_others(explorer) -> float:
    """The relative error in a summary, in percent."""
    return float(re.search(r"relative error (?:of the others )?([\d.]+)", explorer.summary())[1])


@pytest.mark.parametrize("method", ["absmax", "zero-point"])
def test_an_outlier_counts_in_no_error_and_those_of_the_others_never_fall_as_it_grows(method):
    explorer = quantizer_explorer()
    explorer.method, seen = method, []
    for explorer.outlier in (0.0, 8.0, 16.0, 32.0, 64.0):
        values, rounded = (torch.cat([one[:100], one[101:]]) for one in explorer._values())
        values, rounded = (one if explorer.outlier else whole for one, whole in
                           zip((values, rounded), explorer._values(), strict=True))  # fmt: skip
        seen.append(of_the_others(explorer))
        assert seen[-1] == pytest.approx(100 * float((values - rounded).norm() / values.norm()), abs=0.006)
        [errors] = explorer.figure().axes[1].containers
        groups = (values - rounded).split([64, 63 if explorer.outlier else 64, *[64] * 30])
        wanted = [float(group.square().mean().sqrt()) for group in groups]
        assert [bar.get_height() for bar in errors] == pytest.approx(wanted)
    assert seen == sorted(seen) and seen[-1] > 5 * seen[0]


def test_the_question_over_the_quantizer_has_the_answer_seven():
    explorer = quantizer_explorer()
    explorer.outlier, explorer.blocksize = 32.0, 64
    wanted, explorer.blocksize, found = of_the_others(explorer), 2048, {}
    for explorer.bits in (5, 6, 7, 8):
        found[str(explorer.bits)] = of_the_others(explorer)
    assert list(found) == explorer.choices and next(one for one in found if found[one] <= wanted) == "7"


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
def test_the_browser_counts_the_same_weights():
    one, moves = quantizer_explorer(), [{}, {"outlier": 32.0}, {"blocksize": 256, "bits": 6}, {"method": "zero-point"}]
    for move, seen in zip(moves, shown(quantizer_explorer(), moves), strict=True):
        for name, value in move.items():
            setattr(one, name, value)
        found = re.search(r"relative error (of the others )?([\d.]+) %", seen["sentence"])
        assert bool(found[1]) == bool(one.outlier) and float(found[2]) == pytest.approx(of_the_others(one), abs=0.02)
        high = max(bar.get_height() for bar in one.figure().axes[1].containers[0])
        assert any(f"to {high:.3f} σ" in name for name in seen["named"])


def test_the_codes_errors_on_gaussian_weights_are_the_known_ones():
    explorer = CodeExplorer({"gaussian": torch.randn(16384, generator=torch.Generator().manual_seed(0))})
    # relative error of normal weights in blocks of 64, measured once over many millions of them
    known = {"NF4": 0.0920, "FP4": 0.1220, "int4": 0.1077, "AF4": 0.0956, "E2M1": 0.1057}
    assert {name: explorer.errors()[name] for name in known} == pytest.approx(known, abs=0.001)


def test_the_budget_is_the_librarys_estimate_and_its_advice_helps():
    explorer = BudgetExplorer(model="Llama-3-8B", method="lora", gpu="L4, 24 GB", batch_size=8, sequence_length=1024)
    now = memory.estimate("Llama-3-8B", "lora", batch_size=8, sequence_length=1024, device="cuda")
    assert explorer.budget["total"] == now.total_bytes == sum(explorer.budget["parts"].values())
    assert explorer.budget["total"] > explorer.budget["room"] and explorer.budget["changes"]
    explorer.checkpointing, explorer.batch_size = True, 2
    assert explorer.budget["total"] <= explorer.budget["room"] and explorer.budget["changes"] == []
    assert "it fits" in explorer.summary()
    with pytest.raises(LabError, match="ranks"):
        BudgetExplorer(ranks=4)
