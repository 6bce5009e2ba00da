"""Usual mistakes on page 13, as a learner would write them: exercise -> (mistake's name, function)."""

import statistics


def mean_of_means(sums, counts):
    losses = []
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        losses.append(total / count)
    return statistics.fmean(losses)


def reduce_scatter_alone(size_bytes, processes):
    sent = 0
    for _ in range(1, processes):
        sent += size_bytes // processes
    return sent


def all_that_is_there(weights, gradients, optimizer, processes, strategy):
    total = weights + gradients + optimizer
    return total if strategy == "ddp" else total // processes


def stage(split):
    """Divide the parts that `split` lists for the strategy."""

    def kept(weights, gradients, optimizer, processes, strategy):
        parts = {"weights": weights, "gradients": gradients, "optimizer": optimizer}
        for name in split[strategy]:
            parts[name] //= processes
        return sum(parts.values())

    return kept


ALL = ["weights", "gradients", "optimizer"]
LEARNERS = {
    "global_loss": [
        ("the mean of means", mean_of_means),
        ("the mean of means", lambda sums, counts: sums.div(counts).sum() / len(counts)),
        ("divided by processes instead of tokens", lambda sums, counts: sum(sums) / len(sums)),
        ("divided by the number of processes, too", lambda sums, counts: sums.sum() / counts.sum() / counts.numel()),
        ("not divided", lambda sums, counts: float(sums.sum())),
    ],
    "ring_bytes": [
        ("one of the two rounds", reduce_scatter_alone),
        ("everything to everybody", lambda size, n: sum(size for _ in range(n - 1))),
        ("N turns instead of N − 1", lambda size, n: 2 * n * (size // n)),
        ("a fraction", lambda size, n: size * 2 * (n - 1) / n),
        ("once, whatever the number", lambda size, n: size),
    ],
    "per_process_bytes": [
        ("everything split, whatever the strategy", all_that_is_there),
        ("split in the wrong order",
         stage({"ddp": [], "zero1": ["weights"], "zero2": ["weights", "gradients"], "fsdp": ALL})),
        ("each stage alone", stage({"ddp": [], "zero1": ["optimizer"], "zero2": ["gradients"], "fsdp": ["weights"]})),
        ("nothing split", lambda weights, gradients, optimizer, n, strategy: weights + gradients + optimizer),
        ("fsdp keeps something whole",
         stage({"ddp": [], "zero1": ["optimizer"], "zero2": ["gradients", "optimizer"], "fsdp": ALL[1:]})),
    ],
}  # fmt: skip
