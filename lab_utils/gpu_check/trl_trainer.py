"""TRL's SFTTrainer on a 4-bit model, as page 08 sets it up."""

import math
import time
from pathlib import Path

from ..device import find_device
from ..finetune import float32_adapters, one_card, prompt_text, take_off_adapter
from ..models import load_base
from ..quiet import quiet
from ..tasks import TASKS
from .sections import Finding, Setting
from .stand_in import MODEL, computing_in, dtypes, lessons, standing_in, write_model

STEPS = 3
TASK = "bookings"


def trains(setting: Setting) -> Finding:
    """Some steps in every dtype of the card; in float16 with a GradScaler, on a T4 the only way."""
    folder = write_model(setting.scratch / "tiny")
    values, problems = {}, []
    for dtype in dtypes():
        with computing_in(dtype), standing_in(folder):
            losses, _ = train(*load_base(MODEL, "nf4", verbose=False), lessons(), STEPS, setting.scratch / dtype)
        values[dtype] = {"losses": losses}
        if len(losses) < STEPS or not all(map(math.isfinite, losses)):
            problems.append(f"in {dtype} the losses are {losses}")
    text = f"{STEPS} steps in {' and in '.join(values)}"
    return Finding(not problems, "; ".join([text, *problems]), values)


def train(
    model, tokenizer, rows: list[dict], steps: int, output: Path, *, batch_size: int = 4, optimizer: str = "",
    rank: int = 8,
) -> tuple[list[float], list[float]]:
    """Train with TRL; the adapter in float32, as page 08 has it.

    Parameters
    ----------
    model, tokenizer : as `load_base` returns them
    rows : of "prompt" and "answer"
    steps, batch_size, rank : int
    output : Path, TRL's folder
    optimizer : str, TRL's name of one; default TRL's own choice

    Returns
    -------
    (losses, seconds), one number per step
    """
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    seconds: list[float] = []

    class Clock(TrainerCallback):
        """Seconds of each step, to the end of its work on the card."""

        def on_step_begin(self, *_, **__):
            _wait()
            self.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            _wait()
            seconds.append(time.perf_counter() - self.began)

    here = find_device()
    arguments = SFTConfig(
        output_dir=str(output), max_steps=steps, per_device_train_batch_size=batch_size, learning_rate=1e-3,
        logging_steps=1, report_to="none", save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
        train_sampling_strategy="sequential", bf16=here.mixed_precision == "bf16", fp16=here.mixed_precision == "fp16",
        **({"optim": optimizer} if optimizer else {}),
    )  # fmt: skip
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        trainer = SFTTrainer(
            model=take_off_adapter(model), args=one_card(arguments), processing_class=tokenizer, peft_config=lora,
            train_dataset=Dataset.from_list(_as_trl(tokenizer, rows)), callbacks=[Clock()],
        )  # fmt: skip
        float32_adapters(trainer).train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], seconds


def _as_trl(tokenizer, rows: list[dict]) -> list[dict]:
    """The rows in TRL's two columns."""
    task = TASKS[TASK]
    return [{"prompt": prompt_text(tokenizer, task, row["prompt"]), "completion": row["answer"]} for row in rows]


def _wait() -> None:
    """Wait for the card."""
    import torch

    torch.cuda.synchronize()
