"""Train the two small adapters that notebook 10 serves: QLoRA on the embedded model, one per task.

    python data/record_adapters.py                          # ten minutes on one core
    python data/record_adapters.py --only style             # one of them
    python data/record_adapters.py --steps 2 --examples 4 --output DIR    # a quick check of every part

writes `adapter_model.safetensors`, `adapter_config.json` and `record.json` to a folder of `data/adapters`, each folder
at its very end: a run that is killed leaves the old one as it was. `lab_utils.serving.recorded_adapter` finds them.

The weights are stored in bfloat16. The layers compute with A and scaling · B rounded to it, and the scaling is a power
of two: where the compute dtype is bfloat16 the file answers as the trained adapter did.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from lab_utils.device import find_device, use_threads
from lab_utils.errors import command_line
from lab_utils.evaluate import score
from lab_utils.files import read_json, replacing_folder, user_path
from lab_utils.finetune import Recipe, finetune
from lab_utils.finetune.runs import Run
from lab_utils.folders import DATA
from lab_utils.models import load_base
from lab_utils.quiet import quiet
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import tell
from lab_utils.tasks import TASKS, load_task

FOLDER = DATA / "adapters"
RECIPES = {
    "bookings": Recipe(model="smollm2-135m", task="bookings", rank=4, alpha=8, steps=175, batch_size=4),
    "style": Recipe(model="smollm2-135m", task="style", rank=4, alpha=8, steps=60, batch_size=4),
}
FILES = ("adapter_model.safetensors", "adapter_config.json", "record.json")
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "safetensors")


def in_bfloat16(run: Run, folder: Path) -> None:
    """The run's adapter in `folder`: weights in bfloat16, and a config that names no path of this machine."""
    weights, config, _ = FILES
    state = load_file(run.adapter_dir / weights)
    save_file(
        {name: matrix.bfloat16().contiguous() for name, matrix in state.items()},
        folder / weights, metadata={"format": "pt"},
    )  # fmt: skip
    settings = read_json(run.adapter_dir / config)
    settings |= {"base_model_name_or_path": None, "target_modules": sorted(settings["target_modules"])}
    (folder / config).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def measure(run: Run, folder: Path, examples: int | None) -> dict:
    """Scores of the stored adapter on every split that was not trained on or chosen by, and of the base on `test`."""
    from peft import load_peft_weights, set_peft_model_state_dict

    task = run.recipe.task
    with quiet():
        set_peft_model_state_dict(run.model, load_peft_weights(str(folder), device="cpu"))
        data = load_task(task)
    found = {}
    for split in (name for name in TASKS[task].splits if name not in ("train", "validation")):
        rows = list(data[split])[:examples]
        scores = score(run.model, run.tokenizer, rows, task)
        tell(f"{task}, {split}: {scores}")
        found[split] = {
            "examples": len(rows),
            "exact": scores.exact,
            "exact_interval": scores.exact_interval,
            "valid": scores.valid,
            "valid_interval": scores.valid_interval,
            "fields": scores.fields,
        }
    with run.model.disable_adapter():
        bare = score(run.model, run.tokenizer, list(data["test"])[:examples], task)
    found["test, base without adapter"] = {"examples": len(bare.rows), "exact": bare.exact, "valid": bare.valid}
    return found


def record(name: str, recipe: Recipe, base: tuple, examples: int | None, folder: Path) -> None:
    """Train one adapter and put it into `folder`/`name`."""
    began = time.perf_counter()
    target = folder / name
    with tempfile.TemporaryDirectory() as runs, replacing_folder(target, FILES.__contains__) as new:
        run = finetune(recipe, Path(runs) / name, base=base, progress=False)
        tell(f"{name}: {recipe.steps} steps in {run.seconds:.0f} s, last loss {run.history[-1]['loss']:.3f}")
        in_bfloat16(run, new)
        content = {
            "recipe": asdict(recipe),
            "scores": measure(run, new, examples),
            "training_loss": [round(row["loss"], 4) for row in run.history],
            "provenance": {
                "command": " ".join(["python", "data/record_adapters.py", *sys.argv[1:]]),
                "compute_dtype": find_device().compute_dtype,
                "training_seconds": round(run.seconds),
                "seconds": round(time.perf_counter() - began),
                **machine(*PACKAGES),
            },
        }
        (new / FILES[2]).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for file in FILES:  # safetensors lets the owner alone read what it writes
            (new / file).chmod(0o644)
    tell(f"{target}: {sum((target / file).stat().st_size for file in FILES):,} bytes")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(RECIPES), action="append", help="which adapters; default all")
    parser.add_argument("--steps", type=int, help="instead of the recipes' own")
    parser.add_argument("--examples", type=int, help="score on the first so many of a split; default all")
    parser.add_argument("--output", type=user_path, default=FOLDER)
    chosen = parser.parse_args(arguments)
    use_threads()
    base = load_base("smollm2-135m", "nf4", verbose=False)
    for name in chosen.only or RECIPES:
        recipe = RECIPES[name] if chosen.steps is None else replace(RECIPES[name], steps=chosen.steps)
        record(name, recipe, base, chosen.examples, chosen.output)


if __name__ == "__main__":
    sys.exit(command_line(main)())
