"""How many numbers LoRA trains on a real model, what they weigh, and an article's two tables computed again."""

import math
from collections.abc import Iterable

from ..errors import real, whole
from .architectures import ARCHITECTURES, Architecture, named
from .configurations import from_config as from_config  # handed on

# ---- LoRA on a model ----


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
        The architecture is unknown, `rank` is no whole number of 1 or more, or a target fits no module.

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


# ---- The tables of an article ----
# An introduction to LoRA on the site of the Entry Point platform treats a model of N numbers as one square matrix of
# √N × √N. Its first table has five such matrices, its second is printed as counts and as shares. They say:

# parameters N, then: side by side, numbers in the rank-1 factors, their share
PRINTED_DECOMPOSITION = (
    (25, "5x5", "10", "40%"),
    (100, "10x10", "20", "20%"),
    (2_500, "50x50", "100", "4%"),
    (1_000_000, "1k x 1k", "2k", "0.2%"),
    (13_000_000_000, "114k x 114k", "228k", "0.001%"),
)
SIZES = {"7B": 7_000_000_000, "13B": 13_000_000_000, "70B": 70_000_000_000, "180B": 180_000_000_000}
PRINTED_COUNTS = {
    1: ("167,332", "228,035", "529,150", "848,528"),
    2: ("334,664", "456,070", "1,058,301", "1,697,056"),
    4: ("669,328", "912,140", "2,116,601", "3,394,113"),
    8: ("1,338,656", "1,824,281", "4,233,202", "6,788,225"),
    16: ("2,677,312", "3,648,561", "8,466,404", "13,576,450"),
    512: ("85,673,987", "116,753,964", "270,924,934", "434,446,406"),
    1024: ("171,347,973", "233,507,927", "541,849,869", "868,892,813"),
    8192: ("1,370,783,787", "1,868,063,416", "4,334,798,948", "6,951,142,502"),
    16384: ("2,741,567,575", "3,736,126,833", "8,669,597,896", "13,902,285,004"),
}
PRINTED_SHARES = {
    1: ("0.002%", "0.002%", "0.001%", "0.000%"),
    2: ("0.005%", "0.004%", "0.002%", "0.001%"),
    4: ("0.010%", "0.007%", "0.003%", "0.002%"),
    8: ("0.019%", "0.014%", "0.006%", "0.004%"),
    16: ("0.038%", "0.028%", "0.012%", "0.008%"),
    512: ("1.224%", "0.898%", "0.387%", "0.241%"),
    1024: ("2.448%", "1.796%", "0.774%", "0.483%"),
    8192: ("19.583%", "14.370%", "6.193%", "3.862%"),
    16384: ("39.165%", "28.739%", "12.385%", "7.723%"),
}
MISLEADING = 0.1  # a share rounded by more than this part of itself is listed


def square_matrix(parameters: int, rank: int) -> dict:
    """A row of both tables: one square matrix of `parameters` numbers and its two factors of `rank`.

    Returns
    -------
    dict: parameters, rank, side (float, √N), adapter_parameters (int, 2·rank·√N rounded), share (float)

    Raises
    ------
    LabError
        `parameters` or `rank` is no whole number of 1 or more.
    """
    parameters, rank = whole("parameters", parameters), whole("rank", rank)
    side = math.sqrt(parameters)
    return {
        "parameters": parameters,
        "rank": rank,
        "side": side,
        "adapter_parameters": round(2 * rank * side),
        "share": 2 * rank / side,
    }


def decomposition_table() -> list[dict]:
    """The first table: five square matrices and their rank-1 factors, as rows of `square_matrix`."""
    return [square_matrix(row[0], rank=1) for row in PRINTED_DECOMPOSITION]


def rank_table() -> list[dict]:
    """The second table: nine ranks by four sizes, rows of `square_matrix` with the size's name as model."""
    return [{"model": model, **square_matrix(size, rank)} for rank in PRINTED_COUNTS for model, size in SIZES.items()]


def differing_cells() -> list[dict]:
    """Every printed cell that differs from the computed one, or is rounded so far that it misleads.

    Returns
    -------
    list of dict of str: table ("decomposition", "counts" or "shares"), row, column, printed, computed, kind, reason
        kind is "wrong" if rounding cannot explain the cell, else "rounded". Sides and counts are listed as soon as
        they are rounded; a share if its rounding error is more than a tenth of itself.
    """
    found = []
    for (size, side, count, share), row in zip(PRINTED_DECOMPOSITION, decomposition_table(), strict=True):
        exact = f"{row['side']:,.0f}"
        where = {"table": "decomposition", "row": f"{size:,}"}
        sides = _compare(side.partition("x")[0].strip(), row["side"], exact)
        if sides:
            read = _read(side.partition("x")[0].strip())
            reason = f"{sides['reason']}; {read:,.0f}² is {read**2:,.0f}"
            found.append({**where, "column": "side", **sides, "printed": side, "reason": reason})
        found += _cell(where, "rank 1", _compare(count, row["adapter_parameters"], f"{row['adapter_parameters']:,}"))
        found += _cell(where, "share", _compare_share(share, row["share"]))
    columns = list(SIZES)
    for row in rank_table():
        index, rank, count = columns.index(row["model"]), row["rank"], row["adapter_parameters"]
        for table, cell in (
            ("counts", _compare(PRINTED_COUNTS[rank][index], count, f"{count:,}")),
            ("shares", _compare_share(PRINTED_SHARES[rank][index], row["share"])),
        ):
            found += _cell({"table": table, "row": f"rank {rank:,}"}, row["model"], cell)
    return found


def _cell(where: dict, column: str, cell: dict | None) -> list[dict]:
    """A list of the one cell, with its place; empty if there is nothing to tell."""
    return [{**where, "column": column, **cell}] if cell else []


def _read(text: str) -> float:
    """The number that a printed cell means: "228k" is 228,000."""
    return float(text.removesuffix("k").replace(",", "")) * (1000 if text.endswith("k") else 1)


def _compare(printed: str, value: float, computed: str) -> dict | None:
    """How a printed side or count differs from `value`, if it does."""
    unit = 1000 if printed.endswith("k") else 1
    if abs(_read(printed) - value) < 1e-9 * value:
        return None
    if _read(printed) == unit * round(value / unit):
        return {"printed": printed, "computed": computed, "kind": "rounded", "reason": "rounded to thousands"}
    return {"printed": printed, "computed": computed, "kind": "wrong", "reason": "rounding does not give it"}


def _compare_share(printed: str, share: float) -> dict | None:
    """How a printed percentage differs from `share` (1 is all), if it is wrong or off by a tenth or more of itself."""
    percent, read = 100 * share, float(printed.removesuffix("%"))
    decimals = len(printed.removesuffix("%").partition(".")[2])
    cell = {"printed": printed, "computed": f"{percent:.3g}%"}
    if f"{percent:.{decimals}f}%" != printed:
        return {**cell, "kind": "wrong", "reason": f"to as many decimals it is {percent:.{decimals}f}%"}
    if abs(read - percent) > MISLEADING * percent:
        lost = "reads as nothing" if read == 0 else f"{abs(read / percent - 1):.0%} off"
        return {**cell, "kind": "rounded", "reason": f"too few decimals: {lost}"}
    return None
