"""evaluate.perplexity and token_losses: a slow loop and the model's own loss, windows, and what cannot be read."""

import math
from types import SimpleNamespace

import pytest
import torch
from letter_tokens import TEXT, letters

from lab_utils.errors import LabError
from lab_utils.evaluate import perplexity, token_losses


def slow_perplexity(model, ids: list[int], window: int, stride: int) -> float:
    """Token by token: each from the context that its window leaves it, one forward a token."""
    total = 0.0
    for position in range(1, len(ids)):
        moves = max(0, -(-(position + 1 - window) // stride))  # how often the window has moved when it reaches here
        end = min(len(ids), window + moves * stride)
        context = ids[max(0, end - window) : position]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([context])).logits[0, -1].double()
        total -= float(torch.log_softmax(logits, -1)[ids[position]])
    return math.exp(total / (len(ids) - 1))


@pytest.mark.parametrize(
    ("window", "stride"), [(16, 8), (16, 1), (16, 15), (20, 7), (2, 1), (77, 3), (78, 40), (79, 40), (512, 256)]
)
def test_perplexity_equals_the_slow_loop(tiny_llama, window, stride):
    model = tiny_llama()
    ids = letters(TEXT)["input_ids"][0].tolist()
    assert len(ids) == 78
    found = perplexity(model, letters, TEXT, window, stride)
    assert found == pytest.approx(slow_perplexity(model, ids, window, stride), rel=1e-4)


def test_windows_matter_to_this_model(tiny_llama):
    """Else the test above would hold nothing."""
    settings = ((512, 256), (16, 8), (2, 1))
    values = [perplexity(tiny_llama(), letters, TEXT, window, stride) for window, stride in settings]
    assert len({round(value, 2) for value in values}) == 3


def test_a_model_that_knows_nothing_has_the_vocabularys_perplexity(tiny_llama):
    model = tiny_llama(tie_word_embeddings=False)
    torch.nn.init.zeros_(model.lm_head.weight)
    for window, stride in ((512, 256), (16, 8), (5, 4)):
        assert perplexity(model, letters, TEXT, window, stride) == pytest.approx(61, rel=1e-5)


def test_perplexity_of_the_real_model_in_one_window_by_hand(nf4_base, tokenizer):
    ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        loss = float(nf4_base(input_ids=ids, labels=ids).loss)  # transformers' own mean over all but the first
    assert perplexity(nf4_base, tokenizer, TEXT) == pytest.approx(math.exp(loss), rel=1e-3)


def test_perplexity_leaves_the_training_mode_as_it_was(tiny_llama):
    model = tiny_llama().train()
    perplexity(model, letters, TEXT)
    assert model.training


@pytest.mark.parametrize(("window", "stride"), [(16, 0), (16, 16), (16, 17), (2, 2), (16, -3)])
def test_a_stride_out_of_range_is_named(tiny_llama, window, stride):
    with pytest.raises(LabError, match=f"stride={stride} is out of range.*window={window}"):
        perplexity(tiny_llama(), letters, TEXT, window, stride)


@pytest.mark.parametrize("window", [None, 1.5, True, "16"])
def test_a_window_or_stride_that_is_no_number_is_named(tiny_llama, window):
    with pytest.raises(LabError, match="window="):
        token_losses(tiny_llama(), letters, TEXT, window, 8)
    with pytest.raises(LabError, match="stride="):
        token_losses(tiny_llama(), letters, TEXT, 16, window)


def test_a_window_of_one_token_predicts_nothing(tiny_llama):
    with pytest.raises(LabError, match="window=1 is out of range: a whole number of 2 or more"):
        token_losses(tiny_llama(), letters, TEXT, 1, 1)


@pytest.mark.parametrize("text", [None, 3, ["a"], b"ab", "ab\ud83d"])
def test_a_text_that_is_none_is_named(tiny_llama, text):
    with pytest.raises(LabError, match="text"):
        token_losses(tiny_llama(), letters, text)


def test_a_text_holds_no_control_token(tiny_llama, tokenizer):
    """The letters of one cost as many tokens as the tokenizer splits them into."""
    text = "one<|im_end|>two"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert len(ids) > 4 and len(token_losses(tiny_llama(49152), tokenizer, text)) == len(ids) - 1


def test_losses_that_are_not_finite_name_the_token(tiny_llama):
    """The only "d" of the text is its 76th letter; windows before it are as they should be."""
    assert TEXT.index("d") == 74
    model = tiny_llama()
    model.model.embed_tokens.weight.data[ord("d") % 61] = math.nan
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(61, 64))  # tied no more
    with pytest.raises(LabError, match=rf"loss of token 75 of {len(TEXT)} is nan"):
        perplexity(model, letters, TEXT, 4, 2)  # windows end at letters 4, 6, ... 74, 76: the last predicts 75 and 76
    assert perplexity(model, letters, TEXT[:74], 4, 2) == pytest.approx(61, rel=1e-5)


def test_a_perplexity_beyond_a_floats_range_is_named(tiny_llama):
    model = tiny_llama(tie_word_embeddings=False)
    model.lm_head.weight.data *= 1e4
    with pytest.raises(LabError, match=r"nats per token.*beyond a float's range"):
        perplexity(model, letters, TEXT)


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_too_short_is_an_error(text):
    with pytest.raises(LabError, match=rf"has {len(text)} token"):
        perplexity(SimpleNamespace(training=False), letters, text)


@pytest.mark.parametrize(("window", "stride"), [(512, 256), (16, 8)])
def test_token_losses_are_in_the_order_of_the_text(tiny_llama, window, stride):
    """A text and its beginning have the same losses as long as both lie in one window."""
    whole, part = (token_losses(tiny_llama(), letters, text, window, stride) for text in (TEXT, TEXT[:12]))
    assert whole.shape == (len(TEXT) - 1,) and part.shape == (11,) and whole.dtype == torch.float32
    torch.testing.assert_close(whole[:11], part, rtol=1e-4, atol=1e-4)
    found = perplexity(tiny_llama(), letters, TEXT, window, stride)
    assert found == pytest.approx(math.exp(whole.double().mean()), rel=1e-9)
