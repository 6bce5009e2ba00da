"""lowrank: nothing of the same rank does better, error and energy agree, and the corners are defined."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.errors import LabError
from lab_utils.lowrank import best_rank_r, energy, rank_of_energy, relative_error, singular_values

DOUBLE, SINGLE = torch.float64, torch.float32
EPS = {DOUBLE: 1e-12, SINGLE: 2e-6}
LAW = settings(deadline=None, max_examples=60)


@st.composite
def matrices(draw, dtypes=(DOUBLE, SINGLE)):
    """A matrix of up to 9 × 9: Gaussian at any scale, or of small whole numbers (ties, low rank, zero)."""
    out, into = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        matrix = torch.randn(out, into, generator=generator, dtype=DOUBLE) * 10.0 ** draw(st.integers(-8, 8))
    else:
        matrix = torch.randint(-1, 2, (out, into), generator=generator).double()
    return matrix.to(draw(st.sampled_from(dtypes)))


@st.composite
def ranked(draw, **options):
    """(matrix, rank) with a possible rank."""
    matrix = draw(matrices(**options))
    return matrix, draw(st.integers(0, min(matrix.shape)))


def rotation(size: int, seed: int) -> torch.Tensor:
    """A random orthogonal float64 matrix."""
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE))[0]


def fit(weight, rank):
    B, A = best_rank_r(weight, rank)
    return B @ A


# ---- By hand ----


def test_ten_numbers_for_twenty_five():
    column, row = torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([2.0, 0, -1, 3, 1])
    B, A = best_rank_r(torch.outer(column, row), 1)
    assert B.numel() + A.numel() == 10
    torch.testing.assert_close(B @ A, torch.outer(column, row))
    length = (55 * 15) ** 0.25  # √σ, σ = |column| · |row|; the largest entry of B is positive
    torch.testing.assert_close(B[:, 0], column / 55**0.5 * length)
    torch.testing.assert_close(A[0], row / 15**0.5 * length)


def test_a_diagonal_matrix():
    weight = torch.diag(torch.tensor([1.0, -3, 2])).double()  # squares 9, 4, 1 of 14
    torch.testing.assert_close(fit(weight, 1), torch.diag(torch.tensor([0.0, -3, 0])).double())
    torch.testing.assert_close(fit(weight, 2), torch.diag(torch.tensor([0.0, -3, 2])).double())
    torch.testing.assert_close(singular_values(weight), torch.tensor([3.0, 2, 1]).double())
    torch.testing.assert_close(energy(weight), torch.tensor([9 / 14, 13 / 14, 1]).double())
    assert relative_error(weight, fit(weight, 1)) == pytest.approx(math.sqrt(5 / 14))


def test_a_row_a_column_and_a_number():
    row = torch.tensor([[3.0, -4]])
    B, A = best_rank_r(row, 1)
    torch.testing.assert_close(B, torch.tensor([[5**0.5]]))
    torch.testing.assert_close(A, row / 5**0.5)
    B, A = best_rank_r(row.T, 1)
    torch.testing.assert_close(B, -row.T / 5**0.5)
    torch.testing.assert_close(A, torch.tensor([[-(5**0.5)]]))
    torch.testing.assert_close(fit(torch.tensor([[-9.0]]), 1), torch.tensor([[-9.0]]))


def test_a_zero_matrix():
    zero = torch.zeros(3, 5)
    for rank in range(4):
        assert not fit(zero, rank).any() and relative_error(zero, fit(zero, rank)) == 0.0
    assert energy(zero).tolist() == [1, 1, 1] and singular_values(zero).tolist() == [0, 0, 0]
    with pytest.raises(LabError, match="divide by zero"):
        relative_error(zero, torch.ones(3, 5))


# ---- Laws ----


@LAW
@given(ranked(), st.integers(0, 2**32))
def test_no_other_pair_of_that_rank_does_better(case, seed):
    """Against random factors, improved ten times by least squares, each in turn: a strong opponent."""
    weight, rank = case
    best = relative_error(weight, fit(weight, rank)) if weight.any() else 0.0
    if not rank or not weight.any():
        return
    target = weight.double()
    A = torch.randn(rank, weight.shape[1], generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    for _ in range(10):
        B = target @ torch.linalg.pinv(A)
        A = torch.linalg.pinv(B) @ target
        assert relative_error(target, B @ A) >= best - EPS[weight.dtype]


@LAW
@given(matrices())
def test_squared_error_is_the_energy_left_out(weight):
    if weight.any():
        held = energy(weight)
        assert relative_error(weight, fit(weight, 0)) == 1
        for rank in range(1, min(weight.shape) + 1):
            error = relative_error(weight, fit(weight, rank))
            assert error**2 == pytest.approx(1 - held[rank - 1].item(), abs=10 * EPS[weight.dtype])


@LAW
@given(matrices())
def test_error_falls_with_rank_and_ends_at_zero(weight):
    errors = [relative_error(weight, fit(weight, rank)) for rank in range(min(weight.shape) + 1)]
    slack = EPS[weight.dtype]
    assert all(later <= earlier + slack for earlier, later in itertools.pairwise(errors))
    assert errors[-1] <= slack


@LAW
@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_a_product_of_thin_matrices_is_found_again(out, into, data):
    rank = data.draw(st.integers(0, min(out, into)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    B = torch.randn(out, rank, generator=generator, dtype=DOUBLE)
    A = torch.randn(rank, into, generator=generator, dtype=DOUBLE)
    torch.testing.assert_close(fit(B @ A, rank), B @ A, rtol=0, atol=1e-12)
    assert rank == 0 or energy(B @ A)[rank - 1] > 1 - 1e-13


@LAW
@given(ranked())
def test_shapes_dtypes_even_lengths_and_signs(case):
    weight, rank = case
    B, A = best_rank_r(weight, rank)
    assert B.shape == (weight.shape[0], rank) and A.shape == (rank, weight.shape[1])
    assert B.dtype == A.dtype == weight.dtype and (B @ A).shape == weight.shape
    lengths = singular_values(weight)[:rank].sqrt().to(weight.dtype)
    close = {"rtol": EPS[weight.dtype], "atol": EPS[weight.dtype] * float(weight.abs().max().sqrt())}
    torch.testing.assert_close(B.norm(dim=0), lengths, **close)
    torch.testing.assert_close(A.norm(dim=1), lengths, **close)
    for column in B.T:
        if column.any():
            first = (column.abs() >= 0.99999 * column.abs().max()).nonzero()[0]
            assert column[first] > 0


@LAW
@given(ranked(), st.integers(-60, 60), st.booleans())
def test_scaling_scales_the_fit_and_nothing_else(case, exponent, negative):
    """By a power of two, which rounds nothing."""
    weight, rank = case[0].double(), case[1]
    scale = 2.0**exponent * (-1 if negative else 1)
    atol = 1e-12 * float(weight.abs().max()) * abs(scale)
    if rank == 0 or energy_gap(weight, rank) > 1e-3:  # else several fits are equally good
        torch.testing.assert_close(fit(scale * weight, rank), scale * fit(weight, rank), rtol=0, atol=atol)
    torch.testing.assert_close(energy(scale * weight), energy(weight))
    error = relative_error(weight, fit(weight, rank))
    assert relative_error(scale * weight, scale * fit(weight, rank)) == pytest.approx(error, abs=1e-12)


def energy_gap(weight, rank: int) -> float:
    """How much smaller the first singular value left out is than the last one kept, of the largest."""
    values = [*(singular_values(weight) / singular_values(weight)[0].clamp(min=1e-300)).tolist(), 0.0]
    return 1.0 if rank >= len(values) - 1 else values[rank - 1] - values[rank]


@LAW
@given(matrices(), st.integers(0, 2**32))
def test_rotating_changes_no_measurement(weight, seed):
    left, right = rotation(weight.shape[0], seed), rotation(weight.shape[1], seed + 1)
    turned = left @ weight.double() @ right
    tolerance = {"rtol": 0, "atol": 1e-12 * (1 + float(weight.abs().max()))}
    torch.testing.assert_close(singular_values(turned), singular_values(weight), **tolerance)
    torch.testing.assert_close(energy(turned), energy(weight), rtol=0, atol=1e-11)
    for rank in range(min(weight.shape) + 1):
        errors = [relative_error(one, fit(one, rank)) for one in (turned, weight.double())]
        assert errors[0] == pytest.approx(errors[1], abs=1e-6)  # an error of 0 is known to √eps only


@LAW
@given(matrices())
def test_transposing_changes_no_measurement(weight):
    torch.testing.assert_close(singular_values(weight.T), singular_values(weight), rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(energy(weight.T), energy(weight), rtol=1e-9, atol=1e-13)


@LAW
@given(matrices())
def test_energy_rises_to_one(weight):
    held = energy(weight)
    assert held.dtype == DOUBLE and held.shape == (min(weight.shape),)
    assert (held.diff() >= 0).all() and held[-1] == 1 and held[0] > 0


def test_the_rank_of_an_energy_is_the_first_that_holds_it():
    """Squares 16, 4, 4, 1 of 25: the shares are 0.64, 0.8, 0.96 and 1."""
    values = torch.tensor([4.0, 2.0, 2.0, 1.0])
    asked = {0.01: 1, 0.63: 1, 0.65: 2, 0.79: 2, 0.81: 3, 0.95: 3, 0.97: 4, 1.0: 4}
    assert {share: rank_of_energy(values, share) for share in asked} == asked
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    rank, shares = rank_of_energy(singular_values(weight)), energy(weight)
    assert shares[rank - 2] < 0.9 <= shares[rank - 1]


@LAW
@given(ranked())
def test_numpy_agrees(case):
    weight, rank = case
    left, values, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    largest = float(weight.abs().max())
    np.testing.assert_allclose(singular_values(weight), values, rtol=1e-9, atol=1e-13 * largest)
    kept = (left[:, :rank] * values[:rank]) @ right[:rank]
    error = np.linalg.norm(weight.double().numpy() - kept)
    if weight.any():
        expected = error / np.linalg.norm(weight.double().numpy())
        assert relative_error(weight, fit(weight, rank)) == pytest.approx(expected, abs=EPS[weight.dtype])
        np.testing.assert_allclose(energy(weight), np.cumsum(values**2) / np.sum(values**2), rtol=1e-6)
    if rank == 0 or energy_gap(weight, rank) > 1e-3:
        np.testing.assert_allclose(fit(weight, rank), kept, rtol=0, atol=EPS[weight.dtype] * max(largest, 1e-12))


# ---- What else is promised ----


def test_the_sign_does_not_hang_on_rounding():
    """All entries of B are equally large: the first is positive, whatever noise there is below 1e-6."""
    for noise in (0, 1e-9, -1e-9):
        weight = torch.tensor([[-1.0 + noise, 1], [1, -1 - noise]]).double()
        B, A = best_rank_r(weight, 1)
        assert B[0, 0] > 0 and B[1, 0] < 0 and A[0, 0] < 0


def test_the_same_call_gives_the_same_factors():
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    for first, second in zip(best_rank_r(weight, 5), best_rank_r(weight.clone(), 5), strict=True):
        assert torch.equal(first, second)
    B, A = best_rank_r(weight, 5)
    C, D = best_rank_r(-weight, 5)  # the sign sits in A
    torch.testing.assert_close(C, B)
    torch.testing.assert_close(D, -A)


def test_small_singular_values_of_a_float32_matrix_are_its_own():
    """In float32 the algorithm's rounding would hide them: its noise is 1e-7 of the largest."""
    values = torch.logspace(0, -9, 100).double()
    weight = ((rotation(100, 1) * values) @ rotation(100, 2)).float()
    exact = torch.linalg.svdvals(weight.double())
    torch.testing.assert_close(singular_values(weight), exact, rtol=1e-6, atol=0)
    wrong = (torch.linalg.svdvals(weight).double() / exact - 1).abs().max()
    assert wrong > 0.1  # what float32 would have given


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_squares_neither_overflow_nor_vanish(scale):
    weight = torch.diag(torch.tensor([3.0, 2, 1])).double() * scale
    assert relative_error(weight, fit(weight, 1)) == pytest.approx(math.sqrt(5 / 14))
    torch.testing.assert_close(energy(weight), torch.tensor([9 / 14, 13 / 14, 1]).double())


def test_weights_with_gradients_are_read_only():
    weight = torch.nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    B, A = best_rank_r(weight, 2)
    assert not B.requires_grad and not A.requires_grad and not energy(weight).requires_grad
    assert 0 < relative_error(weight, B @ A) < 1
    assert torch.equal(weight, before) and weight.grad is None


def test_a_view_and_mixed_dtypes():
    weight = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    view = weight.T[::2]  # neither contiguous nor whole
    assert torch.equal(fit(view, 3), fit(view.contiguous(), 3))
    assert relative_error(weight, weight.double() * 1.25) == pytest.approx(0.25)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4), (4, 1), (1, 1)])
def test_every_rank_up_to_the_smaller_side_is_allowed_and_no_other(shape):
    weight, full = torch.ones(shape), min(shape)
    for rank in range(full + 1):
        assert best_rank_r(weight, rank)[0].shape == (shape[0], rank)
    assert torch.equal(fit(weight, 0), torch.zeros(shape))
    for rank in (full + 1, 1000, -1, 1.0, "1", True, False, None, math.nan):
        with pytest.raises(LabError) as caught:
            best_rank_r(weight, rank)
        text = str(caught.value)
        assert f"rank={rank!r}" in text and f"0 to {full}" in text and f"{shape[0]}×{shape[1]}" in text


FUNCTIONS = {
    "best_rank_r": lambda weight: best_rank_r(weight, 1),
    "weight": lambda weight: relative_error(weight, torch.ones(2, 2)),
    "approximation": lambda weight: relative_error(torch.ones(2, 2), weight),
    "singular_values": singular_values,
    "energy": energy,
}
BAD = {
    "nan": (torch.tensor([[1.0, math.nan], [0, 1]]), "1 of 4 entries that are NaN or infinite"),
    "infinite": (torch.tensor([[math.inf, -math.inf], [0, 1]]), "2 of 4"),
    "vector": (torch.ones(4), r"\(4,\).*two dimensions"),
    "batch": (torch.ones(2, 2, 2), "two dimensions"),
    "empty": (torch.ones(0, 3), "no entries"),
    "half": (torch.ones(2, 2, dtype=torch.float16), r"float16.*\.float\(\)"),
    "bfloat16": (torch.ones(2, 2, dtype=torch.bfloat16), r"bfloat16.*\.float\(\)"),
    "whole": (torch.ones(2, 2, dtype=torch.int64), r"int64.*\.float\(\)"),
    "array": (np.ones((2, 2)), r"ndarray.*as_tensor"),
    "list": ([[1.0]], r"list.*as_tensor"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_no_finite_matrix_is_refused(function, bad):
    value, message = BAD[bad]
    name = "approximation" if function == "approximation" else "weight"
    with pytest.raises(LabError, match=f"{name} .*{message}"):
        FUNCTIONS[function](value)


def test_unequal_shapes_are_refused():
    with pytest.raises(LabError, match=r"\(2, 3\).*\(3, 2\)"):
        relative_error(torch.ones(2, 3), torch.ones(3, 2))
