"""QLoRA fine-tuning: recipe, data into tokens, training, checkpoints (page 08)."""

from .adapter import attach_adapter, take_off_adapter, twin
from .advice import advise
from .answer_loss import answer_logits, build_supervised
from .batches import collate, plan_batches
from .fourbit import speed_up
from .opening import open_run
from .optimizer import build_optimizer
from .recipe import Recipe
from .run import finetune
from .run_folders import checkpoints
from .runs import run_folder
from .supervision import IGNORED, Encoded, encode, encode_row, encode_split, prompt_text
from .trl_trainer import float32_adapters, one_card

__all__ = [
    "IGNORED", "Encoded", "Recipe", "advise", "answer_logits", "attach_adapter", "build_optimizer",
    "build_supervised", "checkpoints", "collate", "encode", "encode_row", "encode_split", "finetune",
    "float32_adapters", "one_card", "open_run", "plan_batches", "prompt_text", "run_folder", "speed_up",
    "take_off_adapter", "twin",
]  # fmt: skip
