"""A merged model as files for other programs: a plain transformers folder, and one GGUF file for llama.cpp's family."""

import re
import struct
from pathlib import Path

from ..errors import LabError, choose
from ..files import entries, explain, read_json, replacing_file, replacing_folder, user_path
from . import gguf_file
from .gguf_vocabulary import vocabulary
from .plain_model import honest_config, require_as_configured, require_finite, require_plain

GGUF_TYPES = ("F32", "F16", "BF16", "Q8_0")
OURS = re.compile(  # what transformers writes for a model and a tokenizer
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|processor_config"
    r"|preprocessor_config|chat_template)\.json|chat_template\.jinja|additional_chat_templates/[^/]+\.jinja"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|vocab\.txt|merges\.txt|(tokenizer|spiece|sentencepiece\.bpe)\.model"
)


def export_merged(model, tokenizer, folder: str | Path) -> Path:
    """Write a merged model as a folder that `AutoModelForCausalLM.from_pretrained` loads, without peft or this library.

    An earlier export in `folder` is replaced when the new one is complete. Whether the head is tied to the embedding is
    written as it is in the model.

    Parameters
    ----------
    model : transformers model on plain weights, as `merging.merge` returns it
    tokenizer : its tokenizer, written beside it
    folder : path, `~` expanded; an empty or mounted folder will do, one with files that no export writes will not

    Returns
    -------
    Path, the folder: config, *.safetensors, tokenizer

    Raises
    ------
    LabError
        The model has adapters or quantized weights, a weight that is not finite, or a config that says something else
        than its tensors; the folder holds something else, which is named; or the disk refuses. The folder is as before
        then.
    """
    from safetensors import SafetensorError

    _check(model, tokenizer)
    folder = user_path(folder)
    try:
        _check_earlier(folder)
        with replacing_folder(folder, lambda name: bool(OURS.fullmatch(name))) as new:
            with honest_config(model):
                model.save_pretrained(new)
            tokenizer.save_pretrained(new)
            for file in new.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise LabError(f"{folder} could not be written: {explain(error)}") from error
    except (ValueError, TypeError, NotImplementedError) as error:  # of a generation_config, for one
        raise LabError(f"transformers does not write this model or tokenizer: {explain(error)}") from error
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
        The model is no plain Llama (other family, biases, scaled rotary embedding, adapters, quantized), its config
        says something else than its tensors, a value is not finite or too large for the type, a row is no multiple of
        Q8_0's block, the tokenizer is of another kind or too large, or the disk refuses. An old file is as before then.
    """
    choose("GGUF type", quantization, GGUF_TYPES)
    _check(model, tokenizer)
    gguf_file.check_llama(model)
    tensors = gguf_file.entries(model, quantization)
    words = vocabulary(tokenizer, model.config.vocab_size)
    file = user_path(file)
    try:
        _check_file(file)
        with replacing_file(file) as new:
            gguf_file.write(new, model, quantization, words, tensors, file.stem)
    except OSError as error:
        raise LabError(f"{file} could not be written: {explain(error)}") from error
    except (ValueError, TypeError, struct.error) as error:  # a number or a text that the format has no room for
        raise LabError(f"The package gguf does not write this model or tokenizer: {explain(error)}") from error
    return file


def _check(model, tokenizer) -> None:
    """Raise a LabError unless there is a tokenizer, and a model that is plain, finite and as its config says."""
    if not hasattr(tokenizer, "save_pretrained"):
        raise LabError(f"The tokenizer is a {type(tokenizer).__name__}: hand over the model's transformers tokenizer.")
    require_plain(model)
    require_as_configured(model)
    require_finite(model)


def _check_earlier(folder: Path) -> None:
    """Raise a LabError if files are there that could be an export's, but no model's config with them."""
    found = [name for name in entries(folder) if OURS.fullmatch(name)]
    if not found:
        return
    try:
        config = read_json(folder / "config.json")
    except LabError:
        config = None
    if not isinstance(config, dict) or "model_type" not in config:
        raise LabError(
            f"{folder} holds {', '.join(found[:3])} and no model's config.json: that is not an earlier export, and "
            "would be lost. Choose an empty or a new folder."
        )


def _check_file(file: Path) -> None:
    """Raise a LabError if a file is there that is not GGUF: it would be lost."""
    if file.is_file() and file.stat().st_size:
        with open(file, "rb") as old:
            if old.read(4) != b"GGUF":
                raise LabError(f"{file} is there already and is not a GGUF file: it would be lost. Choose another.")
