"""Paint the pictures of notebook 12's explorer: adapters for a style, of every rank, at every strength.

    python data/record_pictures.py                          # about eight minutes on two cores
    python data/record_pictures.py --steps 4 --adapter-steps 2 --ranks 1 2 --output DIR      # a quick check

writes `samples.png` and `samples.json` to `data/pictures`, both at the very end. Base and adapters are trained as
notebook 12 trains them, into their own folder: a run that is killed goes on from its last checkpoint.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean

from lab_utils.beyond_text.painter import Painter, load_painter, paint
from lab_utils.beyond_text.painter_training import (
    PARTS,
    PainterRecipe,
    adapter_recipe,
    style_pictures,
    train,
    train_base,
)
from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import replacing_files, user_path
from lab_utils.folders import DATA
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import tell

RANKS = (1, 2, 4, 8, 16)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
PROMPTS = (  # two things that the adapter has seen in its style, then three that it has not
    "a red house, neon", "a blue boat, neon", "a green tree, neon", "a purple tree, neon",
    "an orange flower, neon", "a yellow flower, neon", "a blue mushroom, neon", "a red mushroom, neon",
)  # fmt: skip
SEED = 1
PACKAGES = ("torch", "diffusers", "peft", "transformers")


def record_rank(painter: Painter, rank: int, steps: int, folder: Path) -> tuple[list[list], dict]:
    """Train the style with one rank; its pictures by strength, and what the adapter is and cost."""
    import torch
    from peft import LoraConfig

    torch.manual_seed(0)
    painter.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=PARTS), adapter_name="neon")
    trained = sum(parameter.numel() for parameter in painter.unet.parameters() if parameter.requires_grad)
    history = train(painter, *style_pictures(), adapter_recipe(painter, steps), folder)
    with tempfile.TemporaryDirectory() as scratch:
        painter.unet.save_lora_adapter(scratch, adapter_name="neon")
        file_bytes = sum(path.stat().st_size for path in Path(scratch).iterdir())
    rows = []
    for strength in STRENGTHS:
        painter.unet.set_adapters("neon", weights=strength)
        rows.append(paint(painter, PROMPTS, seed=SEED))
    painter.unet.delete_adapters("neon")
    return rows, {"trainable_parameters": trained, "file_bytes": file_bytes, **summed_up(history)}


def summed_up(history: list[dict]) -> dict[str, float]:
    """Of a training: its loss over the last 20 steps, and its seconds."""
    return {
        "loss": round(fmean(row["loss"] for row in history[-20:]), 5),
        "seconds": round(sum(row["seconds"] for row in history), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=PainterRecipe().steps, help="of the base")
    parser.add_argument("--adapter-steps", type=int, default=150)
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS)
    parser.add_argument("--runs", type=user_path, default=Path("runs/pictures"), help="where checkpoints are kept")
    parser.add_argument("--output", type=user_path, default=DATA / "pictures")
    options = parser.parse_args()
    use_threads()
    from PIL import Image

    painter = load_painter("tiny")
    history = train_base(painter, PainterRecipe(steps=options.steps), options.runs)
    parameters = painter.unet.num_parameters() + painter.text_encoder.num_parameters()
    base = {"parameters": parameters, **summed_up(history)}
    tell(f"base: {base}")
    rows, adapters = [], {}
    for rank in sorted(options.ranks):
        pictures, adapters[rank] = record_rank(painter, rank, options.adapter_steps, options.runs)
        rows += pictures
        tell(f"rank {rank}: {adapters[rank]}")
    sheet = Image.new("RGB", (painter.size * len(PROMPTS), painter.size * len(rows)))
    for down, pictures in enumerate(rows):
        for right, picture in enumerate(pictures):
            sheet.paste(picture, (right * painter.size, down * painter.size))
    record = {
        "size": painter.size, "ranks": sorted(options.ranks), "strengths": STRENGTHS, "prompts": PROMPTS, "seed": SEED,
        "base": base, "adapters": adapters, "command": "python data/record_pictures.py", "machine": machine(*PACKAGES),
    }  # fmt: skip
    with replacing_files(options.output) as new:
        sheet.save(new / "samples.png", optimize=True)
        (new / "samples.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    tell(f"{options.output}/samples.png, samples.json")
    return 0


if __name__ == "__main__":
    sys.exit(command_line(main)())
