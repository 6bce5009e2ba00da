"""Every operation of torch, one by one: held to CUDA's rules, computed on the CPU, its results labelled."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from .cards import Card
from .overflow import Left
from .places import place, put
from .random_numbers import card_of, drawn_on
from .rules import PRODUCTS, UNSCALE, check, check_generator

aten = torch.ops.aten
CPU = torch.device("cpu")
SUMMED_IN_FLOAT32 = PRODUCTS | {aten.convolution, aten.convolution_backward}


class Operations(TorchDispatchMode):
    """The mode that sees operations below autograd and autocast."""

    def __init__(self, card: Card):
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunction():  # kernels are not calls of the reader's: they see the real device
            return self.run(func, args, dict(kwargs or {}))

    def run(self, func, args: tuple, kwargs: dict):
        """One operation."""
        wanted = take_device(kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        cards = [where for where in map(place, tensors) if where is not None]
        if cards:
            check(func, args, kwargs, tensors, self.card)
        else:
            check_generator(func, kwargs.get("generator"), on_card=isinstance(wanted, int))
        target = result_place(func, wanted, cards)
        out = compute(func, args, kwargs, tensors, target)
        if func is UNSCALE and Left.steps and cards:
            args[1].fill_(1.0)  # found_inf
        if func is aten._amp_update_scale_.default:
            Left.steps = max(0, Left.steps - 1)
        if target is not None and func is not aten.copy_.default:
            for one in tree_leaves(out):
                if isinstance(one, torch.Tensor):
                    put(one, target)
        return out


def take_device(kwargs: dict) -> int | str | None:
    """Which device an operation is told to compute on: a card's number, "cpu" and the like, or None; CPU is set."""
    device = kwargs.get("device")
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    if device is None:
        return None
    device = torch.device(device)
    if device.type != "cuda":
        return device.type
    kwargs["device"] = CPU
    return device.index or 0


def result_place(func, wanted: int | str | None, cards: list[int]) -> int | None:
    """The card that an operation's new tensors are on.

    Autograd's formulas and C++ read the real device, so "cpu" means nothing there; where a reader says `.cpu()`,
    `functions.Calls` has moved the tensor before it gets here.
    """
    inside = func is aten._to_copy.default or torch._C._current_graph_task_id() != -1
    if isinstance(wanted, int):
        return wanted
    return cards[0] if cards and (wanted is None or inside) else None


def compute(func, args: tuple, kwargs: dict, tensors: list, target: int | None):
    """Run an operation on the CPU: random ones with the card's numbers, float16 products summed in float32."""
    if target is None:
        return func(*args, **kwargs)
    if func.overloadpacket in PRODUCTS and func._overloadname.startswith("dtype"):
        return with_out_dtype(func, args, kwargs)
    if func.overloadpacket in SUMMED_IN_FLOAT32 and tensors[0].dtype == torch.float16:
        return in_float32(func, args, kwargs)
    if torch.Tag.nondeterministic_seeded in func.tags and card_of(kwargs.get("generator")) is None:
        with drawn_on(target):
            return func(*args, **kwargs)
    return func(*args, **kwargs)


def in_float32(func, args: tuple, kwargs: dict):
    """A float16 operation computed in float32 and rounded once; what it writes in place, or to `out=`, is written."""
    wide = {}

    def widen(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype != torch.float16:
            return tensor
        return wide.setdefault(id(tensor), (tensor, tensor.float()))[1]

    wide_args, wide_kwargs = tree_map_only(torch.Tensor, widen, (args, kwargs))
    out = func(*wide_args, **wide_kwargs)
    written = {id(copy): tensor for tensor, copy in wide.values()}

    def narrow(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in written:
            return written[id(tensor)].copy_(tensor)
        return tensor.half() if tensor.dtype == torch.float32 else tensor

    return tree_map_only(torch.Tensor, narrow, out)


def with_out_dtype(func, args: tuple, kwargs: dict):
    """A product whose `out_dtype` is not that of its factors, which only CUDA has: computed in float32."""
    names = [argument.name for argument in func._schema.arguments]
    named = dict(zip(names, args, strict=False)) | kwargs
    dtype, out = named.pop("out_dtype"), named.pop("out", None)
    wide = {name: one.float() if isinstance(one, torch.Tensor) else one for name, one in named.items()}
    result = func.overloadpacket.default(**wide).to(dtype)
    return result if out is None else out.copy_(result)
