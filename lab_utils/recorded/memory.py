"""The recorded memory of training steps; `data/record_memory.py` measured it, see data/README.md."""

from pathlib import Path

from ..files import read_json
from ..folders import DATA
from ..recorded_files import number, reading, restore

MEMORY = DATA / "memory" / "measurements.json"


def memory_measurements(file: str | Path = MEMORY) -> dict:
    """What training steps of the embedded model took in memory.

    Returns
    -------
    dict: "provenance" (dict), and "measurements", a list of dicts with
        arguments : of `memory.estimate`, by name
        resident_bytes : dict of int, tensors that stay between steps: weights, unpacked, adapter, optimizer
        tensor_peak_bytes : int, these and what else torch's allocator handed out, at the peak of a step
        process_peak_bytes : int, these and what the process grew by in a step
        overhead_bytes : int, what the process held between two steps apart from tensors: Python objects, libraries
        seconds : float, including loading

    Raises
    ------
    LabError
        The file is missing or damaged.
    """
    with reading(f"The memory measurements in {file}", restore("data/memory", "record_memory.py")):
        record = read_json(file)
        return {"provenance": record["provenance"], "measurements": _measurements(record["measurements"])}


def _measurements(recorded: list[dict]) -> list[dict]:
    """Each measurement as `memory_measurements` returns it."""
    rows = []
    for row in recorded:
        settings, measured = dict(row["settings"]), row["measured"]
        resident = sum(number(value, 0) for value in measured["resident_bytes"].values())
        answer = min(settings.pop("answer"), settings["sequence_length"] - 1)  # the first token is never a target
        full = settings["method"] == "full"
        rows.append(
            {
                "arguments": settings | {
                    "architecture": "SmolLM2-135M",
                    "supervised_tokens": settings["batch_size"] * answer,
                    "moments": settings["dtype"] if full else "float32",
                },
                "resident_bytes": measured["resident_bytes"],
                "tensor_peak_bytes": resident + number(measured["tensor_growth_bytes"]),
                "process_peak_bytes": resident + number(measured["process_growth_bytes"]),
                "overhead_bytes": number(measured["process_bytes"]) - resident,
                "seconds": number(measured["seconds"], 0),
            }
        )  # fmt: skip
    return rows
