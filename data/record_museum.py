"""Record the cases of the museum's test: one run without a fault and nine accidents, each with the same measurements.

    python data/record_museum.py                  # about two minutes on one idle core
    python data/record_museum.py --output DIR

writes `data/museum/cases.json`, which `lab_utils.recorded.museum.load_cases` reads; data/README.md says what it holds.
Training cases train the embedded model's first two layers for 12 steps; serving cases use the adapter `bookings`.
"""

import argparse
import copy
import json
import statistics
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import DataCollatorWithFlattening

from lab_utils import finetune, merging
from lab_utils.counts import ARCHITECTURES
from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import user_path
from lab_utils.models import load_base
from lab_utils.quiet import quiet
from lab_utils.recorded.museum import CASES, FILE, MEASUREMENTS, MUSEUM, SERVED_RIGHTLY
from lab_utils.recorded.provenance import machine
from lab_utils.serving import recorded_adapter
from lab_utils.tasks import TASKS, load_task

STEPS, LAYER = 12, "model.layers.1.self_attn.v_proj"


class Bench:
    """The models and examples that all cases share."""

    def __init__(self):
        self.base, self.tokenizer = load_base("smollm2-135m", "nf4", verbose=False)
        self.plain = merging.dequantized_copy(self.base)
        self.stump = copy.deepcopy(self.plain).float()
        self.stump.model.layers, self.stump.config.num_hidden_layers = self.stump.model.layers[:2], 2
        self.task, self.folder = TASKS["bookings"], str(recorded_adapter("bookings"))
        rows = load_task("bookings")["train"].select(range(2 * STEPS))
        self.examples = finetune.encode_split(self.tokenizer, self.task, rows, 256)
        self.message, self.prompt = rows[0]["prompt"], self.examples[0].input_ids[: self.examples[0].prompt_length]

    def batches(self, **how) -> list[dict]:
        """The examples in pairs."""
        pairs = [self.examples[i : i + 2] for i in range(0, len(self.examples), 2)]
        return [finetune.collate(pair, self.tokenizer.pad_token_id, **how) for pair in pairs]

    def joined(self) -> list[dict]:
        """The examples in pairs, joined to one row under a mask of ones."""
        rows = [self.packed(self.examples[i : i + 2]) for i in range(0, len(self.examples), 2)]
        return [{"input_ids": one["input_ids"], "labels": one["labels"],
                 "attention_mask": torch.ones_like(one["input_ids"])} for one in rows]  # fmt: skip

    def packed(self, pair) -> dict:
        return DataCollatorWithFlattening()([{"input_ids": one.input_ids, "labels": one.labels()} for one in pair])

    def trained(self, batches, rate: float = 5e-3, early: bool = False):
        """(model, losses, gradient norms) of a short training; early: the optimizer is older than the adapter."""
        torch.manual_seed(0)
        bare = finetune.twin(self.stump)
        older = list(bare.parameters())
        model = get_peft_model(
            bare, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        adapter = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(older if early else adapter, rate, weight_decay=0)
        loss_of, losses, norms = finetune.build_supervised(model.train()), [], []
        for batch in batches:
            loss = loss_of(**batch) / (batch["labels"] >= 0).sum()
            model.zero_grad()
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(adapter, float("inf"))))
            optimizer.step()
            losses.append(loss.item())
        return model.eval(), losses, norms

    def logits(self, model) -> torch.Tensor:
        """The model's logits behind the prompt of the first example, in float32."""
        with torch.no_grad():
            return model(input_ids=torch.tensor([self.prompt])).logits[0, -1].float()

    def neighbour(self, model, borders: bool) -> float:
        """How far the second example's loss moves when the first is another, in nats per token."""
        costs = []
        for first in self.examples[1:3]:
            packed = self.packed([first, self.examples[0]])
            given = {"position_ids": packed["position_ids"]} if borders else {}
            with torch.no_grad():
                logits = model(input_ids=packed["input_ids"], use_cache=False, **given).logits[0, :-1].float()
            answer = len(self.examples[0].input_ids) - self.examples[0].prompt_length
            costs.append(float(torch.nn.functional.cross_entropy(logits[-answer:], packed["labels"][0, -answer:])))
        return abs(costs[0] - costs[1])


def times_in(weight, before, delta) -> float:
    """How many times an update is in a weight."""
    return float(((weight.float() - before.float()) * delta.float()).sum() / delta.float().square().sum())


def layer_of(model, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(the weight of a layer under an adapter, its update)"""
    layer = model.get_base_model().get_submodule(name)
    return layer.base_layer.weight.detach(), layer.get_delta_weight("default").detach()


def readings(bench: Bench, model, batches, *, served, times, ids, borders=True, norms=None, usual=None, count=1.0):
    """Every measurement of one case, as text, in the order of MEASUREMENTS."""
    first = batches[0]
    labelled, read = int((first["labels"] >= 0).sum()), int(first["attention_mask"].sum())
    ends = int((first["labels"] == bench.tokenizer.eos_token_id).sum())
    place = next((n for n, pair in enumerate(zip(ids, bench.prompt, strict=False)) if pair[0] != pair[1]), None)
    largest = max(float(p.detach().abs().max()) for name, p in model.named_parameters() if "lora_B" in name)
    off = float((bench.logits(served) - bench.logits(model)).abs().max())
    found = (
        f"{ends} for 2 answers", f"{labelled} of {read} tokens", f"{largest:.1e}",
        "not logged" if norms is None else f"{max(norms) / usual:.1f} times the usual",
        f"{bench.neighbour(model, borders):.3f} nats", f"{off:.2f}", f"{times:.2f} times",
        "the same" if place is None and len(ids) == len(bench.prompt) else f"other from place {place} on",
        f"{count:.0%} of the shapes'",
    )  # fmt: skip
    return dict(zip(MEASUREMENTS, found, strict=True))


def training_cases(bench: Bench) -> dict[str, dict]:
    """What was trained wrongly, and the run without a fault; each is merged and served rightly."""
    found, usual, alike = {}, 1.0, bench.batches()
    everything = [one | {"labels": torch.where(one["attention_mask"].bool(), one["input_ids"], -100)} for one in alike]
    runs = {
        "nothing": (alike, {}), "never stops": (bench.batches(supervise_end=False), {}),
        "prompt in the loss": (everything, {}), "does nothing": (alike, {"early": True}),
        "learning rate": (alike, {"rate": 5e-2}), "packing": (bench.joined(), {}),
    }  # fmt: skip
    for name, (batches, how) in runs.items():
        model, losses, norms = bench.trained(batches, **how)
        usual = statistics.median(norms[1:5]) if name == "nothing" else usual
        weight, delta = layer_of(model, LAYER)
        merged = copy.deepcopy(model).merge_and_unload()
        times = times_in(merged.get_submodule(LAYER).weight.detach(), weight, delta) if delta.any() else 0.0
        found[name] = {"first_loss": round(losses[0], 4), "last_loss": round(losses[-1], 4)} | {"readings": readings(
            bench, model, batches, served=merged, times=times, ids=bench.prompt, borders=name != "packing",
            norms=norms, usual=usual,
        )}  # fmt: skip
    return found


def serving_cases(bench: Bench) -> dict[str, dict]:
    """The recorded adapter, served wrongly or counted wrongly."""
    with quiet():
        model = PeftModel.from_pretrained(finetune.twin(bench.plain), bench.folder).eval()
        once = merging.into_dequantized(model)
        twice = PeftModel.from_pretrained(finetune.twin(once), bench.folder).eval()
        packed = PeftModel.from_pretrained(finetune.twin(bench.base), bench.folder).eval()
        forgot = merging.into_four_bits(packed)
    before, delta = layer_of(model, LAYER)
    again, more = layer_of(twice, LAYER)
    right = times_in(once.get_submodule(LAYER).weight.detach(), before, delta)
    numel = sum(p.numel() for p in bench.base.parameters()) / ARCHITECTURES["SmolLM2-135M"].total_parameters()
    turn = [{"role": "user", "content": bench.message}]
    bare = bench.tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    shared = {"served": once, "times": right, "ids": bench.prompt}
    cases = {
        SERVED_RIGHTLY: shared,
        "twice": shared | {"served": twice, "times": times_in(again + more, before, delta)},
        "half-counted": shared | {"count": numel},
        "merge": shared | {"served": forgot, "times": merging.survival(packed, LAYER).kept},
        "template": shared | {"ids": bare},
    }
    return {name: {"readings": readings(bench, model, bench.batches(), **how)} for name, how in cases.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=str(MUSEUM), metavar="DIR", help="folder of cases.json")
    folder = Path(user_path(parser.parse_args(arguments).output))
    use_threads()
    bench = Bench()
    found = training_cases(bench) | serving_cases(bench)
    cases = {name: found[name] for name in (*CASES, SERVED_RIGHTLY)}
    record = {"cases": cases, "provenance": machine("torch", "transformers", "peft")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, case in found.items():
        print(name, case, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(command_line(main)())
