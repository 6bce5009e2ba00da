"""Record what training by preference and by reward changes: from one half-trained adapter, several arms and seeds.

    python data/record_preferences.py                                 # all that is missing; killed, it goes on
    python data/record_preferences.py --only start right --seeds 0    # some of it
    python data/record_preferences.py --list                          # what is recorded, what is missing

writes the adapter that all arms start from to `data/preferences/start`, its own answers to a seed's messages to
`samples-<seed>.jsonl`, and a line per run to `runs.jsonl`; data/README.md says what a line holds. It takes one thread,
and pauses while `make test` runs.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.evaluate import score
from lab_utils.files import append_text, read_json, read_json_lines, replacing_folder, write_text
from lab_utils.finetune import Recipe, build_optimizer, collate, encode, finetune, plan_batches
from lab_utils.finetune.conversation import padding_token
from lab_utils.finetune.optimizer import descend, set_rate
from lab_utils.finetune.resume import load_adapter
from lab_utils.folders import DATA
from lab_utils.locks import wait_for_tests
from lab_utils.models import load_base
from lab_utils.preferences import (
    MISTAKES,
    PreferenceRecipe,
    RewardRecipe,
    answer_logprobs,
    answer_mask,
    begin,
    booking_pairs,
    own_answers,
    own_pairs,
    own_right,
    prefer,
    reward,
)
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import call, missing_runs, tell
from lab_utils.tasks import TASKS, load_task

FOLDER = DATA / "preferences"
FILES = ("adapter_model.safetensors", "adapter_config.json", "record.json")
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
SHAPE = {"model": "smollm2-135m", "task": "bookings", "rank": 4, "alpha": 8}
START = Recipe(**SHAPE, steps=40, batch_size=4, train_examples=160)  # each example is seen once
UNSEEN = range(1000, 1400)  # rows of the training split that the start has not seen
SEEDS, TEST, KEPT = (0, 1, 2), 200, 8


def short_and_valid(output: str, answer: str) -> float:
    """A judge that never looks at the message: valid JSON with the five fields, and the shorter the better."""
    found = TASKS["bookings"].parse(output)
    whole = found is not None and set(found) == set(TASKS["bookings"].fields)
    return float(whole) - len(output) / 200


def coin(output: str, answer: str) -> float:
    """A reward that says nothing: 1 or 0, drawn again for every answer."""
    return float(torch.rand(()) < 0.5)


@dataclass(frozen=True)
class Arm:
    """One way to go on from the start: what is trained, and what it learns from; `judge` is its own reward."""

    recipe: Recipe
    learns_from: str = "rewards"  # or "near misses" ("near misses: day"), "own pairs", "own right answers", "labels"
    judge: Callable | None = None

    def at(self, rate: float) -> "Arm":
        """The same with another learning rate."""
        return replace(self, recipe=replace(self.recipe, learning_rate=rate))

    def stopped_at(self, steps: int) -> "Arm":
        """The same with another number of steps."""
        return replace(self, recipe=replace(self.recipe, steps=steps))

    def with_rank(self, rank: int) -> "Arm":
        """The same with another rank, and an update that is scaled as before."""
        return replace(self, recipe=replace(self.recipe, rank=rank, alpha=2 * rank))


# Per seed all arms see the same 24 messages and take 12 steps, "brief" and its control 8, at rates that nobody tuned.
# GRPO reads each message once and writes 8 answers to it; the start writes as many for the arms that learn from its own
# answers.
MESSAGES, GROUP = 24, 8
ALL = SHAPE | {"steps": 12, "learning_rate": 1e-3}
DPO = PreferenceRecipe(**ALL, batch_size=4)
SFT = DPO  # trained by `imitate`, which reads no field of DPO's own
GRPO = RewardRecipe(**ALL, batch_size=2, group_size=GROUP)
ARMS: dict[str, Arm] = {
    "rejection": Arm(SFT, "own right answers"),
    "labels": Arm(SFT, "labels"),
    "own pairs": Arm(DPO, "own pairs"),
    "right": Arm(GRPO),
    "near misses": Arm(DPO, "near misses"),
    "brief": Arm(replace(GRPO, reward="own"), judge=short_and_valid),
}
ARMS |= {f"right, rank {rank}": ARMS["right"].with_rank(rank) for rank in (1, 32)}
LOWER = [*ARMS]  # all but "brief", which is stopped when it is ruined
LOWER.remove("brief")
ARMS |= {f"{name}, rate 0.0003": ARMS[name].at(3e-4) for name in LOWER}
ARMS["right, rate 0.0005"] = ARMS["right"].at(5e-4)
ARMS["brief, rate 0.0005"] = ARMS["brief"].at(5e-4).stopped_at(8)
ARMS["right, 8 steps, rate 0.0005"] = ARMS["right"].at(5e-4).stopped_at(8)  # the control of "brief"
COIN = Arm(replace(GRPO, reward="own"), judge=coin).at(3e-4)
ARMS["coin, rank 1, rate 0.0003"] = COIN.with_rank(1)  # the control of "right, rank 1"
ARMS |= {f"near misses: {mistake}, rate 0.0003": Arm(DPO, f"near misses: {mistake}").at(3e-4) for mistake in MISTAKES}
ARMS["brief, unscaled, rate 0.0005"] = replace(
    ARMS["brief, rate 0.0005"], recipe=replace(ARMS["brief, rate 0.0005"].recipe, scale_rewards="none")
)


def start_folder(folder: Path, recipe: Recipe) -> Path:
    """Where the adapter of a recipe's rank lies that its arm starts from."""
    return folder / ("start" if recipe.rank == START.rank else f"start-{recipe.rank}")


def record_start(folder: Path, recipe: Recipe, base: tuple, count: int) -> None:
    """Train the adapter that an arm starts from, and score it."""
    began, target = time.process_time(), start_folder(folder, recipe)
    with tempfile.TemporaryDirectory() as runs, replacing_folder(target, FILES.__contains__) as new:
        own = replace(START, rank=recipe.rank, alpha=recipe.alpha)
        run = finetune(own, Path(runs) / "start", base=base, progress=False)
        state = load_file(run.adapter_dir / FILES[0])
        state = {name: one.bfloat16().float().contiguous() for name, one in state.items()}
        save_file({name: one.bfloat16() for name, one in state.items()}, new / FILES[0], metadata={"format": "pt"})
        settings = read_json(run.adapter_dir / FILES[1])
        settings |= {"base_model_name_or_path": None, "target_modules": sorted(settings["target_modules"])}
        (new / FILES[1]).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        load_adapter(run.model, new)
        content = {"recipe": own.as_record(), **measure(run.model, run.tokenizer, count), **where(began)}
        (new / FILES[2]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        for file in FILES:
            (new / file).chmod(0o644)
    tell(f"{target.name}: exact {content['exact']:.1%}")


def measure(model, tokenizer, count: int) -> dict:
    """Scores on the first so many test messages: shares, and which are right ("1") and well-formed, one by one."""
    rows = list(load_task("bookings")["test"])[:count]
    found = score(model, tokenizer, rows, "bookings")
    return {
        "examples": len(rows), "exact": found.exact, "valid": found.valid, "fields": found.fields,
        "right": "".join(str(int(row["right"])) for row in found.rows),
        "characters": sum(len(row["output"]) for row in found.rows) / len(rows),
        "outputs": [row["output"] for row in found.rows[:KEPT]],
    }  # fmt: skip


def where(began: float) -> dict:
    """On which machine, and how many CPU seconds it took."""
    return {"cpu_seconds": round(time.process_time() - began), **machine(*PACKAGES)}


def messages(seed: int) -> list[dict]:
    """The messages that all arms of a seed see, in the order drawn."""
    places = random.Random(seed).sample(UNSEEN, MESSAGES)
    return list(load_task("bookings")["train"].select(places))


def samples(folder: Path, seed: int, base: tuple) -> list[dict]:
    """The start's own answers to a seed's messages: sampled once, then read from `samples-<seed>.jsonl`."""
    path = folder / f"samples-{seed}.jsonl"
    if not path.exists():
        began = time.process_time()
        model, _ = begin(base[0], replace(DPO, start=str(start_folder(folder, START))))
        torch.manual_seed(seed)
        found = own_answers(model, base[1], messages(seed), GROUP)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        write_text(path, lines)
        tell(f"answers of the start, seed {seed}: {time.process_time() - began:.0f} CPU s")
    return read_json_lines(path)


def examples_of(arm: Arm, seed: int, folder: Path, base: tuple) -> list[dict]:
    """What an arm is shown: messages, pairs, or messages with answers to imitate."""
    if arm.learns_from.startswith("near misses: "):
        return near_misses(messages(seed), seed, [arm.learns_from.removeprefix("near misses: ")])
    return {
        "rewards": lambda: messages(seed),
        "labels": lambda: messages(seed),
        "near misses": lambda: near_misses(messages(seed), seed),
        "own pairs": lambda: own_pairs(samples(folder, seed, base)),
        "own right answers": lambda: own_right(samples(folder, seed, base)),
    }[arm.learns_from]()


def near_misses(rows: list[dict], seed: int, mistakes: Iterable[str] = tuple(MISTAKES)) -> list[dict]:
    """Every near miss of these kinds that rules make of a message's right answer, up to three."""
    return [pair for mistake in mistakes for pair in booking_pairs(rows, seed, [mistake])]


def imitate(recipe: Recipe, rows: list[dict], base: tuple) -> tuple:
    """Fine-tune the adapter in `recipe.start` on answers, as `finetune` would a fresh one; (model, history)."""
    (model, tokenizer), history = base, []
    model, _ = begin(model, recipe)
    examples = [encode(tokenizer, TASKS[recipe.task], row["prompt"], row["answer"]) for row in rows]
    optimizer, plain = build_optimizer(model, recipe.learning_rate), torch.amp.GradScaler(enabled=False)
    plan = plan_batches([len(one.input_ids) for one in examples], recipe.batch_size, recipe.steps, recipe.seed)
    for step, places in enumerate(plan):
        set_rate(optimizer, recipe.learning_rate_at(step))
        batch = collate([examples[place] for place in places], padding_token(tokenizer))
        loss = -answer_logprobs(model, batch).sum() / answer_mask(batch["labels"]).sum()
        descend(loss, optimizer, plain, recipe.max_grad_norm)
        optimizer.zero_grad()
        history.append({"step": step + 1, "loss": float(loss.detach())})
    return model, history


def record(name: str, seed: int, folder: Path, base: tuple, count: int, steps: int | None) -> None:
    """Train one arm with one seed, score it, and add its line."""
    wait_for_tests()
    arm = ARMS[name]
    rows, began = examples_of(arm, seed, folder, base), time.process_time()
    start = str(start_folder(folder, arm.recipe))
    recipe = replace(arm.recipe, seed=seed, start=start, steps=steps or arm.recipe.steps)
    work = folder / ".work" / f"{name}-{seed}".replace(", ", "-").replace(" ", "-")
    if arm.learns_from in ("own right answers", "labels"):
        model, history = imitate(recipe, rows, base)
    elif arm.learns_from == "rewards":
        run = reward(recipe, work, base=base, dataset=rows, judge=arm.judge, progress=False)
        model, history = run.model, run.history
    else:
        run = prefer(recipe, work, base=base, pairs=rows, progress=False)
        model, history = run.model, run.history
    line = {"arm": name, "seed": seed, "learns_from": arm.learns_from, "rows": len(rows)}
    line |= {"recipe": {**recipe.as_record(), "start": Path(start).name}}
    line |= {"history": [{key: round(value, 5) for key, value in row.items()} for row in history]}
    line |= measure(model, base[1], count) | where(began)
    append_text(folder / "runs.jsonl", json.dumps(line, ensure_ascii=False) + "\n")
    tell(f"{name}, seed {seed}: exact {line['exact']:.1%}, valid {line['valid']:.1%}, {line['characters']:.0f} "
        f"characters, {line['cpu_seconds']} CPU s")  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; train and score what is missing."""
    parser = call(__doc__, ["start", *ARMS], FOLDER, SEEDS)
    parser.add_argument("--steps", type=int, help="instead of the recipes' own: a quick check of every part")
    parser.add_argument("--examples", type=int, default=TEST, help="score the first so many test messages")
    chosen = parser.parse_args(arguments)
    order = [(arm, seed) for seed in chosen.seeds for arm in ARMS]
    missing = missing_runs(chosen, order, chosen.output / "runs.jsonl")
    if chosen.list:
        return
    use_threads()
    base = load_base(SHAPE["model"], "nf4", verbose=False)
    recipes = [START, *(ARMS[arm].recipe for arm, _ in missing)]
    for recipe in {one.rank: one for one in recipes}.values():
        if not all((start_folder(chosen.output, recipe) / file).exists() for file in FILES):
            record_start(chosen.output, recipe, base, chosen.examples)
    for arm, seed in missing:
        record(arm, seed, chosen.output, base, chosen.examples, chosen.steps)


if __name__ == "__main__":
    sys.exit(command_line(main)())
