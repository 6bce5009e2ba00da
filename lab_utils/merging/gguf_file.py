"""A GGUF file of a Llama: its configuration and tensors in the form that llama.cpp wants, and how it is written.

The package `gguf` writes the bytes and knows the tensors' names; what goes into them is decided here, and everything
that the format cannot hold is refused before a byte is written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import LabError
from ..files import explain, replacing_file
from .gguf_vocabulary import Vocabulary, add_vocabulary

# Each type's largest value. A block of Q8_0 has a float16 as its scale, and whole numbers up to 127.
LARGEST = {"F32": 3.4028234663852886e38, "BF16": 3.3895313892515355e38, "F16": 65504.0, "Q8_0": 127 * 65504.0}
FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}


class Entry(NamedTuple):
    """One tensor of a file."""

    key: str  # its name in the model
    name: str  # its name in the file
    tensor: torch.Tensor
    kind: str  # a key of LARGEST


def check_llama(model) -> None:
    """Raise a LabError unless llama.cpp's "llama" computes what the model does; its config is taken for the truth."""
    config = model.config
    if config.model_type != "llama" or type(model).__name__ != "LlamaForCausalLM":
        kind = config.model_type if config.model_type != "llama" else type(model).__name__
        raise LabError(f"export_gguf knows LlamaForCausalLM, the Llama family; this is {kind!r}: use export_merged.")
    rope = getattr(config, "rope_parameters", None) or {}
    odd = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name, False)]
    if not odd and rope.get("rope_type", "default") != "default":
        odd = [f"rope_type={rope['rope_type']!r}"]
    if not odd and config.hidden_act not in ("silu", "swish"):
        odd = [f"hidden_act={config.hidden_act!r}"]
    if odd:
        raise LabError(f"export_gguf does not know Llamas with {', '.join(odd)}: use export_merged.")
    if not isinstance(rope.get("rope_theta"), (int, float)):
        raise LabError(f"The config's rope_parameters={rope} have no number rope_theta: set it to the model's own.")


def entries(model, quantization: str) -> list[Entry]:
    """Every tensor that the file gets; a head that is the embedding is left out, one with its own values is not.

    Raises
    ------
    LabError
        Named by tensor and place: a value is too large for the type, or a row is not a multiple of the type's block.
    """
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    state = model.state_dict()
    head, embedding = (state[key].to("cpu", torch.float32) for key in ("lm_head.weight", "model.embed_tokens.weight"))
    if model.config.tie_word_embeddings and torch.equal(head, embedding):
        del state["lm_head.weight"]
    found = []
    for key, tensor in state.items():
        name = names.get_name(key, try_suffixes=(".weight",))
        if name is None:
            raise LabError(f"{key} has no place in a Llama's GGUF file: use export_merged.")
        found.append(Entry(key, name, tensor, quantization if tensor.ndim > 1 else "F32"))
        _check_entry(found[-1])
    return found


def _check_entry(entry: Entry) -> None:
    """Raise a LabError if the tensor cannot be written in its type."""
    import gguf

    key, name, tensor, kind = entry
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    if tensor.shape[-1] % block:
        raise LabError(
            f"{key} ({name} in the file) has rows of {tensor.shape[-1]} values, and {kind} packs {block} at a time, "
            "which leaves a rest. Take quantization='F16', 'BF16' or 'F32'."
        )
    largest = tensor.abs().max()
    if largest and not _rounded_largest(float(largest), kind):
        finer = [repr(other) for other in LARGEST if tensor.ndim > 1 and _rounded_largest(float(largest), other)]
        raise LabError(
            f"Every value of {key} ({name} in the file) would become 0 in {kind}, the largest is {float(largest):.8g}: "
            + (f"take quantization={' or '.join(finer)}." if finer else "no type that a GGUF file has here holds it.")
        )
    if largest > LARGEST[kind]:
        place = (tensor.abs() == largest).nonzero()[0].tolist()
        wider = [repr(other) for other, limit in LARGEST.items() if limit >= float(largest)] if tensor.ndim > 1 else []
        raise LabError(
            f"{key}{place} is {tensor[tuple(place)].item():.8g} ({name} in the file), beyond {kind}'s "
            f"{LARGEST[kind]:.8g}: "
            + (f"take quantization={' or '.join(wider)}." if wider else "no type that a GGUF file has here holds it.")
        )


def _rounded_largest(largest: float, kind: str) -> float:
    """What a tensor's largest value, or in Q8_0 the scale made of it, becomes when it is rounded; 0 loses all."""
    dtype = {"F32": torch.float32, "BF16": torch.bfloat16}.get(kind, torch.float16)
    return float(torch.tensor(largest / (127 if kind == "Q8_0" else 1), dtype=torch.float64).float().to(dtype))


def values(entry: Entry, model):
    """The tensor as float32 array, q and k in llama.cpp's order."""
    return in_their_order(entry.key, entry.tensor.detach().to("cpu", torch.float32).numpy(), model.config)


def in_their_order(key: str, array, config):
    """A weight's rows, or those of its B, as llama.cpp has them: q's and k's paired, all others as they are."""
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    end = key.split(".", 4)[-1]
    return paired(array, heads[end]) if end in heads else array


def paired(weight, heads: int):
    """Rows (heads × halves × pairs) of q or k as llama.cpp wants them: (heads × pairs × halves)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path to write a GGUF file to, which then takes the place of `file`.

    Raises
    ------
    LabError
        Another kind of file is there, which would be lost, or the disk refuses.
    """
    try:
        if file.is_file() and file.stat().st_size:
            with open(file, "rb") as old:
                if old.read(4) != b"GGUF":
                    raise LabError(f"{file} is there already and is not a GGUF file: it would be lost. Choose another.")
        with replacing_file(file) as new:
            yield new
    except OSError as error:
        raise LabError(f"{file} could not be written: {explain(error)}") from error


def write(file: Path, model, quantization: str, words: Vocabulary, tensors: list[Entry], title: str) -> None:
    """Write the file; nothing is checked any more."""
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    try:
        writer.add_file_type(int(gguf.LlamaFileType[FILE_TYPES[quantization]]))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_name(title.encode("utf-8", "replace").decode())
        _add_config(writer, model)
        add_vocabulary(writer, words)
        for entry in tensors:
            kind = gguf.GGMLQuantizationType[entry.kind]
            writer.add_tensor(entry.name, gguf.quants.quantize(values(entry, model), kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_config(writer, model) -> None:
    """The architecture's numbers."""
    config = model.config
    head = config.head_dim or config.hidden_size // config.num_attention_heads
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
