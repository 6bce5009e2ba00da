"""A model with other weights for a while: what a change of every linear weight costs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..errors import LabError, listed


@contextmanager
def changed_weights(model, change: Callable, *, skip: Iterable[str] = ("lm_head",)) -> Iterator[dict[str, float]]:
    """While the `with` block lasts, every linear weight W of the model is `change(W)`; then W is back.

    That shows what a quantization costs, whatever format it is: let `change` quantize and dequantize.

    Parameters
    ----------
    model : torch module whose linear weights are plain floats
    change : function of a float32 Tensor (out, in) to a Tensor of that shape
        The result is rounded to the dtype that the model computes in.
    skip : names of modules to leave as they are, by the last part of the name

    Yields
    ------
    dict module -> float, the relative error ‖change(W) − W‖ / ‖W‖ of each changed weight, before that rounding

    Raises
    ------
    LabError
        The model holds quantized weights, or none that may be changed; a weight or what `change` gives is not finite;
        or `change` gives another shape.
    """
    import torch

    from ..finite import nonfinite_in_words
    from ..lowrank import relative_error

    skip = listed(skip) or ()
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    linear = {name: module for name, module in linear.items() if name.rpartition(".")[2] not in skip}
    quantized = next((name for name, module in linear.items() if not module.weight.is_floating_point()), None)
    if quantized or not linear:
        reason = f"{quantized} is quantized already" if quantized else "it has no linear weight to change"
        raise LabError(f"This model cannot be used here: {reason}. Load it with quantization='none'.")
    before = {name: module.weight.data for name, module in linear.items()}
    errors = {}
    try:
        for name, module in linear.items():
            weight = before[name].float()
            changed = change(weight)
            for what, tensor in ((f"{name}.weight", weight), (f"the changed {name}.weight", changed)):
                if isinstance(tensor, torch.Tensor) and (wrong := nonfinite_in_words(what, tensor)):
                    raise LabError(f"{wrong}. Load the model again, and look at what `change` does there.")
            errors[name] = relative_error(weight, changed)
            module.weight.data = changed.to(before[name].dtype)
        yield errors
    finally:
        for name, module in linear.items():
            module.weight.data = before[name]
