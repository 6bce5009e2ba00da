"""Record page 14's learning curve: how good an adapter is after 8 … 2,000 examples, three seeds, both tasks.

    python data/record_learning_curve.py            # what is missing; killed at any point, it goes on
    python data/record_learning_curve.py --list     # what is recorded, what is missing

writes a line per run to `data/learning_curve/<task>.jsonl`; data/README.md says what a line holds. It takes one thread
at a low priority, pauses while `make test` runs, and two may run at once: no run is done twice.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from lab_utils.errors import command_line
from lab_utils.files import read_text
from lab_utils.finetune import (
    Encoded,
    Recipe,
    answer_logits,
    attach_adapter,
    build_optimizer,
    build_supervised,
    collate,
    encode_row,
    plan_batches,
    speed_up,
    take_off_adapter,
)  # fmt: skip
from lab_utils.finetune.conversation import padding_token
from lab_utils.folders import DATA
from lab_utils.locks import locked, wait_for_tests
from lab_utils.memory.free import keep_freed_memory
from lab_utils.recorded.learning_curve import FOLDER, LIVE, LIVE_RATES, RATE, SEEDS, SIZES, TASKS
from lab_utils.recorded.provenance import machine
from lab_utils.sweep.base_weights import plain_base, put_weights, weights_of
from lab_utils.sweep.evidence import add_row, packed, packed_bits, read_table, table_of
from lab_utils.tasks import Task

# examples -> training steps; 640 (the run of page 14's section 5) and 2,000 are seen once
STEPS = {8: 30, 32: 48, 128: 80, 512: 128, LIVE: 80, 2000: 250}
BATCH, BASE = 8, "none"  # the weights of the base are not quantized, as on page 14
TEST, VALIDATION = 200, 100
SYSTEM = "Sort the ticket."
PLAIN = Task(system="", to_example=dict)  # the conversations have their system message
BROKEN = ("broken", "crack", "bent on arrival", "two pieces")
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def encode_turns(tokenizer, messages: Sequence[dict]) -> Encoded:
    """A conversation as tokens, of which those of every answer are learned."""
    return encode_row(tokenizer, PLAIN, {"messages": messages})


@cache
def conversations(task: str) -> tuple[dict, ...]:
    """The task's rows as {"customer", "messages"}, without the planted faults: no copies, not the one customer whose
    program writes, and one label where two people used two.
    """
    if task == "tickets":
        rows = tickets("tickets.csv")
    else:
        rows = [json.loads(line) for line in read_text(DATA / "chats" / "chats.jsonl").splitlines()]
        for message in (message for row in rows for message in row["messages"] if message["role"] == "assistant"):
            message["content"] = message["content"].replace("Booked: tyre", "Booked: puncture")
    kept = {json.dumps(row["messages"]): row for row in reversed(rows) if "Velo Courier" not in str(row["messages"])}
    return tuple(reversed(kept.values()))


def tickets(file: str) -> list[dict]:
    """The rows of a file of tickets as {"customer", "messages"}."""
    with open(DATA / "tickets" / file, encoding="utf-8", newline="") as lines:
        return [{"customer": row["customer"], "messages": ticket(row)} for row in csv.DictReader(lines)]


def ticket(row: dict) -> list[dict]:
    """A ticket as a conversation. What arrived broken and is to be sent back is damage."""
    broken = row["category"] == "return" and any(word in row["message"].lower() for word in BROKEN)
    said = {"system": SYSTEM, "user": row["message"], "assistant": "damage" if broken else row["category"]}
    return [{"role": role, "content": content} for role, content in said.items()]


@cache
def splits(task: str) -> dict[str, list[list[dict]]]:
    """Split -> conversations; no customer is in two of them."""
    rows = conversations(task)
    customers = sorted({row["customer"] for row in rows})
    random.Random(0).shuffle(customers)
    of = {customer: [] for customer in customers}
    for row in rows:
        of[row["customer"]].append(row["messages"])
    queue = [messages for customer in customers for messages in of[customer]]
    owners = [customer for customer in customers for _ in of[customer]]
    first = {"test": TEST, "validation": VALIDATION}
    found, start = {}, 0
    for split, count in first.items():
        found[split] = queue[start : start + count]
        start += count
        while owners[start] == owners[start - 1]:  # the rest of that customer's belongs to no split
            start += 1
    later = {"next_month": [row["messages"] for row in tickets("next_month.csv")]} if task == "tickets" else {}
    return found | later | {"train": queue[start:]}


@cache
def digest(task: str) -> str:
    """Twelve hex digits of the splits: on other examples no two losses could be compared."""
    return hashlib.sha256(json.dumps(splits(task)).encode()).hexdigest()[:12]


def recipe_of(examples: int, learning_rate: float, seed: int) -> Recipe:
    """What the adapter of a run is trained with."""
    choices = {"learning_rate": learning_rate, "seed": seed, "steps": STEPS[examples], "batch_size": BATCH}
    return Recipe(model="smollm2-135m", quantization=BASE, **choices)


def key_of(task: str, examples: int, learning_rate: float, seed: int) -> str:
    """Sixteen hex digits that differ for runs that train differently."""
    choices = [task, examples, learning_rate, seed, STEPS[examples], BATCH, BASE, digest(task)]
    return hashlib.sha256(json.dumps(choices).encode()).hexdigest()[:16]


def planned() -> list[tuple[str, int, float, int]]:
    """(task, examples, learning rate, seed) of all runs in their order: those that page 14's live run is compared
    with, then the curve, seed by seed, tickets first.
    """
    runs = [("tickets", LIVE, rate, seed) for seed in SEEDS for rate in LIVE_RATES]
    return runs + [(task, size, RATE, seed) for seed in SEEDS for task in TASKS for size in SIZES]


def missing(folder: Path) -> list[tuple[str, int, float, int]]:
    """The planned runs without a line."""
    known = {row["key"] for task in TASKS for row in read_table(table_of(folder, task))}
    return [run for run in planned() if key_of(*run) not in known]


def measure(task: str, examples: int, learning_rate: float, seed: int) -> dict:
    """Train one adapter and read every validation and test conversation; returns the line's results."""
    began, recipe = time.process_time(), recipe_of(examples, learning_rate, seed)
    base, tokenizer = plain_base(recipe.model)
    base = take_off_adapter(base)
    put_weights(base, weights_of(recipe.model, recipe.quantization))
    model = attach_adapter(base, recipe)
    speed_up(model)
    rows = list(splits(task)["train"])
    random.Random(seed).shuffle(rows)
    encoded = [encode_turns(tokenizer, messages) for messages in rows[:examples]]
    training = train(model, tokenizer, encoded, recipe)
    results = {"training_losses": packed(training), "training_cpu_seconds": round(time.process_time() - began, 1)}
    for split in [name for name in splits(task) if name != "train"]:
        losses, right = read(model, tokenizer, splits(task)[split])
        results |= {f"{split}_loss": round(statistics.fmean(losses), 5), f"{split}_losses": packed(losses),
                    f"{split}_right": packed_bits(right), f"{split}_exact": round(statistics.fmean(right), 4)}
    return results | {
        "trained_tokens": sum(len(one.input_ids) for one in encoded),
        "cpu_seconds": round(time.process_time() - began, 1), "data": digest(task), **machine(*PACKAGES),
    }  # fmt: skip


def train(model, tokenizer, encoded: list[Encoded], recipe: Recipe) -> list[float]:
    """The training loss of every step."""
    optimizer = build_optimizer(model, recipe.learning_rate, weight_decay=recipe.weight_decay)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    supervised, losses = build_supervised(model.train()), []
    plan = plan_batches([len(one.input_ids) for one in encoded], recipe.batch_size, recipe.steps, recipe.seed)
    for step, indices in enumerate(plan):
        batch = collate([encoded[index] for index in indices], padding_token(tokenizer))
        loss = supervised(**batch) / (batch["labels"] >= 0).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        optimizer.step()
        losses.append(loss.item())
        wait_for_tests()
    return losses


@torch.no_grad()
def read(model, tokenizer, rows: list[list[dict]]) -> tuple[list[float], list[bool]]:
    """Of each conversation, (mean loss of its answers' tokens, is every token of the *last* answer the first choice).

    Greedy decoding writes the last answer, given the true turns before it, exactly when that is so.
    """
    encoded = [encode_turns(tokenizer, messages) for messages in rows]
    order = sorted(range(len(rows)), key=lambda place: len(encoded[place].input_ids))
    losses, right = [0.0] * len(rows), [True] * len(rows)
    model.eval()
    for start in range(0, len(order), 20):
        indices = order[start : start + 20]
        batch = collate([encoded[place] for place in indices], padding_token(tokenizer))
        logits, targets, owners = answer_logits(model, **batch)
        costs = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        hits = logits.argmax(-1) == targets
        for row, place in enumerate(indices):
            last = encoded[place].learned[-1]
            losses[place] = costs[owners == row].mean().item()
            right[place] = bool(hits[owners == row][-(last[1] - last[0]) :].all())
        wait_for_tests()
    return losses, right


def record(folder: Path, runs: int | None = None, say=print) -> int:
    """Run what is missing, one after the other, each line kept as it comes; returns how many."""
    count = 0
    while runs is None or count < runs:
        if not any(_recorded(folder, run, say) for run in missing(folder)):
            return count
        count += 1
    return count


def _recorded(folder: Path, run: tuple[str, int, float, int], say) -> bool:
    """Do this run unless another process does it or did."""
    key, names = key_of(*run), ("task", "examples", "learning_rate", "seed")
    with locked(folder / ".locks" / f"{key}.lock", wait=False) as mine:
        if not mine or run not in missing(folder):
            return False
        results = measure(*run)
        choices = dict(zip(names, run, strict=True))
        choices |= {"steps": STEPS[run[1]], "batch_size": BATCH, "quantization": BASE}
        add_row(table_of(folder, run[0]), {"key": key, "arm": str(run[1]), "choices": choices} | results)
    say(f"{time.strftime('%H:%M:%S')} {run}: validation loss {results['validation_loss']:.4f}, "
        f"test exact {results['test_exact']:.0%} ({results['cpu_seconds']:.0f} CPU s)")
    return True


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--runs", type=int, help="stop after so many")
    parser.add_argument("--list", action="store_true", help="print how many runs are recorded and what is missing")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        left = missing(chosen.output)
        print(f"{len(planned()) - len(left)} runs recorded, {len(left)} missing", *left, sep="\n")
        return
    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(19)
    keep_freed_memory()
    print(f"{record(chosen.output, chosen.runs, lambda line: print(line, flush=True))} runs recorded.")


if __name__ == "__main__":
    sys.exit(command_line(main)())
