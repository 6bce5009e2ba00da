"""Every usual mistake is called by its name, as a learner would make it, with the smallest example that shows it."""

import math
import re
import time
from statistics import NormalDist

import pytest
import torch
import torch.nn.functional as F
from learners_09_to_11 import LEARNERS as LATER
from learners_12 import LEARNERS as PICTURES
from learners_13 import LEARNERS as MANY_MACHINES
from learners_beyond_text import LEARNERS as LANGUAGE
from torch.linalg import svd, svdvals

from lab_utils import checks
from lab_utils.checks.engine import examples, recognise, run

EXERCISES = checks.EXERCISES


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes most of a check's time."""
    monkeypatch.setattr("lab_utils.checks.report._picture", lambda *_: (b"", ""))


BUILT_IN = [
    pytest.param(name, mistake.name, wrong, id=f"{name}: {mistake.name} ({number})")
    for name, exercise in EXERCISES.items()
    for mistake in exercise.mistakes
    for number, wrong in enumerate(mistake.wrong)
]


@pytest.mark.parametrize(("name", "mistake", "wrong"), BUILT_IN)
def test_each_wrong_function_is_named_by_its_own_mistake(name, mistake, wrong):
    exercise = EXERCISES[name]
    trials = [run(exercise, wrong, inputs) for inputs in (exercise.demo, *examples(exercise))]
    assert any(trial.failed for trial in trials) and recognise(exercise, trials).name == mistake


@pytest.mark.parametrize("name", ["best_rank_r", "lora_forward", "model_adapter_parameters", "quantize_absmax"])
def test_a_check_takes_little_time(name, monkeypatch):
    """Processor time with the picture, once everything has been imported."""
    monkeypatch.undo()
    wrong = LEARNERS[name][0][1]
    assert checks.check(name, wrong).picture or EXERCISES[name].picture is None
    began = time.process_time()
    checks.check(name, wrong)
    assert time.process_time() - began < 1.5


def swapped_loops(column, row):
    return torch.stack([torch.stack([c * r for c in column]) for r in row])


def smallest_kept(weight, rank):
    U, S, Vh = svd(weight, full_matrices=False)
    return U[:, -rank:] @ S[-rank:].diag(), Vh[-rank:, :]


def no_singular_values(weight, rank):
    U, _, Vh = svd(weight, full_matrices=False)
    return U[:, :rank], Vh[:rank]


def v_for_vh(weight, rank):
    U, S, V = svd(weight)
    return U[:, :rank] @ torch.diag(S[:rank]), V[:, :rank].T


def v_for_vh_reduced(weight, rank):
    U, S, V = svd(weight, full_matrices=False)
    return U[:, :rank] * S[None, :rank], V.T[:rank]


def with_rank(change):
    def fit(weight, rank):
        U, S, Vh = svd(weight, full_matrices=False)
        keep = range(len(S))[: rank + change]
        return U[:, keep] * S[keep].sqrt(), S[keep].sqrt()[:, None] * Vh[keep]

    return fit


def ratio_loop(weight, approximation):
    ratios = [abs(w - a) / abs(w) for w, a in zip(weight.flatten(), approximation.flatten(), strict=True)]
    return float(sum(ratios) / len(ratios))


def energy_not_squared(weight):
    S = svdvals(weight)
    return torch.cumsum(S, 0) / torch.sum(S)


def energy_from_smallest(weight):
    S = svdvals(weight).sort().values
    return torch.cumsum(S**2, dim=0) / (S**2).sum()


def square_everywhere(shapes, n_layers, rank, targets):
    hidden = shapes["q_proj"][0]
    return sum(n_layers * (rank * hidden + hidden * rank) for _ in targets)


def no_targets(shapes, n_layers, rank, targets):
    return sum(n_layers * (rank * i + o * rank) for o, i in shapes.values())


def one_layer(shapes, n_layers, rank, targets):
    return sum(rank * (o + i) for module, (o, i) in shapes.items() if module in targets)


def forward(x, weight, A, B, scale):
    return F.linear(x, weight) + F.linear(F.linear(x, A), B) * scale


def in_place(weight, A, B, alpha):
    weight += alpha / A.shape[0] * B @ A
    return weight


def a_before_b(weight, A, B, alpha):
    return weight + torch.matmul(A, B) * (alpha / A.shape[0])


def seeded(out, n, r):
    torch.manual_seed(0)
    return torch.randn(r, n), torch.zeros(out, r)


def on_output(x, A, B, scaling, keep_mask, p):
    y = scaling * (x @ A.T @ B.T)
    return y * keep_mask / (1 - p)


def on_a(x, A, B, scaling, keep_mask, p):
    return scaling * (x @ (A * keep_mask / (1 - p)).T @ B.T)


def dropped(change):
    return lambda x, A, B, scaling, keep, p: F.linear(F.linear(change(x, keep, p), A), B) * scaling


def to_int8(scale, levels=lambda bits: 2 ** (bits - 1) - 1, rounding=torch.round):
    def quantize(weight, bits):
        step = scale(weight) / levels(bits)
        return rounding(weight / step).clamp(-levels(bits), levels(bits)).to(torch.int8), scale(weight)

    return quantize


def truncated(weight, bits):
    absmax = weight.abs().max()
    return (weight / absmax * (2 ** (bits - 1) - 1)).to(torch.int8), absmax


def to_uint8(low=lambda w: min(w.min(), 0 * w.min()), high=lambda w: max(w.max(), 0 * w.max()), rounding=torch.round):
    def quantize(weight, bits):
        scale = (high(weight) - low(weight)) / (2**bits - 1)
        zero_point = torch.round(-low(weight) / scale)
        return (rounding(weight / scale) + zero_point).to(torch.uint8), scale, zero_point

    return quantize


def without_offset(weight, bits):
    indices, scale, zero_point = to_uint8()(weight, bits)
    return (indices - zero_point).to(torch.uint8), scale, zero_point.item()


def columnwise(weight, blocksize):
    return torch.stack([rows.abs().max(dim=0).values for rows in weight.split(blocksize)])


def with_chunks(largest):
    return lambda w, size: torch.stack([largest(part) for part in w.split(size, dim=1)], dim=1)


def of_normal(shares):
    def code(k):
        values = [NormalDist().inv_cdf(p) if 0 < p < 1 else math.copysign(math.inf, p - 0.5) for p in shares(k)]
        return torch.tensor([value / max(values) for value in values])

    return code


def by_loop(choose):
    return lambda values, code: torch.tensor([choose(v, code.tolist()) for v in values.tolist()])


def packed_by_loop(byte):
    return lambda indices: torch.tensor([byte(a, b) for a, b in indices.view(-1, 2).tolist()], dtype=torch.uint8)


def restored(value):
    def restore(codes, code, nested_absmax, offset, blocksize):
        made = [value(c, code, nested_absmax[n // blocksize], offset) for n, c in enumerate(codes)]
        return torch.stack([torch.as_tensor(number, dtype=code.dtype) for number in made])

    return restore


def all_in_few_bits(parameters, unquantized, bits):
    return sum(parameters.values()) * bits / 8


def in_bits(parameters, unquantized, bits):
    total = 0
    for name in parameters:
        total += parameters[name] * (16 if name in unquantized else bits)
    return total


def adam_for_all(frozen, trained, frozen_bits):
    weights = frozen * frozen_bits / 8 + trained * 2
    return weights + trained * 2 + (frozen + trained) * 8


def batch_in_gb(gpu_gib, fixed_bytes, bytes_per_token, sequence_length):
    return max(int((gpu_gib * 1e9 - fixed_bytes) // (bytes_per_token * sequence_length)), 0)


def batch_ceil(gpu_gib, fixed_bytes, bytes_per_token, sequence_length):
    return max(math.ceil((gpu_gib * 1024**3 - fixed_bytes) / (bytes_per_token * sequence_length)), 0)


LEARNERS = {
    "outer_product": [
        ("column and row swapped", swapped_loops),
        ("column and row swapped", lambda c, r: r.unsqueeze(1) @ c.unsqueeze(0)),
        ("elementwise product", lambda column, row: torch.mul(column, row)),
        ("inner product", lambda column, row: torch.dot(column, row)),
    ],
    "best_rank_r": [
        ("the smallest singular values kept", smallest_kept),
        ("singular values left out", no_singular_values),
        ("V used where Vᵀ is needed", v_for_vh),
        ("V used where Vᵀ is needed", v_for_vh_reduced),
        ("one direction too many", with_rank(1)),
        ("one direction too few", with_rank(-1)),
    ],
    "relative_error": [
        ("absolute error", lambda w, a: ((w - a) ** 2).sum().sqrt().item()),
        ("divided by the norm of the approximation", lambda w, a: float(torch.dist(w, a) / torch.norm(a))),
        ("squared error", lambda w, a: float(((w - a) ** 2).sum() / (w**2).sum())),
        ("mean of elementwise ratios", ratio_loop),
        ("another norm", lambda w, a: (svdvals(w - a)[0] / svdvals(w)[0]).item()),
    ],
    "energy": [
        ("not squared", energy_not_squared),
        ("not cumulative", lambda w: svdvals(w).square() / w.square().sum()),
        ("summed from the smallest", energy_from_smallest),
    ],
    "adapter_parameters": [
        ("out · in · rank", lambda o, i, r: math.prod((o, i, r))),
        ("only A counted", lambda o, i, r: torch.empty(r, i).numel()),
        ("the rank squared", lambda o, i, r: (r * i) * (o * r)),
    ],
    "break_even_rank": [
        ("the smaller side", lambda o, i: sorted((o, i))[0]),
        ("rounded up", lambda o, i: math.ceil(o * i / (o + i))),
        ("not strict", lambda o, i: max(r for r in range(65) if r * (o + i) <= o * i)),
    ],
    "model_adapter_parameters": [
        ("layers forgotten", one_layer),
        ("targets ignored", no_targets),
        ("every matrix taken as hidden × hidden", square_everywhere),
    ],
    "lora_forward": [
        ("raw alpha instead of α/r", lambda x, W, A, B, alpha: forward(x, W, A, B, alpha)),
        ("r/α instead of α/r", lambda x, W, A, B, alpha: forward(x, W, A, B, A.shape[0] / alpha)),
        ("base forgotten", lambda x, W, A, B, alpha: forward(x, 0 * W, A, B, alpha / len(A))),
        ("A and B swapped", lambda x, W, A, B, alpha: forward(x, W, B, A, alpha / len(A))),
        ("wrong axis: a transpose is missing", lambda x, W, A, B, alpha: x.mm(W) + alpha / len(A) * x.mm(A).mm(B)),
        ("wrong axis: a transpose is missing", lambda x, W, A, B, alpha: F.linear(x, W) + alpha / len(A) * x @ (B @ A)),
    ],
    "initial_adapter": [
        ("B not zero", lambda o, i, r: (torch.randn(r, i), torch.randn(o, r))),
        ("both zero", lambda o, i, r: (torch.zeros(r, i), torch.zeros(o, r))),
        ("A zero and B random", lambda o, i, r: (torch.zeros(r, i), torch.randn(o, r))),
        ("shapes swapped", lambda o, i, r: (torch.randn(i, r), torch.zeros(r, o))),
        ("shapes swapped", lambda o, i, r: (torch.randn(r, o), torch.zeros(i, r))),
        ("A and B in the wrong order", lambda o, i, r: (torch.zeros(o, r), torch.randn(r, i))),
        ("A the same on every call", seeded),
        ("A the same on every call", lambda o, i, r: (torch.ones(r, i), torch.zeros(o, r))),
    ],
    "merge": [
        ("raw alpha instead of α/r", lambda W, A, B, alpha: torch.add(W, B @ A, alpha=alpha)),
        ("changes its input in place", in_place),
        ("changes its input in place", lambda W, A, B, alpha: W.add_(B @ A, alpha=alpha / len(A))),
        ("A·B instead of B·A", a_before_b),
        ("subtracted", lambda W, A, B, alpha: W - B @ A * alpha / len(A)),
    ],
    "scaling": [
        ("raw alpha", lambda alpha, rank, use_rslora: float(alpha)),
        ("upside down", lambda alpha, rank, use_rslora: (math.sqrt(rank) if use_rslora else rank) / alpha),
        ("√ missing", lambda alpha, rank, use_rslora: alpha * rank**-1),
        ("√ for both", lambda alpha, rank, use_rslora: alpha / math.sqrt(rank)),
    ],
    "alpha_for_rank": [
        ("alpha left as it is", lambda alpha, rank, new_rank: 1.0 * alpha),
        ("ratio upside down", lambda alpha, rank, new_rank: rank / new_rank * alpha),
    ],
    "adapter_with_dropout": [
        ("dropout on the adapter's output", on_output),
        ("dropout on the entries of A", on_a),
        ("rescaling forgotten", dropped(lambda x, keep, p: torch.where(keep, x, 0.0))),
        ("mask inverted", dropped(lambda x, keep, p: x.masked_fill(keep, 0) / (1 - p))),
    ],
    "quantize_absmax": [
        ("the mean instead of the largest", to_int8(lambda w: w.abs().sum() / w.numel())),
        ("the standard deviation instead of the largest", to_int8(lambda w: torch.std(w))),
        ("the largest weight without its absolute value", to_int8(torch.max)),
        ("one step too many", to_int8(lambda w: w.abs().max(), levels=lambda bits: 2 ** (bits - 1))),
        ("cut off instead of rounded", truncated),
        ("results in the wrong order", lambda w, bits: to_int8(lambda w: w.abs().max())(w, bits)[::-1]),
    ],
    "dequantize_absmax": [
        ("scaled once more instead of back", lambda i, absmax, bits: i * ((2 ** (bits - 1) - 1) / absmax)),
        ("divided by absmax", lambda i, absmax, bits: i.to(absmax.dtype) / absmax),
        ("the steps forgotten", lambda i, absmax, bits: absmax * i),
        ("one step too many", lambda i, absmax, bits: i / 2 ** (bits - 1) * absmax),
    ],
    "quantize_zeropoint": [
        ("a range without zero", to_uint8(torch.min, torch.max)),
        ("zero point not added", without_offset),
        ("rounded down instead of to the nearest", to_uint8(rounding=torch.floor)),
        ("the absmax scale", to_uint8(lambda w: -w.abs().max(), lambda w: w.abs().max())),
    ],
    "block_absmax": [
        ("blocks along the wrong axis", lambda w, size: w.T.reshape(w.shape[1], -1, size).abs().max(-1).values.T),
        ("the absolute value forgotten", with_chunks(lambda part: part.max(dim=1)[0])),
        ("one absmax for all", lambda w, size: torch.max(torch.abs(w))),
        ("one absmax for all", lambda w, size: torch.full((w.shape[0], w.shape[1] // size), w.abs().max().item())),
        ("one absmax a row", lambda w, size: w.abs().max(dim=1, keepdim=True).values),
        ("blocksize taken as the number of blocks", lambda w, size: w.unflatten(1, (size, -1)).abs().amax(-1)),
        ("the mean instead of the largest", with_chunks(lambda part: part.abs().mean(dim=1))),
    ],
    "equal_mass_code": [
        ("the left edges instead of the middles", of_normal(lambda k: [i / k for i in range(k)])),
        ("infinite ends", of_normal(lambda k: [i / (k - 1) for i in range(k)])),
        ("one entry too few", of_normal(lambda k: [i / k for i in range(1, k)])),
        ("slices of equal width", lambda k: torch.tensor([2 * i / (k - 1) - 1 for i in range(k)])),
        ("not scaled to [-1, 1]", lambda k: torch.distributions.Normal(0, 1).icdf((torch.arange(k) + 0.5) / k)),
    ],
    "nearest_code": [
        ("the left edge instead of the nearest", by_loop(lambda v, code: sum(entry <= v for entry in code) - 1)),
        ("the right edge instead of the nearest", by_loop(lambda v, code: sum(entry < v for entry in code))),
        ("off by one", lambda values, code: torch.bucketize(values, (code[1:] + code[:-1]) / 2) + 1),
        ("the entries instead of their indices", lambda v, code: code[torch.bucketize(v, (code[1:] + code[:-1]) / 2)]),
    ],
    "pack": [
        ("nibbles swapped", packed_by_loop(lambda first, second: first + 16 * second)),
        ("every second number lost", lambda indices: torch.bitwise_left_shift(indices[::2], 4)),
        ("added without a shift", packed_by_loop(lambda first, second: first + second)),
        ("a missing bracket", lambda indices: indices.view(-1, 2)[:, 0] << 4 + indices.view(-1, 2)[:, 1]),
        ("shifted by the wrong amount", packed_by_loop(lambda first, second: (first << 3) + second)),
        ("not the neighbours", lambda indices: 16 * indices.chunk(2)[0] + indices.chunk(2)[1]),
    ],
    "restore_absmax": [
        ("the offset forgotten", restored(lambda c, code, nested, offset: code[c] * nested)),
        ("the offset subtracted", restored(lambda c, code, nested, offset: code[c] * nested - offset)),
        ("the offset scaled too", restored(lambda c, code, nested, offset: nested * (code[c] + offset))),
        ("the codes not looked up", restored(lambda c, code, nested, offset: c * nested + offset)),
        ("one nested_absmax for all", lambda c, code, nested, offset, size: code[c] * nested.max() + offset),
    ],
    "bits_per_parameter": [
        ("the second-level scales forgotten", lambda size, double: 4 + (8 if double else 32) / size),
        ("absmax counted as 16 bits", lambda size, double: 4 + (8 / size + 32 / size / 256 if double else 16 / size)),
        ("the scales forgotten", lambda size, double: 4),
    ],
    "weight_bytes": [
        ("everything quantized", all_in_few_bits),
        ("bits instead of bytes", in_bits),
        ("nothing quantized", lambda parameters, unquantized, bits: 2.0 * sum(parameters.values())),
        ("the unquantized parts left out", lambda p, kept, bits: sum(p[n] * bits / 8 for n in p if n not in kept)),
    ],
    "training_bytes": [
        ("Adam for the frozen weights too", adam_for_all),
        ("Adam for the frozen weights too", lambda frozen, trained, bits: 12 * (frozen + trained)),
        ("one of Adam's two means", lambda frozen, trained, bits: frozen * bits / 8 + trained * (2 + 2 + 4)),
        ("the gradients forgotten, or the weights", lambda frozen, trained, bits: frozen * bits / 8 + 10 * trained),
        ("bits instead of bytes", lambda frozen, trained, bits: frozen * bits + trained * (16 + 16 + 32 + 32)),
    ],
    "largest_batch": [
        ("GB instead of GiB", batch_in_gb),
        ("rounded up", batch_ceil),
        ("the fixed part forgotten", lambda gib, fixed, token, length: int(gib * 2**30 / token / length)),
        ("a negative batch", lambda gib, fixed, token, length: (gib * 2**30 - fixed) // (token * length)),
    ],
    **LATER,
    **PICTURES,
    **LANGUAGE,
    **MANY_MACHINES,
}
CASES = [
    pytest.param(name, mistake, wrong, id=f"{name}: {mistake} ({number})")
    for name, wrongs in LEARNERS.items()
    for number, (mistake, wrong) in enumerate(wrongs)
]


def test_every_exercise_has_its_learners():
    assert LEARNERS.keys() == EXERCISES.keys()
    when = {(name, m.name) for name, exercise in EXERCISES.items() for m in exercise.mistakes if m.when}
    assert when <= {(name, mistake) for name, wrongs in LEARNERS.items() for mistake, _ in wrongs}


@pytest.mark.parametrize(("name", "mistake", "wrong"), CASES)
def test_a_learners_mistake_is_named_with_an_example(name, mistake, wrong):
    report = checks.check(name, wrong)
    assert not report.passed and report.status == "wrong"
    assert report.mistake == mistake and f"usual mistake: {mistake}" in report.text
    assert "smallest example that fails" in report.text and "yours" in dict(report.example)
    assert ("expected" in dict(report.example)) == (name != "initial_adapter")
    assert report.text.count("✗") >= 2  # the verdict and at least one line
    assert len(report.folded) == 5 and report.html.count("<details>") == 5


SMALLEST = {
    "a product instead of a sum": ("adapter_parameters", lambda o, i, r: o * i * r, {"rank": "1", "expected": "2"}),
    "not strict": ("break_even_rank", lambda o, i: o * i // (o + i), {"out_features": "2", "in_features": "2"}),
    "wrong from rank 3 on": (
        "adapter_parameters", lambda o, i, r: r * (o + i) + (r > 2),
        {"out_features": "1", "in_features": "1", "rank": "3", "expected": "6", "yours": "7"},
    ),
    "wrong for tall vectors": (
        "outer_product", lambda c, r: torch.outer(c, r) * (1 if len(c) < 4 else 2), {"column": 4, "row": 1},
    ),
    "raw alpha": ("merge", lambda W, A, B, alpha: W + alpha * B @ A, {"lora_A": 4, "lora_B": 4, "alpha": "1"}),
    "layers": ("model_adapter_parameters", LEARNERS["model_adapter_parameters"][0][1], {"n_layers": "2", "rank": "1"}),
    "the second-level scales": (
        "bits_per_parameter", lambda size, double: 4 + (8 if double else 32) / size,
        {"blocksize": "32", "double_quant": "True", "expected": "4.254", "yours": "4.25"},
    ),
    "a shift that is missing": ("pack", lambda indices: indices[0::2] + indices[1::2], {"indices": 2, "expected": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "wrong", "expected"), SMALLEST.values(), ids=SMALLEST)
def test_the_example_is_the_smallest(name, wrong, expected):
    example = dict(checks.check(name, wrong).example)
    for label, value in expected.items():
        shown = example[label]
        if isinstance(value, int):  # so many numbers in the tensor
            shown = math.prod(map(int, re.findall(r"\d+", re.search(r"shape \((.*?)\)", shown)[1])))
        assert shown == value


def test_two_mistakes_at_once_are_not_given_the_name_of_one():
    report = checks.check("lora_forward", lambda x, W, A, B, alpha: alpha * (x @ A.T @ B.T))
    assert not report.passed and report.mistake is None and report.example
