"""supervision: what is read, what is trained on, and in which order."""

import random
from collections import Counter

import pytest
import torch
from unfolded import unfolded

from lab_utils.errors import LabError
from lab_utils.finetune.adapter import attach_adapter
from lab_utils.finetune.answer_loss import answer_logits, build_supervised
from lab_utils.finetune.batches import WINDOW, collate, plan_batches
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.supervision import IGNORED, Encoded, encode, encode_split, prompt_text
from lab_utils.tasks.registry import TASKS, load_task

BOOKINGS = TASKS["bookings"]


# Tokens and labels.


def test_labels_by_hand():
    example = Encoded([11, 12, 13, 21, 22, 2], prompt_length=3)
    assert example.labels() == [-100, -100, -100, 21, 22, 2]
    assert example.labels(supervise_end=False) == [-100, -100, -100, 21, 22, -100]


def test_the_prompt_is_masked_and_the_answer_with_its_end_is_trained(tokenizer):
    example = encode(tokenizer, BOOKINGS, "A drone for Ann, Monday 9am", '{"name":"Ann"}')
    trained = [token for token in example.labels() if token != IGNORED]
    assert tokenizer.decode(trained) == '{"name":"Ann"}<|im_end|>'
    assert tokenizer.decode(example.input_ids[: example.prompt_length]) == prompt_text(
        tokenizer, BOOKINGS, "A drone for Ann, Monday 9am"
    )
    assert trained[-1] == tokenizer.eos_token_id
    without = example.labels(supervise_end=False)
    assert without[:-1] == example.labels()[:-1] and without[-1] == IGNORED


def test_an_answer_that_repeats_the_prompt_is_still_told_apart(tokenizer):
    """Masking by searching the text would fail here."""
    example = encode(tokenizer, BOOKINGS, "say it", "say it")
    trained = [token for token in example.labels() if token != IGNORED]
    assert tokenizer.decode(trained) == "say it<|im_end|>"


def test_the_prompt_is_the_chat_templates_own(tokenizer):
    messages = [{"role": "system", "content": "Booking to JSON."}, {"role": "user", "content": "hi"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    example = encode(tokenizer, BOOKINGS, "hi", "{}")
    assert example.input_ids[: example.prompt_length] == list(ids)
    assert prompt_text(tokenizer, BOOKINGS, "hi").endswith("<|im_start|>assistant\n")


def test_shots_are_turns_of_the_same_conversation(tokenizer):
    shots = [{"prompt": "a gong", "answer": '{"item":"gong"}'}, {"prompt": "a tent", "answer": '{"item":"tent"}'}]
    messages = [{"role": "system", "content": BOOKINGS.system}]
    for shot in shots:
        messages += [{"role": "user", "content": shot["prompt"]}, {"role": "assistant", "content": shot["answer"]}]
    messages.append({"role": "user", "content": "hi"})
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt_text(tokenizer, BOOKINGS, "hi", shots) == text
    assert text.index("a gong") < text.index("a tent") < text.index("hi")
    assert prompt_text(tokenizer, BOOKINGS, "hi", []) == prompt_text(tokenizer, BOOKINGS, "hi")


def test_shots_are_read_and_not_trained_on(tokenizer):
    shots = [{"prompt": "a gong", "answer": '{"item":"gong"}'}]
    example = encode(tokenizer, BOOKINGS, "a tent", '{"item":"tent"}', shots)
    assert tokenizer.decode(example.input_ids[: example.prompt_length]) == prompt_text(
        tokenizer, BOOKINGS, "a tent", shots
    )
    trained = [token for token in example.labels() if token != IGNORED]
    assert tokenizer.decode(trained) == '{"item":"tent"}<|im_end|>'


@pytest.mark.parametrize("name", ["bookings", "style"])
def test_an_example_is_the_chat_templates_whole_conversation(tokenizer, name):
    """Prompt and answer are encoded apart; joined they must be the tokens that the template gives for both at once."""
    task = TASKS[name]
    for row in load_task(name)["test"].select(range(20)):
        messages = [
            {"role": "system", "content": task.system},
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        ours = encode(tokenizer, task, row["prompt"], row["answer"]).input_ids
        assert whole[: len(ours)] == ours
        assert tokenizer.decode(whole[len(ours) :]) == "\n"  # the template ends a turn with a line break


def test_encode_split_leaves_out_what_is_too_long_and_says_so(tokenizer, capsys):
    rows = [{"prompt": "hi", "answer": "{}"}, {"prompt": "hi " * 100, "answer": "{}"}]
    kept = encode_split(tokenizer, BOOKINGS, rows, max_length=64)
    assert kept == [encode(tokenizer, BOOKINGS, "hi", "{}")]
    assert "1 of 2 examples are longer than 64 tokens" in unfolded(capsys.readouterr().out)


def test_max_length_counts_the_whole_example(tokenizer, capsys):
    row = {"prompt": "hi", "answer": "{}"}
    length = len(encode(tokenizer, BOOKINGS, **row).input_ids)
    assert len(encode_split(tokenizer, BOOKINGS, [row], max_length=length)) == 1
    assert capsys.readouterr().out == ""
    with pytest.raises(LabError, match=rf"None of 1 .* max_length={length - 1} .*the shortest has {length}"):
        encode_split(tokenizer, BOOKINGS, [row], max_length=length - 1)


def test_an_empty_split_is_an_error(tokenizer):
    with pytest.raises(LabError, match="None of 0"):
        encode_split(tokenizer, BOOKINGS, [], max_length=64)


# The plan of batches.


def lengths_of(count: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randint(30, 150) for _ in range(count)]


@pytest.mark.parametrize(
    ("examples", "batch_size", "steps"), [(300, 8, 100), (300, 7, 100), (64, 8, 8), (5, 8, 3), (1, 1, 4), (100, 3, 33)]
)
def test_a_plan_is_pure_and_has_the_right_shape(examples, batch_size, steps):
    lengths = lengths_of(examples)
    state = random.getstate()
    plan = plan_batches(lengths, batch_size, steps, seed=3)
    assert random.getstate() == state  # no global randomness is drawn
    assert plan == plan_batches(tuple(lengths), batch_size, steps, seed=3)
    assert [len(batch) for batch in plan] == [batch_size] * steps
    assert {index for batch in plan for index in batch} <= set(range(examples))


def test_another_seed_is_another_order():
    lengths = lengths_of(300)
    assert plan_batches(lengths, 8, 30, seed=0) != plan_batches(lengths, 8, 30, seed=1)


@pytest.mark.parametrize(("examples", "batch_size", "steps"), [(300, 8, 100), (130, 8, 150), (257, 4, 200)])
def test_every_example_is_seen_about_equally_often(examples, batch_size, steps):
    """Whole windows are a prefix of shuffled epochs (counts m or m + 1); a part of one more window adds at most 1."""
    assert examples >= WINDOW * batch_size
    counts = Counter(index for batch in plan_batches(lengths_of(examples), batch_size, steps, 0) for index in batch)
    seen = [counts[index] for index in range(examples)]
    assert max(seen) - min(seen) <= 2


def test_a_full_epoch_is_a_permutation_and_the_next_another():
    examples, batch_size = 4 * WINDOW * 8, 8
    steps = examples // batch_size
    plan = plan_batches(lengths_of(examples), batch_size, 3 * steps, 0)
    epochs = [[index for batch in plan[i * steps : (i + 1) * steps] for index in batch] for i in range(3)]
    assert all(sorted(epoch) == list(range(examples)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def padding(lengths: list[int], plan: list[list[int]]) -> int:
    return sum(max(lengths[i] for i in batch) * len(batch) - sum(lengths[i] for i in batch) for batch in plan)


def test_batches_of_like_length_halve_the_padding_at_least():
    lengths = lengths_of(512)
    order = list(range(512))
    random.Random(1).shuffle(order)
    unsorted_plan = [order[i : i + 8] for i in range(0, 512, 8)]
    assert padding(lengths, plan_batches(lengths, 8, 64, 0)) < 0.5 * padding(lengths, unsorted_plan)


def test_batches_do_not_come_in_order_of_length():
    """Sorted within a window, shuffled again as batches: else the loss would saw with the length."""
    lengths = lengths_of(512)
    longest = [max(lengths[i] for i in batch) for batch in plan_batches(lengths, 8, 64, 0)]
    windows = [longest[i : i + WINDOW] for i in range(0, 64, WINDOW)]
    assert sum(window == sorted(window) for window in windows) <= 1


# Padding.


def test_collate_by_hand():
    batch = collate([Encoded([5, 6, 7, 2], 2), Encoded([8, 2], 1)], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2], [8, 2, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2], [-100, 2, -100, -100]]
    assert {str(tensor.dtype) for tensor in batch.values()} == {"torch.int64"}
    assert collate([Encoded([8, 2, 2], 1)], 2, supervise_end=False)["labels"].tolist() == [[-100, 2, -100]]


def test_padding_with_the_end_token_does_not_hide_the_end(tokenizer):
    """pad = eos here: a mask made by looking for the pad token would drop the end of turn (a classic bug)."""
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    short, long = (encode(tokenizer, BOOKINGS, "hi", text) for text in ("{}", '{"name":"Ann"}'))
    batch = collate([short, long], tokenizer.pad_token_id)
    row = batch["labels"][0]
    assert int((row == tokenizer.eos_token_id).sum()) == 1
    assert int(batch["attention_mask"][0].sum()) == len(short.input_ids)


# The head, where a label is.

BATCH = [Encoded([5, 6, 7, 8, 2], 2), Encoded([9, 2], 1), Encoded([4, 4, 4, 2], 3)]  # 3 + 1 + 1 supervised tokens


@pytest.mark.parametrize("adapted", [False, True])
def test_the_logits_are_the_models_own_one_place_before_each_label(tiny_llama, adapted):
    model = tiny_llama()
    if adapted:
        model = attach_adapter(model, Recipe(rank=4)).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.1)
    batch = collate(BATCH, pad_token_id=2)
    with torch.no_grad():
        logits, targets, owners = answer_logits(model, **batch)
        whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert targets.tolist() == [7, 8, 2, 2, 2] and owners.tolist() == [0, 0, 0, 1, 2]
    torch.testing.assert_close(logits, whole[[0, 0, 0, 1, 2], [1, 2, 3, 0, 2]])


def test_the_loss_to_train_is_their_summed_cross_entropy(tiny_llama):
    """-log softmax by hand, and transformers' own mean over the five tokens."""
    model, batch = tiny_llama(), collate(BATCH, pad_token_id=2)
    with torch.no_grad():
        logits, targets, _ = answer_logits(model, **batch)
        by_hand = sum(float(row.logsumexp(0) - row[target]) for row, target in zip(logits, targets, strict=True))
        assert float(build_supervised(model)(**batch)) == pytest.approx(by_hand, rel=1e-5)
        assert float(model(**batch).loss) == pytest.approx(by_hand / 5, rel=1e-5)
