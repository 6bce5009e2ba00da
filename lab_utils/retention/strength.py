"""An adapter turned up or down, and adapters to compare it with: a random one of the same size."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..errors import LabError, flag, whole


def lora_layers(model) -> dict:
    """peft's LoRA layers of a model by name."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def check_strength(strength) -> float:
    """The strength itself, if it is a finite number; else a LabError."""
    number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
    if not number or not math.isfinite(strength):
        raise LabError(f"strength={strength!r} is out of range: a finite number, 0 for the base and 1 as trained.")
    return float(strength)


@contextmanager
def at_strength(model, strength: float) -> Iterator[None]:
    """While the `with` block lasts, every layer computes x Wᵀ + strength · scaling · x Aᵀ Bᵀ; then strength is 1 again.

    Only one factor changes. Multiplying A and B would count the strength twice.

    Parameters
    ----------
    model : peft model with LoRA adapters
    strength : float; 0 is the base, 1 the adapter as trained, 0.5 the weights halfway between the two

    Raises
    ------
    LabError
        The strength is not a finite number, or the model has no adapter.
    """
    strength = check_strength(strength)
    layers = lora_layers(model)
    if not layers:
        raise LabError("This model has no LoRA adapter to turn up or down: put one on it first.")
    before = {name: dict(layer.scaling) for name, layer in layers.items()}
    try:
        for layer in layers.values():
            for adapter in layer.scaling:
                layer.scaling[adapter] *= strength
        yield
    finally:
        for name, layer in layers.items():
            layer.scaling.update(before[name])


def random_like(state: Mapping, seed: int, *, match: bool = True) -> dict:
    """Another adapter of the same shapes: random directions, and of each matrix's update the same size.

    Parameters
    ----------
    state : mapping of names to Tensors; the names of a layer's two matrices differ in "lora_A" and "lora_B" only
    seed : int >= 0
    match : bool, give each B · A the Frobenius norm that it has in `state`; False leaves normal random numbers

    Returns
    -------
    dict of float32 Tensors with the same names and shapes

    Raises
    ------
    LabError
        There is no pair of matrices, or one has no partner.
    """
    import torch

    seed, match = whole("seed", seed, 0), flag("match", match)
    generator = torch.Generator().manual_seed(seed)
    found = {name: torch.randn(one.shape, generator=generator) for name, one in state.items()}
    pairs = [(name, name.replace("lora_A", "lora_B")) for name in state if "lora_A" in name]
    lonely = [a for a, b in pairs if b not in state]
    if not pairs or lonely or 2 * len(pairs) != len(state):
        raise LabError(
            f"This state is not LoRA's: {len(pairs)} matrices A among {len(state)} tensors. Give the state dict of an "
            "adapter, a lora_A and a lora_B for each layer."
        )
    for a, b in pairs if match else ():
        found[b] *= product_norm(state[a], state[b]) / product_norm(found[a], found[b])
    return found


def product_norm(A, B) -> float:
    """Frobenius norm of B · A from the r × r matrices BᵀB and A Aᵀ; the product itself is never formed."""
    A, B = A.double(), B.double()
    return float(((B.T @ B) * (A @ A.T)).sum().clamp(min=0)) ** 0.5


def adapter_matrices(model, adapter: str = "default") -> dict:
    """The matrices of an adapter by name, those that compute: writing into them changes the model.

    Raises
    ------
    LabError
        The model has no adapter of that name.
    """
    found = {name: one.data for name, one in model.named_parameters()
             if any(f".{side}.{adapter}." in name for side in ("lora_A", "lora_B"))}  # fmt: skip
    if not found:
        raise LabError(f"This model has no LoRA adapter named {adapter!r}: put one on it first.")
    return found


@contextmanager
def swapped(matrices: Mapping, others: Mapping) -> Iterator[None]:
    """While the `with` block lasts, matrices hold other numbers; then their own are back.

    Parameters
    ----------
    matrices : as `adapter_matrices` returns them
    others : mapping of the same names to Tensors of the same shapes, as `random_like` returns it

    Raises
    ------
    LabError
        A name or a shape differs; then nothing is changed.
    """
    shapes = [{name: tuple(one.shape) for name, one in some.items()} for some in (matrices, others)]
    if shapes[0] != shapes[1]:
        wrong = next(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
        raise LabError(f"{wrong}: an adapter of other layers or another rank cannot be put in its place.")
    kept = {name: one.clone() for name, one in matrices.items()}
    try:
        for name, one in matrices.items():
            one.copy_(others[name])
        yield
    finally:
        for name, one in matrices.items():
            one.copy_(kept[name])
