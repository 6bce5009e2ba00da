"""Models with NaN, infinity or an overflow in their weights are refused before and after a merge."""

import torch

from ..errors import LabError
from ..finetune.peft_adapters import adapter_tensors
from ..finite import first_nonfinite, nonfinite_in_words
from ..models.registry import base_model


def refuse_nonfinite(model, whose: str = "The base model") -> None:
    """Look for NaN and infinity in a model's weights and in the adapters in use.

    Parameters
    ----------
    model : transformers model or peft model, in 4 bits or not
    whose : str, who is to blame where it is not an adapter

    Raises
    ------
    LabError
        There is one: the tensor, its place and who is to blame are named.
    """
    base = base_model(model)
    used = {
        name for module in base.modules() if hasattr(module, "lora_A") and not module.disable_adapters
        for name in module.active_adapters
    }  # fmt: skip
    for adapter in sorted(used):
        for key, matrix in adapter_tensors(base, adapter).items():
            problem = nonfinite_in_words(key, matrix)
            if problem:
                raise LabError(
                    f"The adapter {adapter!r} is damaged, not its base: {problem}. Take an earlier checkpoint of it, "
                    "or train it again with a lower learning rate."
                )
    for name, parameter in base.named_parameters():
        if ".lora_" in name:
            continue
        state = getattr(parameter, "quant_state", None)
        problem = nonfinite_in_words(name, parameter) if state is None else _nonfinite_block(name, state)
        if problem:
            raise LabError(
                f"{whose} is damaged, not the adapter: {problem.replace('.base_layer.', '.')}. Load it again; if that "
                "does not help, delete its files and download them again."
            )


def _nonfinite_block(name: str, state) -> str | None:
    """`nonfinite_in_words` for a 4-bit weight, whose codes are finite: by the scales of its blocks."""
    scales, weights = state.absmax, state.blocksize
    if state.nested:  # the scales are in 8 bits, and only theirs can be NaN
        scales, weights = state.state2.absmax, state.blocksize * state.state2.blocksize
    found = first_nonfinite(scales)
    if found is None:
        return nonfinite_in_words(f"{name}'s offset", state.offset) if state.nested else None
    start = min(found[0][-1] * weights, state.shape.numel() - 1)
    place = tuple(int(one) for one in torch.unravel_index(torch.tensor(start), state.shape))
    return f"{name}{list(place)} is {found[1]}, and so is the rest of its block"


def refuse_overflow(model) -> None:
    """Raise a LabError if a number of a model made of finite weights does not fit the model's dtype."""
    for name, parameter in model.named_parameters():
        found = first_nonfinite(parameter)
        if found:
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise LabError(
                f"Not merged: {name}{list(found[0])} is too large for {dtype}, which ends at "
                f"{torch.finfo(parameter.dtype).max:g}. Merge with dtype=torch.bfloat16 or dtype=torch.float32."
            )
