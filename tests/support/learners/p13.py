"""Common mistakes on page 13, as a learner would write them: exercise -> (mistake's name, function)."""

import statistics


def mean_of_means(sums, counts):
    losses = []
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        losses.append(total / count)
    return statistics.fmean(losses)


def reduce_scatter_alone(size_bytes, processes, bytes_per_second, turn_seconds):
    seconds = 0.0
    for _ in range(1, processes):
        seconds += turn_seconds + size_bytes / processes / bytes_per_second
    return seconds


def bandwidth_alone(size_bytes, processes, bytes_per_second, turn_seconds):
    return 2 * (processes - 1) / processes * size_bytes / bytes_per_second


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
    "ring_seconds": [
        ("one of the two rounds", reduce_scatter_alone),
        ("the waiting is forgotten", bandwidth_alone),
        ("waited for once", lambda *given: given[3] + bandwidth_alone(*given)),
        ("the whole tensor in every turn", lambda size, n, speed, wait: sum(wait + size / speed for _ in range(n - 1))),
        ("N turns instead of N − 1", lambda size, n, speed, wait: 2 * (n * wait + size / speed)),
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
