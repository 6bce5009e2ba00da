"""Retention: strength and random adapters by their laws, intruders against planted directions, changes by hand."""

import math

import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.evaluate import perplexity
from lab_utils.finetune import Recipe, attach_adapter, take_off_adapter
from lab_utils.models.registry import load_tokenizer
from lab_utils.recorded.forgetting import Texts
from lab_utils.retention import (
    Reading,
    adapter_matrices,
    at_strength,
    by_strength,
    change,
    fixed_texts,
    forgetting,
    intruders,
    left_vectors,
    likeness,
    passages,
    product_norm,
    questions,
    random_like,
    read_all,
    swapped,
)  # fmt: skip

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    GENERATOR.manual_seed(0)


@pytest.fixture
def adapted(tiny_llama):
    """(model, token ids, base logits): a tiny model with an adapter whose B is not zero."""
    model = tiny_llama(64)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
    peft = attach_adapter(model, Recipe(rank=2, alpha=4)).eval()
    for name, one in peft.named_parameters():
        if "lora_B" in name:
            one.data = torch.randn(one.shape, generator=GENERATOR) / 10
    return peft, ids, before


@torch.no_grad()
def test_strength_0_is_the_base_bit_for_bit_and_the_line_is_straight_in_the_weights(adapted):
    model, ids, before = adapted
    trained = model(input_ids=ids).logits
    with at_strength(model, 0):
        assert torch.equal(model(input_ids=ids).logits, before)
    with at_strength(model, 1):
        assert torch.equal(model(input_ids=ids).logits, trained)
    assert torch.equal(model(input_ids=ids).logits, trained) and not torch.allclose(trained, before, atol=1e-2)
    for name, one in model.named_parameters():  # a quarter of the strength is a quarter of B, and nothing of A
        if "lora_B" in name:
            one.data *= 0.25
    quarter = model(input_ids=ids).logits
    for name, one in model.named_parameters():
        if "lora_B" in name:
            one.data /= 0.25
    with at_strength(model, 0.25):
        torch.testing.assert_close(model(input_ids=ids).logits, quarter)


def test_the_strength_comes_back_after_an_error_and_nonsense_is_refused(adapted):
    model, ids, _ = adapted
    trained = model(input_ids=ids).logits
    with pytest.raises(KeyError), at_strength(model, 3):
        raise KeyError
    assert torch.equal(model(input_ids=ids).logits, trained)
    for strength in ("half", math.nan, True):
        with pytest.raises(LabError, match="strength="), at_strength(model, strength):
            pass
    base = take_off_adapter(model)
    with pytest.raises(LabError, match="no LoRA adapter"), at_strength(base, 1):
        pass


@torch.no_grad()
def test_other_matrices_are_on_the_model_while_the_block_lasts(adapted):
    model, ids, before = adapted
    trained, matrices = model(input_ids=ids).logits, adapter_matrices(model)
    zero = {name: torch.zeros_like(one) for name, one in matrices.items()}
    with pytest.raises(KeyError), swapped(matrices, zero):
        assert torch.equal(model(input_ids=ids).logits, before)
        raise KeyError
    assert torch.equal(model(input_ids=ids).logits, trained)
    with swapped(matrices, random_like(matrices, seed=0)):
        assert not torch.allclose(model(input_ids=ids).logits, trained, atol=1e-2)
    with pytest.raises(LabError, match="cannot be put in its place"), swapped(matrices, {}):
        pass
    with pytest.raises(LabError, match="named 'style'"):
        adapter_matrices(model, "style")


def test_a_random_adapter_has_the_norm_of_each_update_and_none_of_its_direction():
    state = {f"{layer}.lora_{side}.weight": torch.randn(*shape, generator=GENERATOR) * size
             for layer, size in (("a", 1), ("b", 0.01)) for side, shape in (("A", (3, 40)), ("B", (50, 3)))}
    found = random_like(state, seed=1)
    for layer in ("a", "b"):
        A, B = (state[f"{layer}.lora_{side}.weight"].double() for side in "AB")
        other_A, other_B = (found[f"{layer}.lora_{side}.weight"].double() for side in "AB")
        assert float((other_B @ other_A).norm()) == pytest.approx(float((B @ A).norm()), rel=1e-5)
        assert product_norm(A, B) == pytest.approx(float((B @ A).norm()))
        cosine = float(((B @ A) * (other_B @ other_A)).sum()) / float((B @ A).norm() ** 2)
        assert abs(cosine) < 0.1
    assert all(torch.equal(one, random_like(state, seed=1)[name]) for name, one in found.items())
    assert not torch.equal(found["a.lora_A.weight"], random_like(state, seed=2)["a.lora_A.weight"])
    plain = random_like(state, seed=1, match=False)
    assert float((plain["b.lora_B.weight"] @ plain["b.lora_A.weight"]).norm()) > 10
    with pytest.raises(LabError, match="not LoRA's"):
        random_like({"a.lora_A.weight": torch.ones(2, 2)}, seed=0)


def with_spectrum(out: int, into: int, values):
    """(W, U, V): a matrix with these singular values, and its vectors as columns."""
    U = torch.linalg.qr(torch.randn(out, len(values), generator=GENERATOR))[0]
    V = torch.linalg.qr(torch.randn(into, len(values), generator=GENERATOR))[0]
    return U * torch.tensor(values) @ V.T, U, V


def test_an_update_along_the_old_directions_makes_no_intruder():
    W, U, V = with_spectrum(12, 9, [9.0, 7, 5, 3, 2, 1])
    moved = W + 3.5 * torch.outer(U[:, 3], V[:, 3])  # singular values 9, 7, 6.5, 5 ...: the same directions
    assert intruders(W, moved, top=6) == () and intruders(W, -W, top=6) == ()  # a singular vector's sign is free
    assert min(likeness(W, W).cosines[:6]) > 0.9999


def test_one_planted_direction_makes_exactly_one_intruder_where_it_is_large_enough():
    """New directions, orthogonal to all old ones, so the new singular values are the old ones and the planted one."""
    W, U, V = with_spectrum(12, 9, [9.0, 7, 5, 3])
    left, right = torch.randn(12, generator=GENERATOR), torch.randn(9, generator=GENERATOR)
    left, right = left - U @ (U.T @ left), right - V @ (V.T @ right)
    planted = torch.outer(left / left.norm(), right / right.norm())
    old = (U, torch.tensor([9.0, 7, 5, 3]))
    assert likeness(old, W + 6 * planted, top=4).intruders() == (2,)  # 9, 7, 6, 5
    assert likeness(old, W + 100 * planted, top=4).intruders() == (0,)
    assert likeness(old, W + 4 * planted, top=3).intruders() == ()  # the fourth is not looked at
    assert likeness(old, W + 6 * planted, top=4).singular_values == pytest.approx((9, 7, 6, 5), abs=1e-4)


def test_halfway_between_an_old_and_a_new_direction_the_threshold_decides():
    """u' = (u + n) / √2 has a cosine of 0.707 with u and with nothing else more."""
    W, U, V = with_spectrum(12, 9, [9.0, 7])
    new = torch.randn(12, generator=GENERATOR)
    new = new - U @ (U.T @ new)
    turned = W + 9 * torch.outer((U[:, 0] + new / new.norm()) / 2**0.5 - U[:, 0], V[:, 0])
    found = likeness((U, torch.tensor([9.0, 7])), turned, top=1)
    assert found.cosines == pytest.approx((0.5**0.5,), abs=1e-4)
    assert found.intruders(0.7) == () and found.intruders(0.71) == (0,)


def test_intruders_are_those_of_peft():
    """peft counts them on a layer that computes in float32; its new adapter is cut down to the rank again."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    layer = torch.nn.Sequential(torch.nn.Linear(20, 24, bias=False))
    layer[0].weight.data = with_spectrum(24, 20, [20.0 - n for n in range(18)])[0]
    before = layer[0].weight.data.clone()
    model = get_peft_model(layer, LoraConfig(r=2, lora_alpha=4, target_modules=["0"]))
    lora = model.base_model.model[0]
    lora.lora_A["default"].weight.data = torch.randn(2, 20, generator=GENERATOR)
    lora.lora_B["default"].weight.data = torch.randn(24, 2, generator=GENERATOR)
    said = []
    reduce_intruder_dimension(model, logging_sink=said.append)
    found = intruders(before, before + lora.get_delta_weight("default"))
    assert len(found) > 0 and any(line.endswith(f"Intruders: {len(found)}") for line in said)


def test_matrices_that_cannot_be_compared_are_refused():
    W = torch.ones(3, 2)
    for before, after, message in (
        (W, torch.ones(2, 3), "one matrix at two times"), (W, W * math.nan, "NaN"),
        (left_vectors(torch.ones(4, 2)), W, "one matrix at two times"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=message):
            likeness(before, after)
    with pytest.raises(LabError, match="threshold"):
        intruders(W, W, threshold=-1)


def test_fixed_texts_are_not_those_that_are_replayed():
    assert not set(passages()) & set(passages("replay")) and (len(passages()), len(passages("replay"))) == (24, 23)
    asked, replayed = ({row["prompt"] for row in questions(use)} for use in ("measure", "replay"))
    assert (len(asked), len(replayed)) == (40, 20) and not asked & replayed
    assert {kind: len(some) for kind, some in fixed_texts(3, 2).items()} == {
        "skill": 3, "prose": 2, "questions": 2, "style": 2,
    }  # fmt: skip
    with pytest.raises(LabError, match="use='train'"):
        questions("train")


def test_a_reading_weighs_tokens_and_a_rise_is_text_by_text(tiny_llama):
    reading = Reading((1.0, 3.0), (3, 1), (True, False))
    assert reading.loss == 1.5 and reading.perplexity == pytest.approx(math.exp(1.5)) and reading.exact == 0.5
    assert forgetting(reading, Reading((1.5, 2.0), (3, 1))) == (0.5, -1.0)
    with pytest.raises(LabError, match="same texts"):
        forgetting(reading, Reading((1.0, 3.0), (3, 2)))
    tokenizer = load_tokenizer()
    model = tiny_llama(len(tokenizer))
    found = read_all(model, tokenizer, fixed_texts(2, 2))
    assert set(found) == {"skill", "prose", "questions", "style"} and math.isnan(found["prose"].exact)
    one = read_all(model, tokenizer, {"prose": passages()[:1]})["prose"]
    assert one.perplexity == pytest.approx(perplexity(model, tokenizer, passages()[0]), rel=1e-4)
    with pytest.raises(LabError, match="'poems'"):
        read_all(model, tokenizer, {"poems": ["a"]})


def test_a_change_over_texts_and_over_seeds_by_hand():
    """One run: differences 1, 2, 3 have mean 2 and a standard error of 1/√3; t of 2 degrees of freedom is 4.303."""
    found = change([0, 0, 0], [1, 2, 3])
    assert (found.mean, found.runs, found.texts) == (2, 1, 3)
    assert found.high == pytest.approx(2 + 4.30265 / 3**0.5, abs=1e-4) and not found.clear
    assert "1 seed, 3 texts): not clear" in str(found)
    several = change([[0, 0, 0]] * 3, [[1, 1.1, 0.9]] * 3)
    assert several.runs == 3 and several.clear and several.mean == pytest.approx(1)
    for before, after in (([0, 1], [0]), ([], []), ([0, 1], [0, math.nan])):
        with pytest.raises(LabError):
            change(before, after)


def test_points_by_strength_by_hand():
    def texts(skill, prose):
        losses = {"skill": (skill,) * 2, "prose": prose, "questions": (1.0, 1.0), "style": (2.0, 3.0)}
        return Texts(losses, (True, False))

    curves = [{0.0: texts(3.0, (1.0, 2.0)), 1.0: texts(0.5, (1.25, 2.25))}]
    base, trained = by_strength(curves)
    assert (base["skill"], base["exact"], base["rise"]["prose"]) == (3.0, 0.5, [0, 0, 0])
    assert trained["strength"] == 1 and trained["rise"]["prose"] == [0.25, 0.25, 0.25]
    for wrong in ([], [{1.0: curves[0][1.0]}], [curves[0], {0.0: curves[0][0.0]}]):
        with pytest.raises(LabError, match="Curves of strength"):
            by_strength(wrong)
