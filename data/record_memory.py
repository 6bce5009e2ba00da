"""Record what training steps of the embedded model really take in memory, to hold `lab_utils.memory` against it.

    python data/record_memory.py                  # about ten minutes on one core
    python data/record_memory.py --only 3 8       # some of the cases, printed and not written

writes `data/memory/measurements.json` at the very end. Each case runs in a fresh process, on one thread, with a C
library that gives freed memory back at once. data/README.md says what is measured;
`lab_utils.recorded.memory_measurements` reads it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from lab_utils.errors import command_line

DEFAULTS = {
    "rank": 8, "target_modules": "all-linear", "batch_size": 2, "sequence_length": 80, "answer": 38,
    "dtype": "bfloat16", "gradient_checkpointing": False,
}  # fmt: skip
CASES = [
    {"method": "full", "dtype": "float32", "batch_size": 1, "sequence_length": 64},
    {"method": "full", "dtype": "float32", "sequence_length": 192, "gradient_checkpointing": True},
    {"method": "full", "batch_size": 8},
    {"method": "full", "sequence_length": 256, "gradient_checkpointing": True},
    {"method": "lora", "dtype": "float32", "sequence_length": 96},
    {"method": "lora", "dtype": "float16", "sequence_length": 64},
    {"method": "lora", "batch_size": 8},
    {"method": "lora", "batch_size": 4, "sequence_length": 128, "rank": 16, "gradient_checkpointing": True},
    {"method": "lora", "sequence_length": 128, "rank": 64, "target_modules": "qv"},
    {"method": "qlora", "batch_size": 8},
    {"method": "qlora", "batch_size": 4},
    {"method": "qlora", "batch_size": 1, "sequence_length": 384, "answer": 12},
    {"method": "qlora", "batch_size": 8, "gradient_checkpointing": True},
    {"method": "qlora", "sequence_length": 64, "rank": 64},
    {"method": "qlora", "dtype": "float32", "sequence_length": 128, "rank": 16},
    {"method": "qlora", "dtype": "float32", "sequence_length": 256, "answer": 20, "gradient_checkpointing": True},
]
FILE = Path(__file__).parent / "memory" / "measurements.json"
# One thread, for each has its own buffers. Every block of 8 KiB and more comes from the system, and goes back to it
# when it is freed: glibc otherwise keeps freed blocks, and its own cleverness would be measured.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "LORA_LAB_THREADS": "1", "LORA_LAB_DEVICE": "cpu", "HF_HUB_OFFLINE": "1",
    "MALLOC_MMAP_THRESHOLD_": "8192", "MALLOC_TRIM_THRESHOLD_": "8192", "MALLOC_MMAP_MAX_": "1000000",
}  # fmt: skip


def prepare(model, case: dict):
    """(step, parameters, optimizer): a training step of the lab on `model`, by the settings of `case`."""
    import torch

    from lab_utils.finetune import IGNORED, Recipe, attach_adapter, build_supervised, speed_up

    for parameter in model.parameters():  # into its own memory: the loaded file may be shared with others
        if parameter.dtype.is_floating_point:
            parameter.data = parameter.data.clone()
    if case["method"] == "full":
        model.train().requires_grad_(True)
    else:
        model = attach_adapter(model, Recipe(rank=case["rank"], target_modules=case["target_modules"]))
        speed_up(model)
    if case["gradient_checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    shape, answer = (case["batch_size"], case["sequence_length"]), case["answer"]
    ids = torch.randint(3, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, IGNORED)
    labels[:, -answer:] = ids[:, -answer:]
    loss = build_supervised(model)

    def step():
        loss(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step, model, optimizer


def rehearse(case: dict) -> None:
    """The same step on one layer of the same shape: libraries set themselves up, and that memory is not the model's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lab_utils.models.embedded import embedded_folder

    config = AutoConfig.from_pretrained(embedded_folder(), num_hidden_layers=1)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, case["dtype"]), attn_implementation="eager")
    step, *_ = prepare(model, case)
    step()


def measure(case: dict) -> dict:
    """Bytes of a case, measured in this process: see data/README.md."""
    import gc
    import warnings

    warnings.simplefilter("ignore")
    from lab_utils.device import Device, use_threads
    from lab_utils.memory import measured_peak, tensor_peak
    from lab_utils.memory.peak import process_bytes
    from lab_utils.models import load_base, load_tokenizer

    use_threads()
    load_tokenizer()  # its tables are not part of the model
    rehearse(case)
    gc.collect()
    baseline = process_bytes()
    began = time.perf_counter()
    device = Device("cpu", platform.processor(), case["dtype"], "chosen by the case")
    model, _ = load_base("smollm2-135m", "nf4" if case["method"] == "qlora" else "none", device, verbose=False)
    step, model, optimizer = prepare(model, case)
    step()  # the optimizer makes its moments
    gc.collect()
    between = process_bytes() - baseline
    process_growth = measured_peak(step, "cpu")
    return {
        "resident_bytes": resident_bytes(model, optimizer),
        "process_bytes": between,
        "process_growth_bytes": process_growth,
        "tensor_growth_bytes": tensor_peak(step),
        "seconds": round(time.perf_counter() - began, 1),
    }


def resident_bytes(model, optimizer) -> dict[str, int]:
    """Bytes of the distinct tensors that stay between two steps: weights, unpacked absmax, adapter, moments."""
    from lab_utils.memory.saved import quantized_state, storage_bytes

    parts = {"weights": quantized_state(model), "adapter": [], "unpacked": [], "optimizer": []}
    for name, parameter in model.named_parameters():
        parts["adapter" if "lora_" in name else "weights"].append(parameter)
    for module in model.modules():
        if "forward" in vars(module):  # fourbit.speed_up's, which holds a FrozenWeight
            parts["unpacked"].append(module.forward.args[2].absmax)
    parts["optimizer"] = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    return {part: storage_bytes(tensors) for part, tensors in parts.items()}


def measure_in_a_child(case: dict) -> dict:
    """`measure` in a fresh Python."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="cases by number, from 0; nothing is written")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # what the child is called with
    chosen = parser.parse_args(arguments)
    if chosen.case:
        print(json.dumps(measure(json.loads(chosen.case))))
        return
    rows = []
    for number, case in enumerate(CASES):
        if chosen.only is None or number in chosen.only:
            settings = DEFAULTS | case
            rows.append({"settings": settings, "measured": measure_in_a_child(settings)})
            print(time.strftime("%H:%M:%S"), number, json.dumps(rows[-1]), flush=True)
    if chosen.only is None:
        write(rows)


def write(rows: list[dict]) -> None:
    """The rows with their provenance, the whole file or nothing."""
    from lab_utils.files import write_text
    from lab_utils.recorded.provenance import machine

    record = {
        "model": "smollm2-135m",
        "provenance": {
            "command": " ".join(["python", "data/record_memory.py"]),
            "environment": ENVIRONMENT,
            **machine("torch", "transformers", "peft", "bitsandbytes"),
            "threads": 1,  # of a case's own process
        },
        "measurements": rows,
    }
    write_text(FILE, json.dumps(record, indent=1) + "\n")
    print(f"written to {FILE}")


if __name__ == "__main__":
    sys.exit(command_line(main)())
