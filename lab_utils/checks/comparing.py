"""Expected against got: what differs, said in words, whatever was got."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch

RELATIVE, ABSOLUTE = 1e-4, 1e-5  # room for another order of summation in float32


def compare(expected, got, view: Callable = lambda result: result) -> dict[str, str | None]:
    """Compare a result with the expected one, aspect by aspect.

    Parameters
    ----------
    expected : Tensor, int, float, or a tuple of them; a tensor with one number counts as that number
    got : anything
    view : function(result) -> the part whose values are compared

    Returns
    -------
    dict of the aspects reached ("kind", "shape", "dtype", "values"): what is wrong in words, or None
    """
    found = _form(expected, got)
    if not found["kind"] and not found.get("shape"):
        found["values"] = _values(view(expected), view(got))
    return found


def agree(first, second, view: Callable = lambda result: result) -> bool:
    """Are two results the same numbers in the same shapes (data types aside)?"""
    try:
        if number(first) is not None and number(second) is not None:
            return _values(number(first), number(second)) is None
        if isinstance(first, (tuple, list)):
            first, second = tuple(first), tuple(second)
            if len(first) != len(second) or not all(map(_same_form, first, second)):
                return False
            try:
                return _values(view(first), view(second)) is None
            except RuntimeError:  # factors that do not fit each other: compare them one by one
                return _values(first, second) is None
        return _same_shape(first, second) and _values(first, second) is None
    except Exception:
        return False


def describe(value) -> str:
    """What kind of thing it is, in words."""
    if value is None or value is Ellipsis:
        return "nothing (None)" if value is None else "`...`"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.dim() else "a tensor with one number"
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    name = {int: "whole number (int)", float: "float", bool: "bool"}.get(type(value), type(value).__name__)
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def number(value):
    """A Python number from a number, a numpy scalar or a tensor with one number; None from all else."""
    if isinstance(value, (torch.Tensor, np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int.__add__(value, 0) if isinstance(value, int) else float.__add__(value, 0.0)  # less a subclass's own ways


def same_bits(first: torch.Tensor, second) -> bool:
    """Is the second a tensor of the same type, shape and bits? NaN equals NaN."""
    if not isinstance(second, torch.Tensor) or first.dtype != second.dtype or first.shape != second.shape:
        return False
    first, second = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second))
    return torch.equal(first, second)


def _form(expected, got) -> dict[str, str | None]:
    """Kind, shape and data type."""
    if isinstance(expected, tuple):
        if not isinstance(got, (tuple, list)) or len(got) != len(expected):
            return {"kind": f"It returns {describe(got)}; {len(expected)} results are expected."}
        parts = [_form(*pair) for pair in zip(expected, got, strict=True)]
        found = {}
        for aspect in ("kind", "shape", "dtype"):
            wrong = [f"Result {i}: {part[aspect]}" for i, part in enumerate(parts, 1) if part.get(aspect)]
            found[aspect] = wrong[0] if wrong else None
            if aspect == "kind" and wrong:
                break
        return found
    expected = _plain(expected)
    if isinstance(expected, torch.Tensor):
        if not isinstance(got, torch.Tensor):
            return {"kind": f"It returns {describe(got)}; {describe(expected)} is expected."}
        shape = tuple(got.shape), tuple(expected.shape)
        return {
            "kind": None,
            "shape": None if shape[0] == shape[1] else f"The shape is {shape[0]}; {shape[1]} is expected.",
            "dtype": None if got.dtype == expected.dtype else f"The data type is {got.dtype}; "
            f"{expected.dtype} is expected{', like the input' if expected.is_floating_point() else ''}.",
        }
    if number(got) is None:
        return {"kind": f"It returns {describe(got)}; a number is expected."}
    if isinstance(expected, int) and not isinstance(number(got), int):
        return {"kind": f"It returns {describe(number(got))}, {number(got):g}; a whole number (int) is expected."}
    return {"kind": None}


def _values(expected, got) -> str | None:
    """What is wrong with the numbers of a result of the right form."""
    if isinstance(expected, tuple):
        problems = map(_values, expected, got)
        return next((problem for problem in problems if problem), None)
    expected = _plain(expected)
    if not isinstance(expected, torch.Tensor):
        got = number(got)
        close = math.isclose(got, expected, rel_tol=RELATIVE, abs_tol=1e-12)  # a zero may have rounding left in it
        same = got == expected if isinstance(expected, int) else close
        same = same or (math.isnan(expected) and math.isnan(got))
        return None if same else f"It gives {short(got)}; {short(expected)} is expected."
    whole = not any(tensor.is_floating_point() or tensor.is_complex() for tensor in (expected, got))
    if whole:
        dtype = torch.int64
    else:
        dtype = torch.complex128 if expected.is_complex() or got.is_complex() else torch.float64
    expected, got = (tensor.detach().to("cpu", dtype) for tensor in (expected, got))
    wrong = got != expected if whole else ~torch.isclose(got, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    if not wrong.any():
        return None
    where = tuple(wrong.nonzero()[0].tolist())
    lost = "" if got.isfinite().all() else " Some are not finite (inf or nan)."
    return (
        f"{int(wrong.sum())} of {wrong.numel()} numbers differ{f', first at {list(where)}' if where else ''}: "
        f"{short(got[where].item())} instead of {short(expected[where].item())}.{lost}"
    )


def _plain(expected):
    """A tensor with one number as that number, all else as it is."""
    return expected.item() if isinstance(expected, torch.Tensor) and expected.dim() == 0 else expected


def _same_form(first, second) -> bool:
    """Are these two numbers, or two tensors of one shape?"""
    return _same_shape(first, second) or (number(first) is not None and number(second) is not None)


def _same_shape(first, second) -> bool:
    """Are these two tensors of one shape?"""
    return isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and first.shape == second.shape


def short(value: float) -> str:
    """A number in at most four significant digits; whole numbers in full."""
    if isinstance(value, int) or (abs(value) < 1e6 and value == int(value)):
        return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))
    return f"{value:.4g}"


def show(value, most: int = 64) -> str:
    """A value as text for the report: small tensors in full, row below row; never raises."""
    try:
        if isinstance(value, torch.Tensor):
            return _show_tensor(value.detach().cpu(), most)
        if isinstance(value, (tuple, list)) and any(isinstance(item, torch.Tensor) for item in value):
            return "\n".join(show(item, most) for item in value[:4])
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return short(value)
        text = _brief(value)
    except Exception:
        text = f"({type(value).__name__})"
    return text if len(text) <= 300 else text[:300] + " …"


def _brief(value) -> str:
    """As `repr`, but long floats in four significant digits, inside too, and each dict of a list has a line."""
    kind = type(value)  # a class that merely looks like one of these shows itself
    if kind is float:
        return repr(value) if len(repr(value)) <= 7 else f"{value:.4g}"
    if kind is dict:
        return "{" + ", ".join(f"{_brief(name)}: {_brief(item)}" for name, item in value.items()) + "}"
    if kind not in (list, tuple):
        return repr(value)
    between = ",\n " if len(value) > 1 and all(type(item) is dict for item in value) else ", "
    inside = between.join(map(_brief, value))
    return f"[{inside}]" if kind is list else f"({inside}{',' if len(value) == 1 else ''})"


def _show_tensor(tensor: torch.Tensor, most: int) -> str:
    """Rows aligned, with the shape behind them; of more than two dimensions one matrix after another, each named."""
    note = f"   shape {tuple(tensor.shape)}"
    note += "" if tensor.dtype == torch.float32 else f", {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.numel() > most or tensor.is_complex() or tensor.numel() == 0:
        return "tensor" + note
    if tensor.dim() == 0:
        return show(tensor.item())
    while tensor.dim() > 2 and tensor.shape[-1] == 1:
        tensor = tensor.squeeze(-1)  # (out, rank, 1, 1) is read as a matrix
    cells = [show(value) for value in tensor.flatten().tolist()]
    width, row = max(map(len, cells)), tensor.shape[-1]
    rows = ["[" + "  ".join(cell.rjust(width) for cell in cells[n : n + row]) + "]" for n in range(0, len(cells), row)]
    if tensor.dim() == 1:
        return rows[0] + note
    high = tensor.shape[-2]
    matrices = [_matrix(rows[n : n + high]) for n in range(0, len(rows), high)]
    if tensor.dim() > 2:
        places = itertools.product(*map(range, tensor.shape[:-2]))
        matrices = [f"{list(place)}\n{matrix}" for place, matrix in zip(places, matrices, strict=True)]
    return "\n".join(matrices) + note


def _matrix(rows: list[str]) -> str:
    """Rows in brackets, one below the other."""
    return "[" + "\n ".join(rows) + "]"
