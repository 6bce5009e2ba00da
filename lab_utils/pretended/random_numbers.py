"""The cards' random numbers: a generator for each, apart from the CPU's."""

import contextlib
import weakref
from collections.abc import Iterator

import torch

RealGenerator = torch.Generator
DRAWS = {
    getattr(torch, name) for name in "rand randn randint randperm normal rand_like randn_like randint_like".split()
}


class GeneratorKind(type(RealGenerator)):
    """Lets the CPU's own generators count as instances of the class in their place."""

    def __instancecheck__(cls, one) -> bool:
        return isinstance(one, RealGenerator)


class Generator(RealGenerator, metaclass=GeneratorKind):
    """`torch.Generator`, on a pretended card too: the CPU's numbers, and `device` says cuda."""

    def __new__(cls, device="cpu"):
        device = torch.device(device)
        made = super().__new__(cls, torch.device("cpu") if device.type == "cuda" else device)
        if device.type == "cuda":
            PLACES[made._cdata] = device.index or 0
            weakref.finalize(made, PLACES.pop, made._cdata, None)
        return made

    @property
    def device(self) -> torch.device:
        """Where its numbers go."""
        card = card_of(self)
        return super().device if card is None else torch.device("cuda", card)


DEFAULT: list[Generator] = []  # each card's own; `enable` fills it
PLACES: dict[int, int] = {}  # the card of each C++ generator: operations get it in another Python object


def card_of(generator) -> int | None:
    """The card that a generator is on; None for the CPU's."""
    return None if generator is None else PLACES.get(generator._cdata)


@contextlib.contextmanager
def drawn_on(card: int | None) -> Iterator[None]:
    """A context in which torch's default generator is the card's, as for an operation without its own."""
    if card is None:
        yield
        return
    ours, cpus = DEFAULT[card], torch.default_generator
    before = cpus.get_state()
    cpus.set_state(ours.get_state())
    try:
        yield
    finally:
        ours.set_state(cpus.get_state())
        cpus.set_state(before)
