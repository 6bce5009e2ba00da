"""Record what the embedded model writes once its weights are rounded: a grid of bits, blocks and zero-points.

    nice -n 19 python data/record_sentences.py           # six minutes of one idle core

appends to `data/bits/sentences.jsonl`, one line per setting, and goes on where it stopped. The first line tells of the
text, the prompts and the machine. `lab_utils.recorded.sentences_by_bits` reads it; data/README.md says what it holds.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from pathlib import Path

import torch

from lab_utils.device import use_threads
from lab_utils.errors import LabError, command_line
from lab_utils.evaluate import read_and_write
from lab_utils.files import user_path
from lab_utils.memory.free import keep_freed_memory
from lab_utils.models import load_base
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.sentences import GRID, PARAGRAPHS, SENTENCES, TOKENS_TO_WRITE, SentencesRecord

PROMPTS = ["Why is the sky blue? Answer in one sentence.", "What is the capital of France?",
           "Write one sentence about a ferryman and his bell."]  # fmt: skip


def header(text: str, tokens: int, model) -> dict:
    """What all lines have in common."""
    return {
        "prompts": PROMPTS, "tokens_to_write": TOKENS_TO_WRITE,
        "text": {"sha256": hashlib.sha256(text.encode()).hexdigest(), "paragraphs": PARAGRAPHS, "tokens": tokens},
        "provenance": {
            "command": "python data/record_sentences.py", "compute_dtype": str(model.dtype).removeprefix("torch."),
            **machine("torch", "transformers"), "threads": torch.get_num_threads(),
        },
    }  # fmt: skip


def line(setting: dict, found: dict, base: torch.Tensor, seconds: float) -> dict:
    """A setting's line: losses in nats per token, with the standard error of the change over 16 bits."""
    change = (found["losses"] - base).double()
    return {
        **setting,
        "bits_per_parameter": round(found["bits_per_parameter"], 4),
        "loss": round(float(found["losses"].double().mean()), 5),
        "loss_change": round(float(change.mean()), 5),
        "loss_change_error": round(float(change.std()) / math.sqrt(len(change)), 5),
        "answers": found["answers"],
        "seconds": round(seconds, 1),
    }


def finished(file: Path) -> list[dict]:
    """The whole lines of a recording that was stopped; what was half written goes."""
    if not file.exists():
        return []
    lines = [one for one in file.read_bytes().splitlines(keepends=True) if one.endswith(b"\n")]
    file.write_bytes(b"".join(lines))
    return [json.loads(one) for one in lines]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=user_path, default=SENTENCES)
    parser.add_argument("--only", type=int, metavar="N", help="so many settings, then stop")
    chosen = parser.parse_args(arguments)
    use_threads()
    keep_freed_memory()
    model, tokenizer = load_base("smollm2-135m", "none", verbose=False)
    text, done = SentencesRecord.passage(), finished(chosen.output)
    first = {"bits": 16, "blocksize": 64, "zero_point": False}
    base = read_and_write(model, tokenizer, text, PROMPTS, **first, max_new_tokens=TOKENS_TO_WRITE)
    top = header(text, len(base["losses"]) + 1, model)
    if done and (done[0]["prompts"], done[0]["text"]) != (top["prompts"], top["text"]):
        raise LabError(f"{chosen.output} was recorded with another text or other prompts. Move it away first.")
    have = [{name: row[name] for name in first} for row in done[1:]]
    missing = [setting for setting in (first, *GRID) if setting not in have]
    with open(chosen.output, "a", encoding="utf-8", newline="\n") as out:
        if not done:
            print(json.dumps(top, ensure_ascii=False), file=out, flush=True)
        for setting in missing[: chosen.only]:
            began = time.process_time()
            found = read_and_write(model, tokenizer, text, PROMPTS, **setting, max_new_tokens=TOKENS_TO_WRITE)
            row = line(setting, found, base["losses"], time.process_time() - began)
            print(json.dumps(row, ensure_ascii=False), file=out, flush=True)
            print(time.strftime("%H:%M:%S"), json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(command_line(main)())
