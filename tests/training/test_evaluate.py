"""evaluate: scores of answers made by hand, decoding against one prompt at a time, perplexity against a slow loop."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from unlike_prompts import PROMPTS

from lab_utils import tasks
from lab_utils.errors import LabError
from lab_utils.evaluate import (
    Scores,
    answer_losses,
    bootstrap_interval,
    generate,
    grade,
    score,
)
from lab_utils.finetune.adapter import attach_adapter
from lab_utils.finetune.answer_loss import build_supervised
from lab_utils.finetune.batches import collate
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.supervision import encode, prompt_text
from lab_utils.tasks.registry import TASKS, load_task

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


@pytest.mark.parametrize(
    ("hits", "settings", "said"),
    [
        ([True], {"resamples": 0}, "resamples=0"),
        ([True], {"resamples": 10**9}, "resamples="),
        ([True], {"resamples": None}, "resamples=None"),
        ([True], {"seed": -1}, "seed=-1"),
        ([True], {"seed": None}, "seed=None"),
        ([float("nan")], {}, "hits="),
        ([True, 2], {}, "hits="),
        ([[True], [False]], {}, "hits="),
        (None, {}, "hits=None"),
        (1, {}, "hits=1"),
        ("yes", {}, "hits='yes'"),
        (["yes"], {}, "hits="),
    ],
)
def test_what_has_no_interval_is_named(hits, settings, said):
    with pytest.raises(LabError, match=f"{said}.*is out of range"):
        bootstrap_interval(hits, **settings)


def test_an_array_of_hits_is_a_list():
    hits = [True, False, True, True]
    assert bootstrap_interval(np.array(hits), np.int64(100)) == bootstrap_interval(hits, 100)


def test_no_share_no_interval():
    with pytest.raises(LabError, match="no examples"):
        bootstrap_interval([])


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
    for outputs in ([], [ANSWER, ANSWER]):
        with pytest.raises(LabError, match=f"1 examples and {len(outputs)} outputs"):
            grade(TASKS["bookings"], [{"prompt": "p", "answer": ANSWER}], outputs)


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ('{"qty":1}', True), ('{ "qty" : 1 }', True), ('{"qty":true}', False), ('{"qty":1.0}', False),
        ('{"qty":"1"}', False), ('{"qty":[1]}', False), ('{"qty":null}', False), ('{"qty":NaN}', False),
        ('{"qty":2,"qty":1}', False), ('{"qty":1,"qty":1}', False), ("[1]", False), ("1", False),
        ("[" * 100_000, False),
        ('{"qty":1e999}', False), ('{"qty":' + "1" * 5000 + "}", False),
    ],
)  # fmt: skip
def test_a_value_is_right_in_type_and_value(output, right):
    scores = grade(TASKS["bookings"], [{"prompt": "p", "answer": '{"qty":1}'}], [output])
    assert scores.exact == scores.fields["qty"] == float(right)


@pytest.mark.parametrize("output", ["", "no JSON", "{}", '{"queue":"a"}', '{"name":"Ann"}', "null", "[]"])
@pytest.mark.parametrize("answer", ['{"name":null,"qty":3}', '{"qty":3}', '{"name":null,"qty":null}'])
def test_what_both_leave_out_is_not_right(output, answer):
    scores = grade(TASKS["bookings"], [{"prompt": "p", "answer": answer}], [output])
    assert set(scores.fields.values()) == {0.0} and scores.exact == 0


TICKET = dataclasses.replace(TASKS["bookings"], system="Ticket to JSON.", fields=("queue", "urgent"))


def test_a_task_with_fields_of_its_own_is_graded_by_them():
    examples = [{"prompt": "p", "answer": '{"queue":"network","urgent":true}'}] * 3
    scores = grade(TICKET, examples, ['{"urgent":true,"queue":"network"}', '{"queue":"network","urgent":1}', "no"])
    assert scores.exact == 1 / 3 and scores.fields == {"queue": 2 / 3, "urgent": 1 / 3}


def test_answers_of_your_own_need_not_have_every_field():
    """`own` has taken them: after the training they are scored, and an answer is right to itself."""
    answers = ['{"queue":"network","room":12}', '{"queue":"door"}', "{}"] * 4
    own = tasks.own([{"prompt": f"p{n}", "answer": one} for n, one in enumerate(answers)], fields=("queue", "note"))
    rows = [row for split in own.splits for row in own[split]]
    scores = grade(own, rows, [row["answer"] for row in rows])
    assert scores.exact == 1 and scores.fields == {"queue": 1, "note": 1}
    assert {one.name: one.value for one in scores.measured.measures[2:]} == {"field queue": 1, "field note": 1}
    other = grade(own, rows, [row["answer"].replace("network", "door").replace("{}", "none") for row in rows])
    assert other.exact == pytest.approx(1 / 3) == other.fields["queue"] and other.fields["note"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Arr, it be late, matey!", "is not a JSON object"), ("", "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ('{"queue":"network","urgent":true}', "has the field 'queue'"), ("{}", "has no field"),
        (ANSWER[:-1] + ',"room":"12"}', "has the field 'room'"), ('{"qty":NaN}', "is not a JSON object"),
        ('{"qty":1,"qty":1}', "is not a JSON object"),
    ],
)  # fmt: skip
def test_answers_of_another_task_are_not_scored_as_bookings(answer, said):
    """Before anything is generated: there is no model here."""
    examples = [{"prompt": "p", "answer": ANSWER}, {"prompt": "p", "answer": answer}]
    for call in (lambda: score(None, None, examples), lambda: grade(TASKS["bookings"], examples, ["", ""])):
        with pytest.raises(LabError, match=rf"example 2: .*{said}.*task='style'.*fields="):
            call()


@pytest.mark.parametrize(
    ("examples", "outputs", "said"),
    [
        ([], [], "no examples"),
        ([{"answer": ANSWER}], [""], "example 1 has no column 'prompt'"),
        ([{"prompt": "p"}], [""], "example 1 has no column 'answer'"),
        ([{"prompt": "p", "answer": None}], [""], "example 1: answer is null"),
        ([{"prompt": "p", "answer": {"name": "Ann"}}], [""], "example 1: answer is {"),
        ([{"prompt": "p", "answer": ANSWER}], [None], "output 1 is a NoneType"),
        ([{"prompt": "p", "answer": ANSWER}] * 2, ["", {"name": "Ann"}], "output 2 is a dict"),
        (["p"], [""], "example 1: expected"),
        (None, [], "Expected rows"),
        ([{"prompt": "p", "answer": ANSWER}], 5, "outputs=5 is out of range: a list of texts"),
        ([{"prompt": "p", "answer": ANSWER}], None, "outputs=None is out of range: a list of texts"),
        ([{"prompt": "p", "answer": ANSWER}], "x", "outputs='x' is out of range: a list of texts"),
        ([{"prompt": "p", "answer": ANSWER}], b"x", "outputs=b'x' is out of range: a list of texts"),
    ],
)
def test_what_cannot_be_graded_is_named(examples, outputs, said):
    with pytest.raises(LabError, match=said):
        grade(TASKS["bookings"], examples, outputs)


@pytest.mark.parametrize("answer", ["", "  ", "\n\u2003"])
def test_an_empty_answer_is_not_scored_as_right(answer):
    with pytest.raises(LabError, match="example 2: the answer is empty"):
        grade("style", [{"prompt": "p", "answer": "Arr, matey!"}, {"prompt": "p", "answer": answer}], ["Arr", ""])


def test_the_name_of_a_column_can_be_printed():
    with pytest.raises(LabError, match=r"it has \\ud83d, answer") as caught:
        grade("style", [{"\ud83d": "p", "answer": "a"}], ["a"])
    str(caught.value).encode()


def test_nothing_to_score_is_an_error(nf4_base, tokenizer):
    with pytest.raises(LabError, match="the split is empty"):
        score(nf4_base, tokenizer, [])
    with pytest.raises(LabError, match="Unknown task 'poems'"):
        score(nf4_base, tokenizer, [{"prompt": "p", "answer": "a"}], task="poems")


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
    """A random model of 61 tokens that ends its turn after some letters, and says no token that is not a letter."""
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


def test_shots_come_before_the_question(talker):
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


def test_a_loss_that_is_not_finite_names_its_example(tiny_llama, tokenizer):
    """One row of the embedding is broken: only the prompt that has this token is lost."""
    model = tiny_llama(49152)
    word = tokenizer(" gong", add_special_tokens=False)["input_ids"]
    model.model.embed_tokens.weight.data[word[0]] = math.nan
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(49152, 64))  # tied no more
    rows = [{"prompt": prompt, "answer": "Arr!"} for prompt in ("a tent", "a gong", "a boat")]
    with pytest.raises(LabError, match=r"example 2 \('a gong'\): the loss of its answer is nan"):
        answer_losses(model, tokenizer, rows, "style")
    assert answer_losses(model, tokenizer, [rows[0], rows[2]], "style").loss == pytest.approx(math.log(49152), rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"instruction": "a", "output": "b"}], "example 1 has no column 'prompt'"),
        ([{"prompt": "a", "answer": 3}], "answer is 3"),
        ([{"prompt": "a", "answer": "\udc00"}], "half a character"),
        (None, "Expected rows"),
    ],
)
def test_rows_that_cannot_be_read_are_named(tiny_llama, tokenizer, rows, said):
    with pytest.raises(LabError, match=said):
        answer_losses(tiny_llama(49152), tokenizer, rows, "style")
