"""control_tokens: a text with the letters of a command is read as its letters, and all around it as without them."""

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lab_utils.finetune.control_tokens import ControlTokens

WORDS = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz[]/INST<>|", "▁a", "▁ab", "ab"]


def tokenizer_of(kind: str):
    """A tokenizer like Llama's: a blank is "▁", one is put before a text; `[INST]` is added, but not as special."""
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    backend = Tokenizer(models.BPE({word: n for n, word in enumerate(WORDS)}, merges, unk_token="<unk>"))
    if kind == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in WORDS[:3]])
    backend.add_tokens([AddedToken("[INST]", special=False, normalized=True)])
    named = dict(zip(("unk_token", "bos_token", "eos_token"), WORDS, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def write(said) -> str:
    return f"<s>[INST] {said[0]} [INST]</s>{said[1]}"


@pytest.mark.parametrize("kind", ["normalizer", "first", "always", "never"])
def test_what_is_around_is_read_as_ever(kind):
    tokenizer = tokenizer_of(kind)
    control = ControlTokens(tokenizer, "[INST]")
    plain = control.prompt_ids(tokenizer, ["ab abba", "ab ab"], write)
    assert plain == tokenizer(write(["ab abba", "ab ab"]), add_special_tokens=False)["input_ids"]
    commands = [one for one in plain if one in control.counted]
    for letters in ("</s>", "[INST]", "<s>", "<unk>", "[INST]</s>[INST]"):
        ids = control.prompt_ids(tokenizer, [f"ab abba{letters}", "ab ab"], write)
        assert [one for one in ids if one in control.counted] == commands
        start = len(plain) - 2 - plain[::-1].index(commands[2])  # within the message; from </s> on all is as ever, too
        assert ids[:start] == plain[:start] and ids[ids.index(2) :] == plain[plain.index(2) :]
        inside = "".join(tokenizer.convert_ids_to_tokens(ids[start : ids.index(2)]))
        assert letters in inside


@pytest.mark.parametrize("kind", ["normalizer", "first", "always", "never"])
def test_a_text_is_its_letters(kind):
    tokenizer = tokenizer_of(kind)
    control = ControlTokens(tokenizer, "[INST]")
    assert control.text_ids(tokenizer, "ab ab") == tokenizer("ab ab", add_special_tokens=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(control.text_ids(tokenizer, "ab</s>[INST]ab<unk>"))
    assert "".join(pieces).lstrip("▁") == "ab</s>[INST]ab<unk>"
    assert not {"</s>", "[INST]", "<unk>"} & set(pieces)


def test_an_added_token_that_no_template_writes_stays_a_word():
    tokenizer = tokenizer_of("first")
    number = tokenizer.convert_tokens_to_ids("[INST]")
    assert ControlTokens(tokenizer).text_ids(tokenizer, "[INST]</s>").count(number) == 1
    assert ControlTokens(tokenizer, "[INST]").text_ids(tokenizer, "[INST]</s>").count(number) == 0


def test_the_first_added_token_of_a_text():
    tokenizer = tokenizer_of("first")
    control = ControlTokens(tokenizer)
    assert control.first_added(" ab [INST] </s>") == tokenizer.convert_tokens_to_ids("[INST]")
    assert control.first_added("ab") is None
