"""The two tables of an article on LoRA, as printed and computed again, and the cells in which they differ.

An introduction to LoRA on the site of the Entry Point platform treats a model of N numbers as one square matrix of
√N × √N. Its first table has five such matrices, its second is printed as counts and as shares.
"""

import math

from ..errors import whole

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
        `parameters` or `rank` is not a whole number of 1 or more.
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
