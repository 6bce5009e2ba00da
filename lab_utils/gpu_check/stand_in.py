"""Models to check with, of a known shape and random weights, and rows to train on: nothing is downloaded."""

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from ..counts.architectures import Architecture, named
from ..models import embedded
from .sections import Skipped

SEED = 0
MODEL = "smollm2-135m"  # the name under which the library loads a stand-in
TINY = Architecture(
    name="tiny", family="llama", hidden=64, n_layers=2, heads=4, kv_heads=2, head_size=16, intermediate=128,
    vocabulary=49152, tied=True,
)  # fmt: skip
OF_A_TOKENIZER = ("token", "template", "vocab", "merges")
WORDS = "one two three four five six seven eight nine ten red green blue north south east west sun moon rain".split()
LESSONS = (("red", "stop"), ("green", "go"), ("amber", "wait"), ("blue", "sky"))


def shape(name: str) -> Architecture:
    """The architecture of a name: "tiny", or one in `counts.ARCHITECTURES`."""
    return TINY if name == "tiny" else named(name)


def lessons() -> list[dict[str, str]]:
    """Four rows to learn by heart."""
    return [{"prompt": prompt, "answer": answer} for prompt, answer in LESSONS]


def rows(count: int, words: int) -> list[dict[str, str]]:
    """So many rows of one length, of random words: half prompt, half answer."""
    draw = random.Random(SEED)
    pick = lambda: " ".join(draw.choices(WORDS, k=words // 2))  # noqa: E731
    return [{"prompt": pick(), "answer": pick()} for _ in range(count)]


def tokenizer_folder() -> Path:
    """The folder of the embedded model, which has the tokenizer; it is not fetched.

    Raises
    ------
    Skipped
        The embedded model is not on this machine yet.
    """
    folder = embedded.cache_folder() / embedded.FOLDER
    if not folder.is_dir():
        raise Skipped("the embedded model is not here yet: run `python -m lab_utils.models` once, with a network")
    return folder


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """A context in which the library takes the model in a folder for the embedded one."""
    with mock.patch.object(embedded, "embedded_folder", lambda: folder):
        yield


@contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """A context in which the card is taken for one that has bfloat16 units, or has none.

    Parameters
    ----------
    dtype : "bfloat16" or "float16"
    """
    import torch

    with mock.patch.object(torch.cuda, "is_bf16_supported", lambda including_emulation=True: dtype == "bfloat16"):
        yield


def dtypes() -> tuple[str, ...]:
    """What this card computes in fast: both 16-bit dtypes, or float16 alone."""
    import torch

    fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return ("bfloat16", "float16") if fast else ("float16",)


def write_model(folder: Path, architecture: Architecture | str = "tiny", zeros: bool = False) -> Path:
    """Write a Llama of a shape as a folder that the library loads, once; returns the folder.

    Parameters
    ----------
    folder : Path of a folder for it
    architecture : as in `shape`
    zeros : bool, all weights 0 in a file that takes no room on a disk that knows sparse files; else normal numbers,
        and large enough in the tiny one that its outputs can be moved anywhere by adapters
    """
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import LlamaForCausalLM

    one = shape(architecture) if isinstance(architecture, str) else architecture
    tokenizer = tokenizer_folder()
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(one)
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in LlamaForCausalLM(config).named_parameters()}
    if zeros:
        _write_zeros(folder / "model.safetensors", shapes)
    else:
        _write_random(folder / "model.safetensors", shapes, tiny=one.hidden < 256)
    for path in tokenizer.iterdir():
        if any(word in path.name for word in OF_A_TOKENIZER):
            shutil.copy(path, folder)
    config.save_pretrained(folder)
    return folder


def _config(one: Architecture):
    """transformers' configuration of an architecture."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=one.hidden, intermediate_size=one.intermediate, num_hidden_layers=one.n_layers,
        num_attention_heads=one.heads, num_key_value_heads=one.kv_heads, head_dim=one.head_size,
        vocab_size=one.vocabulary, tie_word_embeddings=one.tied, max_position_embeddings=2048, bos_token_id=1,
        eos_token_id=2, pad_token_id=2, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip


def _write_random(path: Path, shapes: dict[str, tuple[int, ...]], tiny: bool) -> None:
    """Normal numbers, drawn on the card; norms are 1."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator("cuda").manual_seed(SEED)
    tensors = {}
    for name, sides in shapes.items():
        if len(sides) == 1:
            tensors[name] = torch.ones(sides, dtype=torch.bfloat16)
            continue
        spread = 0.02
        if tiny:
            spread = 0.5 if "embed" in name else sides[1] ** -0.5
        drawn = torch.randn(sides, generator=generator, device="cuda")
        tensors[name] = (drawn * spread).to(torch.bfloat16).cpu()
    save_file(tensors, path, metadata={"format": "pt"})


def _write_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of bfloat16 zeros: its header, and a hole as long as the numbers would be."""
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, sides in shapes.items():
        size = 2
        for side in sides:
            size *= side
        header[name] = {"dtype": "BF16", "shape": list(sides), "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)
