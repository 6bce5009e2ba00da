"""evaluate: scores of answers made by hand, decoding against one prompt at a time, perplexity against a slow loop."""

import math
from types import SimpleNamespace

import pytest
import torch

from lab_utils.adapter import attach_adapter
from lab_utils.errors import LabError
from lab_utils.evaluate import (
    Scores,
    answer_losses,
    bootstrap_interval,
    changed_weights,
    generate,
    grade,
    perplexity,
    score,
    token_losses,
)
from lab_utils.recipe import Recipe
from lab_utils.supervision import build_supervised, collate, encode, prompt_text
from lab_utils.tasks import TASKS, load_task

# The interval.


@pytest.mark.parametrize(("right", "count"), [(60, 100), (90, 200), (350, 400)])
def test_the_bootstrap_agrees_with_the_normal_approximation(right, count):
    share = right / count
    half = 1.96 * math.sqrt(share * (1 - share) / count)
    low, high = bootstrap_interval([True] * right + [False] * (count - right))
    assert low == pytest.approx(share - half, abs=0.15 * half)
    assert high == pytest.approx(share + half, abs=0.15 * half)


def test_the_interval_of_all_or_nothing_is_a_point():
    assert bootstrap_interval([True] * 20) == (1.0, 1.0)
    assert bootstrap_interval([False] * 20) == (0.0, 0.0)
    assert bootstrap_interval([True]) == (1.0, 1.0)


def test_the_interval_is_the_same_every_time_and_whatever_the_order():
    hits = [True] * 30 + [False] * 10
    assert bootstrap_interval(hits) == bootstrap_interval(hits)
    assert bootstrap_interval(hits, seed=1) == pytest.approx(bootstrap_interval(hits), abs=0.03)
    assert bootstrap_interval(hits[::-1]) == pytest.approx(bootstrap_interval(hits), abs=0.03)


# Grading.

ANSWER = '{"name":"Ann","item":"drone","qty":2,"day":"Monday","time":"9am"}'
OUTPUTS = [
    ANSWER,
    ANSWER.replace('"qty":2', '"qty": 2'),  # spacing does not count
    ANSWER.replace('"qty":2', '"qty":"2"'),  # a text is not a number
    ANSWER.replace("Monday", "Sunday").replace("9am", "9pm"),
    '{"name":"Ann"}',
    ANSWER + " Have a nice day!",
    "I would be happy to help.",
    "",
]


def test_grades_by_hand():
    scores = grade(TASKS["bookings"], [{"prompt": "p", "answer": ANSWER}] * 8, OUTPUTS)
    assert [row["right"] for row in scores.rows] == [True, True, False, False, False, False, False, False]
    assert [row["valid"] for row in scores.rows] == [True, True, True, True, True, False, False, False]
    assert scores.exact == 2 / 8 and scores.valid == 5 / 8
    assert scores.fields == {"name": 5 / 8, "item": 4 / 8, "qty": 3 / 8, "day": 3 / 8, "time": 3 / 8}
    assert scores.exact_interval[0] < scores.exact < scores.exact_interval[1]
    assert [row["output"] for row in scores.rows] == OUTPUTS
    assert str(scores).startswith("8 examples: exact match 25% (") and "name 62%" in str(scores)


def test_plain_text_is_graded_by_text_and_form():
    examples = [{"prompt": "p", "answer": "Arr, it be late, matey!"}] * 3
    scores = grade(TASKS["style"], examples, ["Arr, it be late, matey! ", "Arr, 'tis late, matey!", "It is late."])
    assert (scores.exact, scores.valid, scores.fields) == (1 / 3, 2 / 3, {})


def test_as_many_outputs_as_examples():
    with pytest.raises(ValueError, match="shorter"):
        grade(TASKS["bookings"], [{"prompt": "p", "answer": ANSWER}], [])


def test_nothing_to_score_is_an_error(nf4_base, tokenizer):
    with pytest.raises(LabError, match="the split is empty"):
        score(nf4_base, tokenizer, [])
    with pytest.raises(LabError, match="Unknown task 'poems'"):
        score(nf4_base, tokenizer, [{"prompt": "p", "answer": "a"}], task="poems")


# Decoding.

PROMPTS = [
    "two drones for Ann, Monday 9am",
    "hi",
    "Would you be so kind as to reserve the big projector for my seminar next Tuesday at 10:15? Yours, Otto Lindqvist",
    "gong, Friday, noon, Dagny",
    "Ticket 17",
]


def test_a_batch_gives_what_one_at_a_time_gives_in_order(tiny_llama, tokenizer):
    """In float32 padding must not change a single token; the prompts differ much in length, so most are padded."""
    model = tiny_llama(49152)
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=12)[0] for prompt in PROMPTS]
    assert len(set(alone)) == len(PROMPTS)  # the model does look at its prompt
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=12) == alone
    assert generate(model, tokenizer, PROMPTS, batch_size=2, max_new_tokens=12) == alone
    assert generate(model, tokenizer, PROMPTS[::-1], batch_size=3, max_new_tokens=12) == alone[::-1]


def test_decoding_is_greedy(tiny_llama, tokenizer):
    """Token by token by hand: append the likeliest, without cache, padding or batch."""
    model = tiny_llama(49152)
    ids = tokenizer(prompt_text(tokenizer, TASKS["style"], PROMPTS[0]), return_tensors="pt")["input_ids"]
    length = ids.shape[1]
    for _ in range(6):
        with torch.no_grad():
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    expected = tokenizer.decode(ids[0, length:], skip_special_tokens=True)
    assert generate(model, tokenizer, PROMPTS[:1], task="style", max_new_tokens=6) == [expected]


class Constant(torch.nn.Module):
    """A head that says one token for ever."""

    def __init__(self, token: int):
        super().__init__()
        self.token = token

    def forward(self, hidden):
        logits = torch.zeros(*hidden.shape[:-1], 49152)
        logits[..., self.token] = 1.0
        return logits


def test_an_answer_ends_at_the_end_of_turn_or_at_the_tasks_limit(tiny_llama, tokenizer):
    model = tiny_llama(49152)
    model.lm_head = Constant(tokenizer.eos_token_id)
    assert generate(model, tokenizer, PROMPTS) == [""] * 5
    word = tokenizer(" ha", add_special_tokens=False)["input_ids"]
    assert len(word) == 1
    model.lm_head = Constant(word[0])
    assert generate(model, tokenizer, PROMPTS[:2]) == [" ha" * TASKS["bookings"].max_new_tokens] * 2


def test_decoding_leaves_the_training_mode_as_it_was(tiny_llama, tokenizer):
    model = tiny_llama(49152).train()
    generate(model, tokenizer, PROMPTS[:1], max_new_tokens=1)
    assert model.training
    model.eval()
    generate(model, tokenizer, PROMPTS[:1], max_new_tokens=1)
    assert not model.training


def test_the_real_model_in_four_bits_answers_alike_alone_and_in_a_batch(nf4_base, tokenizer):
    """In bfloat16 padding may tip a near tie, so most answers, not all, must agree."""
    alone = [generate(nf4_base, tokenizer, [prompt], max_new_tokens=6)[0] for prompt in PROMPTS]
    together = generate(nf4_base, tokenizer, PROMPTS, max_new_tokens=6)
    assert all(answer.strip() for answer in together)
    assert sum(one == other for one, other in zip(alone, together, strict=True)) >= 3


def test_score_asks_and_grades(tiny_llama, tokenizer):
    model = tiny_llama(49152)
    answers = generate(model, tokenizer, PROMPTS, task="style")
    examples = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(PROMPTS, answers, strict=True)]
    examples[1]["answer"] = "something else"
    scores = score(model, tokenizer, examples, task="style", batch_size=2)
    assert isinstance(scores, Scores) and scores.exact == 4 / 5
    assert [row["right"] for row in scores.rows] == [True, False, True, True, True]


# What answers cost.


class Letters:
    """A tokenizer of one token a letter, with a chat template: what a model of 61 tokens says can be read back."""

    alphabet = "".join(chr(code) for code in range(65, 65 + 58))  # tokens 3 to 60
    eos_token_id = pad_token_id = 2

    def __call__(self, text, add_special_tokens=False):
        return {"input_ids": [3 + (ord(letter) - 65) % 58 for letter in text]}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return "".join(f"[{message['role'][0]}]{message['content']}" for message in messages) + "[a]"


QUESTIONS = ["tent", "gong?", "two canoes for Ann", "x"]


@pytest.fixture
def talker(tiny_llama):
    """A random model of 61 tokens that ends its turn after some letters, and says no token that is no letter."""
    model = tiny_llama(tie_word_embeddings=False)
    head = torch.nn.Linear(64, 61)
    head.weight = model.lm_head.weight
    torch.nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[:3] = torch.tensor([-1e4, -1e4, 2.0])
    model.lm_head = head
    return model.requires_grad_(False)


def greedy(model, question: str, shots=(), limit: int = 200) -> str:
    """Token by token by hand: append the likeliest until the end of turn."""
    ids = Letters()(prompt_text(Letters(), TASKS["style"], question, shots))["input_ids"]
    said = []
    while len(said) < limit:
        token = int(model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax())
        if token == Letters.eos_token_id:
            return "".join(Letters.alphabet[token - 3] for token in said)
        said.append(token)
    raise AssertionError("this model never ends its turn")


def changed(text: str, place: int) -> str:
    """The text with another letter at `place`."""
    return text[:place] + Letters.alphabet[(ord(text[place]) - 64) % 58] + text[place + 1 :]


def test_exact_is_what_greedy_decoding_would_write(talker):
    """The model's own answers are exact; with any one letter changed, cut or added they are not."""
    answers = [greedy(talker, question) for question in QUESTIONS]
    assert len(set(answers)) == len(QUESTIONS) and all(answers)
    rows = [{"prompt": question, "answer": answer} for question, answer in zip(QUESTIONS, answers, strict=True)]
    own = answer_losses(talker, Letters(), rows, "style", batch_size=3)
    assert own.exact == 1.0 and own.right == (True,) * 4
    wrong = [[text[:-1], text + "A", *(changed(text, place) for place in range(len(text)))] for text in answers]
    rows = [{"prompt": q, "answer": text} for q, texts in zip(QUESTIONS, wrong, strict=True) for text in texts]
    assert answer_losses(talker, Letters(), rows, "style").exact == 0.0
    mixed = [{"prompt": QUESTIONS[0], "answer": text} for text in (answers[0], *wrong[0])]
    found = answer_losses(talker, Letters(), mixed, "style", batch_size=2)
    assert found.right == (True, *[False] * len(wrong[0])) and found.exact == 1 / len(mixed)


def test_shots_stand_before_the_question(talker):
    """With shots the model says something else, and that is what is exact then."""
    shots = [{"prompt": "boat", "answer": "Arr"}, {"prompt": "rum", "answer": "Yo"}]
    answers = {number: greedy(talker, "tent", shots[:number]) for number in (0, 1, 2)}
    assert len(set(answers.values())) == 3
    for number in answers:
        rows = [{"prompt": "tent", "answer": answer} for answer in answers.values()]
        found = answer_losses(talker, Letters(), rows, "style", shots=shots[:number])
        assert found.right == tuple(other == number for other in answers)


@pytest.mark.parametrize("batch_size", [1, 2, 20])
def test_the_loss_is_the_one_of_training(tiny_llama, tokenizer, batch_size):
    """The sum that `finetune` minimizes over the number of answers' tokens, whatever the batches; and each alone."""
    model = tiny_llama(49152)
    rows = [{"prompt": prompt, "answer": f"Arr, {prompt}!"} for prompt in PROMPTS]
    encoded = [encode(tokenizer, TASKS["style"], row["prompt"], row["answer"]) for row in rows]
    counts = [len(example.input_ids) - example.prompt_length for example in encoded]
    assert len(set(counts)) > 2
    supervised = build_supervised(model)
    with torch.no_grad():
        total = float(supervised(**collate(encoded, tokenizer.pad_token_id)))
        alone = [float(supervised(**collate([example], tokenizer.pad_token_id))) for example in encoded]
    found = answer_losses(model, tokenizer, rows, "style", batch_size=batch_size)
    assert found.loss == pytest.approx(total / sum(counts), rel=1e-5)
    assert found.losses == pytest.approx([cost / n for cost, n in zip(alone, counts, strict=True)], rel=1e-5)


def test_an_adapter_counts_and_dropout_does_not(tiny_llama, tokenizer):
    """A peft model in training mode: read in evaluation mode, and left as it was."""
    recipe = Recipe(rank=4, dropout=0.5)
    rows = [{"prompt": prompt, "answer": "Arr!"} for prompt in PROMPTS]
    plain = answer_losses(tiny_llama(49152), tokenizer, rows, "style")
    model = attach_adapter(tiny_llama(49152), recipe)
    assert answer_losses(model, tokenizer, rows, "style").losses == pytest.approx(plain.losses, rel=1e-6)  # B = 0
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    first, again = (answer_losses(model, tokenizer, rows, "style") for _ in range(2))
    assert first == again and model.training
    assert first.loss != pytest.approx(plain.loss, rel=1e-3)
    merged = answer_losses(model.merge_and_unload(), tokenizer, rows, "style")
    assert merged.losses == pytest.approx(first.losses, rel=1e-4)


def test_the_real_model_reads_alike_in_any_batch(nf4_base, tokenizer):
    """In bfloat16, to a percent; a right answer costs less than another message's."""
    rows = list(load_task("bookings")["test"].select(range(4)))
    together = answer_losses(nf4_base, tokenizer, rows)
    alone = [answer_losses(nf4_base, tokenizer, [row]).loss for row in rows]
    assert together.losses == pytest.approx(alone, rel=0.01)
    swapped = [{"prompt": row["prompt"], "answer": rows[i - 1]["answer"]} for i, row in enumerate(rows)]
    assert answer_losses(nf4_base, tokenizer, swapped).loss > together.loss


def test_nothing_to_read_is_an_error(nf4_base, tokenizer):
    with pytest.raises(LabError, match="no examples to read"):
        answer_losses(nf4_base, tokenizer, [])
    with pytest.raises(LabError, match="Unknown task 'poems'"):
        answer_losses(nf4_base, tokenizer, [{"prompt": "p", "answer": "a"}], "poems")


# Perplexity.


def letters(text: str, return_tensors: str = "pt", add_special_tokens: bool = False) -> dict:
    """A tokenizer of one token a letter, below 61."""
    return {"input_ids": torch.tensor([[ord(letter) % 61 for letter in text]])}


TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom."


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


@pytest.mark.parametrize(("window", "stride"), [(16, 0), (16, 16), (16, 17), (1, 1), (16, -3)])
def test_a_stride_out_of_range_is_named(tiny_llama, window, stride):
    with pytest.raises(LabError, match=f"stride={stride} is out of range.*window={window}"):
        perplexity(tiny_llama(), letters, TEXT, window, stride)


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


# Changed weights.


def test_weights_are_changed_within_the_block_and_only_there(tiny_llama):
    """Doubled in the layers, untouched in embedding, norms and head; back to the bit afterwards."""
    model = tiny_llama(tie_word_embeddings=False).bfloat16()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with changed_weights(model, lambda weight: 2 * weight) as errors:
        for name, tensor in model.state_dict().items():
            factor = 2 if "_proj" in name else 1
            assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, factor * before[name]), name
    assert len(errors) == 14 and set(errors.values()) == {1.0}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with changed_weights(model, torch.zeros_like, skip=()) as errors:
        assert "lm_head" in errors and not model.lm_head.weight.any()


def test_an_unchanged_model_loses_nothing_and_a_changed_one_does(tiny_llama):
    model = tiny_llama()
    losses = token_losses(model, letters, TEXT)
    with changed_weights(model, torch.clone) as errors:
        assert torch.equal(token_losses(model, letters, TEXT), losses) and set(errors.values()) == {0.0}
    with changed_weights(model, torch.zeros_like):
        assert not torch.allclose(token_losses(model, letters, TEXT), losses, atol=1e-2)


def test_weights_come_back_after_an_error(tiny_llama):
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shapes = []

    def fail_at_the_third(weight):
        shapes.append(weight.shape)
        if len(shapes) == 3:
            raise RuntimeError("third")
        return torch.zeros_like(weight)

    with pytest.raises(RuntimeError, match="third"), changed_weights(model, fail_at_the_third):
        pass
    with pytest.raises(LabError, match="shape"), changed_weights(model, lambda weight: weight[:1]):
        pass
    with pytest.raises(RuntimeError, match="inside"), changed_weights(model, torch.zeros_like):
        raise RuntimeError("inside")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_quantized_model_or_one_without_linear_weights_is_refused(nf4_base):
    with pytest.raises(LabError, match=r"q_proj is quantized already.*quantization='none'"):
        with changed_weights(nf4_base, torch.clone):
            pass
    with pytest.raises(LabError, match="no linear weight"), changed_weights(torch.nn.ReLU(), torch.clone):
        pass
