"""Reading the two files of an adapter's folder, and saying what a folder is that is not an adapter."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .. import files
from ..errors import LabError
from ..finite import nonfinite_in_words
from .keys import MATRICES, canonical, parse

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
DIFFUSERS, OLD_MLX = "pytorch_lora_weights.safetensors", "adapters.npz"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_lora_weights.bin")
WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
MLX_FILE, MLX_FIELDS = "adapters.safetensors", ("fine_tune_type", "lora_parameters")
IS = f"An adapter is a folder with {CONFIG} and {WEIGHTS}."


class AdapterFiles(NamedTuple):
    """What an adapter's folder holds."""

    folder: Path
    config: object  # what adapter_config.json holds
    state: dict[str, Tensor]  # peft's name -> Tensor; finite, floating-point

    @property
    def where(self) -> str:
        """The config's path, for messages."""
        return str(self.folder / CONFIG)


def read_files(folder: str | Path) -> AdapterFiles:
    """Read adapter_config.json and adapter_model.safetensors; nothing is unpickled.

    Parameters
    ----------
    folder : path, `~` allowed

    Raises
    ------
    LabError
        It is a file, does not exist, or is something else than an adapter in peft's layout (which is named); a file is
        missing, damaged or empty; a tensor holds NaN, infinity or whole numbers, or a part of a matrix only.
    """
    folder = files.user_path(folder)
    try:
        _check_folder(folder)
    except OSError as error:
        raise LabError(f"{folder} cannot be read: {files.explain(error)}") from error
    config = _read_config(folder)
    if isinstance(config, dict) and "peft_type" not in config and any(field in config for field in MLX_FIELDS):
        raise LabError(_MLX.format(folder=folder))
    return AdapterFiles(folder, config, read_tensors(folder / WEIGHTS))


def _read_config(folder: Path) -> object:
    """What adapter_config.json holds."""
    files.read_text(folder / CONFIG)  # what hinders reading is told apart from what is no JSON
    try:
        return files.read_json(folder / CONFIG)
    except LabError as error:
        raise LabError(f"The adapter in {folder} is damaged: {error} Save or copy it again.") from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of an adapter's safetensors file under the names that peft writes.

    Raises
    ------
    LabError
        The file is missing, damaged or empty, or a tensor is not what it must be: file, tensor and place are named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = files.user_path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(32)
        if start.startswith(b"version https://git-lfs"):
            raise LabError(f"{path} is a Git LFS pointer, not the file itself. Get the file with `git lfs pull`.")
        # Copies: a tensor that is still mapped to the file keeps Windows from replacing it.
        state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except OSError as error:
        raise LabError(f"{path} cannot be read: {files.explain(error)}") from error
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise LabError(f"{path} is damaged: {error}. Save or copy it again.") from error
    if not state:
        raise LabError(f"{path} ({path.stat().st_size} bytes) holds no tensor. {_SHARDED}")
    state = canonical(state, str(path))
    for name, tensor in state.items():
        _check_tensor(name, tensor, path)
    return state


_SHARDED = (
    "That happens when a model is saved whose parameters are spread over processes (DeepSpeed ZeRO-3, FSDP) and were "
    "not gathered first. Save it again inside `deepspeed.zero.GatheredParameters(list(model.parameters()))`, with "
    '"stage3_gather_16bit_weights_on_model_save": true, or under FSDP with a full state dict; what the run\'s own '
    "checkpoint holds can still be gathered (`zero_to_fp32.py`)."
)


def _check_tensor(name: str, tensor: Tensor, path: Path) -> None:
    """Raise a LabError unless the tensor is whole, floating-point and finite."""
    key, shape = parse(name), tuple(tensor.shape)
    if key.part in MATRICES and not key.bias and (len(shape) != 2 or not tensor.numel()):
        if len(shape) == 2:
            raise LabError(f"{path}: {name} has shape {shape}, so rank or width is 0. Save the adapter again.")
        raise LabError(f"{path}: {name} has shape {shape} and is not a matrix. {_SHARDED}")
    if not tensor.is_floating_point():
        raise LabError(
            f"{path}: {name} holds {str(tensor.dtype).removeprefix('torch.')} and not floating-point numbers, and what "
            "they are scaled by is not known. Save the adapter in float32, bfloat16 or float16."
        )
    problem = nonfinite_in_words(name, tensor)
    if problem:
        raise LabError(
            f"{path}: {problem}. The adapter is damaged, not its base. Take an earlier checkpoint, or train again with "
            "a lower learning rate."
        )


def _check_folder(folder: Path) -> None:
    """Raise a LabError that says what the folder is, unless it has both files."""
    if folder.is_file():
        raise LabError(f"{folder} is a file. Give the folder that it is in: {folder.parent}. {IS}")
    if not folder.is_dir():
        hub = ""
        if len(folder.parts) == 2 and not folder.is_absolute():
            hub = f" If that is a repository on the hub, download it first: hf download {folder} --local-dir adapter."
        raise LabError(f"There is no folder {folder} ({folder.resolve()}), so no {CONFIG}. {IS}{hub}")
    names = {path.name for path in folder.iterdir()}
    missing = [name for name in (CONFIG, WEIGHTS) if name not in names]
    if names.intersection((MLX_FILE, OLD_MLX)) and WEIGHTS in missing:
        raise LabError(_MLX.format(folder=folder))
    for name in (CONFIG, WEIGHTS):
        if name in names and not (folder / name).is_file():
            raise LabError(f"{folder / name} is not a file that can be read. {IS}")
    if missing:
        raise LabError(f"There is no {' and no '.join(missing)} in {folder}. {_what_it_is(folder, names)}")


def _what_it_is(folder: Path, names: set[str]) -> str:
    """What a folder without one of the two files is, and what to do."""
    pickles = [name for name in PICKLES if name in names]
    inside = sorted(path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{CONFIG}"))
    others = sorted(name for name in names if name.endswith(".safetensors") and name != WEIGHTS)
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if WEIGHTS not in names and pickles:
        return (
            f"It has {pickles[0]}, a pickle: opening one can run code that somebody hid in it, so it is not opened. If "
            "you trust where it comes from, convert it: `safetensors.torch.save_file(torch.load("
            f"'{pickles[0]}', weights_only=True), '{WEIGHTS}')`."
        )
    if inside and CONFIG not in names:
        more = f", or one of {len(inside) - 4} more" if len(inside) > 4 else ""
        return f"There are adapters in folders inside it: give {' or '.join(map(str, inside[:4]))}{more}."
    if DIFFUSERS in names and WEIGHTS not in names:
        return (
            f"It has {DIFFUSERS}: that is a LoRA of diffusers, for a model that makes pictures. Load it there, "
            f"pipeline.load_lora_weights('{folder}'). {IS}"
        )
    if ggufs and WEIGHTS not in names:
        return (
            f"It has {ggufs[0]}, a file of llama.cpp: an adapter there is used with `--lora {ggufs[0]}`. Here the "
            f"adapter is needed from which it was converted. {IS}"
        )
    if CONFIG not in names and names.intersection(WHOLE):
        return f"It holds a whole model, which is used as a base, not as an adapter. {IS}"
    if WEIGHTS in names:
        return f"Without it the scaling alpha / rank is not known. Copy it from where the adapter was trained. {IS}"
    if others:
        return f"It has {', '.join(others[:3])}, which is not a name that peft gives to an adapter's weights. {IS}"
    return IS


_MLX = (
    "{folder} holds an adapter of MLX (mlx-lm), not of peft: its matrices are transposed and have other names. Merge "
    "it with MLX, `mlx_lm.fuse --model BASE --adapter-path {folder} --save-path merged`, and use what comes of it as a "
    "base."
)
