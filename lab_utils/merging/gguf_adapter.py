"""An adapter as a separate GGUF file, which llama.cpp adds to a base at run time, request by request."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import LabError, choose
from ..files import user_path
from ..finite import nonfinite_in_words
from ..models.registry import base_model
from . import gguf_file
from .places import check_adapter

ADAPTER_TYPES = ("F32", "F16")


class Factors(NamedTuple):
    """The active adapter's part in one layer."""

    layer: str
    A: Tensor  # (rank, in)
    B: Tensor  # (out, rank)
    alpha: float  # scaling times rank: llama.cpp divides by the rank again


def export_gguf_adapter(model, file: str | Path, quantization: str = "F16") -> Path:
    """Write the active adapter of a Llama as a GGUF file; llama.cpp loads it beside a base that `export_gguf` wrote.

    A and B are written apart, so the file is as small as the adapter. The rows of B in q and k are reordered as
    `export_gguf` reorders W's.

    Parameters
    ----------
    model : peft model with one active LoRA or rsLoRA adapter on linear layers; left as it is
    file : path of the file to write, `~` expanded; an old GGUF file is replaced, another file is not
    quantization : "F16" or "F32"

    Returns
    -------
    Path, the file

    Raises
    ------
    LabError
        No adapter is active, or several; it is of a kind that the format does not have (DoRA, biases, embeddings, a
        saved head); the base is no Llama; a number is not finite or too large for the type; or the disk refuses.

    Source: convert_lora_to_gguf.py in llama.cpp, for the names of fields and tensors.
    """
    choose("GGUF type", quantization, ADAPTER_TYPES)
    file = user_path(file)
    check_adapter(model)
    base = base_model(model)
    if base.config.model_type != "llama":
        raise LabError(
            f"export_gguf_adapter knows the Llama family; this is {base.config.model_type!r}. llama.cpp's own "
            "convert_lora_to_gguf.py knows more: give it the adapter's folder."
        )
    found = _factors(model, base)
    with gguf_file.replacing(file) as new:
        _write(new, base.config, found, quantization, file.stem)
    return file


def _factors(model, base) -> list[Factors]:
    """A and B of each adapted layer, checked."""
    odd = sorted({name for name, part in model.named_parameters() if "modules_to_save" in name and part is not None})
    if odd:
        raise LabError(f"The adapter replaces {odd[0]}, and a GGUF adapter holds only A and B: merge, and export that.")
    found = []
    for name, module in base.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        active = [one for one in module.active_adapters if one in module.lora_A]
        if len(active) != 1 or module.merged_adapters:
            raise LabError(f"{name} has {len(active)} adapters in use or merged: make one active, unmerged.")
        if module.lora_variant.get(active[0]) or module.lora_bias.get(active[0]):
            raise LabError(f"The adapter on {name} is more than B·A (DoRA, or a bias): merge, and export that.")
        A, B = (part[active[0]].weight.detach().float().cpu() for part in (module.lora_A, module.lora_B))
        for which, factor in (("A", A), ("B", B)):
            if wrong := nonfinite_in_words(f"lora_{which} of {name}", factor):
                raise LabError(f"{wrong}. Load the adapter again, or train it again.")
        found.append(Factors(name, A, B, float(module.scaling[active[0]]) * len(A)))
    return found


def _write(file: Path, config, found: list[Factors], quantization: str, title: str) -> None:
    """Write the file: one alpha for all layers; what differs from it goes into B."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    kind, alpha = gguf.GGMLQuantizationType[quantization], found[0].alpha
    writer = gguf.GGUFWriter(file, "llama")
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        writer.add_name(title.encode("utf-8", "replace").decode())
        for one in found:
            name = names.get_name(one.layer)
            if name is None:
                raise LabError(f"{one.layer} has no place in a Llama's GGUF file: merge, and export that.")
            B = one.B if one.alpha == alpha else one.B * (one.alpha / alpha)
            B = torch.from_numpy(gguf_file.in_their_order(f"{one.layer}.weight", B.numpy(), config))
            for suffix, factor in (("lora_a", one.A), ("lora_b", B)):
                if quantization == "F16" and float(factor.abs().max()) > gguf_file.LARGEST["F16"]:
                    raise LabError(f"{one.layer}'s {suffix} exceeds float16's 65504: take quantization='F32'.")
                array = gguf.quants.quantize(factor.contiguous().numpy(), kind)
                writer.add_tensor(f"{name}.weight.{suffix}", array, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
