"""What CUDA refuses: each rule raises what torch raises on a card, with the operation named."""

import torch

from .cards import Card
from .places import place
from .random_numbers import card_of

aten = torch.ops.aten
NOTE = "(a pretended card; {})"

# Tensors of two devices meet here, or nothing is computed.
MIXED = {
    aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default, aten.set_.source_Tensor,
    aten._local_scalar_dense.default, aten.lift_fresh.default, aten.is_same_size.default,
}  # fmt: skip
INDEXED = {
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default, aten._unsafe_index_put.default,
}  # fmt: skip
JOINED = {aten.cat, aten.stack}  # here even a tensor of one number must be on the card
PRODUCTS = {
    aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.baddbmm, aten.baddbmm_, aten.mv, aten.addmv, aten.addmv_,
    aten.dot, aten.vdot, aten.addbmm, aten.addbmm_, aten.addr, aten._addmm_activation, aten.linear,
}  # fmt: skip
CPU_ONLY = {
    aten.histogram, aten._histogramdd_bin_edges, aten._histogramdd_from_bin_cts, aten._histogramdd_from_bin_tensors
}  # fmt: skip
NAMES = {  # of products' kernels and of integers, in CUDA's messages
    aten.bmm: "baddbmm_cuda", aten.baddbmm: "baddbmm_cuda", aten.mv: "addmv_impl_cuda", aten.addmv: "addmv_impl_cuda",
    aten.dot: "dot", aten.vdot: "vdot", torch.int64: "Long", torch.int32: "Int", torch.int16: "Short",
    torch.int8: "Char", torch.uint8: "Byte", torch.bool: "Bool",
}  # fmt: skip
UNSCALE = aten._amp_foreach_non_finite_check_and_unscale_.default
WITHOUT_KERNEL = {aten.empty, aten.empty_strided, aten.empty_like, aten.new_empty, aten.detach, aten.alias}


class Forked:
    """Is this process a fork of one that had a card?"""

    child = False

    @classmethod
    def note(cls) -> None:
        """For `os.register_at_fork`, in the child."""
        cls.child = True


def check(func, args: tuple, kwargs: dict, tensors: list, card: Card) -> None:
    """Hold one operation on at least one tensor of a card to CUDA's rules.

    Parameters
    ----------
    func : torch.OpOverload
    args, kwargs : its arguments
    tensors : the Tensors among them
    card : Card

    Raises
    ------
    RuntimeError, NotImplementedError or torch.AcceleratorError, as torch raises
        Tensors or the generator are on several devices; a product of integers, or another operation that CUDA has
        not; bfloat16 gradients are unscaled; torch was not built for the card, or this process was forked.
    """
    if func in MIXED:
        return
    check_kernel(func, card)
    check_devices(func, args, tensors)
    check_generator(func, kwargs.get("generator"), on_card=True)
    if func.overloadpacket in PRODUCTS and not (tensors[0].is_floating_point() or tensors[0].is_complex()):
        kernel, kind = NAMES.get(func.overloadpacket, "addmm_cuda"), NAMES.get(tensors[0].dtype, tensors[0].dtype)
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{kind}' {NOTE.format(func)}")
    if func.overloadpacket in CPU_ONLY:
        name = func._schema.name + (f".{func._overloadname}" if func._overloadname != "default" else "")
        raise NotImplementedError(f"Could not run '{name}' with arguments from the 'CUDA' backend. {NOTE.format(func)}")
    if func is UNSCALE and any(tensor.dtype == torch.bfloat16 for tensor in tensors):
        raise NotImplementedError(
            f"\"_amp_foreach_non_finite_check_and_unscale_cuda\" not implemented for 'BFloat16' {NOTE.format(func)}"
        )


def check_kernel(func, card: Card) -> None:
    """Raise as torch does at the first kernel on a card that it was not built for, or in a forked process."""
    if Forked.child:
        raise RuntimeError(
            "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the "
            f"'spawn' start method {NOTE.format(func)}"
        )
    if card.supported or (hasattr(func, "overloadpacket") and (func.is_view or func.overloadpacket in WITHOUT_KERNEL)):
        return
    kind = getattr(torch, "AcceleratorError", RuntimeError)
    raise kind(f"CUDA error: no kernel image is available for execution on the device {NOTE.format(func)}")


def check_devices(func, args: tuple, tensors: list) -> None:
    """Raise unless all tensors are on one card; one number from the CPU is let through, and so are a card's indices."""
    places = [place(tensor) for tensor in tensors]
    if func in INDEXED:  # (values indexed, their indices, new values)
        fixed = [args[0], *(args[2:3] if len(args) > 2 else [])]
        bound = [one for one in fixed if isinstance(one, torch.Tensor)]
        free = [one for one in tensors if not any(one is other for other in bound)]
        wrong = place(args[0]) is None or any(place(one) not in (None, place(args[0])) for one in free)
        wrong = wrong or any(one.dim() and place(one) != place(args[0]) for one in bound)
    else:
        strict = func.overloadpacket in JOINED
        met = {where for one, where in zip(tensors, places, strict=True)
               if one.device.type != "meta" and (where is not None or strict or one.dim())}  # fmt: skip
        wrong = len(met) > 1
    if wrong:
        found = ", ".join(f"{tuple(one.shape)} on {named(where)}" for one, where in zip(tensors, places, strict=True))
        names = sorted({named(where) for where in places})
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {' and '.join(names)}! "
            f"{NOTE.format(f'{func}: {found}')}"
        )


def check_generator(func, generator, on_card: bool) -> None:
    """Raise if random numbers for a card come from the CPU's generator, or the other way about."""
    if generator is not None and (card_of(generator) is not None) != on_card:
        want, got = ("cuda", "cpu") if on_card else ("cpu", "cuda")
        raise RuntimeError(f"Expected a '{want}' device type for generator but found '{got}' {NOTE.format(func)}")


def named(card: int | None) -> str:
    """A device's name: "cpu" or "cuda:0"."""
    return "cpu" if card is None else f"cuda:{card}"
