"""Every call of torch's from Python: devices are named, moved to and refused as on a machine with a card."""

import functools

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .cards import Card
from .moves import converted, moved, without_rules
from .places import place, put
from .precision import as_autocast
from .random_numbers import DRAWS, card_of, drawn_on
from .rules import check_generator, check_kernel

T = torch.Tensor
CPU = torch.device("cpu")
NEW = DRAWS | {
    getattr(torch, name)
    for name in "tensor zeros ones empty full arange range linspace logspace eye scalar_tensor empty_strided "
    "tril_indices triu_indices zeros_like ones_like empty_like full_like".split()
}
UNFILLED = {torch.empty, torch.empty_like, torch.empty_strided, torch.tensor, torch.scalar_tensor}


def device_of(spec) -> torch.device | None:
    """A device as torch reads it: a number is a card's."""
    if spec is None or isinstance(spec, torch.device):
        return spec
    if isinstance(spec, int) and not isinstance(spec, bool):
        return torch.device("cuda", spec)
    return torch.device(spec)


def card_number(device) -> int | None:
    """The card that a device is; None for any other."""
    device = device_of(device)
    return (device.index or 0) if device is not None and device.type == "cuda" else None


class Calls(TorchFunctionMode):
    """The mode that sees torch's functions, methods and properties as Python calls them."""

    def __init__(self, card: Card):
        super().__init__()
        self.card = card

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if answer := ANSWERS.get(func):
            return answer(func, *args, **kwargs)
        if func is T.backward:  # with the modes on, so that what is computed again there is seen
            with self:
                return backward(*args, **kwargs)
        card = card_number(kwargs.get("device"))
        if card is not None:
            if func in NEW:
                return self.new(func, card, args, kwargs)
            kwargs["device"] = torch.device("cuda", card)
        return as_autocast(func, args, kwargs)

    def new(self, func, card: int, args: tuple, kwargs: dict):
        """A new tensor on a card."""
        if func not in UNFILLED:
            check_kernel(func.__name__, self.card)
        generator = kwargs.get("generator")
        check_generator(func.__name__, generator, on_card=True)
        kwargs |= {"device": CPU}
        kwargs.pop("pin_memory", None)
        own = card if func in DRAWS and card_of(generator) is None else None
        with without_rules(), drawn_on(own):
            return put(func(*args, **kwargs), card)


def backward(tensor, gradient=None, retain_graph=None, create_graph=False, inputs=None) -> None:
    """`Tensor.backward`, which torch would hand over whole."""
    torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)


def device(func, tensor):
    card = place(tensor)
    return func(tensor) if card is None else torch.device("cuda", card)


def is_cuda(func, tensor):
    return place(tensor) is not None


def is_cpu(func, tensor):
    return func(tensor) and place(tensor) is None


def get_device(func, tensor):
    return -1 if place(tensor) is None else place(tensor)


def numpy(func, tensor, *args, **kwargs):
    """`.numpy()` and `__array__`."""
    if place(tensor) is not None and not kwargs.get("force"):
        raise TypeError(
            f"can't convert cuda:{place(tensor)} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
            "host memory first. (a pretended card)"
        )
    return func(tensor, *args, **kwargs)


def pin_memory(func, tensor, *args, **kwargs):
    return tensor


def is_pinned(func, tensor, *args, **kwargs):
    return False


def cpu(func, tensor, *args, **kwargs):
    return converted(tensor, CPU, None, False, None)


def cuda(func, tensor, device=None, *args, **kwargs):
    return converted(tensor, torch.device("cuda", card_number(device) or 0), None, False, None)


def to(func, tensor, *args, **kwargs):
    """`.to()` in all its forms."""
    args = list(args)
    other = args.pop(0) if args and isinstance(args[0], T) else kwargs.pop("other", None)
    if other is not None:
        kwargs |= {"device": device(T.device.__get__, other), "dtype": other.dtype}
    elif args and isinstance(args[0], int):
        args[0] = device_of(args[0])
    kwargs["device"] = device_of(kwargs.get("device"))
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    copy = kwargs.pop("copy", False)
    where, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    return converted(tensor, where, dtype, copy, memory_format)


def type_name(func, tensor, *args, **kwargs):
    """`.type()`: the name of a tensor's type, or a conversion."""
    answer = func(tensor, *args, **kwargs)
    named = isinstance(answer, str) and place(tensor) is not None
    return answer.replace("torch.", "torch.cuda.", 1) if named else answer


def new_tensor(func, tensor, *args, **kwargs):
    device = kwargs.pop("device", None)
    return put(func(tensor, *args, **kwargs), place(tensor) if device is None else card_number(device))


def as_tensor(func, data, *args, **kwargs):
    device = kwargs.pop("device", None)
    made = func(data, *args, **kwargs)
    return made if device is None else moved(made, card_number(device))


def deepcopy(func, tensor, memo):
    """`copy.deepcopy`: torch copies the storage without an operation."""
    return put(func(tensor, memo), place(tensor))


ANSWERS = {
    T.device.__get__: device, T.is_cuda.__get__: is_cuda, T.is_cpu.__get__: is_cpu, T.get_device: get_device,
    T.numpy: numpy, T.__array__: numpy, T.pin_memory: pin_memory, T.is_pinned: is_pinned, T.cpu: cpu, T.cuda: cuda,
    T.to: to, T.type: type_name, T.new_tensor: new_tensor, torch.as_tensor: as_tensor, torch.asarray: as_tensor,
    T.__deepcopy__: deepcopy, torch.device: lambda func, *args, **kwargs: named_device(func, *args, **kwargs),
}  # fmt: skip


def named_device(func, *args, **kwargs):
    """`torch.device(0)`: the first card."""
    return device_of(args[0]) if args and isinstance(args[0], int) else func(*args, **kwargs)


def see_inside(module) -> None:
    """Let the modes see what a module's Python functions call, not only the function's name.

    torch hands such a function to the modes whole and computes it without them; with another tensor class among
    the arguments it still does.
    """
    plain = (T.__torch_function__, torch._C._disabled_torch_function_impl)

    def special(one) -> bool:
        return isinstance(one, T) and type(one).__torch_function__ not in plain

    for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
        if real := getattr(module, name, None):
            setattr(module, name, functools.wraps(real)(lambda *args: any(map(special, tree_leaves(args)))))


def see_saved_tensors(card: Card) -> None:
    """Let the modes see what a pack hook of autograd calls: torch calls it in the middle of an operation."""
    hooks = torch.autograd.graph.saved_tensors_hooks
    begin = hooks.__init__

    def begin_seen(self, pack, unpack):
        def pack_seen(tensor):
            with Calls(card):
                return pack(tensor)

        begin(self, pack_seen, unpack)

    hooks.__init__ = begin_seen
