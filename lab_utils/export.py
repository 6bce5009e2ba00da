"""A merged model as files for other programs: a plain transformers folder, and one GGUF file for llama.cpp's family.

Of a GGUF file the package `gguf` writes the bytes and knows the tensors' names; what goes into it is decided here.
"""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch

from .errors import LabError, choose

GGUF_TYPES = ("F32", "F16", "BF16", "Q8_0")
PRE_TOKENIZERS = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}  # as llama.cpp calls them


def export_merged(model, tokenizer, folder: str | Path) -> Path:
    """Write a merged model as a folder that `AutoModelForCausalLM.from_pretrained` loads, without peft or this library.

    Parameters
    ----------
    model : transformers model on plain weights, as `merging.merge` returns it
    tokenizer : its tokenizer, written beside it
    folder : path; an earlier export there is replaced, any other content refused

    Returns
    -------
    Path, the folder: config, *.safetensors, tokenizer

    Raises
    ------
    LabError
        The model has adapters or quantized weights, the folder holds something else, or the disk refuses. The folder is
        as before then.
    """
    from safetensors import SafetensorError

    _check_plain(model)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "config.json").is_file())):
        raise LabError(f"{folder} holds something that is no model: it would be overwritten. Choose another folder.")
    try:
        with _scratch(folder) as scratch:
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            for file in scratch.iterdir():
                file.chmod(0o644)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(scratch, folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise LabError(f"{folder} could not be written: {error}. Free some space or choose another folder.") from error
    return folder


def export_gguf(model, tokenizer, file: str | Path, quantization: str = "F16") -> Path:
    """Write a merged Llama model as one GGUF file, weights, configuration, vocabulary and chat template.

    llama.cpp rotates neighbours in q and k, where transformers rotates the halves of a head. So the rows of these two
    are reordered: within a head, row i of the first half and row i of the second come to stand side by side. Norms stay
    in float32.

    Parameters
    ----------
    model : transformers LlamaForCausalLM on plain weights, as `merging.merge` returns it
    tokenizer : its byte-level BPE tokenizer
    file : path of the file to write; an old one is replaced
    quantization : "F32", "F16", "BF16" or "Q8_0" (blocks of 32 whole numbers of 8 bits and a float16 scale: 8.5 bits)

    Returns
    -------
    Path, the file

    Raises
    ------
    LabError
        The model is no plain Llama (other family, biases, scaled rotary embedding, adapters, quantized), the tokenizer
        is of another kind, a float16 would overflow, or the disk refuses. An old file is as before then.
    """
    import gguf

    choose("GGUF type", quantization, GGUF_TYPES)
    _check_plain(model)
    _check_llama(model)
    file = Path(file)
    wanted = gguf.GGMLQuantizationType[quantization]
    try:
        with _scratch(file) as scratch:
            writer = gguf.GGUFWriter(scratch / "model.gguf", "llama")
            writer.add_file_type(_file_type(quantization))
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _add_config(writer, model, file.stem)
            _add_tokenizer(writer, tokenizer, model.config.vocab_size)
            for name, values in _tensors(model):
                kind = wanted if values.ndim > 1 else gguf.GGMLQuantizationType.F32
                if kind == gguf.GGMLQuantizationType.F16 and abs(values).max() > 65504:
                    raise LabError(f"{name} has values beyond float16's 65504: take quantization='BF16' or 'F32'.")
                writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            os.replace(scratch / "model.gguf", file)
    except OSError as error:
        raise LabError(f"{file} could not be written: {error}. Free some space or choose another path.") from error
    return file


@contextmanager
def _scratch(target: Path):
    """A fresh folder beside the target, so that a finished file or folder is moved and not copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    scratch.chmod(0o755)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_plain(model) -> None:
    """Raise a LabError if the model has adapters or quantized weights."""
    kinds = {f"{type(module).__module__}.{type(module).__name__}" for module in model.modules()}
    foreign = sorted(kind for kind in kinds if kind.startswith(("peft.", "bitsandbytes.")))
    if foreign:
        raise LabError(
            f"The model is not plain: it holds {', '.join(foreign[:3])}. Merge it first, merging.merge(model, probe)."
        )
    if getattr(model.config, "quantization_config", None) is not None:
        raise LabError("The model's config says that it is quantized: merge it first, merging.merge(model, probe).")


def _check_llama(model) -> None:
    """Raise a LabError unless the model is a Llama without biases or scaled rotary embedding."""
    config = model.config
    if config.model_type != "llama":
        raise LabError(f"export_gguf knows the Llama family, and this is {config.model_type!r}: use export_merged.")
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    odd = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name, False)]
    if odd or rope != "default":
        what = ", ".join(odd) or f"rope_type={rope!r}"
        raise LabError(f"export_gguf does not know Llamas with {what}: use export_merged.")


def _file_type(quantization: str) -> int:
    """llama.cpp's number for a file whose matrices are mostly of this type."""
    import gguf

    names = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}
    return int(gguf.LlamaFileType[names[quantization]])


def _add_config(writer, model, name: str) -> None:
    """The architecture's numbers."""
    config = model.config
    head = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer, tokenizer, vocabulary: int) -> None:
    """Tokens, their kinds, merges, special tokens and the chat template."""
    import gguf

    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    steps = layout["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    known = PRE_TOKENIZERS.get(tuple(step.get("type") for step in steps))
    digits = all(step.get("individual_digits", True) for step in steps)
    plain = steps and steps[-1].get("use_regex", False) and not steps[-1].get("add_prefix_space", True)
    if layout["model"].get("merges") is None or layout["normalizer"] or not (known and digits and plain):
        raise LabError("export_gguf knows byte-level BPE tokenizers like GPT-2's and SmolLM's; this is another kind.")
    added = {token["id"]: token for token in layout["added_tokens"]}
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    kinds = [
        gguf.TokenType.UNUSED if index not in names
        else gguf.TokenType.NORMAL if index not in added
        else gguf.TokenType.CONTROL if added[index]["special"]
        else gguf.TokenType.USER_DEFINED
        for index in range(vocabulary)
    ]  # fmt: skip
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in layout["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(known)
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(vocabulary)])
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for add, index in (
        (writer.add_bos_token_id, tokenizer.bos_token_id), (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id), (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):  # fmt: skip
        if index is not None:
            add(index)
    first = tokenizer("a")["input_ids"][0]
    writer.add_add_bos_token(first == tokenizer.bos_token_id)
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(model):
    """(GGUF name, float32 array) of every tensor, q and k in llama.cpp's order; a tied head is left out."""
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.detach().to("cpu", torch.float32).numpy()
        end = key.split(".", 4)[-1]
        if end in heads:
            values = _paired(values, heads[end])
        name = names.get_name(key, try_suffixes=(".weight",))
        if name is None:
            raise LabError(f"{key} has no place in a Llama's GGUF file: use export_merged.")
        yield name, values


def _paired(weight, heads: int):
    """Rows (heads × halves × pairs) of q or k as llama.cpp wants them: (heads × pairs × halves)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
