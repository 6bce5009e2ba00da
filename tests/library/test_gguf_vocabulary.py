"""gguf_vocabulary: a tokenizer is told to llama.cpp as it is, or refused, and no foreign error reaches the reader."""

import copy

import pytest
from export_models import TEXT, build_tokenizer, fields_of

from lab_utils.errors import LabError
from lab_utils.merging.export import export_gguf, export_merged
from lab_utils.merging.gguf_vocabulary import vocabulary


@pytest.fixture
def small_tokenizer():
    return build_tokenizer()


def test_every_token_is_there_with_its_kind(small_tokenizer):
    small_tokenizer.add_tokens(["<plain>"])
    size = len(small_tokenizer) + 2
    words = vocabulary(small_tokenizer, size)
    known = small_tokenizer.convert_ids_to_tokens(range(size - 2))
    assert words.tokens == [*known, f"[PAD{size - 2}]", f"[PAD{size - 1}]"]
    assert words.kinds == [3] * 3 + [1] * (size - 6) + [4, 5, 5]  # control, normal, user-defined, unused
    assert words.special == {"bos": 1, "eos": 2, "unk": 0, "pad": 2} and words.pre == "gpt-2"


def test_a_token_without_a_row_is_refused(small_tokenizer, tiny_llama, tmp_path):
    small_tokenizer.add_tokens(["<one>", "<two>"])
    size = len(small_tokenizer)
    with pytest.raises(LabError, match=rf"token {size - 1}, '<two>', has no row in .* embedding of {size - 2} rows"):
        export_gguf(tiny_llama(size - 2), small_tokenizer, tmp_path / "no.gguf")
    assert list(tmp_path.iterdir()) == []
    assert len(vocabulary(small_tokenizer, size).tokens) == size


@pytest.mark.parametrize("adds", [(False, False), (True, False), (False, True), (True, True)])
def test_what_is_put_around_a_text_is_told(small_tokenizer, tiny_llama, tmp_path, adds):
    from tokenizers.processors import TemplateProcessing

    text = " ".join([*["<|im_start|>"] * adds[0], "$A", *["<|im_end|>"] * adds[1]])
    small_tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=text, special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    found = fields_of(export_gguf(tiny_llama(len(small_tokenizer)), small_tokenizer, tmp_path / "tiny.gguf"))
    assert found["tokenizer.ggml.add_bos_token"] == adds[0]
    assert found.get("tokenizer.ggml.add_eos_token", False) == adds[1]


def test_what_is_put_around_a_text_otherwise_is_refused(small_tokenizer):
    from tokenizers.processors import TemplateProcessing

    small_tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    with pytest.raises(LabError, match=r"The tokenizer makes \[0, \d+\] of 'a'.*bos token is put before"):
        vocabulary(small_tokenizer, 300)


ONE = "{% for turn in messages %}{{ turn.content }}{% endfor %}"


@pytest.mark.parametrize("template, default, named", [
    (None, None, {}), ("", None, {}), (ONE, ONE, {}), ({"default": ONE, "tool_use": "t"}, ONE, {"tool_use": "t"}),
    ({"tool_use": "t"}, None, {"tool_use": "t"}), ([{"name": "default", "template": ONE}], ONE, {}), ([], None, {}),
])  # fmt: skip
def test_one_template_several_or_none(small_tokenizer, tiny_llama, tmp_path, template, default, named):
    small_tokenizer.chat_template = template
    found = fields_of(export_gguf(tiny_llama(len(small_tokenizer)), small_tokenizer, tmp_path / "tiny.gguf"))
    assert found.get("tokenizer.chat_template") == default
    others = found.get("tokenizer.chat_templates", [])
    assert {name: found[f"tokenizer.chat_template.{name}"] for name in others} == named


@pytest.mark.parametrize("template", [5, [1, 2], [{"name": "default"}], {"default": None}])
def test_a_template_that_is_no_text_is_refused(small_tokenizer, template):
    small_tokenizer.chat_template = template
    with pytest.raises(LabError, match=r"The tokenizer's chat_template is .*set it to the template's text"):
        vocabulary(small_tokenizer, 300)


def word_piece(tokenizer):
    from tokenizers import models

    tokenizer.backend_tokenizer.model = models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")


def unigram(tokenizer):
    from tokenizers import models

    tokenizer.backend_tokenizer.model = models.Unigram([("a", -1.0)])


def lower_case(tokenizer):
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def no_splitting(tokenizer):
    tokenizer.backend_tokenizer.pre_tokenizer = None


def split_in_python(tokenizer):
    from tokenizers import pre_tokenizers

    class Split:
        def pre_tokenize(self, text):
            text.split(lambda i, part: [part])

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Split())


def ends_of_words(tokenizer):
    tokenizer.backend_tokenizer.model.end_of_word_suffix = "</w>"


def ignoring_merges(tokenizer):
    tokenizer.backend_tokenizer.model.ignore_merges = True


@pytest.mark.parametrize(
    "change", [word_piece, unigram, lower_case, no_splitting, split_in_python, ends_of_words, ignoring_merges]
)
def test_another_kind_is_refused(small_tokenizer, change):
    change(small_tokenizer)
    with pytest.raises(LabError, match=r"knows byte-level BPE.*this (PreTrained|Tokenizers)\w+ is another kind"):
        vocabulary(small_tokenizer, 300)


def test_a_tokenizer_written_in_python_is_refused(tiny_llama, tmp_path):
    """Without the package tokenizers: `tokenizer.backend_tokenizer` does not exist."""
    from transformers import ByT5Tokenizer

    with pytest.raises(LabError, match=r"this ByT5Tokenizer is another kind \(it is not one of the package"):
        export_gguf(tiny_llama(400), ByT5Tokenizer(), tmp_path / "no.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [export_gguf, export_merged])
@pytest.mark.parametrize("nothing", [None, "smollm2-135m"])
def test_what_is_no_tokenizer_is_refused(tiny_llama, tmp_path, write, nothing):
    with pytest.raises(LabError, match=f"The tokenizer is a {type(nothing).__name__}: hand over"):
        write(tiny_llama(), nothing, tmp_path / "out")


def test_digits_split_in_groups_are_not_smollms(small_tokenizer):
    from tokenizers import pre_tokenizers

    for single, known in ((True, True), (False, False)):
        other = copy.deepcopy(small_tokenizer)
        other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=single), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        if known:
            assert vocabulary(other, 300).pre == "smollm" and other(TEXT)["input_ids"]
        else:
            with pytest.raises(LabError, match="another kind"):
                vocabulary(other, 300)
