"""The exercises: stubs fail politely, solutions pass, and the check says what is true of every solution."""

import inspect
import re
from statistics import NormalDist
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from lab_utils import checks, lowrank
from lab_utils.checks import engine
from lab_utils.checks.comparing import agree, compare, show
from lab_utils.checks.engine import EXAMPLES, arguments, examples
from lab_utils.checks.report import source
from lab_utils.finetune.recipe import Recipe
from lab_utils.folders import NOTEBOOKS

EXERCISES = checks.EXERCISES


each_exercise = pytest.mark.parametrize("name", EXERCISES)


def not_implemented(*_):
    raise NotImplementedError


STUBS = {"None": lambda *_: None, "...": lambda *_: ..., "NotImplementedError": not_implemented}


@pytest.mark.parametrize("name", ["outer_product", "initial_adapter"])  # of the others: the next test
@pytest.mark.parametrize("stub", STUBS.values(), ids=STUBS)
def test_a_stub_is_unsolved_and_told_so_politely(name, stub, only_the_verdict):
    report = checks.check(name, stub)
    assert not report.passed and report.status == "open" and report.mistake is None
    assert report.text.startswith("○ Not solved yet") and "return" in report.text
    assert "✗" not in report.text


@each_exercise
def test_a_stub_shows_a_worked_example_and_no_code_to_paste(name, only_the_verdict):
    """Code is folded, after the hints; an exercise with many right answers has its example on the page."""
    exercise = EXERCISES[name]
    report = checks.check(name, lambda *_: None)
    assert report.status == "open" and report.text.startswith("○ Not solved yet") and "✗" not in report.text
    for function in (exercise.spec, exercise.solution):
        assert source(function).splitlines()[-1].strip() not in report.text
    summaries = [summary for summary, *_ in report.folded]
    assert summaries == ["Hint 1", "Hint 2", "Hint 3", "The same in plain steps", "A solution"]
    assert "<details open" not in report.html
    if exercise.judge is not None:
        assert report.example == []
        return
    *inputs, (label, gives) = report.example
    assert [name for name, _ in inputs] == arguments(exercise)
    assert label == ("gives" if exercise.view is engine.Exercise.view else "may give")
    shown = [value for _, value in inputs]
    given = [one for one in (exercise.demo, *examples(exercise)) if [show(part) for part in one] == shown]
    assert gives in {show(exercise.solution(*one)) for one in given}
    assert len(report._example().splitlines()) <= 40


def test_a_tensor_of_any_shape_is_shown_with_its_numbers():
    """Each matrix of the last two axes after its place; axes of one at the end add nothing to read."""
    assert show(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 80.0]]]])) == (
        "[0, 0]\n[[ 1   2]\n [ 3   4]]\n[0, 1]\n[[ 5   6]\n [ 7  80]]   shape (1, 2, 2, 2)"
    )
    assert show(torch.arange(4).view(2, 2, 1, 1)) == "[[0  1]\n [2  3]]   shape (2, 2, 1, 1), int64"
    assert show(torch.arange(3.0)) == "[0  1  2]   shape (3,)" and show(torch.tensor(2.5)) == "2.5"
    assert show(torch.zeros(5, 5, 5)) == "tensor   shape (5, 5, 5)"


def test_numbers_in_containers_are_shown_as_short_as_numbers_alone():
    """Floats alone are shortened: a whole number, such as a token's id, is read digit by digit."""
    assert show((-0.04585452876013697, 0.5, 20_000, 2.0)) == "(-0.04585, 0.5, 20000, 2.0)"
    assert show([1 / 3, (2 / 3,), None, "a", True]) == "[0.3333, (0.6667,), None, 'a', True]"
    assert show({"q": (192, 576), "x": 1e-9 / 3}) == "{'q': (192, 576), 'x': 3.333e-10}"
    assert show([{"loss": 1 / 3}, {"loss": 0.3}]) == "[{'loss': 0.3333},\n {'loss': 0.3}]"
    endless: list = []
    endless.append(endless)
    assert show(endless) == "(list)" and show((float("nan"), float("inf"))) == "(nan, inf)"


@each_exercise
def test_the_solution_passes(name):
    exercise = EXERCISES[name]
    report = checks.check(name, exercise.solution, seconds=60)
    assert report.passed and report.mistake is None, report.text
    assert report.text.startswith("✓ Solved") and "✗" not in report.text and exercise.reward in report.text
    assert [summary for summary, *_ in report.folded] == ["The same in plain steps", "One way to write it"]


@each_exercise
def test_the_slow_spec_says_what_the_solution_does(name):
    exercise = EXERCISES[name]
    for inputs in (exercise.demo, *examples(exercise)):
        solved = exercise.solution(*inputs)
        if name == "initial_adapter":
            assert exercise.spec(*solved, *inputs)
            A, B = solved
            assert not exercise.spec(A, B + 1, *inputs) and not exercise.spec(0 * A, B, *inputs)
            assert not exercise.spec(B, A, *inputs) or A.shape == B.shape
        else:
            found = compare(solved, exercise.spec(*inputs), exercise.view)
            assert not any(found.values()), (inputs, found)


@each_exercise
def test_every_exercise_is_complete(name):
    exercise = EXERCISES[name]
    assert name == exercise.name == exercise.solution.__name__
    assert exercise.reward and len(exercise.hints) == 3 and len(set(exercise.hints)) == 3
    names = [mistake.name for mistake in exercise.mistakes]
    assert len(names) == len(set(names)) >= 3 and all(mistake.fix.endswith(".") for mistake in exercise.mistakes)
    assert 10 <= len(examples(exercise)) <= EXAMPLES
    tensors = [value for inputs in examples(exercise) for value in inputs if isinstance(value, torch.Tensor)]
    widths = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    assert not widths or {torch.float32, torch.float64} <= widths


def test_three_or_more_on_every_page():
    pages = [exercise.page for exercise in EXERCISES.values()]
    expected = {1: 4, 2: 3, 3: 3, 4: 3, 5: 4, 6: 4, 7: 4, 8: 6, 9: 6, 10: 5, 11: 6, 12: 4, 13: 3, 14: 6, 15: 6, 16: 6}
    assert {page: pages.count(page) for page in set(pages)} == expected


@each_exercise
def test_hints_have_three_levels_and_keep_the_solution(name):
    hints = [checks.hint(name, level) for level in (1, 2, 3)]
    assert checks.hint(name).text == hints[0].text
    body = inspect.getsource(EXERCISES[name].solution).split(":\n", 1)[1]
    expressions = re.findall(r"(?:return|=)\s+(.+?)(?:  #.*)?$", body, flags=re.MULTILINE)
    assert expressions
    for level, hint in enumerate(hints, 1):
        assert f"Hint {level} of 3" in hint.text and EXERCISES[name].hints[level - 1] in hint.text
        words = re.sub(r"\s", "", hint.text)
        given_away = [text for text in expressions if len(text) > 8 and re.sub(r"\s", "", text) in words]
        assert level == 3 or not given_away
    solution = checks.solution(name).text
    assert f"def {name}(" in solution and "return" in solution


@each_exercise
def test_the_same_check_says_the_same(name, only_the_verdict, monkeypatch):
    monkeypatch.setattr(engine, "SEARCHED", 20)
    monkeypatch.setattr(engine, "SEARCH_SECONDS", 60.0)  # a search that a busy machine cuts short ends elsewhere
    wrong = next((mistake.wrong[0] for mistake in EXERCISES[name].mistakes if mistake.wrong), lambda *_: (1, 2))
    first, second = (checks.check(name, wrong, seconds=60) for _ in range(2))
    assert first.text == second.text and first.html == second.html


def test_checking_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    checks.check("initial_adapter", lambda o, i, r: (torch.randn(r, i), torch.zeros(o, r)))
    checks.check("merge", lambda W, A, B, alpha: W)
    assert torch.equal(torch.rand(2), expected)


def test_the_best_fit_leaves_what_eckart_and_young_say():
    for weight, rank in examples(EXERCISES["best_rank_r"]):
        B, A = EXERCISES["best_rank_r"].solution(weight, rank)
        left = np.linalg.norm(weight.numpy() - B.numpy() @ A.numpy())
        rest = np.linalg.svd(weight.numpy(), compute_uv=False)[rank:]
        assert left == pytest.approx(np.sqrt((rest**2).sum()), abs=1e-5)


def test_energy_and_error_are_two_sides_of_one_thing():
    solved = {name: EXERCISES[name].solution for name in ("best_rank_r", "relative_error", "energy")}
    for weight, rank in examples(EXERCISES["best_rank_r"]):
        B, A = solved["best_rank_r"](weight, rank)
        share = solved["energy"](weight)[rank - 1].item()
        assert solved["relative_error"](weight, B @ A) ** 2 == pytest.approx(1 - share, abs=1e-5)


def test_the_librarys_own_functions_pass():
    for name in ("best_rank_r", "relative_error", "energy"):
        assert checks.check(name, getattr(lowrank, name)).passed
    report = checks.check("energy", lambda weight: lowrank.energy(weight).round().int())
    assert "The data type is torch.int32" in report.text


def test_counts_by_hand():
    count = EXERCISES["model_adapter_parameters"].solution
    gpt3 = {"q_proj": (12288, 12288), "v_proj": (12288, 12288)}
    assert count(gpt3, 96, 4, ["q_proj", "v_proj"]) == 18_874_368  # LoRA, table 15
    q, k, up, down = (576, 576), (192, 576), (1536, 576), (576, 1536)
    small = {"q_proj": q, "k_proj": k, "v_proj": k, "o_proj": q, "gate_proj": up, "up_proj": up, "down_proj": down}
    assert count(small, 30, 8, ["q_proj", "v_proj"]) == 460_800  # SmolLM2-135M, as peft counts
    assert count(small, 30, 8, list(small)) == 2_442_240
    assert EXERCISES["adapter_parameters"].solution(5, 5, 1) == 10
    break_even = EXERCISES["break_even_rank"].solution
    assert [break_even(*sides) for sides in ((4096, 4096), (2, 2), (1, 1), (3, 6), (3, 7))] == [2047, 0, 0, 1, 2]


def test_the_layer_equals_its_merged_weight():
    forward, merge = EXERCISES["lora_forward"].solution, EXERCISES["merge"].solution
    for x, weight, A, B, alpha in examples(EXERCISES["lora_forward"]):
        assert torch.allclose(forward(x, weight, A, B, alpha), x @ merge(weight, A, B, alpha).T, rtol=1e-5, atol=1e-4)


def test_scaling_is_the_recipes():
    for alpha, rank, use_rslora in examples(EXERCISES["scaling"]):
        recipe = Recipe(alpha=alpha, rank=rank, use_rslora=use_rslora)
        assert EXERCISES["scaling"].solution(alpha, rank, use_rslora) == pytest.approx(recipe.scaling)
    for alpha, rank, new_rank in examples(EXERCISES["alpha_for_rank"]):
        new = EXERCISES["alpha_for_rank"].solution(alpha, rank, new_rank)
        assert new / new_rank == pytest.approx(alpha / rank)


def test_dropout_is_torchs():
    x, A, B = torch.randn(40, 6), torch.randn(2, 6), torch.randn(5, 2)
    torch.manual_seed(0)
    dropped = torch.nn.functional.dropout(x, 0.25)
    ours = EXERCISES["adapter_with_dropout"].solution(x, A, B, 2.0, dropped != 0, 0.25)
    assert torch.allclose(ours, 2.0 * (dropped @ A.T @ B.T), atol=1e-5)


def test_the_fresh_adapter_is_as_large_as_that_of_a_linear_layer():
    A, B = EXERCISES["initial_adapter"].solution(7, 400, 50)
    assert A.abs().max() <= 400**-0.5 < 1.01 * A.abs().max() and not B.any()


def test_whole_numbers_are_those_of_torchs_fake_quantization():
    absmax, zeropoint = EXERCISES["quantize_absmax"].solution, EXERCISES["quantize_zeropoint"].solution
    for weight, bits in examples(EXERCISES["quantize_absmax"]):
        indices, largest = absmax(weight.float(), bits)
        decoded = EXERCISES["dequantize_absmax"].solution(indices, largest, bits)
        top = 2 ** (bits - 1) - 1
        expected = torch.fake_quantize_per_tensor_affine(weight.float(), largest.item() / top, 0, -top, top)
        assert torch.allclose(decoded, expected, atol=1e-6) and indices.abs().max() == top
        assert (decoded - weight).abs().max() <= largest / (2**bits - 2) * 1.0001  # the reward says so
    for weight, bits in examples(EXERCISES["quantize_zeropoint"]):
        indices, scale, zero_point = zeropoint(weight.float(), bits)
        top = 2**bits - 1
        expected = torch.fake_quantize_per_tensor_affine(weight.float(), scale.item(), int(zero_point), 0, top)
        assert torch.allclose((indices - zero_point) * scale, expected, atol=1e-5) and 0 <= zero_point <= top
        assert (indices.max() == top or weight.max() <= 0) and (indices.min() == 0 or weight.min() >= 0)


def test_blocks_as_numpy_cuts_them():
    for weight, blocksize in examples(EXERCISES["block_absmax"]):
        blocks = np.split(np.abs(weight.numpy()), weight.shape[1] // blocksize, axis=1)
        expected = np.stack([block.max(axis=1) for block in blocks], axis=1)
        assert np.array_equal(EXERCISES["block_absmax"].solution(weight, blocksize).numpy(), expected)


def test_the_equal_mass_code_has_the_quantiles_of_the_normal_distribution():
    code, normal = EXERCISES["equal_mass_code"].solution, NormalDist()
    assert code(2).tolist() == [-1, 1] and code(3).tolist() == [-1, 0, 1]
    middle, end = normal.inv_cdf(5 / 8), normal.inv_cdf(7 / 8)
    assert code(4).tolist() == pytest.approx([-1, -middle / end, middle / end, 1], rel=1e-5)
    sigma = normal.inv_cdf(31 / 32)  # the largest of sixteen, in standard deviations
    masses = [normal.cdf(value * sigma) for value in code(16).tolist()]
    assert masses == pytest.approx([(i + 0.5) / 16 for i in range(16)], abs=1e-6)


def test_the_nearest_is_found_between_the_middles():
    for values, code in examples(EXERCISES["nearest_code"]):
        between = torch.bucketize(values, (code[1:] + code[:-1]) / 2)
        assert torch.equal(EXERCISES["nearest_code"].solution(values, code), between)


def test_a_packed_byte_reads_as_two_hexadecimal_digits():
    for (indices,) in examples(EXERCISES["pack"]):
        packed = EXERCISES["pack"].solution(indices)
        assert bytes(packed.tolist()).hex() == "".join(f"{index:x}" for index in indices.tolist())


def test_restored_scales_by_hand():
    restored = EXERCISES["restore_absmax"].solution(
        torch.tensor([0, 2, 1, 2]), torch.tensor([-1.0, 0.5, 1.0]), torch.tensor([0.2, 0.4]), 2.0, 2
    )
    assert restored.tolist() == pytest.approx([1.8, 2.2, 2.2, 2.4])


def test_bytes_by_hand():
    bits, weights = EXERCISES["bits_per_parameter"].solution, EXERCISES["weight_bytes"]
    assert bits(64, False) == 4.5 and bits(64, True) == 4 + 1 / 8 + 1 / 512 == pytest.approx(4.127, abs=1e-4)
    assert (bits(64, False) - bits(64, True)) * 65e9 / 8 == pytest.approx(3e9, rel=0.02)  # the reward says so
    parameters, unquantized, _ = weights.demo
    assert sum(parameters.values()) == 134_515_008  # SmolLM2-135M
    small = weights.solution(parameters, unquantized, bits(64, True))
    assert small == pytest.approx(54.77e6 + 2 * 28_346_688, rel=1e-4) and round(small / 1e6) == 111
    kept = 2 * 32_000 * 8192  # LLaMA-65B's embedding and output layer
    large = weights.solution({"linear": 65_285_660_672 - kept, "kept": kept}, ["kept"], bits(64, True))
    assert 2 * kept / large == pytest.approx(0.03, abs=0.002)
    training = EXERCISES["training_bytes"].solution
    assert training(0, 65_000_000_000, 16) == 780e9  # QLoRA: more than 780 GB to fine-tune 65B in 16 bits
    assert training(*EXERCISES["training_bytes"].demo) == pytest.approx(36e9, rel=0.01)


def test_the_largest_batch_fits_and_one_more_does_not():
    none = 0
    for gpu_gib, fixed, token, length in examples(EXERCISES["largest_batch"]):
        batch = EXERCISES["largest_batch"].solution(gpu_gib, fixed, token, length)
        assert fixed + batch * token * length <= gpu_gib * 1024**3 or batch == 0
        assert fixed + (batch + 1) * token * length > gpu_gib * 1024**3
        none += fixed > gpu_gib * 1024**3
    assert none and EXERCISES["largest_batch"].solution(1, 2**30 - 1000, 10, 50) == 2  # an exact fit


def test_agree_is_about_numbers_and_shapes():
    one = torch.tensor([1.0, float("nan"), float("inf")])
    assert agree(one, one.double()) and agree(2, 2.0) and agree(torch.tensor(2.0), 2)
    assert not agree(one, one[:, None]) and not agree(one, torch.tensor([1.0, 0.0, float("inf")]))
    assert not agree(one, None) and not agree((one,), (one, one)) and not agree(2, "2")
    assert agree((one, torch.tensor(2.0)), (one, 2)) and not agree((one, torch.tensor(2.0)), (one, 2.1))
    assert agree(float("nan"), torch.tensor(float("nan"))) and not agree((one, 2.0), (2.0, one))


def stub_cells() -> list:
    """(page, exercise, source) of every cell of a notebook that ends with a check."""
    cells = [(path.stem, cell.source) for path in sorted(NOTEBOOKS.glob("*.ipynb"))
             for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]  # fmt: skip
    check = re.compile(r'^checks\.check\("(\w+)", \1\)$', flags=re.MULTILINE)
    return [(page, found[1], text) for page, text in cells if (found := check.search(text))]


def test_every_exercise_of_a_page_that_exists_is_on_it_unsolved():
    here = {(page, name) for page, name, _ in stub_cells()}
    pages = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    missing = [
        name for name, exercise in EXERCISES.items()
        if any(page.startswith(f"{exercise.page:02}_") and (page, name) not in here for page in pages)
    ]
    assert not missing
    for _page, name, text in stub_cells():
        asked = {}
        space = {"checks": SimpleNamespace(check=asked.__setitem__), "torch": torch, "Tensor": torch.Tensor}
        exec(text, space)
        assert asked == {name: space[name]}
        assert engine.Attempt([engine.run(EXERCISES[name], space[name], EXERCISES[name].demo)]).unsolved
        parameters = list(inspect.signature(space[name]).parameters)
        assert parameters == list(inspect.signature(EXERCISES[name].solution).parameters)
        assert space[name].__doc__
