"""The tensors of a model and of files by name, and what is said when one of them holds NaN or an infinity."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import LabError
from ..finite import nonfinite_in_words


def tensors_of(model) -> Iterator[tuple[str, object]]:
    """A model's tensors by name; of one that bitsandbytes quantized, also what its codes are scaled by.

    Parameters
    ----------
    model : torch module

    Yields
    ------
    (name, Tensor)
    """
    for name, one in [*model.named_parameters(), *model.named_buffers()]:
        yield name, one
        state = getattr(one, "quant_state", None)
        if state is not None:  # 4 bits
            yield f"{name}.absmax", state.absmax
            if state.nested:
                yield f"{name}.absmax.absmax", state.state2.absmax
                yield f"{name}.absmax.offset", state.offset
        elif getattr(one, "SCB", None) is not None:  # 8 bits
            yield f"{name}.SCB", one.SCB


def tensors_in(*files: Path) -> Iterator[tuple[str, object]]:
    """The tensors of safetensors files by name, read one after the other and not kept.

    Parameters
    ----------
    files : paths

    Yields
    ------
    (name, Tensor)
    """
    from safetensors import safe_open

    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)


def refuse_nonfinite(tensors: Iterable[tuple[str, object]], whose: str, way_out: str) -> None:
    """Raise a LabError that names the first tensor with NaN or an infinity in it, and the place.

    Parameters
    ----------
    tensors : iterable of (name, Tensor)
    whose : str, where they are from: the beginning of the message
    way_out : str, what to do: its end

    Raises
    ------
    LabError
        A number is not finite.
    """
    for name, tensor in tensors:
        if problem := nonfinite_in_words(name, tensor.detach()):
            raise LabError(f"{whose}: {problem}. {way_out}")
