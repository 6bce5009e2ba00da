"""Record what the embedded model pays for the skill of `bookings`: losses on the skill and on what was not trained.

    python data/record_forgetting.py                               # all that is missing; killed, it goes on
    python data/record_forgetting.py --only "LoRA r=8" --seeds 0   # some of it
    python data/record_forgetting.py --list                        # what is recorded, what is missing

writes a line per run to `data/forgetting/runs.jsonl`; data/README.md says what a line holds. Every run takes 32 steps
of four messages, and at some of them the fixed texts of `lab_utils.retention` are read.
It takes one thread, about two minutes a run on an idle core, and pauses while `make test` runs.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import append_text, read_json_lines, user_path
from lab_utils.finetune import (
    Encoded,
    Recipe,
    answer_logits,
    attach_adapter,
    build_optimizer,
    collate,
    encode,
    encode_split,
    plan_batches,
    take_off_adapter,
)  # fmt: skip
from lab_utils.finetune.full import load_full, matrices
from lab_utils.finetune.optimizer import descend, set_rate
from lab_utils.folders import DATA
from lab_utils.locks import wait_for_tests
from lab_utils.memory.free import keep_freed_memory
from lab_utils.recorded.provenance import machine
from lab_utils.retention import (
    GENERAL,
    adapter_matrices,
    at_strength,
    fixed_texts,
    left_vectors,
    likeness,
    passages,
    questions,
    random_like,
    read_all,
    swapped,
)  # fmt: skip
from lab_utils.sweep.base_weights import compute_fast, plain_base, put_weights, weights_of
from lab_utils.tasks import TASKS, load_task

FOLDER = DATA / "forgetting"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
RECIPE = Recipe(model="smollm2-135m", task="bookings", rank=8, alpha=16, steps=32, batch_size=4, learning_rate=2e-3)
CHECKPOINTS = (0, 8, 16, 32)
TEXTS = {"skill": 32, "prose": 16, "questions": 24, "style": 12}  # the first so many are read
STRENGTHS = (0.25, 0.5, 0.75, 1.25, 1.5)
LAYERS = (0, 9, 19, 29)  # whose matrices are compared with those before, singular vector by singular vector
REPLAY = 10  # every tenth example is general text, in the arm of that name


@dataclass(frozen=True)
class Arm:
    """One way to train: recipe, and what differs from plain LoRA."""

    recipe: Recipe = RECIPE
    full: bool = False
    shuffled: bool = False  # every message gets the answer of another
    replay: bool = False
    anchor: float = 0.0  # weight of KL(base ‖ model) on the tokens of the prompts
    strengths: bool = False  # read the texts with the adapter turned up and down too, and with a random one


# The rates. LoRA: 2e-3 was best of 5e-4, 2e-3 and 8e-3 for rank 8 after 32 steps of four (data/sweep); ranks 1 and 64
# take it over. Full: 1e-4 was best of five rates after 100 steps (data/evidence/rates.jsonl); at 32 none was searched.
ARMS = {
    "LoRA r=8": Arm(strengths=True),
    "LoRA r=1": Arm(replace(RECIPE, rank=1, alpha=2)),
    "LoRA r=64": Arm(replace(RECIPE, rank=64, alpha=128)),
    "full": Arm(replace(RECIPE, quantization="none", learning_rate=1e-4), full=True),
    "random labels": Arm(shuffled=True),
    "a quarter of the rate": Arm(replace(RECIPE, learning_rate=5e-4)),
    "replay": Arm(replay=True),
    "KL": Arm(anchor=1.0),
    "LoRA r=1, twice the rate": Arm(replace(RECIPE, rank=1, alpha=2, learning_rate=4e-3)),
    "LoRA r=64, half the rate": Arm(replace(RECIPE, rank=64, alpha=128, learning_rate=1e-3)),
    "full, twice the rate": Arm(replace(RECIPE, quantization="none", learning_rate=2e-4), full=True),
    "LoRA r=8, bfloat16": Arm(replace(RECIPE, quantization="none")),  # the base that full fine-tuning starts from
}
RANKS, CONTROLS, CURES = (tuple(ARMS)[part] for part in (slice(4), slice(4, 5), slice(5, 8)))
RATES, BASES = tuple(ARMS)[8:11], tuple(ARMS)[11:]
ORDER = tuple((arm, seed) for arms, seeds in (
    (RANKS + CONTROLS, (0,)), (RANKS, (1,)), (CURES, (0,)), (RANKS, (2,)), (BASES, (0, 1, 2)), (CURES, (1,)),
    (RATES, (0,)), (CONTROLS, (1,)), (CURES, (2,)), (CONTROLS, (2,)), (RATES, (1, 2)),
) for seed in seeds for arm in arms)  # fmt: skip


def say(text: str) -> None:
    """A line of progress, at once."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def build(arm: Arm):
    """(model, tokenizer, optimizer) before the first step."""
    recipe = arm.recipe
    if arm.full:
        model, tokenizer = load_full(recipe)
        weights = [module.weight for module in matrices(model).values()]
        return model, tokenizer, torch.optim.AdamW(weights, recipe.learning_rate, weight_decay=0.0, fused=True)
    base, tokenizer = plain_base(recipe.model)
    base = take_off_adapter(base)
    put_weights(base, weights_of(recipe.model, recipe.quantization))
    model = attach_adapter(base, recipe)
    compute_fast(model)
    return model, tokenizer, build_optimizer(model, recipe.learning_rate, weight_decay=0.0)


def training_rows(arm: Arm) -> list[dict]:
    """The messages of a run; with shuffled labels, each with the answer of the next in a random round."""
    rows = list(load_task(arm.recipe.task)["train"])
    if arm.shuffled:
        turn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(arm.recipe.seed)).tolist()
        following = dict(zip(turn, turn[1:] + turn[:1], strict=True))
        rows = [row | {"answer": rows[following[place]]["answer"]} for place, row in enumerate(rows)]
    return rows


def general_text(tokenizer) -> list[Encoded]:
    """What is replayed: questions with answers and passages, none of which is measured."""
    asked = [encode(tokenizer, GENERAL, row["prompt"], row["answer"]) for row in questions("replay")]
    read = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in passages("replay")[: len(asked)]]
    return [one for pair in zip(asked, (Encoded(ids, 1) for ids in read), strict=True) for one in pair]


def batches(arm: Arm, tokenizer):
    """The examples of each step, four at a time."""
    recipe = arm.recipe
    examples = encode_split(tokenizer, TASKS[recipe.task], training_rows(arm), recipe.max_length)
    plan = plan_batches([len(one.input_ids) for one in examples], recipe.batch_size, recipe.steps, recipe.seed)
    replayed, count = (general_text(tokenizer) if arm.replay else []), 0
    for indices in plan:
        some = [examples[index] for index in indices]
        for place in range(len(some)):
            count += 1
            if replayed and count % REPLAY == 0:
                some[place] = replayed[count // REPLAY % len(replayed)]
        yield some


def batch_loss(model, arm: Arm, some, padding: int):
    """Mean loss per answer token, and with an anchor the KL divergence from the base on the tokens of the prompts."""
    batch = collate(some, padding)
    logits, targets, _ = answer_logits(model, **batch)
    loss = torch.nn.functional.cross_entropy(logits.float(), targets)
    if not arm.anchor:
        return loss, loss
    reads = (batch["labels"] < 0) & (batch["attention_mask"] > 0)
    prompt = batch | {"labels": torch.where(reads, batch["input_ids"], -100)}
    with torch.no_grad(), at_strength(model, 0):
        base = answer_logits(model, **prompt)[0].float().log_softmax(-1)
    own = answer_logits(model, **prompt)[0].float().log_softmax(-1)
    return loss, loss + arm.anchor * torch.nn.functional.kl_div(own, base, reduction="batchmean", log_target=True)


def train(model, tokenizer, arm: Arm, optimizer, look) -> list[float]:
    """All steps; `look(step)` is called at the checkpoints. Returns each step's loss on the answers."""
    recipe, losses = arm.recipe, []
    for group in optimizer.param_groups:
        group.setdefault("share", group["lr"] / recipe.learning_rate)
    padding, scaler = tokenizer.pad_token_id, torch.amp.GradScaler("cpu", enabled=False)
    look(0)
    for step, some in enumerate(batches(arm, tokenizer)):
        wait_for_tests()
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=arm.full):
            loss, goal = batch_loss(model, arm, some, padding)
        optimizer.zero_grad()
        set_rate(optimizer, recipe.learning_rate_at(step))
        descend(goal, optimizer, scaler, recipe.max_grad_norm, f" at step {step + 1}")
        losses.append(round(float(loss.detach()), 4))
        if step + 1 in CHECKPOINTS or step + 1 == recipe.steps:
            look(step + 1)
    return losses


def readings(model, tokenizer, arm: Arm, texts: dict) -> dict:
    """The loss of every fixed text, and which messages are answered letter by letter."""
    wait_for_tests()
    model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=arm.full):
        found = read_all(model, tokenizer, texts)
    losses = {kind: [round(one, 4) for one in reading.losses] for kind, reading in found.items()}
    right = "".join(str(int(one)) for one in found["skill"].right)
    return {"losses": losses, "tokens": {kind: list(one.tokens) for kind, one in found.items()}, "right": right}


def final_weights(model, arm: Arm, name: str):
    """A matrix of the model after training: float32 Tensor."""
    if arm.full:
        return model.get_submodule(name).weight.data
    layer = model.get_submodule(f"base_model.model.{name}")
    return layer.base_layer.weight.float() + layer.get_delta_weight("default").float()


@torch.no_grad()
def compared(model, arm: Arm) -> dict:
    """Of some matrices: how like the old singular vectors the ten leading new ones are, and the size of the update."""
    found, before = {}, weights_of(arm.recipe.model, arm.recipe.quantization)
    for name, weight in before.items():
        if int(name.split(".layers.")[1].split(".")[0]) in LAYERS:
            wait_for_tests()
            after, weight = final_weights(model, arm, name), weight.float()
            one = likeness(left_vectors(weight), after)
            found[name] = {
                "cosines": [round(value, 4) for value in one.cosines],
                "relative_update": round(float((after - weight).norm() / weight.norm()), 6),
            }
    return found


BEFORE: dict[tuple, dict] = {}  # base -> its readings: an adapter whose B is 0 changes nothing, so one will do


def record(name: str, seed: int, folder: Path, texts: dict, steps: int | None) -> None:
    """Train one arm with one seed, read the fixed texts on the way, and add its line."""
    began, arm = time.process_time(), ARMS[name]
    arm = replace(arm, recipe=replace(arm.recipe, seed=seed, steps=steps or arm.recipe.steps))
    model, tokenizer, optimizer = build(arm)
    points = []

    def look(step: int) -> None:
        key = arm.recipe.quantization, arm.full
        if step == 0 and key not in BEFORE:
            BEFORE[key] = readings(model, tokenizer, arm, texts)
        points.append({"step": step} | (readings(model, tokenizer, arm, texts) if step else BEFORE[key]))

    line = {"arm": name, "seed": seed, "recipe": arm.recipe.as_record()}
    line["training_losses"] = train(model, tokenizer, arm, optimizer, look)
    optimizer.zero_grad(set_to_none=True)
    del optimizer
    line |= {"checkpoints": points, "strengths": [], "random": None}
    for strength in STRENGTHS if arm.strengths else ():
        with at_strength(model, strength):
            line["strengths"].append({"strength": strength} | readings(model, tokenizer, arm, texts))
    if arm.strengths:
        weights = adapter_matrices(model)
        with swapped(weights, random_like(weights, seed)):
            line["random"] = readings(model, tokenizer, arm, texts)
    line["matrices"] = compared(model, arm)
    line |= {"cpu_seconds": round(time.process_time() - began), **machine(*PACKAGES)}
    append_text(folder / "runs.jsonl", json.dumps(line) + "\n")
    means = {kind: sum(some) / len(some) for kind, some in points[-1]["losses"].items()}
    said = ", ".join(f"{kind} {value:.3f}" for kind, value in means.items())
    say(f"{name}, seed {seed}: {said}; {line['cpu_seconds']} CPU seconds")


def recorded(folder: Path) -> set[tuple[str, int]]:
    """(arm, seed) of each line that is there."""
    path = folder / "runs.jsonl"
    return {(row["arm"], row["seed"]) for row in read_json_lines(path)} if path.exists() else set()


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; train and read what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(ARMS), nargs="+", help="which arms; default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="instead of 32: a quick check of every part")
    parser.add_argument("--examples", type=int, help="read no more than so many texts of a kind: a quick check")
    parser.add_argument("--output", type=user_path, default=FOLDER)
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    chosen = parser.parse_args(arguments)
    there = recorded(chosen.output)
    wanted = [pair for pair in ORDER if pair[1] in chosen.seeds and (chosen.only is None or pair[0] in chosen.only)]
    missing = [pair for pair in wanted if pair not in there]
    if chosen.list:
        print(f"recorded: {sorted(there)}\nmissing: {missing}")
        return
    use_threads()
    keep_freed_memory()
    chosen.output.mkdir(parents=True, exist_ok=True)
    texts = {kind: some[: min(TEXTS[kind], chosen.examples or 99)] for kind, some in fixed_texts().items()}
    for name, seed in missing:
        record(name, seed, chosen.output, texts, chosen.steps)


if __name__ == "__main__":
    sys.exit(command_line(main)())
