"""`python tests/bench/bench_nf4.py`: lab_utils.nf4 against bitsandbytes on the CPU, in turn in one run, and peak
memory.

Times are seconds of a 4096 × 4096 float32 matrix with as many threads on both sides. Each round runs ours, then theirs;
the ratio of a round is what counts, since both then met the same machine. Exit status 1 if a limit is broken.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time

from lab_utils.folders import ROOT

LIMITS = {"quantize": 1.0, "dequantize": 2.0}  # times bitsandbytes
MEMORY_LIMIT = 2.0  # times the tensor
LEAST = {"quantize": 0.125, "dequantize": 0.95}  # the result alone; less was not measured
MEASURE = """
import json, re, sys, torch
from pathlib import Path
from lab_utils.nf4 import dequantize_4bit, quantize_4bit
def read(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
def extra(function, *arguments):
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = read("VmRSS")
    result = function(*arguments)
    return result, read("VmHWM") - before
torch.manual_seed(0)
dequantize_4bit(quantize_4bit(torch.randn(512, 512), double_quant=True))  # tables and threads are there after this
weight = torch.randn(int(sys.argv[1]), int(sys.argv[1]))
quantized, first = extra(quantize_4bit, weight, 64, "nf4", True)
dense, second = extra(dequantize_4bit, quantized)
print(json.dumps({"quantize": first, "dequantize": second}))
"""


def peak_extra_bytes(size: int) -> dict[str, int]:
    """Peak bytes that quantizing and dequantizing take beside a (size, size) float32 weight; the result counts.

    Measured as the growth of the peak resident memory of a separate process; Linux only.
    """
    command = [sys.executable, "-c", MEASURE, str(size)]
    root = ROOT
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout)


def in_turn(ours, theirs, rounds: int) -> list[tuple[float, float]]:
    """Seconds of both, one after the other, after one call of each that is not counted."""
    times = []
    for _ in range(rounds + 1):
        pair = []
        for function in (ours, theirs):
            start = time.perf_counter()
            function()
            pair.append(time.perf_counter() - start)
        times.append(tuple(pair))
    return times[1:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=4096)
    options = parser.parse_args()

    import torch

    logging.disable(logging.WARNING)  # bitsandbytes asks for a package that is of no use here
    import bitsandbytes.functional as bnb

    from lab_utils.nf4.codec import dequantize_4bit, quantize_4bit

    torch.set_num_threads(options.threads)
    weight = torch.randn(options.size, options.size, generator=torch.Generator().manual_seed(0))
    failed = False
    print(f"{options.size}×{options.size} float32, NF4, block 64, {options.threads} thread(s), {options.rounds} rounds")
    for double in (False, True):
        ours = quantize_4bit(weight, double_quant=double)
        packed, state = bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
        runs = {
            "quantize": (
                lambda double=double: quantize_4bit(weight, double_quant=double),
                lambda double=double: bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=double),
            ),
            "dequantize": (
                lambda ours=ours: dequantize_4bit(ours),
                lambda packed=packed, state=state: bnb.dequantize_4bit(packed, state),
            ),
        }
        for what, sides in runs.items():
            times = in_turn(*sides, options.rounds)
            ratio = statistics.median(a / b for a, b in times)
            mine, their = (statistics.median(side) for side in zip(*times, strict=True))
            failed |= ratio > LIMITS[what]
            name = f"{what}{', double quantization' if double else ''}"
            print(f"{name:34} ours {mine:.3f} s, bitsandbytes {their:.3f} s, ratio {ratio:.2f} (≤ {LIMITS[what]:.1f})")
    if sys.platform == "linux":
        for what, extra in peak_extra_bytes(options.size).items():
            share = extra / (4 * options.size**2)
            failed |= not LEAST[what] < share <= MEMORY_LIMIT
            print(f"{what:34} peak extra memory {share:.2f} × the tensor ({LEAST[what]:.2f} to {MEMORY_LIMIT:.1f})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
