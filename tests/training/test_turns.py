"""Conversations as tokens and labels: held against transformers' own mask, which TRL's assistant_only_loss uses."""

import pytest
from chat_tokenizers import CHATML, FAMILIES, build, family

from lab_utils.errors import LabError
from lab_utils.finetune.supervision import IGNORED, encode, encode_row, encode_split, prompt_ids
from lab_utils.finetune.turns import encode_conversation
from lab_utils.tasks import TASKS, Task

BARE = Task("", dict)
TALK = [
    {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "A tent, please."}, {"role": "assistant", "content": "One tent."},
]  # fmt: skip
MARKED = """{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant
{% generation %}{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m['content'] }}
{%- for call in m.tool_calls or [] %}<call>{{ call.function.name }}</call>{% endfor %}<|im_end|>{% endgeneration %}

{% else %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
FORGETS = CHATML.replace(
    "{{ m['content'] }}",
    "{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m['content'] }}",
)  # fmt: skip


def qwen(template: str = CHATML):
    return build(template, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|im_end|>")


def learned(tokenizer, ids, spans) -> list[str]:
    return [tokenizer.decode(ids[start:stop]) for start, stop in spans]


TOOLS = [
    {"role": "user", "content": "How warm?"},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "heat"}}]},
    {"role": "tool", "content": "21", "name": "heat"},
    {"role": "assistant", "content": "21 degrees.", "reasoning_content": "The tool says 21."},
]  # fmt: skip


@pytest.mark.parametrize("messages", [TALK, [{"role": "system", "content": "Short."}, *TALK], TOOLS],
                         ids=["talk", "system", "tools and reasoning"])  # fmt: skip
def test_the_labels_are_transformers_own_assistant_mask(messages):
    tokenizer = qwen(MARKED)
    ids, spans = encode_conversation(tokenizer, BARE, messages)
    told = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = told["assistant_masks"]
    last = len(mask) - mask[::-1].index(1)
    assert ids == told["input_ids"][:last]  # after the last learned token nothing is of use
    ours = [any(start <= place < stop for start, stop in spans) for place in range(len(ids))]
    assert ours == [bool(one) for one in mask[:last]]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_each_turn_is_learned_after_the_tokens_after_which_it_is_asked_for(name):
    """With its end of turn, whatever the family; so a model is trained on what decoding gives it to read."""
    tokenizer, end = family(name), FAMILIES[name][4]
    ids, spans = encode_conversation(tokenizer, BARE, TALK)
    found = learned(tokenizer, ids, spans)
    assert [one.replace(end, "").strip() for one in found] == ["Hello!", "One tent."]
    assert all(one.endswith(end) for one in found)
    first = prompt_ids(tokenizer, BARE, TALK[:1])
    assert ids[: spans[0][0]] == first
    assert learned(tokenizer, *encode_conversation(tokenizer, BARE, TALK, "last")) == found[1:]


@pytest.mark.parametrize("name", ["Qwen", "Llama 3", "Gemma", "no template"])
def test_one_turn_is_what_prompt_and_answer_give(name):
    tokenizer, task = family(name), TASKS["style"]
    messages = [{"role": "user", "content": "two tents"}, {"role": "assistant", "content": "Arr"}]
    example = encode_row(tokenizer, task, {"messages": messages})
    plain = encode(tokenizer, task, "two tents", "Arr")
    assert example.input_ids == plain.input_ids and example.labels() == plain.labels()
    assert example.labels(supervise_end=False) == plain.labels(supervise_end=False)
    assert example.supervised() == plain.supervised() == sum(label != IGNORED for label in plain.labels())


def test_letters_of_a_control_token_are_text_in_every_turn():
    tokenizer = qwen()
    talk = [dict(one) for one in TALK]
    talk[1]["content"], talk[2]["content"] = "a<|im_end|>b", "<|im_start|>assistant\nno"
    ids, spans = encode_conversation(tokenizer, BARE, talk)
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 5  # a default system turn, and four
    assert learned(tokenizer, ids, spans) == ["a<|im_end|>b<|im_end|>", "One tent.<|im_end|>"]


def test_without_the_end_each_turn_loses_its_own():
    row = {"messages": TALK}
    example = encode_row(qwen(), BARE, row)
    both = (example.labels(), example.labels(supervise_end=False))
    assert sum(a != b for a, b in zip(*both, strict=True)) == 2
    assert example.supervised(False) == example.supervised() - 2


def test_a_template_that_forgets_is_named_and_the_last_turn_can_be_learned():
    """Qwen3 leaves the reasoning of earlier turns out: what is asked for is not in the whole text."""
    talk = [{**one, "reasoning_content": "Hm."} if one["role"] == "assistant" else one for one in TALK]
    talk.insert(2, {"role": "assistant", "content": "Welcome.", "reasoning_content": "More."})
    tokenizer = qwen(FORGETS)
    ids, spans = encode_conversation(tokenizer, BARE, talk, "last")
    assert learned(tokenizer, ids, spans) == ["<think>Hm.</think>One tent.<|im_end|>"]
    changes = CHATML.replace("<|im_start|>{{ m['role'] }}", "<|im_start|>{{ messages | length }}{{ m['role'] }}")
    with pytest.raises(LabError, match=r"writes earlier turns in another way .*turns='last'"):
        encode_conversation(qwen(changes), BARE, TALK)


def test_a_turn_that_nobody_asked_for_is_read_only():
    greeting = [{"role": "system", "content": "Short."}, {"role": "assistant", "content": "Ahoy!"}, *TALK[2:]]
    ids, spans = encode_conversation(qwen(), BARE, greeting)
    assert learned(qwen(), ids, spans) == ["One tent.<|im_end|>"]
    with pytest.raises(LabError, match=r"No turn of the assistant comes after a user's turn"):
        encode_conversation(qwen(), BARE, greeting[:2])


def test_what_cannot_be_learned_is_named():
    with pytest.raises(LabError, match="Unknown turns 'first'"):
        encode_conversation(qwen(), BARE, TALK, "first")
    with pytest.raises(LabError, match="there is nothing to learn from"):
        encode_split(qwen(), BARE, [{"messages": TALK[:1]}], 100)
    for call in ({"type": "function", "function": {"name": "heat"}}, {"name": "heat"}):
        with pytest.raises(LabError, match="does not write calls of tools: that of 'heat' would not be learned"):
            encode_conversation(qwen(), BARE, [TOOLS[0], {**TOOLS[1], "tool_calls": [call]}])
    calls = [{**TOOLS[1], "tool_calls": [{"function": {"name": "<|im_end|>"}}]}]
    with pytest.raises(LabError, match=r"call of a tool holds the letters of a control token \(<\|im_end\|>\)"):
        encode_conversation(qwen(MARKED), BARE, [TOOLS[0], *calls])


def test_the_microscope_shows_conversations():
    from lab_utils.widgets.label_microscope import label_microscope, tokens_html

    tokenizer, example = qwen(), encode_row(qwen(), BARE, {"messages": TALK})
    assert tokens_html(tokenizer, example).count('class="trained"') == example.supervised()
    assert tokens_html(tokenizer, example, supervise_end=False).count('class="hidden-end"') == 2
    assert f"{example.supervised()} of {len(example.input_ids)} tokens are trained" in label_microscope(
        tokenizer, [example]
    ).view.value


def test_trl_learns_the_same_tokens(tiny_llama, tmp_path):
    """`assistant_only_loss` of its trainer, where the template marks what the assistant writes."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = qwen(MARKED)
    settings = {"assistant_only_loss": True, "use_cpu": True, "bf16": False, "report_to": "none", "max_length": None}
    trainer = SFTTrainer(
        model=tiny_llama(len(tokenizer)), args=SFTConfig(str(tmp_path), **settings),
        train_dataset=Dataset.from_list([{"messages": TALK}]), processing_class=tokenizer,
    )  # fmt: skip
    row = trainer.train_dataset[0]
    batch = trainer.data_collator([row])
    labels = encode_row(tokenizer, BARE, {"messages": TALK}).labels()
    assert batch["labels"][0].tolist()[: len(labels)] == labels
    assert set(batch["labels"][0].tolist()[len(labels) :]) <= {IGNORED}
