"""Appendix A: its traps are still in the field's tools, and each check is true on the accident, false on the mend.

Where one of these fails after an update, the tool has changed: the page must change with it.
"""

import copy
import re
import warnings

import nbformat
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import DataCollatorForLanguageModeling

from lab_utils.counts.architectures import ARCHITECTURES
from lab_utils.counts.parameters import lora_parameters
from lab_utils.finetune.answer_loss import build_supervised
from lab_utils.finetune.batches import collate
from lab_utils.finetune.supervision import Encoded
from lab_utils.folders import NOTEBOOKS

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
        mended = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert largest_b(wrong) == 0 and torch.equal(logits(wrong), logits(tiny_llama()))
    assert largest_b(mended) > 0 and torch.equal(logits(mended), logits(right))
    assert not any(p.requires_grad for p in mended.parameters())  # loaded frozen, unless is_trainable=True


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


# The page.


def test_every_exhibit_is_made_recognised_fixed_and_found_in_the_world():
    cells = [cell for cell in nbformat.read(PAGE, as_version=4).cells if "notes" not in cell.metadata.get("tags", [])]
    text = "\n".join(f"```\n{cell.source}\n```" if cell.cell_type == "code" else cell.source for cell in cells)
    parts = re.split(r"(?m)^## (?=\d\. |Diagnosis)", text)
    front, exhibits, rest = parts[0], parts[1:-1], parts[-1]
    assert [one[:3] for one in exhibits] == [f"{number}. " for number in range(1, 10)]
    for one in exhibits:
        for part in ("**The accident", "**Predict.**", "How you recognise", "**The fix", "**In real projects", "(https://"):
            assert part in one, f"{one.splitlines()[0]}: no {part}"
    assert all(f"| {one.splitlines()[0]} |" in front for one in exhibits)  # the table at the top names them
    table = rest.split("## Test yourself")[0]
    assert len(re.findall(r"(?m)^\|", table)) == 2 + len(exhibits)
    assert len(re.findall("<details>", rest)) == len(re.findall("</details>", rest)) == 5
