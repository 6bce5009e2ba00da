"""The process that the sections run in: one may crash or hang without taking the check and its report with it."""

import gc
import importlib
import os
import sys
import time
import traceback
from pathlib import Path

from ..errors import LabError
from ..folders import ROOT
from .sections import SECTIONS, Setting, Skipped

FRAMES = 6  # of a traceback, the last ones
OF_CUDA = ("CUDA error", "cuBLAS", "CUBLAS", "cuDNN", "an illegal memory access")
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1", "LORA_LAB_FAST": "1",
    "KINETO_LOG_LEVEL": "99", "MPLBACKEND": "Agg",
}  # fmt: skip


def serve(connection, pretended: str, scratch: str, log: str) -> None:
    """Run the sections that are asked for, one by one, until None is asked for.

    Parameters
    ----------
    connection : of multiprocessing.Pipe; receives names of sections, sends what `answer` returns
    pretended : str, the card to pretend, or ""
    scratch : str, a folder for files
    log : str, the file that takes everything that is printed
    """
    _print_to(log)
    os.environ.update(ENVIRONMENT, LORA_LAB_RUNS=str(Path(scratch) / "runs"))
    os.environ.pop("LORA_LAB_DEVICE", None)
    prepare(pretended)
    by_name = {section.name: section for section in SECTIONS}
    while (name := connection.recv()) is not None:
        print(f"== {name}", flush=True)
        folder = Path(scratch) / name
        folder.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        found = answer(by_name[name], Setting(pretended, folder))
        print(f"== {name}: {found['status']}, {time.process_time() - began:.1f} s of processor time", flush=True)
        connection.send(found)


def prepare(pretended: str) -> None:
    """Pretend the card, if there is one to pretend; before any model is loaded."""
    if pretended:
        from ..pretended import enable

        enable(pretended)
    from ..device import use_threads

    use_threads()


def _print_to(log: str) -> None:
    """Send what this process prints, its libraries included, to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)


def answer(section, setting: Setting) -> dict:
    """Run a section, whatever it raises.

    Returns
    -------
    dict: status, text, seconds, values, details, and broken: the process cannot go on (an error inside of CUDA)
    """
    import torch

    torch.manual_seed(0)
    began = time.perf_counter()
    found = {"values": {}, "details": "", "broken": False}
    try:
        finding = _function(section.function)(setting, *filter(None, [section.argument]))
        found |= {"status": "passed" if finding.passed else "failed", "text": finding.text, "values": finding.values}
    except Skipped as reason:
        found |= {"status": "skipped", "text": str(reason)}
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        text = text if isinstance(error, LabError) else f"{type(error).__name__}: {text}"
        found |= {"status": "failed", "text": text[:200], "details": short_traceback(error)}
        found["broken"] = any(word in str(error) for word in OF_CUDA)
        traceback.print_exc()
    found["seconds"] = time.perf_counter() - began
    if not found["broken"]:
        _clear(torch)
    return found


def _function(address: str):
    """The function of "module:function" in this room."""
    module, _, name = address.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)


def _clear(torch) -> None:
    """Give back what the section left on the card."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def short_traceback(error: BaseException) -> str:
    """The last frames of a traceback, without the reader's folders."""
    lines = []
    for frame in traceback.extract_tb(error.__traceback__)[-FRAMES:]:
        path = Path(frame.filename)
        parts = path.parts
        if path.is_relative_to(ROOT) and ".venv" not in parts:
            name = path.relative_to(ROOT).as_posix()
        else:
            name = "/".join(parts[parts.index("site-packages") + 1 :] if "site-packages" in parts else parts[-1:])
        lines.append(f"{name}:{frame.lineno}: {frame.line}")
    return "\n".join([*lines, f"{type(error).__name__}: {error}"[:600]])
