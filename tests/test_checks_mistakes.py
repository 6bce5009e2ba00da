"""Every usual mistake is called by its name, as a learner would make it, with the smallest example that shows it."""

import math
import re
import time

import pytest
import torch
import torch.nn.functional as F
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


@pytest.mark.parametrize("name", ["best_rank_r", "energy", "lora_forward", "model_adapter_parameters"])
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
