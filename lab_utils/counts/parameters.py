"""How many numbers LoRA trains on a real model, and what they weigh."""

from collections.abc import Iterable

from ..errors import real, whole
from .architectures import ARCHITECTURES, Architecture, named


def lora_parameters_by_module(
    architecture: Architecture | str, rank: int, target_modules: str | Iterable[str] = "all-linear"
) -> dict[str, int]:
    """Numbers in the adapters of each targeted module, over the whole model.

    Parameters
    ----------
    architecture : Architecture, or a name in `ARCHITECTURES`; `from_config` makes one of a configuration
    rank : int >= 1
        A rank above the smaller side of a matrix is counted as peft builds it, though it gains nothing.
    target_modules : str or several, groups or names, see `Architecture.select`

    Returns
    -------
    dict module -> int: copies · rank · (out + in), that is B (out, rank) and A (rank, in) in every layer

    Raises
    ------
    LabError
        The architecture is unknown, `rank` is not a whole number of 1 or more, or a target fits no module.

    Source: Hu et al. 2021 (LoRA), section 4.1. https://arxiv.org/abs/2106.09685
    """
    architecture, rank = named(architecture), whole("rank", rank)
    linears = architecture.linears()
    sides = {name: linears[name].out_features + linears[name].in_features for name in linears}
    return {
        name: architecture.copies(name) * rank * linears[name].ranks * sides[name]
        for name in architecture.select(target_modules)
    }


def lora_parameters(
    architecture: Architecture | str, rank: int, target_modules: str | Iterable[str] = "all-linear"
) -> int:
    """Numbers that LoRA trains: the sum of `lora_parameters_by_module`, with the same arguments and errors."""
    return sum(lora_parameters_by_module(architecture, rank, target_modules).values())


def adapter_bytes(
    architecture: Architecture | str,
    rank: int,
    target_modules: str | Iterable[str] = "all-linear",
    *,
    bytes_per_parameter: int = 2,
) -> int:
    """Bytes of the numbers in an adapter file (2 each in 16 bits, 4 in float32); its header adds some kilobytes.

    Arguments and errors otherwise as in `lora_parameters_by_module`.
    """
    return real("bytes_per_parameter", bytes_per_parameter) * lora_parameters(architecture, rank, target_modules)


def training_bytes(
    architecture: Architecture | str,
    rank: int | None = None,
    target_modules: str | Iterable[str] = "all-linear",
    *,
    weight_bytes: int = 2,
    gradient_bytes: int = 2,
    adam_bytes: int = 8,
) -> dict[str, int]:
    """Bytes that stay in memory through training: weights, gradients and Adam's two moments, not activations.

    Parameters
    ----------
    architecture : Architecture, or a name in `ARCHITECTURES`
    rank : int >= 1, or None for full fine-tuning
    target_modules : str or several, ignored for full fine-tuning
    weight_bytes, gradient_bytes, adam_bytes : number >= 0, bytes per number
        The defaults are 16-bit weights and gradients and two float32 moments: 12 bytes per trained number.

    Returns
    -------
    dict of int: bytes for "weights" (frozen ones and adapters), "gradients" and "adam"

    Raises
    ------
    LabError
        As `lora_parameters_by_module`; or a number of bytes is none.
    """
    architecture = named(architecture)
    sizes = {"weight_bytes": weight_bytes, "gradient_bytes": gradient_bytes, "adam_bytes": adam_bytes}
    weight, gradient, adam = (real(name, value, "0 or more bytes", zero=True) for name, value in sizes.items())
    total = architecture.total_parameters()
    adapter = 0 if rank is None else lora_parameters(architecture, rank, target_modules)
    trained = total if rank is None else adapter
    return {
        "weights": weight * (total + adapter),
        "gradients": gradient * trained,
        "adam": adam * trained,
    }


def as_records(others: Iterable[Architecture] = ()) -> list[dict]:
    """Every architecture as plain numbers and strings, ready for JSON; `others` come before those of `ARCHITECTURES`.

    Returns
    -------
    list of dict: name, n_layers, total, and modules, a list of {name, out, in, count, group, ranks}
        `count` is how many times the module occurs in the whole model (n_layers, or 1 for an encoder's head; times the
        experts), so an adapter has rank · ranks · (out + in) · count numbers. `group` is "attention", "mlp", "head",
        "router" or "experts"; `ranks` is 1 but where one matrix is adapted as two.
    """
    return [
        {
            "name": name,
            "n_layers": one.n_layers,
            "total": one.total_parameters(),
            "modules": [
                {
                    "name": module, "out": linear.out_features, "in": linear.in_features,
                    "count": one.copies(module), "group": linear.group, "ranks": linear.ranks,
                }
                for module, linear in one.linears().items()
            ],
        }
        for name, one in [*((one.name, one) for one in others), *ARCHITECTURES.items()]
    ]  # fmt: skip
