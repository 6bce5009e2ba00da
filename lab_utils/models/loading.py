"""What can go wrong while a base model is loaded: whose fault it is, and a damaged weight."""

import errno
from collections.abc import Collection
from pathlib import Path

from ..errors import LabError
from ..files import explain
from .own import OF_CODE, PICKLED
from .sources import Source
from .weights import refuse_nonfinite, tensors_in, tensors_of

OF_THE_DISK = (
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
)  # fmt: skip


def not_loaded(source: Source, error: Exception) -> str:
    """Why a model or a tokenizer could not be loaded, and what to do: the hub is blamed for its own failures only.

    Parameters
    ----------
    source : Source of the model
    error : what transformers, the hub, the network, the disk or CUDA raised

    Returns
    -------
    str, some sentences
    """
    name, where = source.name, source.where
    text = (str(error).splitlines() or [""])[0].removesuffix(".") or type(error).__name__
    if ran_out(error):
        return f"{name} does not fit into memory ({text}). Load it with quantization='nf4', or take a smaller model."
    if source.kind != "embedded" and (why := _not_ours(text)):
        return f"{name} is refused: {why}."
    if source.kind != "hub":
        return f"The model folder {where} cannot be read ({text}). {_way_out(source)}"
    if getattr(error, "errno", None) in OF_THE_DISK:
        return f"{name} ({where}) cannot be kept on this machine: {explain(error)}"
    license = (
        f" The model is gated: accept its license at https://huggingface.co/{where} and set HF_TOKEN."
        if source.gated else ""
    )  # fmt: skip
    return (
        f"{name} ({where}) could not be loaded from the Hugging Face hub: {text}.{license} "
        "Without a network use the embedded model, load_base('smollm2-135m')."
    )


def _not_ours(text: str) -> str:
    """What transformers' words say of a model that the lab does not load, in the lab's words; "" for other words."""
    if "trust_remote_code" in text or "custom code" in text:
        return OF_CODE
    if "use_safetensors" in text or ("safetensors" in text and "does not appear to have" in text):
        return PICKLED.format(names="there is no .safetensors file")
    if "does not recognize this architecture" in text or "Unrecognized configuration class" in text:
        return f"transformers has no causal language model of this architecture ({text}). Take another one"
    return ""


def _way_out(source: Source) -> str:
    """What to do about damaged files of a model."""
    if source.kind == "embedded":
        return "Delete that folder and run again: it is made again in about a minute."
    if source.kind == "folder":
        return "Copy the model there again, as its save_pretrained writes it, or name another folder."
    return "Delete it from the hub's cache (`hf cache ls` shows where that is) and load it again."


def ran_out(error: Exception) -> bool:
    """Does an error say that there is no memory left, on a GPU or a CPU?"""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error)


def refuse_damaged(source: Source, model, missing: Collection[str], quantized: bool) -> None:
    """Raise a LabError that names the first weight that is missing, NaN or infinite, and its place.

    Quantizing hides it: on a GPU NaN becomes a number, on a CPU one NaN spoils a whole matrix. So of a model that was
    quantized the files are read (0.1 s for the embedded model), of any other the weights in memory.

    Parameters
    ----------
    source : Source of the model
    model : transformers model, as loaded from there
    missing : names of weights that no file has, and that transformers made up
    quantized : bool, by bitsandbytes

    Raises
    ------
    LabError
        A weight is missing or not finite.
    """
    files = _weight_files(source.where) if quantized else []
    way_out, whose = _way_out(source), f"{source.name}, from {source.where}, is damaged"
    if missing:
        raise LabError(f"{whose}: no file has {sorted(missing)[0]} ({len(missing)} such). {way_out}")
    refuse_nonfinite(tensors_in(*files) if files else tensors_of(model), whose, way_out)


def _weight_files(where: str) -> list[Path]:
    """The safetensors files of a folder, or of a hub model that was just downloaded; none if it has another format."""
    if not Path(where).is_dir():
        from huggingface_hub import snapshot_download

        try:
            where = snapshot_download(where, local_files_only=True)
        except Exception:  # it is not kept as a snapshot: the weights in memory are looked at instead
            return []
    return sorted(Path(where).glob("*.safetensors"))
