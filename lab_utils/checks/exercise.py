"""What an exercise is made of, and the inputs it is tried on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st

from .comparing import compare

SIZE = st.integers(1, 5)
ALPHA = st.sampled_from([1, 2, 4, 8, 16, 32])
BITS = st.sampled_from([2, 3, 4, 8])


@dataclass(frozen=True)
class Mistake:
    """A common mistake: its name, one sentence on the fix, and how to recognise it.

    Parameters
    ----------
    name, fix : str
    wrong : functions that make this mistake, each in its own way
    when : function(inputs, results) -> bool, instead of `wrong` where results are random
    """

    name: str
    fix: str
    wrong: tuple[Callable, ...] = ()
    when: Callable | None = None


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise: what is asked, how it is judged, and what helps.

    Parameters
    ----------
    name : str, the function the learner writes
    page : int
    title : str
    spec : function that says what is asked in plain loops; its source is shown folded, after the hints
    solution : function; its source is shown
    inputs : hypothesis strategy of argument tuples
    demo : argument tuple of the picture
    mistakes : tuple of Mistake, the more special first
    hints : three str, from a nudge to nearly all
    reward : str, what the learner now knows
    view : function(result) -> what of a right-shaped result is compared
    picture : function(result) -> vector or matrix to draw; None for no picture
    judge : function(inputs, results) -> {aspect: problem or None}, instead of the comparison with `solution`
    aspects : dict aspect -> sentence when right, for the exercise's own judge
    calls : int, calls with each input
    any_width : bool, is any data type of the right kind (floating-point, or whole numbers) right
    """

    name: str
    page: int
    title: str
    spec: Callable
    solution: Callable
    inputs: st.SearchStrategy
    demo: tuple
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str, str]
    reward: str
    view: Callable = lambda result: result
    picture: Callable | None = None
    judge: Callable | None = None
    aspects: dict[str, str] = field(default_factory=dict)
    calls: int = 1
    any_width: bool = False

    def findings(self, inputs: tuple, results: list) -> dict[str, str | None]:
        """Each aspect reached, with what is wrong about it or None."""
        if self.judge is not None:
            return self.judge(inputs, results)
        expected, got = self.solution(*inputs), results[0]
        found = compare(expected, got, self.view)
        if self.any_width and found.get("dtype") and _kind(got) == _kind(expected):
            found["dtype"] = None
        return found


def _kind(tensor: torch.Tensor) -> tuple[bool, bool, bool]:
    """What sort of numbers a tensor holds, whatever their width."""
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool


def tensor_maker(draw, dtype: torch.dtype | None = None) -> Callable[..., torch.Tensor]:
    """A function shape -> tensor of whole numbers from -4 to 4 without 0; seed and dtype are drawn once."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    dtype = dtype or draw(st.sampled_from([torch.float32, torch.float64]))

    def make(*shape: int) -> torch.Tensor:
        size = torch.randint(1, 5, shape, generator=generator)
        sign = 2 * torch.randint(0, 2, shape, generator=generator) - 1
        return (size * sign).to(dtype)

    return make


@st.composite
def sides(draw) -> tuple[int, int]:
    """(out, in) from 1 to 5, about half of them equal."""
    out_features = draw(SIZE)
    return out_features, out_features if draw(st.booleans()) else draw(SIZE)


def candidates(seed: int, shape: tuple[int, int], dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Random matrices with one decimal, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        yield (10 * values).round().div(10).to(dtype)


def far_from_ties(*numbers: torch.Tensor) -> bool:
    """Does every finite number round the same way, in whatever order it was computed?"""
    return not any(bool(((x - x.floor() - 0.5).abs() < 2e-3).any()) for x in numbers)


@st.composite
def weights(draw) -> torch.Tensor:
    """A matrix whose singular values lie well apart, so that its best rank-r fit is unique."""
    shape = draw(SIZE), draw(SIZE)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    for weight in candidates(draw(st.integers(0, 99)), shape, dtype):
        values = torch.linalg.svdvals(weight)
        if values[-1] > 0.05 * values[0] and bool((values[1:] < 0.9 * values[:-1]).all()):
            return weight
