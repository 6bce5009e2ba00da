"""Record the sweep of notebook 09: 32 steps of fine-tuning on `bookings` in many settings, three seeds each.

    python data/record_sweep.py --processes 2             # about two hours on two idle cores
    python data/record_sweep.py --list                    # what would be run

writes `data/sweep/sweep.csv`, a row at a time: killed, the same command goes on. `lab_utils.sweep` says what a row
holds; data/README.md says what the sweep leaves out.
"""

import argparse
import sys
from collections.abc import Iterator

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import user_path
from lab_utils.finetune import Recipe
from lab_utils.folders import DATA
from lab_utils.memory.free import keep_freed_memory
from lab_utils.sweep import Trial, missing, sweep
from lab_utils.sweep.on_ray import sweep_on_ray

TABLE = DATA / "sweep" / "sweep.csv"
RANKS = (1, 2, 4, 8, 16, 32, 64)
SEEDS = (0, 1, 2)


def adapter(seed: int, rank: int = 8, alpha: float | None = None, **changes) -> Trial:
    """The sweep's centre, NF4, all linear layers, r = 8, α = 2r, learning rate 2e-3, with some settings changed."""
    settings = {"model": "smollm2-135m", "steps": 32, "train_examples": 128, "seed": seed} | changes
    return Trial(recipe=Recipe(rank=rank, alpha=2.0 * rank if alpha is None else alpha, **settings))


def other(seed: int, method: str, shots: int = 0, learning_rate: float = 2e-3) -> Trial:
    """What adapters are held against: a full fine-tune, or prompting."""
    quantization = "none" if method == "full" else "nf4"
    recipe = adapter(seed, quantization=quantization, learning_rate=learning_rate).recipe
    return Trial(recipe=recipe, method=method, shots=shots)


def groups(seed: int) -> Iterator[list[Trial]]:
    """One seed's trials, a list for each question."""
    yield [adapter(seed, rank) for rank in RANKS]
    yield [adapter(seed, rank, target_modules="qv") for rank in (1, 8, 64)]
    yield [adapter(seed, rank, target_modules="attention") for rank in (8, 64)]
    yield [adapter(seed, quantization=base) for base in ("none", "int8", "fp4")]
    yield [other(seed, "full", learning_rate=2e-4)]
    # Alpha and learning rate: one of them changed, and both so that their product stays.
    yield [adapter(seed, alpha=a, learning_rate=rate) for a, rate in
           ((4.0, 2e-3), (64.0, 2e-3), (16.0, 5e-4), (16.0, 8e-3), (4.0, 8e-3), (64.0, 5e-4))]  # fmt: skip
    yield [adapter(seed, train_examples=count) for count in (16, 48)]
    # α = 16 as it was set at r = 8, under both rules; at r = 8 both scale by 2.
    yield [adapter(seed, 64, 16.0), adapter(seed, 64, 2 * 8**0.5, use_rslora=True)]
    yield [adapter(seed, dropout=0.1)]
    # No examples in the prompt: nothing is drawn, so one seed is all there is.
    yield [other(seed, "prompt", shots) for shots in ((0, 1) if seed == 0 else (1,))]


def trials() -> list[Trial]:
    """All trials, question by question, so that a sweep cut short has answered the first ones with all seeds."""
    by_seed = [list(groups(seed)) for seed in SEEDS]
    return [trial for group in zip(*by_seed, strict=True) for of_seed in group for trial in of_seed]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=1, help="trials at once, one thread each")
    parser.add_argument("--output", type=user_path, default=TABLE)
    parser.add_argument("--ray", action="store_true", help="let Ray Tune hand the trials out")
    parser.add_argument("--address", help="with --ray: of a running Ray, as auto or 10.0.0.1:6379")
    parser.add_argument("--list", action="store_true", help="say what is missing, and run nothing")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        waiting = missing(trials(), chosen.output)
        print(*waiting, f"{len(waiting)} trials are missing in {chosen.output}.", sep="\n")
        return
    use_threads()
    keep_freed_memory()

    def say(line: str) -> None:
        print(line, flush=True)

    if chosen.ray:
        sweep_on_ray(trials(), chosen.output, workers=chosen.processes, address=chosen.address, progress=say)
    else:
        sweep(trials(), chosen.output, processes=chosen.processes, progress=say)


if __name__ == "__main__":
    sys.exit(command_line(main)())
