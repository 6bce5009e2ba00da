"""Seconds of a training step, the lab's and TRL's, one after the other on the same rows."""

import statistics

from ..finetune import finetune
from ..models import load_base
from .card import need_bytes
from .sections import Finding, Setting, Skipped
from .stand_in import MODEL, rows, shape, standing_in, write_model
from .training import recipe
from .trl_trainer import train

SLOWER = 1.15  # times TRL's step at most
LEFT_OUT = 5  # steps at the beginning, in which kernels are chosen and memory is taken
BATCH, WORDS = 4, 100
ROOM = 3  # bytes per parameter that must be free to begin: a generous guess
OPTIMIZERS = ("adamw_torch_fused", "paged_adamw_8bit")


def speed(setting: Setting) -> Finding:
    """Medians for two sizes of model, TRL with two optimizers."""
    values, ratios = {}, {}
    for name in setting.size(("SmolLM2-135M", "SmolLM2-1.7B"), ("tiny",)):
        try:
            need_bytes(ROOM * shape(name).total_parameters(), f"training {name}")
        except Skipped as reason:
            values[name] = str(reason)
            continue
        folder = write_model(setting.scratch / name, name)
        with standing_in(folder):
            values[name] = one = _times(setting, setting.scratch / f"{name}-runs")
        ratios[name] = one["the lab"] / min(one[f"TRL, {optimizer}"] for optimizer in OPTIMIZERS)
    if not ratios:
        raise Skipped("this card has no room for any of the models")
    text = "; ".join(f"{name}: {ratio:.2f} times TRL's step" for name, ratio in ratios.items())
    return Finding(max(ratios.values()) <= SLOWER, text, values)


def _times(setting: Setting, output) -> dict[str, float]:
    """Median seconds of a step of each way."""
    steps, left_out = setting.size((LEFT_OUT + 20, LEFT_OUT), (3, 1))
    data, found = rows(4 * BATCH, WORDS), {}
    base = load_base(MODEL, "nf4", verbose=False)
    one = recipe(steps, rank=8, learning_rate=1e-3, batch_size=BATCH, max_length=1024)
    run = finetune(one, output / "lab", base=base, dataset=data, progress=False)
    found["the lab"] = statistics.median(row["seconds"] for row in run.history[left_out:])
    for optimizer in OPTIMIZERS:
        base = load_base(MODEL, "nf4", verbose=False)
        repeated = (data * steps)[: steps * BATCH]
        _, seconds = train(*base, repeated, steps, output / optimizer, batch_size=BATCH, optimizer=optimizer)
        found[f"TRL, {optimizer}"] = statistics.median(seconds[left_out:])
    return found
