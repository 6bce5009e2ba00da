"""Record what a merge leaves of the recorded adapter, for each grid of its base and each format of the result.

    python data/record_requantization.py                  # 54 cells of 40 messages, about 35 s each on one idle core
    python data/record_requantization.py --only NF4       # one row of the table
    python data/record_requantization.py --messages 4 --output DIR

appends to `data/requantization/requantization.jsonl`, a line per cell; cells that are there are skipped, so a run that
was stopped continues. `lab_utils.recorded.requantized_merges` reads it; data/README.md says what it holds.

The shipped weights of the 210 adapted matrices are rounded to the grid, ΔW of the adapter `bookings` is added in
float32, and the sum is rounded to the destination. The model computes in float32, so no other rounding takes part.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.evaluate import answer_losses
from lab_utils.files import user_path
from lab_utils.merging import Left, Rounded, adapted_layers, compare_rounded, delta_weights, round_to
from lab_utils.models import load_base
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.requantization import DESTINATIONS, FILE, GRIDS, NO_ADAPTER, REQUANTIZATION, SHIFTED
from lab_utils.serving import AdapterBank, recorded_adapter
from lab_utils.tasks import load_task

ADAPTER = "bookings"


def updates() -> dict[str, Tensor]:
    """ΔW of every adapted matrix, float32, by the matrix's name in the base."""
    base, tokenizer = load_base("smollm2-135m", "nf4", verbose=False)
    bank = AdapterBank(base, tokenizer)
    bank.load(ADAPTER, recorded_adapter(ADAPTER))
    return delta_weights(bank.model, adapted_layers(bank.model))


def pooled(weights: dict[str, Tensor], deltas: dict[str, Tensor], lefts: dict[str, Left]) -> dict[str, float]:
    """What is left of all matrices' updates taken together, of what is left of each."""
    kept = whole = noise = size = changed = count = 0.0
    for name, left in lefts.items():
        update, weight = (float(one[name].double().square().sum()) for one in (deltas, weights))
        kept, whole = kept + left.kept * update, whole + update
        noise, size = noise + left.noise**2 * weight, size + weight
        changed, count = changed + left.changed * deltas[name].numel(), count + deltas[name].numel()
    arrived = noise + 2 * kept - whole  # ‖arrived‖², as noise is ‖arrived − ΔW‖²
    cosine = kept / (arrived * whole) ** 0.5 if arrived > 0 else 0.0
    return {"kept": kept / whole, "noise": (noise / size) ** 0.5, "cosine": cosine, "changed": changed / count}


def rounded(weight: Tensor, into: str) -> Rounded:
    """`round_to` with double quantization; for the control, in blocks that begin half a block later."""
    if into != SHIFTED:
        return round_to(weight, into, True)
    turned = round_to(weight.flatten().roll(-32), "FP4", True)
    return Rounded(*(part.roll(32).view(weight.shape) for part in turned))


def cell(model, tokenizer, rows, weights: dict, deltas: dict, grid: str, into: str) -> dict:
    """Put one merge into the model and measure it."""
    began, lefts = time.perf_counter(), {}
    for name, weight in weights.items():
        merged = weight
        if into != NO_ADAPTER:
            before, after = (rounded(one, into) for one in (weight, weight + deltas[name]))
            lefts[name], merged = compare_rounded(weight, deltas[name], after, before), after.values
        model.get_submodule(name).weight.data = merged
    found = answer_losses(model, tokenizer, rows, ADAPTER)
    return {
        "grid": grid, "destination": into, "loss": found.loss, "right": sum(found.right), "messages": len(found.right),
        **(pooled(weights, deltas, lefts) if lefts else {}), "seconds": round(time.perf_counter() - began, 1),
        "provenance": machine("torch", "transformers", "peft", "bitsandbytes"),
    }  # fmt: skip


def recorded(file: Path, messages: int) -> set[tuple[str, str]]:
    """The cells of a file that were measured on so many messages."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    cells = [json.loads(line) for line in lines if line.endswith("}")]
    return {(one["grid"], one["destination"]) for one in cells if one["messages"] == messages}


def record(file: Path, grids: list[str], messages: int) -> None:
    """Measure every cell that `file` lacks, and append it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    there = recorded(file, messages)
    deltas, (model, tokenizer) = updates(), load_base("smollm2-135m", "none", verbose=False)
    model = model.float()
    shipped = {name: model.get_submodule(name).weight.data for name in deltas}
    rows = load_task(ADAPTER)["test"].select(range(messages))
    for grid in grids:
        weights = {name: round_to(weight, grid, True).values for name, weight in shipped.items()}
        wanted = (*DESTINATIONS, SHIFTED) if grid == "NF4" else DESTINATIONS
        for into in (into for into in wanted if (grid, into) not in there):
            found = cell(model, tokenizer, rows, weights, deltas, grid, into)
            with file.open("a", encoding="utf-8", newline="\n") as lines:
                lines.write(json.dumps(found) + "\n")
            print(f"{time.strftime('%H:%M:%S')} {grid} to {into}: loss {found['loss']:.4f}, {found['right']} of "
                  f"{found['messages']} right, {found['seconds']} s", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GRIDS, action="append", help="a grid; may be given several times")
    parser.add_argument("--messages", type=int, default=40, help="of the test split, from its beginning")
    parser.add_argument("--output", type=user_path, default=REQUANTIZATION, help="folder for the file")
    chosen = parser.parse_args()
    use_threads()
    with torch.no_grad():
        record(chosen.output / FILE, chosen.only or list(GRIDS), chosen.messages)


if __name__ == "__main__":
    sys.exit(command_line(main)())
