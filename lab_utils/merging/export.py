"""A merged model as files for other programs: a plain transformers folder, and one GGUF file for llama.cpp's family."""

import struct
from pathlib import Path

from ..errors import LabError, choose
from ..files import explain, replacing_folder, user_path
from ..quiet import quiet
from . import gguf_file, manifest
from .gguf_vocabulary import vocabulary
from .plain_model import (
    honest_config,
    require_as_configured,
    require_finite,
    require_own_forward,
    require_plain,
    require_rows,
)  # fmt: skip

GGUF_TYPES = ("F32", "F16", "BF16", "Q8_0")


def export_merged(model, tokenizer, folder: str | Path) -> Path:
    """Write a merged model as a folder that `AutoModelForCausalLM.from_pretrained` loads, without peft or this library.

    An earlier export in `folder` is replaced when the new one is complete: the files that its lora_lab_export.json
    lists, as long as nobody changed them, and no others. Whether the head is tied to the embedding is written as it is
    in the model.

    Parameters
    ----------
    model : transformers model on plain weights, as `merging.merge` returns it
    tokenizer : its tokenizer, written beside it
    folder : path, `~` expanded; an empty or mounted folder will do, one with other files than an export's will not

    Returns
    -------
    Path, the folder: config, *.safetensors, tokenizer, and lora_lab_export.json, the list of these files

    Raises
    ------
    LabError
        The model has adapters, quantized weights, hooks or a replaced `forward`, a weight or a number of its config
        that is not finite, a config that says something else than its tensors, or no row for a token of the tokenizer;
        the folder holds something else, which is named; or the disk refuses. The folder is as before then.
    """
    from safetensors import SafetensorError

    folder = user_path(folder)
    _check(model, tokenizer)
    require_rows(tokenizer, model.get_input_embeddings().weight.shape[0])
    try:
        with replacing_folder(folder, manifest.listed(folder).__contains__) as new:
            with honest_config(model), quiet():
                model.save_pretrained(new)
            tokenizer.save_pretrained(new)
            manifest.write(new)
            for file in new.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise LabError(f"{folder} could not be written: {explain(error)}") from error
    except (ValueError, TypeError, NotImplementedError) as error:  # of a generation_config, for one
        raise LabError(f"transformers does not write this model or tokenizer: {_whole_text(error)}") from error
    return folder


def export_gguf(model, tokenizer, file: str | Path, quantization: str = "F16") -> Path:
    """Write a merged Llama model as one GGUF file, weights, configuration, vocabulary and chat template.

    llama.cpp rotates neighbours in q and k, where transformers rotates the halves of a head. So the rows of these two
    are reordered: within a head, row i of the first half and row i of the second come to be side by side. Norms stay in
    float32.

    Parameters
    ----------
    model : transformers LlamaForCausalLM on plain weights, as `merging.merge` returns it
    tokenizer : its byte-level BPE tokenizer
    file : path of the file to write, `~` expanded; an old GGUF file is replaced, another file is not
    quantization : "F32", "F16", "BF16" or "Q8_0" (blocks of 32 whole numbers of 8 bits and a float16 scale: 8.5 bits)

    Returns
    -------
    Path, the file

    Raises
    ------
    LabError
        The model is not a plain Llama (other family, biases, scaled rotary embedding, adapters, quantized, hooks), its
        config says something else than its tensors, a number is not finite or too large for the type, all of a
        tensor's are too small for it, a row is not a multiple of Q8_0's block, the tokenizer is of another kind or too
        large, or the disk refuses. An old file is as before then.
    """
    choose("GGUF type", quantization, GGUF_TYPES)
    file = user_path(file)
    _check(model, tokenizer)
    gguf_file.check_llama(model)
    tensors = gguf_file.entries(model, quantization)
    words = vocabulary(tokenizer, model.config.vocab_size)
    try:
        with gguf_file.replacing(file) as new:
            gguf_file.write(new, model, quantization, words, tensors, file.stem)
    except (ValueError, TypeError, struct.error) as error:  # a number or a text that the format has no room for
        raise LabError(f"The package gguf does not write this model or tokenizer: {explain(error)}") from error
    return file


def _check(model, tokenizer) -> None:
    """Raise a LabError unless the model is plain, finite and as its config says, with a tokenizer."""
    if not hasattr(tokenizer, "save_pretrained"):
        raise LabError(f"The tokenizer is a {type(tokenizer).__name__}: hand over the model's transformers tokenizer.")
    require_plain(model)
    require_own_forward(model)
    require_finite(model)
    require_as_configured(model)


def _whole_text(error: Exception) -> str:
    """A library's message in one line: the values that it complains about come after its first."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line)[:600] or type(error).__name__
