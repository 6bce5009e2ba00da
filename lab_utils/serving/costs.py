"""What adapters cost in service: bytes on disk against their base, and time before and after merging."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import LabError, at_least
from ..files import user_path


def file_sizes(folders: Mapping[str, str | Path], base: str | Path | None = None) -> list[dict]:
    """How many bytes adapters take on disk, against their base.

    Parameters
    ----------
    folders : dict name -> folder of an adapter
    base : folder with the base's *.safetensors, default the embedded model's

    Returns
    -------
    list of dict, the base first: name, bytes (of all weight files), share (of the base's bytes), times (base / this)

    Raises
    ------
    LabError
        A folder holds no weights.
    """
    from ..models.embedded import embedded_folder

    rows = []
    for name, folder in {"base": base or embedded_folder(), **folders}.items():
        files = list(user_path(folder).glob("*.safetensors"))
        if not files:
            raise LabError(f"{folder} ({name}) holds no *.safetensors file.")
        size = sum(file.stat().st_size for file in files)
        whole = rows[0]["bytes"] if rows else size
        rows.append({"name": name, "bytes": size, "share": size / whole, "times": whole / size})
    return rows


def latency(adapted, merged, prompt_tokens: int = 64, repeats: int = 9) -> list[dict]:
    """What an adapter costs in time, before and after merging, at reading a prompt and at one more token.

    The three ways take turns (base, unmerged, merged, base, …), so that whatever else the machine does meets all alike;
    each time is a median. One round before the first is not counted.

    Parameters
    ----------
    adapted : peft model with its adapter active; its base alone is the same model with the adapter switched off
        The base should be as plain as `merged` is: a 4-bit base is slower for its own reasons.
    merged : transformers model, the adapter merged in
    prompt_tokens : int >= 2, length of the prompt
    repeats : int >= 1

    Returns
    -------
    list of dict, for 1 token and for `prompt_tokens`: tokens (int, read in one forward pass), way ("base",
    "adapter unmerged", "merged"), milliseconds (float, median), ratio (to the base's)

    Raises
    ------
    LabError
        `prompt_tokens` or `repeats` is out of range.
    """
    at_least(2, prompt_tokens=prompt_tokens)
    at_least(1, repeats=repeats)
    vocabulary = merged.config.vocab_size
    rows = []
    for tokens in (1, prompt_tokens):
        ids = torch.arange(tokens).remainder(vocabulary)[None].to(next(merged.parameters()).device)
        times: dict[str, list[float]] = {"base": [], "adapter unmerged": [], "merged": []}
        for _ in range(repeats + 1):
            with adapted.disable_adapter():
                times["base"].append(_seconds(adapted, ids))
            times["adapter unmerged"].append(_seconds(adapted, ids))
            times["merged"].append(_seconds(merged, ids))
        medians = {way: 1000 * statistics.median(seconds[1:]) for way, seconds in times.items()}
        rows += [
            {"tokens": tokens, "way": way, "milliseconds": middle, "ratio": middle / medians["base"]}
            for way, middle in medians.items()
        ]
    return rows


def _seconds(model, ids: torch.Tensor) -> float:
    """The time of one forward pass without gradients."""
    was_training = model.training
    model.eval()
    on_gpu = ids.device.type == "cuda"
    try:
        with torch.no_grad():
            if on_gpu:
                torch.cuda.synchronize()
            began = time.perf_counter()
            model(input_ids=ids, use_cache=False)
            if on_gpu:
                torch.cuda.synchronize()
            return time.perf_counter() - began
    finally:
        model.train(was_training)
