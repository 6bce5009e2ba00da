"""Record the evidence: fine-tunes of the embedded model, with the loss of every validation and test message of each.

    python data/record_evidence.py                        # what is missing, in the studies' order; killed, it goes on
    python data/record_evidence.py --only rates scaling   # some studies
    python data/record_evidence.py --list                 # what is there, what is missing, how long that takes
    python data/record_evidence.py --merge FOLDER         # take over what was recorded into another folder

writes a line per run to `data/evidence/<study>.jsonl`; `lab_utils.sweep.studies` says what is asked, data/README.md
what a line holds. It takes one thread at the lowest priority, pauses while `make test` runs, and two may run at once:
no run is done twice. Long runs go on from a checkpoint in `data/evidence/.partial`.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from functools import cache, partial
from pathlib import Path

import torch

from lab_utils.errors import LabError, choose, command_line
from lab_utils.evaluate import answer_losses
from lab_utils.files import replacing_file
from lab_utils.finetune import Recipe, attach_adapter, build_optimizer, speed_up, take_off_adapter
from lab_utils.finetune.full import load_full, matrices
from lab_utils.locks import wait_for_tests
from lab_utils.lora import take_off, trainable_parameters
from lab_utils.memory.free import keep_freed_memory
from lab_utils.models import load_base
from lab_utils.quiet import quiet
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import tell
from lab_utils.sweep.base_weights import plain_base, put_weights, weights_of
from lab_utils.sweep.evidence import FOLDER, Run, merge_tables, packed, packed_bits
from lab_utils.sweep.recorded_training import Checkpoint, batch_bytes, relative_update, train
from lab_utils.sweep.recording import overview, progress, record
from lab_utils.sweep.studies import STUDIES, Arm
from lab_utils.tasks import load_task
from lab_utils.variants import after_step, before_step, inject, optimizer_groups

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
CHUNK = 50  # messages measured between two looks at whether tests run
KEEP_EVERY = {"adapter": 50, "full": 100}  # steps; runs of up to SHORT are not kept in the middle
SHORT = 150
TRAINED = 100  # of the messages that were trained on
RANKS = (0, 1, 2, 4, 8, 16, 32, 64)  # that a weight update is cut to


@cache
def task(name: str):
    """The task's splits, read once."""
    with quiet():
        return load_task(name)


@cache
def digest(name: str) -> str:
    """Twelve hex digits of what the task's splits hold: on other messages no two losses could be compared."""
    splits = {split: list(rows) for split, rows in task(name).items()}
    return hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()[:12]


def training_rows(run: Run) -> list[dict]:
    """The messages of a run, drawn by its seed."""
    recipe = run.recipe
    rows = task(recipe.task)["train"]
    if recipe.train_examples is not None:
        rows = rows.shuffle(seed=recipe.seed).select(range(min(recipe.train_examples, len(rows))))
    rows = list(rows)
    if run.labels == "shuffled":
        turn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(recipe.seed)).tolist()
        following = dict(zip(turn, turn[1:] + turn[:1], strict=True))  # one cycle: nobody keeps an answer
        rows = [row | {"answer": rows[following[place]]["answer"]} for place, row in enumerate(rows)]
    return rows


def scored(model, tokenizer, rows, recipe: Recipe, autocast=None) -> tuple[list[float], list[bool]]:
    """(loss, right) of every message."""
    losses, right = [], []
    for start in range(0, len(rows), CHUNK):
        wait_for_tests()
        part = [rows[place] for place in range(start, min(start + CHUNK, len(rows)))]
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            found = answer_losses(model, tokenizer, part, recipe.task)
        losses += found.losses
        right += found.right
    return losses, right


def all_scores(model, tokenizer, arm: Arm, run: Run, rows, autocast=None) -> dict:
    """The columns `losses` and `right`: validation, test, and what else the arm asks for."""
    splits = {split: list(task(run.recipe.task)[split]) for split in ("validation", "test")}
    if arm.trained:
        splits["trained"] = rows[:TRAINED]
    found = {split: scored(model, tokenizer, some, run.recipe, autocast) for split, some in splits.items()}
    for other in arm.reads:
        put_weights(model, weights_of(run.recipe.model, other))
        name = "bf16" if other == "none" else other
        found |= {f"{split}@{name}": scored(model, tokenizer, splits[split], run.recipe) for split in ("test",)}
    if wrong := [split for split, (losses, _) in found.items() if not all(map(finite_half, losses))]:
        raise LabError(f"The losses of {', '.join(wrong)} are not finite: lower learning_rate.")
    return {
        "losses": {split: packed(losses) for split, (losses, _) in found.items()},
        "right": {split: packed_bits(right) for split, (_, right) in found.items()},
    }


def finite_half(value: float) -> bool:
    """Can float16 hold it?"""
    return abs(value) < 65504


# One function a method: (arm, run, rows, checkpoint) -> the results of a line.


def measure_adapter(arm: Arm, run: Run, rows, checkpoint: Checkpoint | None) -> dict:
    """LoRA on a frozen base."""
    recipe = run.recipe
    base, tokenizer = plain_base(recipe.model)
    base = take_off_adapter(base)
    put_weights(base, weights_of(recipe.model, recipe.quantization))
    model = attach_adapter(base, recipe)
    speed_up(model)
    for parameter in trainable_parameters(model):
        parameter.data = parameter.data.to(getattr(torch, run.adapter_dtype))
    optimizer = build_optimizer(model, recipe.learning_rate, weight_decay=recipe.weight_decay)
    results = train(model, tokenizer, run, rows, optimizer, checkpoint, wait_for_tests)
    return results | all_scores(model, tokenizer, arm, run, rows)


def measure_full(arm: Arm, run: Run, rows, checkpoint: Checkpoint | None) -> dict:
    """Every matrix of the layers: float32 weights, bfloat16 arithmetic, as mixed precision does it."""
    recipe = run.recipe
    model, tokenizer = load_full(recipe)
    layers = [module.weight for module in matrices(model).values()]
    optimizer = torch.optim.AdamW(layers, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    results = train(model, tokenizer, run, rows, optimizer, checkpoint, wait_for_tests, autocast=torch.bfloat16)
    del optimizer
    for weight in layers:
        weight.grad = None
    results |= all_scores(model, tokenizer, arm, run, rows, torch.bfloat16)
    if arm.spectra:
        folder = checkpoint.path.parent.parent if checkpoint else FOLDER
        results |= take_apart(model, tokenizer, run, rows, folder / f"update-{run.key}.safetensors")
    return results


def measure_variant(arm: Arm, run: Run, rows, checkpoint: Checkpoint | None) -> dict:
    """A class of `lab_utils.variants`, on float32 weights: Delta-LoRA moves W by steps that bfloat16 would lose."""
    recipe, settings = run.recipe, dict(run.settings)
    model, tokenizer = float_base(recipe.model)
    ratio = {"ratio": settings.pop("ratio")} if "ratio" in settings else {}
    settings = {name: int(value) if value == int(value) else value for name, value in settings.items()}
    torch.manual_seed(recipe.seed)
    inject(model, run.variant, "all-linear", recipe.rank, recipe.alpha, **settings).train()
    try:
        kept = batch_bytes(model, recipe.batch_size)
        groups = optimizer_groups(model, run.variant, recipe.learning_rate, **ratio)
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
        results = train(model, tokenizer, run, rows, optimizer, None, wait_for_tests, autocast=torch.bfloat16,
                        before_step=before_step, after_step=after_step)
        results |= all_scores(model, tokenizer, arm, run, rows, torch.bfloat16)
        return results | {"saved_activation_bytes": kept, "relative_update": round(relative_update(model), 7)}
    finally:
        take_off(model)


@cache
def float_base(model: str):
    """(model, tokenizer) with float32 weights."""
    loaded, tokenizer = load_base(model, "none", verbose=False)
    return loaded.float(), tokenizer


@torch.no_grad()
def take_apart(model, tokenizer, run: Run, rows, file: Path) -> dict:
    """The update's singular values, kept in `file`, and the loss where every ΔW is cut to some rank."""
    from safetensors.torch import save_file

    before = {name: weight.float() for name, weight in weights_of(run.recipe.model, "none").items()}
    parts = {}
    for name, module in matrices(model).items():
        wait_for_tests()
        parts[name] = torch.linalg.svd(module.weight - before[name], full_matrices=False)
    tensors = {f"singular_values/{name}": s.contiguous() for name, (_, s, _) in parts.items()}
    tensors |= {f"relative_norm/{name}": s.norm() / before[name].norm() for name, (_, s, _) in parts.items()}
    by_rank: dict[str, dict[str, float]] = {"trained": {}, "test": {}}
    splits = {"trained": rows[:TRAINED], "test": list(task(run.recipe.task)["test"])[:TRAINED]}
    for rank in RANKS:
        for name, module in matrices(model).items():
            u, s, vh = parts[name]
            module.weight.data = torch.addmm(before[name], u[:, :rank] * s[:rank], vh[:rank])
        for split, some in splits.items():
            losses, _ = scored(model, tokenizer, some, run.recipe, torch.bfloat16)
            by_rank[split][str(rank)] = round(statistics.fmean(losses), 5)
    with replacing_file(file) as new:
        save_file(tensors, new)
    return {"loss_by_rank": by_rank, "spectra": file.name}


MEASURES = {"adapter": measure_adapter, "full": measure_full, "variant": measure_variant}


def measure(folder: Path, arm: Arm, run: Run) -> dict:
    """The results of one line; a run that blows up has a `problem` and no losses."""
    began = time.process_time()
    every = KEEP_EVERY.get(run.method)
    long = every and run.recipe.steps > SHORT
    checkpoint = Checkpoint(folder / ".partial" / f"{run.key}.pt", every if long else 10**9)
    nothing = {"trained_parameters": 0, "training_losses": "", "losses": {}, "right": {}}
    try:
        rows = training_rows(run)
        results = {"problem": ""} | MEASURES[run.method](arm, run, rows, checkpoint)
    except LabError as error:
        results = {"problem": str(error)} | nothing
    checkpoint.drop()
    seconds = time.process_time() - began
    return results | {
        "cpu_seconds": round(max(seconds, results.get("training_cpu_seconds", 0)), 1),
        "data": digest(run.recipe.task), **machine(*PACKAGES),
    }  # fmt: skip


def take_little() -> None:
    """One thread, at the lowest priority that the system has."""
    torch.set_num_threads(1)
    os.environ["LORA_LAB_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "nice"):
        os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError:  # not allowed here: nice is enough
            pass
    keep_freed_memory()


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(STUDIES), metavar="STUDY", help=", ".join(STUDIES))
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--runs", type=int, help="stop after so many")
    parser.add_argument("--list", action="store_true", help="print what is recorded and what is missing")
    parser.add_argument("--merge", type=Path, metavar="FOLDER", help="take over the lines that another folder has")
    chosen = parser.parse_args(arguments)
    for study in chosen.only:
        choose("study", study, STUDIES)
    if chosen.merge:
        print(f"{merge_tables(chosen.merge, chosen.output)} new runs from {chosen.merge}.")
    if chosen.merge or chosen.list:
        print(overview(progress(chosen.output, chosen.only)))
        return

    take_little()
    count = record(chosen.output, partial(measure, chosen.output), studies=chosen.only, runs=chosen.runs, say=tell)
    tell(f"{count} runs recorded.")


if __name__ == "__main__":
    sys.exit(command_line(main)())
