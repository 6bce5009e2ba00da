"""Record what a full fine-tune of the embedded model does to its weights: ΔW = W_after − W_before, matrix by matrix.

    python data/record_update.py                          # a quarter of an hour on two idle cores
    python data/record_update.py --steps 2 --output DIR   # a quick check of every part
    python data/record_update.py --messages 24 --batch-size 4 --labels right      # a pair, ten minutes each on
    python data/record_update.py --messages 24 --batch-size 4 --labels shuffled   # one core: own or another's answers

writes `update.safetensors` and `update.json` to `data/update` (an arm: to `right` or `shuffled` in it), both at the
very end: a run that is killed leaves the old ones as they were. `lab_utils.recorded.weight_update` reads them;
data/README.md says what they hold.

The 210 matrices of the 30 layers are trained in float32 (in bfloat16 most steps would be rounded away); embedding and
norms stay as they are. So the ΔW of these matrices are the whole difference between the two models.
"""

import argparse
import hashlib
import json
import math
import random
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save

from lab_utils.device import use_threads
from lab_utils.errors import command_line, whole
from lab_utils.evaluate import answer_losses, score
from lab_utils.files import replacing_files, user_path
from lab_utils.finetune import Recipe
from lab_utils.finetune.full import load_full, matrices, train_full
from lab_utils.lowrank import RANKS, energy_shares, random_spectra
from lab_utils.memory.free import keep_freed_memory
from lab_utils.quiet import quiet
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import tell
from lab_utils.recorded.update import FOLDER, folder_of
from lab_utils.retention.arms import with_next_answers
from lab_utils.tasks import load_task

WHOLE = ("model.layers.15.self_attn.v_proj",)  # whose ΔW is kept entry by entry
LABELS = ("right", "shuffled")
USED = (  # of a Recipe's fields; the others are an adapter's
    "model", "task", "learning_rate", "warmup", "steps", "batch_size", "max_length", "max_grad_norm", "weight_decay",
    "seed",
)  # fmt: skip


def with_answers(rows: list[dict], labels: str, seed: int) -> list[dict]:
    """The rows with their own answers, or each with the answer of another row, which no other row has then.

    The shuffle is one cycle through all rows in random order, so none keeps its answer.
    """
    if labels == "right":
        return rows
    return with_next_answers(rows, random.Random(seed).sample(range(len(rows)), len(rows)))


def cut(model, before: dict, parts: dict, rank: int) -> None:
    """Set every matrix to W_before + the best fit of rank `rank` to its ΔW."""
    for name, module in matrices(model).items():
        u, s, vh = parts[name]
        module.weight.data = torch.addmm(before[name], u[:, :rank] * s[:rank], vh[:rank])


def to_half(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(float16 Tensor, scale) with delta ≈ float16 / scale.

    The scale is the power of two that puts the largest entry between 2**14 and 2**15: entries down to 2**-28 of
    the largest then keep all 11 bits of float16.
    """
    scale = 2.0 ** (14 - math.floor(math.log2(delta.abs().max().item())))
    return (delta * scale).half(), torch.tensor(scale)


def write(folder: Path, tensors: dict, record: dict) -> None:
    """Both files, or neither."""
    packed = save(tensors)
    record = record | {"sha256": hashlib.sha256(packed).hexdigest()}
    with replacing_files(folder) as new:
        (new / "update.safetensors").write_bytes(packed)
        (new / "update.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def take_apart(model, before: dict) -> tuple[dict, dict]:
    """ΔW of every matrix, and its singular value decomposition."""
    deltas = {name: module.weight.detach() - before[name] for name, module in matrices(model).items()}
    return deltas, {name: torch.linalg.svd(delta, full_matrices=False) for name, delta in deltas.items()}


def spectra(deltas: dict, parts: dict, before: dict) -> dict:
    """The tensors that every update keeps."""
    tensors = {f"singular_values/{name}": s.contiguous() for name, (_, s, _) in parts.items()}
    return tensors | {f"relative_norm/{name}": d.norm() / before[name].norm() for name, d in deltas.items()}


def described(recipe: Recipe, matrix_count: int) -> dict:
    """The recipe as the JSON tells it."""
    return {
        **{name: getattr(recipe, name) for name in USED},
        "trained": f"the {matrix_count} linear matrices of the layers; embedding and norms frozen",
        "precision": "float32 weights, gradients and arithmetic; the base's weights are bfloat16",
        "optimizer": "AdamW, betas 0.9 and 0.999, epsilon 1e-8",
        "schedule": "linear warm-up, then half a cosine to 0",
    }


def provenance(began: float, training_seconds: float) -> dict:
    """Where and how long."""
    return {
        "command": " ".join(["python", "data/record_update.py", *sys.argv[1:]]),
        "training_seconds": round(training_seconds),
        "seconds": round(time.perf_counter() - began),
        **machine("torch", "transformers", "datasets", "safetensors"),
    }


def record(recipe: Recipe, test_examples: int, exact_examples: int) -> tuple[dict, dict]:
    """Train on all messages, take ΔW apart, measure on held-out ones; returns the tensors and the JSON record."""
    began = time.perf_counter()
    model, tokenizer = load_full(recipe)
    with quiet():
        data = load_task(recipe.task)
    test = data["test"].select(range(test_examples))
    asked = data["test"].select(range(exact_examples))
    before = {name: module.weight.detach().clone() for name, module in matrices(model).items()}
    exact = {"0": score(model, tokenizer, asked, recipe.task).exact}
    tell(f"before: exact match {exact['0']:.3f}")
    started = time.perf_counter()
    history = train_full(model, tokenizer, recipe, data["train"], on_step=tell)
    training_seconds = time.perf_counter() - started
    loss = {"full": answer_losses(model, tokenizer, test, recipe.task).loss}
    exact["full"] = score(model, tokenizer, asked, recipe.task).exact
    tell(f"after: test loss {loss['full']:.4f}, exact match {exact['full']:.3f}")

    deltas, parts = take_apart(model, before)
    for rank in (0, *RANKS):
        cut(model, before, parts, rank)
        loss[str(rank)] = answer_losses(model, tokenizer, test, recipe.task).loss
        tell(f"ΔW cut to rank {rank}: test loss {loss[str(rank)]:.4f}")
        if rank in (1, 8):
            exact[str(rank)] = score(model, tokenizer, asked, recipe.task).exact

    weight = {name: torch.linalg.svdvals(w).half() for name, w in before.items()}
    noise = random_spectra([w.shape for w in before.values()], recipe.seed)
    tensors = spectra(deltas, parts, before)
    tensors |= {f"weight_singular_values/{name}": s for name, s in weight.items()}
    for name in WHOLE:
        tensors[f"delta/{name}"], tensors[f"scale/{name}"] = to_half(deltas[name])
    in_order = ["0", *map(str, RANKS), "full"]
    return tensors, {
        "recipe": described(recipe, len(before)),
        "measured": {
            "test_examples": test_examples,
            "loss_by_rank": {rank: round(loss[rank], 5) for rank in in_order},
            "exact_examples": exact_examples,
            "exact_by_rank": {rank: exact[rank] for rank in in_order if rank in exact},
            "energy": {
                "update": energy_shares(s for _, s, _ in parts.values()),
                "weight": energy_shares(weight.values()),
                "random": energy_shares(noise),
            },
            "training_loss": [round(value, 4) for value in history],
        },
        "provenance": provenance(began, training_seconds),
    }


def record_arm(recipe: Recipe, messages: int, labels: str, test_examples: int) -> tuple[dict, dict]:
    """Train on the first few messages, cut ΔW, and measure on these messages with the answers that were trained."""
    began = time.perf_counter()
    model, tokenizer = load_full(recipe)
    with quiet():
        data = load_task(recipe.task)
    rows = with_answers(list(data["train"].select(range(messages))), labels, recipe.seed)
    test = data["test"].select(range(test_examples))
    before = {name: module.weight.detach().clone() for name, module in matrices(model).items()}
    started = time.perf_counter()
    history = train_full(model, tokenizer, recipe, rows, on_step=tell)
    training_seconds = time.perf_counter() - started
    found = {"full": answer_losses(model, tokenizer, rows, recipe.task)}
    unseen = {"full": answer_losses(model, tokenizer, test, recipe.task).loss}
    tell(f"after: loss {found['full'].loss:.4f}, on unseen messages {unseen['full']:.4f}")

    deltas, parts = take_apart(model, before)
    for rank in (0, *RANKS):
        cut(model, before, parts, rank)
        found[str(rank)] = answer_losses(model, tokenizer, rows, recipe.task)
        tell(f"ΔW cut to rank {rank}: loss {found[str(rank)].loss:.4f}, exact {found[str(rank)].exact:.3f}")
    in_order = ["0", *map(str, RANKS), "full"]
    return spectra(deltas, parts, before), {
        "recipe": described(recipe, len(before)) | {"messages": messages, "labels": labels},
        "measured": {
            "on": "the messages that were trained on, with the answers that were trained",
            "examples": messages,
            "loss_by_rank": {rank: round(found[rank].loss, 5) for rank in in_order},
            "losses_by_rank": {rank: [round(one, 5) for one in found[rank].losses] for rank in in_order},
            "exact_by_rank": {rank: found[rank].exact for rank in in_order},
            "unseen_examples": test_examples,
            "unseen_loss": round(unseen["full"], 5),
            "energy": {"update": energy_shares(s for _, s, _ in parts.values())},
            "training_loss": [round(value, 4) for value in history],
        },
        "provenance": provenance(began, training_seconds),
    }


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, record, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-examples", type=int, default=100, help="test messages that the losses are measured on")
    parser.add_argument("--exact-examples", type=int, default=40, help="test messages that the model answers")
    parser.add_argument("--messages", type=int, help="train on the first so many messages only, and measure on these")
    parser.add_argument("--labels", choices=LABELS, help="with --messages: each message's own answer, or another's")
    parser.add_argument("--output", type=user_path, help="default: the update's folder in data/update")
    chosen = parser.parse_args(arguments)
    if (chosen.messages is None) != (chosen.labels is None):
        parser.error("--messages and --labels go together: --messages 32 --labels shuffled")
    if chosen.messages is not None:
        whole("--messages", chosen.messages, least=2)
    recipe = Recipe(
        model="smollm2-135m", quantization="none", batch_size=chosen.batch_size, steps=chosen.steps,
        learning_rate=chosen.learning_rate, seed=chosen.seed,
    )  # fmt: skip
    use_threads()
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    output = chosen.output or FOLDER / folder_of(chosen.labels or "bookings", recipe.seed)
    if chosen.messages:
        made = record_arm(recipe, chosen.messages, chosen.labels, chosen.test_examples)
    else:
        made = record(recipe, chosen.test_examples, chosen.exact_examples)
    write(output, *made)
    tell(f"written to {output}")


if __name__ == "__main__":
    sys.exit(command_line(main)())
