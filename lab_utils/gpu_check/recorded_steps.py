"""What the optimizer is given at each step of a training: parameters and gradients, as they are when it is called."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One call of an optimizer: copies of what it was to change, of the gradients, and its learning rate."""

    parameters: list
    gradients: list
    learning_rate: float

    @property
    def applied(self) -> bool:
        """Are all gradients finite? With GradScaler, a step whose are not is left out."""
        return all(bool(one.isfinite().all()) for one in self.gradients)


@contextmanager
def recording() -> Iterator[list[Step]]:
    """A context that yields a list, to which each call of any optimizer adds its Step."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    steps: list[Step] = []

    def record(optimizer, *_) -> None:
        held = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        steps.append(Step([one.detach().clone() for one in held], [one.grad.detach().clone() for one in held],
                          optimizer.param_groups[0]["lr"]))  # fmt: skip

    handle = register_optimizer_step_pre_hook(record)
    try:
        yield steps
    finally:
        handle.remove()
