"""A tokenizer as llama.cpp knows it: tokens, their kinds, merges, special tokens and chat templates.

Only byte-level BPE is known here. What a GGUF file has no word for is refused.
"""

import json
from typing import NamedTuple

from ..errors import LabError
from .plain_model import require_rows

PRE_TOKENIZERS = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}  # as llama.cpp calls them
BPE_OPTIONS = ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges", "dropout")  # it has none of them


class Vocabulary(NamedTuple):
    """What a tokenizer is to llama.cpp."""

    pre: str  # llama.cpp's name for how a text is split first
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    special: dict[str, int | None]
    adds: tuple[bool, bool]  # a first token before a text, a last one after it
    templates: str | list[dict[str, str]] | None


def vocabulary(tokenizer, size: int) -> Vocabulary:
    """A byte-level BPE tokenizer's tokens, merges, special tokens and chat templates.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    size : int, rows of the embedding

    Raises
    ------
    LabError
        The tokenizer is of another kind, adds tokens that the format has no word for, has more tokens than the model
        has rows, or chat templates that are not text.
    """
    layout = _layout(tokenizer)
    pre = _pre_tokenizer(layout)
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    require_rows(tokenizer, size)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in layout["model"]["merges"]]
    special = {name: getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "unk", "pad")}
    return Vocabulary(
        pre, [names.get(index, f"[PAD{index}]") for index in range(size)], _kinds(layout, names, size), merges,
        special, _adds(tokenizer), _templates(tokenizer),
    )  # fmt: skip


def _layout(tokenizer) -> dict:
    """The tokenizer as the package tokenizers writes it, if it is a byte-level BPE without a normalizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    another = "export_gguf knows byte-level BPE tokenizers like GPT-2's and SmolLM's; "
    another += f"this {type(tokenizer).__name__} is another kind"
    if backend is None or not hasattr(backend, "to_str"):
        raise LabError(f"{another} (it is not one of the package tokenizers): use export_merged.")
    try:
        layout = json.loads(backend.to_str())
    except Exception as error:  # the package raises its plain base class for parts written in Python
        raise LabError(f"{another} ({error}): use export_merged.") from error
    model = layout["model"]
    odd = [key for key in BPE_OPTIONS if model.get(key)]
    if model.get("merges") is None or layout.get("normalizer") or odd or _pre_tokenizer(layout) is None:
        raise LabError(f"{another}{f' (it has {odd[0]})' if odd else ''}: use export_merged.")
    return layout


def _pre_tokenizer(layout: dict) -> str | None:
    """llama.cpp's name for how a text is split first; None if it has none that is known here."""
    steps = layout["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    digits = all(step.get("individual_digits", True) for step in steps)
    plain = steps and steps[-1].get("use_regex", False) and not steps[-1].get("add_prefix_space", True)
    return PRE_TOKENIZERS.get(tuple(step.get("type") for step in steps)) if digits and plain else None


def _kinds(layout: dict, names: dict[int, str], size: int) -> list[int]:
    """What each token is to llama.cpp."""
    import gguf

    added = {token["id"]: token for token in layout["added_tokens"]}
    return [
        gguf.TokenType.UNUSED if index not in names
        else gguf.TokenType.NORMAL if index not in added
        else gguf.TokenType.CONTROL if added[index]["special"]
        else gguf.TokenType.USER_DEFINED
        for index in range(size)
    ]  # fmt: skip


def _adds(tokenizer) -> tuple[bool, bool]:
    """Does the tokenizer put its first token before a text, its last one after it?"""
    bare, whole = (list(tokenizer("a", add_special_tokens=add)["input_ids"]) for add in (False, True))
    first, last = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    for adds in ((False, False), (True, False), (False, True), (True, True)):
        if whole == first * adds[0] + bare + last * adds[1]:
            return adds
    raise LabError(
        f"The tokenizer makes {whole} of 'a', and {bare} without special tokens: a GGUF file can only say that the bos "
        "token is put before a text, and the eos token after it. For another kind use export_merged."
    )


def _templates(tokenizer) -> str | list[dict[str, str]] | None:
    """The chat template, or several by name."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        found = [{"name": name, "template": template} for name, template in found.items()]
    if not found or isinstance(found, str):
        return found or None
    if isinstance(found, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("name", "template")) for one in found
    ):
        return found
    raise LabError(f"The tokenizer's chat_template is {found!r:.80}: set it to the template's text.")


def add_vocabulary(writer, words: Vocabulary) -> None:
    """Tokens, their kinds, merges, special tokens and the chat templates."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    writer.add_token_merges(words.merges)
    for name, index in words.special.items():
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(words.adds[0])
    if words.adds[1]:
        writer.add_add_eos_token(True)
    writer.add_add_space_prefix(False)
    if words.templates:
        writer.add_chat_template(words.templates)
