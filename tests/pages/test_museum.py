"""Appendix A: its traps are still in the field's tools, and each check is true on the accident, false on the cure.

Where one of these fails after an update, the tool has changed: the page must change with it.
"""

import copy
import re
import warnings

import nbformat
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers.processors import TemplateProcessing
from transformers import DataCollatorForLanguageModeling, DataCollatorWithFlattening

from lab_utils.counts.architectures import ARCHITECTURES
from lab_utils.counts.parameters import lora_parameters
from lab_utils.finetune.answer_loss import build_supervised
from lab_utils.finetune.batches import collate
from lab_utils.finetune.supervision import Encoded
from lab_utils.folders import NOTEBOOKS
from lab_utils.notebook.cells import bound_names, used_names

PAGE = NOTEBOOKS / "A_failure_museum.ipynb"
EXAMPLES = [Encoded([5, 6, 7, 8, 9, 2], 3), Encoded([10, 11, 12, 2], 2), Encoded([13, 14, 15, 16, 2], 2)]
END = 2


def adapted(model, targets="all-linear"):
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))


def step(model, optimizer, batch) -> float:
    loss = build_supervised(model)(**batch) / (batch["labels"] >= 0).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def trained(model):
    """The model with an adapter that two steps have moved."""
    model = adapted(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        step(model, optimizer, collate(EXAMPLES, END))
    return model.eval()


def largest_b(model) -> float:
    return max(float(p.detach().abs().max()) for name, p in model.named_parameters() if "lora_B" in name)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits


# 1, 2: labels.


def test_transformers_collator_labels_no_end_where_pad_is_end(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == END
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm=False)([{"input_ids": one.input_ids} for one in EXAMPLES])
    ours = collate(EXAMPLES, END)
    assert int((theirs["labels"] == END).sum()) == 0
    assert int((ours["labels"] == END).sum()) == len(EXAMPLES)


def test_transformers_collator_labels_the_prompt(tokenizer):
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm=False)([{"input_ids": EXAMPLES[0].input_ids}])
    assert theirs["labels"].tolist() == [[5, 6, 7, 8, 9, -100]]
    assert collate(EXAMPLES[:1], END)["labels"].tolist() == [[-100, -100, -100, 8, 9, 2]]


# 3: an adapter that does nothing.


def test_peft_refuses_names_of_which_none_matches_and_takes_any_of_which_one_does(tiny_llama):
    with pytest.raises(ValueError, match="not found"):
        adapted(tiny_llama(), ["query", "value"])
    some = adapted(tiny_llama(), ["q_proj", "value"])
    assert {name.rpartition(".")[2] for name, module in some.named_modules() if hasattr(module, "lora_A")} == {"q_proj"}


def test_an_optimizer_made_before_the_adapter_moves_nothing(tiny_llama):
    model, batch = tiny_llama(), collate(EXAMPLES, END)
    early = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    model = adapted(model)
    losses = [step(model, early, batch) for _ in range(3)]
    assert losses[0] == losses[1] == losses[2] and largest_b(model) == 0
    assert torch.equal(logits(model), logits(tiny_llama()))
    late = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    step(model, late, batch)
    assert largest_b(model) > 0 and not torch.equal(logits(model), logits(tiny_llama()))


def test_loading_onto_a_model_with_an_adapter_loads_nothing_and_only_warns(tiny_llama, tmp_path):
    right = trained(tiny_llama())
    right.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        wrong = PeftModel.from_pretrained(adapted(tiny_llama()), tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")
        cured = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert largest_b(wrong) == 0 and torch.equal(logits(wrong), logits(tiny_llama()))
    assert largest_b(cured) > 0 and torch.equal(logits(cured), logits(right))
    assert not any(p.requires_grad for p in cured.parameters())  # loaded frozen, unless is_trainable=True


def test_an_adapter_switched_off_has_a_b_and_the_bases_logits(tiny_llama):
    model = trained(tiny_llama())
    with model.disable_adapter():
        assert largest_b(model) > 0 and torch.equal(logits(model), logits(tiny_llama()))
    assert not torch.equal(logits(model), logits(tiny_llama()))


# 4: twice.


def test_how_often_the_update_is_in_a_weight(tiny_llama, tmp_path):
    right = trained(tiny_llama())
    right.save_pretrained(tmp_path)
    name = "model.layers.1.self_attn.v_proj"
    delta = right.get_base_model().get_submodule(name).get_delta_weight("default").detach()
    before = tiny_llama().get_submodule(name).weight.detach()
    once = copy.deepcopy(right).merge_and_unload()
    twice = PeftModel.from_pretrained(copy.deepcopy(once), tmp_path).merge_and_unload()

    def times(model) -> float:
        return float(((model.get_submodule(name).weight.detach() - before) * delta).sum() / delta.square().sum())

    assert times(once) == pytest.approx(1, abs=1e-3) and times(twice) == pytest.approx(2, abs=1e-3)
    torch.testing.assert_close(logits(once), logits(right), rtol=1e-4, atol=1e-4)
    assert float((logits(twice) - logits(right)).abs().max()) > 100 * float((logits(once) - logits(right)).abs().max())


# 5: counting.


def test_a_4_bit_weight_counts_bytes_and_knows_its_shape():
    from bitsandbytes.nn import Linear4bit

    weight = Linear4bit(128, 64, bias=False, quant_type="nf4").to("cpu").weight
    assert weight.dtype == torch.uint8 and weight.numel() == 64 * 128 / 2
    assert tuple(weight.quant_state.shape) == (64, 128)


def test_a_state_dict_has_tied_embeddings_twice(tiny_llama):
    model = tiny_llama()
    twice = sum(tensor.numel() for tensor in model.state_dict().values())
    assert twice - sum(p.numel() for p in model.parameters()) == model.lm_head.weight.numel() > 0


def test_the_colleagues_count_of_question_a():
    """Llama-2-7B: the linear layers halved, embedding and head not; the adapter's share nearly doubles."""
    model = ARCHITECTURES["Llama-2-7B"]
    packed = sum(model.copies(name) * one.out_features * one.in_features for name, one in model.linears().items())
    counted = model.total_parameters() - packed / 2
    assert round(counted / 1e9, 1) == 3.5
    shares = [lora_parameters(model, 8) / total for total in (counted, model.total_parameters())]
    assert 1.8 < shares[0] / shares[1] < 2


# 6: float16.


def test_float16_loses_what_bfloat16_keeps_and_a_scale_brings_it_back():
    small = torch.tensor([1e-8, 2e-8, -2e-8])
    assert not bool(small.half().any()) and bool(small.bfloat16().all())
    torch.testing.assert_close((small * 2.0**16).half().float() / 2.0**16, small, rtol=1e-3, atol=0)


def test_a_grad_scaler_skips_the_step_and_halves_the_scale():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    scaler.scale((weight.half() * 8).sum().float()).backward()  # 8 · 2²⁴ is no float16
    assert not bool(weight.grad.isfinite().all())
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(weight.detach(), torch.ones(2)) and scaler.get_scale() == 2.0**23


# 9: the same gradient from smaller batches.


@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulation_and_checkpointing_leave_the_gradient_as_it_is(tiny_llama, checkpointing):
    model = adapted(tiny_llama())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))

    def gradient(batches):
        model.zero_grad()
        labelled = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
        for batch in batches:
            (build_supervised(model)(**batch) / labelled).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    at_once = gradient([collate(EXAMPLES, END)])
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(gradient([collate([one], END) for one in EXAMPLES]), at_once, rtol=1e-3, atol=1e-5)


# 10: the ids that reach the model.


def test_bos_comes_twice_where_template_and_tokenizer_both_write_it(tokenizer):
    doubling, bos = copy.deepcopy(tokenizer), tokenizer.bos_token
    doubling.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    right = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer(text)["input_ids"] == right and right[:2].count(tokenizer.bos_token_id) == 1
    assert doubling(text)["input_ids"] == [tokenizer.bos_token_id, *right]
    assert doubling(text, add_special_tokens=False)["input_ids"] == right
    assert doubling.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == right


def test_the_template_puts_in_a_system_message_of_its_own(tokenizer):
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text.startswith("<|im_start|>system\n") and "SmolLM" in text


# 11: packing.


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_positions_part_packed_examples_unless_a_mask_or_a_cache_comes_along(tiny_llama, attention):
    model = tiny_llama(attn_implementation=attention)

    def second(first: list[int], mask: bool = False, **cache) -> torch.Tensor:
        pack = [{"input_ids": first, "labels": first}, {"input_ids": EXAMPLES[0].input_ids, "labels": [1] * 6}]
        packed = DataCollatorWithFlattening()(pack)
        given = {"attention_mask": torch.ones_like(packed["input_ids"])} if mask else {}
        with torch.no_grad():
            read = model(input_ids=packed["input_ids"], position_ids=packed["position_ids"], **given, **cache)
        return read.logits[0, -6:]

    with torch.no_grad():
        alone = model(input_ids=torch.tensor([EXAMPLES[0].input_ids])).logits[0]
    for first in (EXAMPLES[1].input_ids, EXAMPLES[2].input_ids):
        torch.testing.assert_close(second(first, use_cache=False), alone, rtol=1e-4, atol=1e-4)
        assert float((second(first, mask=True, use_cache=False) - alone).abs().max()) > 0.01
        assert float((second(first) - alone).abs().max()) > 0.01  # the cache is on by itself


# 12: experts in one tensor.


PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}


def tiny_moe(kind: str):
    """A random mixture of experts of one layer, 4 experts of which 2 are read."""
    torch.manual_seed(0)
    own = {
        "GptOss": {"num_local_experts": 4, "head_dim": 8, "rope_parameters": PLAIN_ROPE},
        "Mixtral": {"num_local_experts": 4}, "Qwen3Moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_experts_per_tok=2, pad_token_id=0, eos_token_id=0, **own[kind],
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForCausalLM")(config)


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys")
@pytest.mark.parametrize("kind, names, tensors", [
    ("GptOss", "all-linear", 0), ("GptOss", SEVEN, 0),
    ("Mixtral", "all-linear", 2), ("Mixtral", SEVEN, 0), ("Qwen3Moe", SEVEN, 2),
])  # fmt: skip
def test_which_names_reach_the_experts(kind, names, tensors):
    model = get_peft_model(tiny_moe(kind), LoraConfig(r=2, target_modules=names))
    assert sum(p.requires_grad and ".experts." in name for name, p in model.named_parameters()) == 2 * tensors


def test_target_parameters_move_the_experts():
    fused = ["experts.gate_up_proj", "experts.down_proj"]
    model = get_peft_model(tiny_moe("GptOss"), LoraConfig(r=2, target_modules="all-linear", target_parameters=fused))
    model(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.square().mean().backward()
    moved = {name: p.grad for name, p in model.named_parameters() if ".experts." in name and "lora_B" in name}
    assert len(moved) == 2 and all(float(gradient.abs().max()) > 0 for gradient in moved.values())


# 13: new tokens.


def enlarged(build, **config):
    """A model with tokens 61 and 62 added, and an adapter that three steps on them have trained."""
    model = build()
    model.resize_token_embeddings(63)
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **config))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        step(model, optimizer, collate([Encoded([5, 6, 7, 61, 9, 62], 3), Encoded([10, 11, 61, 62], 2)], END))
    return model.eval()


def test_no_layer_can_tell_two_new_tokens_apart_and_trained_rows_can(tiny_llama):
    twins = logits(enlarged(tiny_llama))[..., 61:]
    torch.testing.assert_close(twins[..., 0], twins[..., 1], rtol=0, atol=1e-3)
    parted = logits(enlarged(tiny_llama, trainable_token_indices=[61, 62]))[..., 61:]
    assert float((parted[..., 0] - parted[..., 1]).abs().max()) > 0.01


ROWS, NO_EMBEDDING = {"trainable_token_indices": [61, 62]}, {"save_embedding_layers": False}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`")
@pytest.mark.parametrize("from_folder, config, saved, fails", [
    (True, {}, {}, "size mismatch"), (True, {}, NO_EMBEDDING, None), (False, {}, {}, None),
    (True, ROWS, {}, "out of bounds"), (True, ROWS, NO_EMBEDDING, "out of bounds"),
])  # fmt: skip
def test_what_an_adapter_with_new_tokens_does_on_the_old_vocabulary(
    tiny_llama, tmp_path, from_folder, config, saved, fails
):
    """peft adds the embedding by default, but only where the base has a config.json that it can read."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tiny_llama().save_pretrained(base)

    def build():
        return transformers.LlamaForCausalLM.from_pretrained(base) if from_folder else tiny_llama()

    enlarged(build, **config).save_pretrained(adapter, **saved)
    if fails:
        with pytest.raises((RuntimeError, IndexError), match=fails):
            PeftModel.from_pretrained(build(), adapter)
    else:  # it loads, and fails at the first new token
        loaded = PeftModel.from_pretrained(build(), adapter)
        with pytest.raises(IndexError):
            loaded(input_ids=torch.tensor([[1, 61]]))


# The page.


def test_every_exhibit_is_made_recognised_fixed_and_found_in_the_world():
    cells = [cell for cell in nbformat.read(PAGE, as_version=4).cells if "notes" not in cell.metadata.get("tags", [])]
    text = "\n".join(f"```\n{cell.source}\n```" if cell.cell_type == "code" else cell.source for cell in cells)
    parts = re.split(r"(?m)^## (?=\d+\. |Diagnosis)", text)
    front, exhibits, rest = parts[0], parts[1:-1], parts[-1]
    assert [one.partition(" ")[0] for one in exhibits] == [f"{number}." for number in range(1, 14)]
    for one in exhibits:
        for part in ("**The accident", "**Predict.**", "How you recognise", "**The fix", "**In real projects", "(https://"):
            assert part in one, f"{one.splitlines()[0]}: no {part}"
    assert all(f"| {one.splitlines()[0]} |" in front for one in exhibits)  # the table at the top names them
    table = rest.split("## Test yourself")[0]
    assert len(re.findall(r"(?m)^\|", table)) == 2 + len(exhibits)
    assert len(re.findall("<details>", rest)) == len(re.findall("</details>", rest)) == 5


def test_an_exhibit_runs_alone_after_the_rooms_but_for_two_that_continue_another():
    """What a cell uses is made before the first exhibit, or in its own; exhibit 2 continues 1, and 7 continues 4."""
    made, exhibit, needs = {}, 0, set()
    for cell in nbformat.read(PAGE, as_version=4).cells:
        if cell.cell_type == "markdown" and (opened := re.search(r"(?m)^## (\d+)?", cell.source)):
            exhibit = int(opened[1] or 0)
        elif cell.cell_type == "code":
            others = {made.get(name, 0) for name in used_names(cell.source)} - {0, exhibit}
            needs |= {(exhibit, other) for other in others}
            made |= {name: exhibit for name in bound_names(cell.source) if name not in made}
    assert needs == {(2, 1), (7, 4)}
