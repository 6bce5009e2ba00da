"""Record exhibits of the museum with several seeds: what their one run on the page shows, and how far seeds spread.

    python data/record_museum_seeds.py            # about five minutes of one core; goes on where it was stopped
    python data/record_museum_seeds.py --only 6   # one exhibit
    python data/record_museum_seeds.py --list     # what is missing

adds a line per run to `data/museum/seeds.jsonl`, which `lab_utils.recorded.museum_runs` reads; data/README.md says
what a line holds. A seed is that of the adapter's start, of the order of the examples and, where a model is trained
from nothing (exhibits 6 and 12), of that model. Seed 0 is the page's own run at full length; what exhibit 2 trains
on the whole model is recorded alone.
"""

import copy
import math
import sys
import time
from collections.abc import Iterable
from functools import cache
from itertools import product

import torch
import transformers
from peft import LoraConfig, get_peft_model

from lab_utils import finetune, merging
from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.evaluate import answer_losses
from lab_utils.files import append_text
from lab_utils.lora import digits, inject, trainable_parameters
from lab_utils.models import load_base
from lab_utils.quiet import quiet
from lab_utils.recorded.museum import SEEDS, as_line
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import call, lines_there, tell
from lab_utils.tasks import TASKS, load_task

HELD_OUT = 24
FLOAT16, BFLOAT16 = torch.float16, torch.bfloat16
LABELS = ("answers", "all tokens")
WHOLE = "all tokens, the whole model"
EXPLODES = {
    "5e-3": {"rate": 5e-3}, "5e-2": {"rate": 5e-2}, "5e-2, clipped at 1": {"rate": 5e-2, "clip": 1.0},
    "5e-2, warm-up": {"rate": 5e-2, "warmup": 12}, "2e-2": {"rate": 2e-2},
    "2e-2, warm-up": {"rate": 2e-2, "warmup": 12},
}  # fmt: skip
UNDERFLOWS = {
    f"{str(dtype).removeprefix('torch.')}, loss / {by:,}, rate {rate:g}": {"dtype": dtype, "by": by, "rate": rate}
    for dtype in (FLOAT16, BFLOAT16) for by, rate in
    (*((2**power, 5e-3) for power in (0, 12, 14, 16)), (2**14, 1e-3), (2**14, 2e-2))
} | {"float16, loss / 16,384, GradScaler": {"dtype": FLOAT16, "by": 2**14, "rate": 5e-3, "scale": 2.0**16}}  # fmt: skip
FUSED = ["experts.gate_up_proj", "experts.down_proj"]
REACHES = {
    "all-linear": {"r": 8, "lora_alpha": 16}, "all-linear, rank 32": {"r": 32, "lora_alpha": 64},
    "and target_parameters": {"r": 8, "lora_alpha": 16, "target_parameters": FUSED},
}  # fmt: skip
EXPERTS = {f"{way}, rate {rate:g}": (way, rate) for way, rate in product(REACHES, (3e-3, 1e-2, 3e-2))}


@cache
def whole() -> tuple:
    """(the embedded model, dequantized, its tokenizer)"""
    base, tokenizer = load_base("smollm2-135m", "nf4", verbose=False)
    return merging.dequantized_copy(base), tokenizer


@cache
def stump() -> tuple:
    """(the embedded model's first two layers in float32, its tokenizer, 64 encoded examples, held-out messages)"""
    plain, tokenizer = whole()
    short = finetune.twin(plain)
    short.model.layers, short.config.num_hidden_layers = short.model.layers[:2], 2
    short = copy.deepcopy(short).float()
    data = load_task("bookings")
    examples = finetune.encode_split(tokenizer, TASKS["bookings"], data["train"].select(range(64)), 256)
    return short, tokenizer, examples, data["test"].select(range(HELD_OUT))


def new_stump(seed: int):
    """The stump under a fresh adapter on every linear layer."""
    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(finetune.twin(stump()[0]), config)


def in_order(seed: int, examples: list) -> list:
    """The examples in the seed's order; 0: as they are on disk."""
    if not seed:
        return examples
    return [examples[place] for place in torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))]


def batches(seed: int, kind: str = "answers") -> list[dict]:
    """The examples in pairs, in the seed's order, labelled in their answers or throughout."""
    _, tokenizer, examples, _ = stump()
    ordered = in_order(seed, examples)
    found = [finetune.collate(ordered[start : start + 2], tokenizer.pad_token_id) for start in range(0, 64, 2)]
    return [throughout(one) for one in found] if kind == "all tokens" else found


def throughout(batch: dict) -> dict:
    """The batch with every token labelled that is not padding."""
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"], finetune.IGNORED)
    return batch | {"labels": labels}


def train(model, given: list[dict], rate: float, *, steps: int, warmup: int = 1, clip: float = math.inf):
    """The page's loop; each step's loss, gradient norm before clipping and length."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0)
    loss_of = finetune.build_supervised(model.train())
    losses, norms, lengths = [], [], []
    for step in range(steps):
        batch = given[step % len(given)]
        loss = loss_of(**batch) / (batch["labels"] >= 0).sum()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, clip)))
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / warmup)
        before = [p.detach().clone() for p in parameters]
        optimizer.step()
        moved = [(p.detach() - old).norm() for p, old in zip(parameters, before, strict=True)]
        lengths.append(float(torch.stack(moved).norm()))
        losses.append(loss.item())
    model.eval()
    return losses, norms, lengths


def run_labels(seed: int, kind: str, rate: float = 5e-3, steps: int = 40) -> dict:
    """Exhibit 2: what a stump has learned of held-out answers, by what was labelled."""
    _, tokenizer, _, held_out = stump()
    model = new_stump(seed)
    losses, *_ = train(model, batches(seed, kind), rate, steps=steps)
    return {"losses": losses, "held_out": answer_losses(model, tokenizer, held_out).losses}


def run_whole(seed: int, rate: float = 2e-3, steps: int = 48) -> dict:
    """Exhibit 2: the whole model trained on all tokens; loss and gradient of 8 test prompts and their answers."""
    plain, tokenizer = whole()
    data, task, pad = load_task("bookings"), TASKS["bookings"], tokenizer.pad_token_id
    examples = in_order(seed, finetune.encode_split(tokenizer, task, data["train"].select(range(4 * steps)), 256))
    given = [throughout(finetune.collate(examples[start : start + 4], pad)) for start in range(0, 4 * steps, 4)]
    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(finetune.twin(plain), config)
    losses, *_ = train(model, given, rate, steps=steps, warmup=4, clip=1.0)
    test = finetune.encode_split(tokenizer, task, data["test"].select(range(8)), 256)
    return {"losses": losses} | pulls(model, finetune.collate(test, pad))


def pulls(model, batch: dict) -> dict:
    """Of a batch's prompts and answers: nats per token, and their parts of the gradient of the loss on all tokens."""
    answer, everything = batch["labels"], throughout(batch)["labels"]
    prompt = torch.where(answer >= 0, finetune.IGNORED, everything)
    loss_of, gradients, found = finetune.build_supervised(model), [], {}
    for part, labels in (("prompt", prompt), ("answer", answer)):
        model.zero_grad()
        nats = loss_of(**batch | {"labels": labels})
        (nats / (everything[:, 1:] >= 0).sum()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
        found[part] = nats.item() / int((labels[:, 1:] >= 0).sum())
        found[f"{part}_pull"] = float(gradients[-1].norm())
    return found | {"cosine": float(torch.cosine_similarity(*gradients, dim=0))}


def run_explodes(seed: int, rate: float, steps: int = 24, **how) -> dict:
    """Exhibit 8: loss, gradient norm and length of each step."""
    losses, norms, lengths = train(new_stump(seed), batches(seed), rate, steps=steps, **how)
    return {"losses": losses, "norms": norms, "lengths": lengths}


def reader(seed: int):
    """A digit reader with that seed under a fresh adapter; seed 0 is the page's."""
    torch.manual_seed(seed + 1)
    return inject(digits.pretrained(seed), list(digits.LAYERS), rank=4, alpha=8)


def gradient(seed: int, dtype, by: float) -> torch.Tensor:
    """The adapter's gradient before the first step, multiplied back."""
    model, (x, y, _, _) = reader(seed), digits.split("mirrored")
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = torch.nn.functional.cross_entropy(model(x).float(), y)
    (loss / by).backward()
    return by * torch.cat([p.grad.flatten() for p in trainable_parameters(model)])


def run_underflows(seed: int, dtype, by: float, rate: float, scale: float | None = None, steps: int = 150) -> dict:
    """Exhibit 6: LoRA on mirrored digits with a loss that is divided, in a narrow dtype."""
    model, (x, y, test_x, test_y) = reader(seed), digits.split("mirrored")
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=rate)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", dtype):
            loss = torch.nn.functional.cross_entropy(model(x).float(), y)
        optimizer.zero_grad()
        scaler.scale(loss / by).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    alike = torch.cosine_similarity(gradient(seed, dtype, by), gradient(seed, torch.float32, 1), dim=0)
    right = digits.accuracy(model, test_x, test_y)
    return {"first": losses[0], "lowest": min(losses), "last": losses[-1], "right": right, "cosine": float(alike)}


def teach(model, table, rate: float, steps: int, seed: int) -> float:
    """Teach a model to answer each token with its entry in the table; the last loss."""
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer, generator = torch.optim.AdamW(learned, rate, weight_decay=0), torch.Generator().manual_seed(seed + 1)
    for _ in range(steps):
        ids = torch.randint(0, 48, (16, 12), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), table[ids].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@cache
def mixture(seed: int, steps: int = 200):
    """(a small gpt-oss that has learned a table, another table to learn)"""
    torch.manual_seed(seed)
    with quiet():
        model = transformers.GptOssForCausalLM(transformers.GptOssConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_experts_per_tok=2, num_local_experts=4,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64, vocab_size=48,
            pad_token_id=0, eos_token_id=0, rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        ))  # fmt: skip
    known, other = (torch.randperm(48, generator=torch.Generator().manual_seed(2 * seed + one)) for one in (0, 1))
    teach(model, known, 1e-2, steps, seed)
    return model, other


def run_experts(seed: int, way: str, rate: float, steps: int = 120) -> dict:
    """Exhibit 12: a second table, by an adapter that reaches the experts or does not."""
    model, table = mixture(seed)
    torch.manual_seed(seed)
    with quiet():
        adapter = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules="all-linear", **REACHES[way]))
    numbers = adapter.get_nb_trainable_parameters()[0]
    return {"last": teach(adapter, table, rate, steps, seed), "trained_parameters": numbers}


RUNS = {
    **{(6, arm): (run_underflows, how, 5) for arm, how in UNDERFLOWS.items()},
    **{(12, arm): (run_experts, {"way": way, "rate": rate}, 5) for arm, (way, rate) in EXPERTS.items()},
    **{(8, arm): (run_explodes, how, 3) for arm, how in EXPLODES.items()},
    **{(2, kind): (run_labels, {"kind": kind}, 3) for kind in LABELS},
    (2, WHOLE): (run_whole, {}, 1),
}  # (exhibit, arm) -> what runs it, with what, how many seeds


def missing(rows: Iterable[dict], only: Iterable[str] | None = None) -> list[tuple[int, str, int]]:
    """(exhibit, arm, seed) of the runs that are not there yet, seed by seed: a stop leaves whole seeds behind."""
    there = {(row["exhibit"], row["arm"], row["seed"]) for row in rows}
    wanted = [(exhibit, arm, seed) for (exhibit, arm), (_, _, seeds) in RUNS.items() for seed in range(seeds)]
    wanted.sort(key=lambda one: one[2])
    return [one for one in wanted if one not in there and (not only or str(one[0]) in only)]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, run what is missing."""
    options = call(__doc__, dict.fromkeys(str(exhibit) for exhibit, _ in RUNS), SEEDS).parse_args(arguments)
    waiting = missing(lines_there(options.output), options.only)
    if options.list:
        for one in waiting:
            print(*one, sep=" · ")
        return
    use_threads()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for exhibit, arm, seed in waiting:
        run, how, _ = RUNS[exhibit, arm]
        began = time.process_time()
        row = {"exhibit": exhibit, "arm": arm, "seed": seed} | run(seed, **how)
        row |= {"cpu_seconds": round(time.process_time() - began, 1)} | machine("torch", "transformers", "peft")
        append_text(options.output, as_line(row))
        tell(f"{exhibit} · {arm} · {seed}: {row['cpu_seconds']} s")


if __name__ == "__main__":
    sys.exit(command_line(main)())
