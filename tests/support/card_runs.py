"""Training and answering on a pretended card, with the tiny model: what a run there leaves, as one JSON object.

    python tests/support/card_runs.py T4 FOLDER
"""

import json
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

from lab_utils.pretended import enable, overflowing

CARD, FOLDER = enable(sys.argv[1]), Path(sys.argv[2])

import tiny_runs  # noqa: E402
import torch  # noqa: E402

from lab_utils import decoding, models  # noqa: E402
from lab_utils.device import find_device  # noqa: E402
from lab_utils.finetune import Recipe, finetune, optimizer  # noqa: E402
from lab_utils.finetune.full import matrices, train_full  # noqa: E402
from lab_utils.finetune.optimizer import optimizer_of  # noqa: E402
from lab_utils.serving import AdapterBank  # noqa: E402

ROWS = [{"prompt": f"{count} tents", "answer": f'{{"qty":{count}}}'} for count in range(1, 9)]
RECIPE = Recipe(steps=3, batch_size=2, rank=2, alpha=4, checkpoint_every=1)


def base(quantization: str, device: str | None = None) -> tuple:
    """The tiny model on the card, or on the CPU beside it, as `load_base` loads one."""
    return models.load_base(str(FOLDER / "tiny"), quantization, device, verbose=False)


def train(name: str, recipe: Recipe = RECIPE, device: str | None = None) -> dict:
    """What a run leaves behind: its losses, skipped steps and state."""
    pair = base(recipe.quantization, device)
    run = finetune(recipe, FOLDER / name, base=pair, dataset=ROWS, progress=False)
    state = torch.load(sorted((FOLDER / name).glob("checkpoint-*"))[-1] / "state.pt", weights_only=True)
    return {
        "losses": [row["loss"] for row in run.history], "skipped": [row.get("skipped") for row in run.history],
        "resumed": run.resumed_from, "scaler": state["scaler"] is not None, "random": len(state["random_cuda"]),
        "model": run.recipe.model, "optimizer": optimizer_of(state["optimizer"]), "run": run,
    }  # fmt: skip


def main() -> None:
    tiny_runs.save_tiny(FOLDER / "tiny")
    models.load_tokenizer().save_pretrained(FOLDER / "tiny")
    fp16 = find_device().mixed_precision == "fp16"
    found = {"dtype": find_device().compute_dtype}
    with_all = replace(RECIPE, gradient_checkpointing=True, dropout=0.1)
    found["whole"] = train("whole", with_all)
    with suppress(KeyboardInterrupt), tiny_runs.stopping_after(2):
        train("resumed", with_all)
    found["again"] = train("resumed", with_all)
    paged = mock.patch.object(optimizer, "decide_optimizer", lambda *_: "paged_adamw_8bit")  # as earlier versions did
    with paged, suppress(KeyboardInterrupt), tiny_runs.stopping_after(2):
        train("paged")
    found["paged"] = train("paged")
    found["int8"] = train("int8", replace(RECIPE, quantization="int8", steps=1))
    found["none"] = train("none", replace(RECIPE, quantization="none", steps=1))
    found["beside"] = train("beside", replace(RECIPE, quantization="none", steps=1), "cpu")
    if fp16:
        with overflowing(steps=2):
            found["overflow"] = train("overflow")
    run = found["whole"]["run"]
    prompts = [row["prompt"] for row in ROWS[:2]]
    found["answers"] = decoding.generate(run.model, run.tokenizer, prompts, max_new_tokens=3)
    with mock.patch.object(decoding, "quick_decoder", lambda model: model.eval()):  # through the 4-bit layers
        found["slow answers"] = decoding.generate(run.model, run.tokenizer, prompts, max_new_tokens=3)
    bank = AdapterBank(*base("none"))
    bank.load("mine", run.adapter_dir, task="bookings")
    found["bank"] = bank.answer(prompts, ["mine", None], tasks="bookings", max_new_tokens=3)
    found["full"] = full()
    for one in found.values():
        if isinstance(one, dict):
            one.pop("run", None)
    print(json.dumps(found))


def full() -> list[float]:
    """Losses of full fine-tuning."""
    model, tokenizer = base("none")
    model.float().requires_grad_(False)
    for module in matrices(model).values():
        module.weight.requires_grad_(True)
    return train_full(model, tokenizer, replace(RECIPE, steps=2), ROWS)


if __name__ == "__main__":
    main()
