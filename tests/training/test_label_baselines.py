"""Labels without training the model: from words, from likelihoods, from the frozen model's states."""

import copy
import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from tiny_runs import save_tiny

from lab_utils import report_card, scores, tasks
from lab_utils.errors import LabError
from lab_utils.evaluate import answer_losses
from lab_utils.finetune import Recipe, attach_adapter, encode
from lab_utils.finetune.supervision import prompt_ids
from lab_utils.models import load_tokenizer
from lab_utils.report_card.probing import POOLINGS, depths_to_try, fitted, hidden_states

SAID = {
    "late": ("my order is late", "still no parcel", "where is it"), "bill": ("the bill is wrong", "send a receipt"),
    "lost password": ("I cannot log in", "the code never comes"),
}  # fmt: skip
LATE = {"prompt": "late", "answer": "late"}


@pytest.fixture(scope="module")
def own():
    rows = [{"text": f"{text} {n}", "label": label} for n in range(8) for label, said in SAID.items() for text in said]
    return tasks.own(rows, prompt="text", answer="label", system="Sort: late, bill, lost password.", name="labels")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), load_tokenizer("smollm2-135m")


@pytest.mark.parametrize("shots", [0, 2])
def test_a_labels_likelihood_is_that_of_reading_it_whole(own, tiny, shots):
    """Against one forward pass per label without any cache; labels have two tokens and three, prompts any length."""
    rows = [*list(own["test"])[:3], {"prompt": "a longer message, in which much is said", "answer": "late"}]
    before = scores.few_shots(own, shots)
    found = report_card.label_likelihoods(*tiny, own, rows, shots=before, batch_size=3, end=True)
    for column, label in enumerate(own.labels):
        read = answer_losses(*tiny, [{**row, "answer": label} for row in rows], own, shots=before)
        expected = [-loss * tokens for loss, tokens in zip(read.losses, read.tokens, strict=True)]
        assert found[:, column].tolist() == pytest.approx(expected, abs=1e-3)


def test_without_the_end_of_turn_a_labels_tokens_are_left(own, tiny):
    model, tokenizer = tiny
    found = report_card.label_likelihoods(model, tokenizer, own, [LATE])[0]
    for value, label in zip(found.tolist(), own.labels, strict=True):
        ids = encode(tokenizer, own, "late", label).input_ids
        asked, count = prompt_ids(tokenizer, own, "late"), len(ids) - 1
        with torch.no_grad():
            log = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = sum(log[place - 1, ids[place]].item() for place in range(len(asked), count))
        assert value == pytest.approx(expected, abs=1e-3)


def test_one_message_alone_and_messages_that_are_equal(own, tiny):
    one = report_card.label_likelihoods(*tiny, own, [LATE])
    twice = report_card.label_likelihoods(*tiny, own, [LATE] * 2)
    assert one.shape == (1, 3) and torch.allclose(twice, one.expand(2, 3), atol=1e-4)


def test_what_a_probe_reads_is_the_states_of_each_prompt_alone(own, tiny):
    """The last token's and the mean of all tokens', the padding of shorter prompts left out."""
    model, tokenizer = tiny
    rows = [*list(own["test"])[:3], {"prompt": "a longer message, in which much is said", "answer": "late"}]
    found = torch.tensor(hidden_states(model, tokenizer, own, rows, [0, 2], batch_size=3))
    assert found.shape == (4, 2, 2, 64)
    for row, states in zip(rows, found, strict=True):
        ids = torch.tensor([prompt_ids(tokenizer, own, row["prompt"])])
        with torch.no_grad():
            every = model(ids, output_hidden_states=True).hidden_states
        for place, depth in enumerate((0, 2)):
            expected = torch.stack([every[depth][0, -1], every[depth][0].mean(0)])
            assert torch.allclose(states[place], expected, atol=1e-4)


def test_six_depths_are_spread_over_a_model_and_the_last_block_is_one_of_them():
    assert depths_to_try(30) == [5, 10, 15, 20, 25, 30] and depths_to_try(32) == [6, 11, 16, 22, 27, 32]
    assert depths_to_try(2) == [1, 2] and depths_to_try(1) == [1]


def test_a_probe_reads_where_cross_validation_is_best(own, tiny):
    """A last norm that makes everything zero leaves nothing to learn after the last block: the probe looks before."""
    blind, tokenizer = copy.deepcopy(tiny[0]), tiny[1]
    with torch.no_grad():
        blind.model.norm.weight.zero_()
    rows, test = list(own["train"])[:30], list(own["test"])
    found = report_card.probe(blind, tokenizer, own, rows)
    most = max(Counter(row["answer"] for row in rows).values()) / len(rows)
    assert list(found.tried) == [(depth, pooling) for depth in (1, 2) for pooling in POOLINGS]
    assert [found.tried[2, pooling] for pooling in POOLINGS] == pytest.approx([most] * 2, abs=0.02)
    assert found.depth == 1 and found.accuracy == max(found.tried.values()) == found.tried[1, found.pooling] > most
    assert sum(label == row["answer"] for label, row in zip(found(test), test, strict=True)) / len(test) > most
    assert str(found).startswith(f"probe of the states after block 1, {found.pooling}: right in {found.accuracy:.1%}")


def test_a_probe_leaves_the_adapter_out_and_the_model_alone(own, tiny):
    model, tokenizer = tiny
    rows, recipe = list(own["train"])[:24], Recipe(model="smollm2-135m", rank=4)
    plain = report_card.probe(model, tokenizer, own, rows)(rows)
    adapted = attach_adapter(copy.deepcopy(model), recipe)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    before = {name: one.clone() for name, one in adapted.named_parameters()}
    assert report_card.probe(adapted, tokenizer, own, rows)(rows) == plain
    assert all(torch.equal(before[name], one) for name, one in adapted.named_parameters())
    right = sum(label == row["answer"] for label, row in zip(plain, rows, strict=True))
    assert right / len(rows) > 0.8  # what it learned from
    assert report_card.probe(model, tokenizer, own, rows)([]) == []


def test_classifiers_are_fitted_on_one_thread_and_numpy_has_its_threads_back(own, monkeypatch):
    from sklearn.linear_model import LogisticRegression

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen, fit, states = [], LogisticRegression.fit, np.eye(12, dtype=np.float32)
    monkeypatch.setattr(LogisticRegression, "fit", lambda *given: (seen.append(threads()), fit(*given))[1])
    with threadpool_limits(2, user_api="blas"):
        scores.word_classifier(own)
        fitted(states, ["late", "bill"] * 6, 2)
        assert threads() == {2} and seen == [{1}] * len(seen) and len(seen) > 2


def test_words_find_their_label_and_the_nearest_of_a_training_row_is_itself(own):
    train, test = list(own["train"]), list(own["test"])
    for answerer in (scores.nearest(own), scores.word_classifier(own)):
        assert answerer(train) == [row["answer"] for row in train]
        assert answerer(test) == [row["answer"] for row in test] and answerer([]) == []
    nearest = scores.nearest(own)
    assert nearest([{"prompt": "a receipt, a RECEIPT"}, {"prompt": "which code"}]) == ["bill", "lost password"]


@pytest.mark.parametrize("ask", [
    lambda text, chat, tiny: scores.word_classifier(text), lambda text, chat, tiny: scores.nearest(chat),
    lambda text, chat, tiny: report_card.label_likelihoods(*tiny, text, list(text["test"])),
    lambda text, chat, tiny: report_card.probe(*tiny, text, list(text["train"])),
])  # fmt: skip
def test_what_is_no_label_is_refused(ask, tiny):
    text = tasks.own([{"prompt": f"say {n}", "answer": f"{n} and all that follows it"} for n in range(30)])
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    chat = tasks.own([{"messages": turns}] * 10, messages="messages")
    with pytest.raises(LabError, match=r"not labels|conversations"):
        ask(text, chat, tiny)


def test_too_little_to_learn_from_is_refused(own, tiny):
    rows = list(own["train"])
    few = [next(row for row in rows if row["answer"] == label) for label in own.labels]
    with pytest.raises(LabError, match="3 examples are too few"):
        report_card.probe(*tiny, own, few)
    with pytest.raises(LabError, match="no examples"):
        report_card.label_likelihoods(*tiny, own, [])
    late = dataclasses.replace(own, data={"train": own["train"].filter(lambda row: row["answer"] == "late")})
    with pytest.raises(LabError, match="one label"):
        scores.word_classifier(late)
