"""The state of a painter's training on the disk: written whole, read whole or not at all."""

import os
from contextlib import nullcontext
from pathlib import Path

from ..errors import LabError
from ..files import explain, replacing_file
from ..finetune.run_lock import held_file

# What torch raises for one or another damaged file, apart from the pickle module's own error.
DAMAGED = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError)


def alone(path: Path):
    """A context in which no other process writes `path`; where nothing can be written, what is there is only read."""
    return nullcontext() if path.exists() and not os.access(path.parent, os.W_OK) else held_file(path)


def save(path: Path, parameters, average, optimizer, scaler, history: list[dict]) -> None:
    """Write the state whole or not at all."""
    import torch

    state = {"parameters": [parameter.detach() for parameter in parameters], "history": history}
    if optimizer:
        state |= {"average": average, "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
    try:
        with replacing_file(path) as scratch:
            torch.save(state, scratch)
    except (OSError, RuntimeError) as error:  # a full disk is not an OSError to torch
        raise LabError(
            f"The painter could not be saved to {path.parent} (it needs 100 MB): {explain(error)} Then run the same "
            "cell again; it goes on from the last checkpoint."
        ) from error


def _load(path: Path, parameters) -> dict | None:
    """The saved state, if there is one that can be read and is whole."""
    import pickle

    import torch

    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabError(f"The saved painter {path} cannot be read: {explain(error)}") from error
    try:
        with file:
            state = torch.load(file, weights_only=True, map_location="cpu")
        if _fits(state, parameters):
            return state
    except (*DAMAGED, pickle.UnpicklingError):
        pass
    print(f"{path.name} cannot be read: training starts from the beginning.")
    return None


def _fits(state: dict, parameters) -> bool:
    """Does a file hold all that `save` writes, in these parameters' shapes?"""
    shapes = [parameter.shape for parameter in parameters]
    kept = [state["parameters"]]
    if "optimizer" in state:
        moments = state["optimizer"]["state"]
        kept += [state["average"], [moments[place]["exp_avg"] for place in range(len(shapes))]]
    whole = "optimizer" not in state or "scaler" in state
    return whole and isinstance(state["history"], list) and all([t.shape for t in one] == shapes for one in kept)


def restore(path: Path, parameters, average, optimizer, scaler) -> list[dict]:
    """Go to the saved state, if there is one; return its history."""
    import torch

    state = _load(path, parameters)
    if state is None:
        return []
    with torch.no_grad():
        for saved, parameter, mean, past in zip(
            state["parameters"], parameters, average, state.get("average", state["parameters"]), strict=True
        ):
            parameter.copy_(saved)
            mean.copy_(past)
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    return state["history"]
