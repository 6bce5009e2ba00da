"""Autocast on a pretended card, apart from the CPU's: each acts on the tensors on its own device only."""

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from .places import place

T = torch.Tensor
REAL = {
    name: getattr(torch, name)
    for name in ("is_autocast_enabled", "set_autocast_enabled", "get_autocast_dtype", "set_autocast_dtype")
}
HALVES = (torch.float16, torch.bfloat16)

# What CUDA's autocast computes in float32: aten/src/ATen/autocast_mode.h, AT_FORALL_FP32 and its companions.
WIDE = (
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus layer_norm group_norm "
    "native_layer_norm norm nuclear_norm cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d "
    "hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss "
    "multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits "
    "dist pdist cdist renorm logsumexp prod softmax log_softmax cumprod cumsum sum cross_entropy_loss nll_loss_nd"
).split()
HOMES = (torch, T, torch._C._nn)
IN_FLOAT32 = {getattr(home, name) for name in WIDE for home in HOMES if hasattr(home, name)}
IN_FLOAT32 |= {T.__pow__, T.__rpow__}


class State(threading.local):
    """Autocast of the card, in this thread."""

    enabled, dtype = False, torch.float16


STATE = State()


def is_enabled(device_type: str = "cuda") -> bool:
    """`torch.is_autocast_enabled`."""
    return STATE.enabled if device_type == "cuda" else REAL["is_autocast_enabled"](device_type)


def set_enabled(*values) -> None:
    """`torch.set_autocast_enabled`, with a device or, as of old, without."""
    if len(values) == 1 or values[0] == "cuda":
        STATE.enabled = bool(values[-1])
    else:
        REAL["set_autocast_enabled"](*values)


def get_dtype(device_type: str) -> torch.dtype:
    """`torch.get_autocast_dtype`."""
    return STATE.dtype if device_type == "cuda" else REAL["get_autocast_dtype"](device_type)


def set_dtype(device_type: str, dtype: torch.dtype) -> None:
    """`torch.set_autocast_dtype`."""
    if device_type == "cuda":
        STATE.dtype = dtype
    else:
        REAL["set_autocast_dtype"](device_type, dtype)


def install() -> None:
    """Put these in the place of torch's."""
    torch.is_autocast_enabled, torch.set_autocast_enabled = is_enabled, set_enabled
    torch.get_autocast_dtype, torch.set_autocast_dtype = get_dtype, set_dtype
    torch.get_autocast_gpu_dtype = lambda: STATE.dtype
    torch.set_autocast_gpu_dtype = lambda dtype: set_dtype("cuda", dtype)


@contextlib.contextmanager
def cpu_autocast(enabled: bool, dtype: torch.dtype) -> Iterator[None]:
    """A context in which the CPU's autocast, which computes for the card, is set so."""
    before = REAL["is_autocast_enabled"]("cpu"), REAL["get_autocast_dtype"]("cpu")
    REAL["set_autocast_enabled"]("cpu", enabled)
    REAL["set_autocast_dtype"]("cpu", dtype)
    try:
        yield
    finally:
        REAL["set_autocast_enabled"]("cpu", before[0])
        REAL["set_autocast_dtype"]("cpu", before[1])


def any_on_card(args: tuple, kwargs: dict) -> bool:
    """Is a tensor among a call's arguments on a card?"""
    return any(isinstance(leaf, T) and place(leaf) is not None for leaf in tree_leaves((args, kwargs)))


def as_autocast(func, args: tuple, kwargs: dict):
    """Call a function of torch under the autocast of the device that it computes on.

    Parameters
    ----------
    func : what Python called
    args, kwargs : its arguments
    """
    if not (STATE.enabled or REAL["is_autocast_enabled"]("cpu")) or not any_on_card(args, kwargs):
        return func(*args, **kwargs)
    if STATE.enabled and func in IN_FLOAT32 and kwargs.get("dtype") is None:
        args, kwargs = tree_map_only(T, lambda one: one.float() if one.dtype in HALVES else one, (args, kwargs))
        with cpu_autocast(False, STATE.dtype):
            return func(*args, **kwargs)
    with cpu_autocast(STATE.enabled, STATE.dtype):
        return func(*args, **kwargs)
