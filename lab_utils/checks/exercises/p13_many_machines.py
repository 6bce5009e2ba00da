"""Exercises of page 13: one loss over many processes, how long a ring takes, what each process keeps."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake

STRATEGIES = ("ddp", "zero1", "zero2", "fsdp")


def global_loss_spec(sums: Tensor, counts: Tensor) -> Tensor:
    """Every token of the whole batch counts the same, whichever process it is on."""
    total, tokens = sums.new_zeros(()), 0
    for rank in range(len(sums)):
        total = total + sums[rank]
        tokens += int(counts[rank])
    return total / tokens


def global_loss(sums: Tensor, counts: Tensor) -> Tensor:
    return sums.sum() / counts.sum()


def ring_seconds_spec(size_bytes: int, processes: int, bytes_per_second: float, turn_seconds: float) -> float:
    """N − 1 turns until every piece is added up somewhere, N − 1 more until it is everywhere; each waits and sends."""
    piece, seconds = size_bytes / processes, 0.0
    for _turn in range(processes - 1):  # reduce-scatter
        seconds += turn_seconds + piece / bytes_per_second
    for _turn in range(processes - 1):  # all-gather
        seconds += turn_seconds + piece / bytes_per_second
    return seconds


def ring_seconds(size_bytes: int, processes: int, bytes_per_second: float, turn_seconds: float) -> float:
    return 2 * (processes - 1) * (turn_seconds + size_bytes / processes / bytes_per_second)


def per_process_bytes_spec(weights: int, gradients: int, optimizer: int, processes: int, strategy: str) -> int:
    """ddp splits nothing, zero1 the optimizer's states, zero2 the gradients too, fsdp the weights as well."""
    if strategy in ("zero1", "zero2", "fsdp"):
        optimizer = optimizer // processes
    if strategy in ("zero2", "fsdp"):
        gradients = gradients // processes
    if strategy == "fsdp":
        weights = weights // processes
    return weights + gradients + optimizer


def per_process_bytes(weights: int, gradients: int, optimizer: int, processes: int, strategy: str) -> int:
    stage = ["ddp", "zero1", "zero2", "fsdp"].index(strategy)
    parts = optimizer, gradients, weights
    return sum(part // processes if number < stage else part for number, part in enumerate(parts))


def _ring_of(turns, waits=None, piece=lambda size, n: size / n):
    """ring_seconds with other turns, other waits (as many as the turns unless told), or another piece."""
    return lambda size, n, speed, wait: (waits or turns)(n) * wait + turns(n) * piece(size, n) / speed


def _both_rounds(n):
    """The turns of a ring."""
    return 2 * (n - 1)


def _split(**parts):
    """per_process_bytes where each strategy splits what is said: letters of "wgo"; the others as they should be."""
    splits = {"ddp": "", "zero1": "o", "zero2": "og", "fsdp": "ogw"} | parts

    def wrong(weights, gradients, optimizer, processes, strategy):
        sizes = {"w": weights, "g": gradients, "o": optimizer}
        return sum(size // processes if part in splits[strategy] else size for part, size in sizes.items())

    return wrong


@st.composite
def _shares(draw):
    """Sums and counts of 1 to 5 processes."""
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    means = [draw(st.integers(1, 16)) / 4 for _ in counts]
    sums = [mean * count for mean, count in zip(means, counts, strict=True)]
    return torch.tensor(sums, dtype=draw(st.sampled_from([torch.float32, torch.float64]))), torch.tensor(counts)


@st.composite
def _ring(draw):
    processes = draw(st.integers(1, 9))
    size = draw(st.integers(1, 50)) * 20 * processes
    return size, processes, draw(st.sampled_from([50.0, 80.0, 200.0])), draw(st.sampled_from([0.25, 0.5, 1.5]))


@st.composite
def _node(draw):
    processes = draw(st.integers(1, 8))
    sizes = (draw(st.integers(1, 40)) * processes for _ in range(3))
    return *sizes, processes, draw(st.sampled_from(STRATEGIES))


EXERCISES = (
    Exercise(
        name="global_loss", page=13, title="The loss of the whole batch",
        spec=global_loss_spec, solution=global_loss, inputs=_shares(),
        demo=(torch.tensor([4.0, 9.0, 5.0]), torch.tensor([2, 6, 2])),
        mistakes=(
            Mistake(
                "the mean of means",
                "A process with few tokens would count as much as one with many. Add all sums, add all counts, divide.",
                wrong=(lambda sums, counts: (sums / counts).mean(),),
            ),
            Mistake(
                "the means added",
                "Losses are means over tokens, and means cannot be added. Add what they are means of.",
                wrong=(lambda sums, counts: (sums / counts).sum(),),
            ),
            Mistake(
                "divided by the number of processes, too",
                "That is the average DDP takes; the loss of the batch is divided by its tokens alone.",
                wrong=(lambda sums, counts: sums.mean() / counts.sum(),),
            ),
            Mistake(
                "divided by processes instead of tokens",
                "How many processes share the batch must make no difference to its loss: divide by all tokens.",
                wrong=(lambda sums, counts: sums.mean(),),
            ),
            Mistake(
                "not divided",
                "The loss is a mean: divide the sum by the number of tokens.",
                wrong=(lambda sums, counts: sums.sum(),),
            ),
            Mistake(
                "the first process alone",
                "What is on the other processes belongs to the batch too: add all sums and all counts.",
                wrong=(lambda sums, counts: sums[0] / counts[0],),
            ),
        ),
        hints=(
            "If one process had all the tokens, how would you compute it? Which two numbers do you need for that?",
            "The sum of all token losses and the number of all tokens: each is a sum over the processes.",
            "sums.sum(), divided by counts.sum().",
        ),
        reward="Of sums 6 and 30 over 2 and 30 tokens the mean of means is 2, and the loss 1.125. A process may even "
        "have no token at all.",
    ),
    Exercise(
        name="ring_seconds", page=13, title="How long a ring takes",
        spec=ring_seconds_spec, solution=ring_seconds, inputs=_ring(), demo=(600, 3, 100.0, 0.5),
        mistakes=(
            Mistake(
                "one of the two rounds",
                "After N − 1 turns each piece is added up on one process. It takes N − 1 more to bring it to all.",
                wrong=(_ring_of(lambda n: n - 1),),
            ),
            Mistake(
                "the whole tensor in every turn",
                "In a turn each process sends one piece, an N-th of it all, to its neighbour alone.",
                wrong=(
                    _ring_of(lambda n: n - 1, piece=lambda size, n: size),
                    _ring_of(_both_rounds, piece=lambda size, n: size),
                ),
            ),
            Mistake(
                "N turns instead of N − 1",
                "Your own share you need not send to yourself: N − 1 turns, and N − 1 again.",
                wrong=(_ring_of(lambda n: 2 * n), _ring_of(lambda n: n)),
            ),
            Mistake(
                "the waiting is forgotten",
                "A turn takes `turn_seconds` before the piece's bytes are counted, however few they are.",
                wrong=(_ring_of(_both_rounds, lambda n: 0),),
            ),
            Mistake(
                "waited for once",
                "Each turn starts when the one before has ended, and each has its own `turn_seconds`.",
                wrong=(_ring_of(_both_rounds, lambda n: 1), _ring_of(_both_rounds, lambda n: 2)),
            ),
            Mistake(
                "one turn after the other process",
                "All processes send in the same turn, at the same time: do not add up over them.",
                wrong=(lambda *given: given[1] * ring_seconds(*given),),
            ),
            Mistake(
                "sent and received",
                "A process receives its piece while it sends one, in the same turn. Count each turn once.",
                wrong=(_ring_of(lambda n: 4 * (n - 1)),),
            ),
            Mistake(
                "one turn alone",
                "A piece is an N-th of it all, and one is sent in each turn: count the turns of both rounds.",
                wrong=(_ring_of(lambda n: 1), _ring_of(lambda n: 2)),
            ),
            Mistake(
                "multiplied by the speed",
                "Bytes over bytes per second are seconds: divide.",
                wrong=(lambda size, n, speed, wait: 2 * (n - 1) * (wait + size / n * speed),),
            ),
        ),
        hints=(
            "How many turns are there, in both rounds together? How long does one take, from its start to its end?",
            "A turn takes turn_seconds, and then its piece of size_bytes / N bytes flows at bytes_per_second.",
            "2 · (processes − 1) turns, each of turn_seconds plus the piece over bytes_per_second.",
        ),
        reward="80 MB: 0.14 s on 8 processes and 0.21 s on 512, half as long again. 4 kB: 0.7 and 51 thousandths of a "
        "second, 72 times as long, and nearly all of it waiting. Short messages on many machines take a tree.",
    ),
    Exercise(
        name="per_process_bytes", page=13, title="What each process keeps",
        spec=per_process_bytes_spec, solution=per_process_bytes, inputs=_node(),
        demo=(60, 90, 300, 3, "zero2"),
        mistakes=(
            Mistake(
                "everything split, whatever the strategy",
                "Only fsdp splits all three. ddp splits nothing, zero1 the optimizer, zero2 the gradients too.",
                wrong=(
                    _split(ddp="ogw", zero1="ogw", zero2="ogw"), _split(zero1="ogw", zero2="ogw"),
                    _split(zero2="ogw"), _split(zero1="og"), _split(zero1="og", zero2="ogw"),
                ),
            ),
            Mistake(
                "ddp splits",
                "With plain data parallelism every process has everything; the batch alone is split.",
                wrong=(_split(ddp="o"), _split(ddp="og"), _split(ddp="ogw")),
            ),
            Mistake(
                "split in the wrong order",
                "First the optimizer's states, which are the largest and are needed once a step; then the gradients; "
                "the weights last.",
                wrong=(
                    _split(zero1="w", zero2="wg"), _split(zero1="g"), _split(zero1="g", zero2="gw"),
                    _split(zero1="w", zero2="wo"), _split(zero2="ow"), _split(zero1="w"),
                ),
            ),
            Mistake(
                "each stage alone",
                "The stages add up: zero2 splits what zero1 splits and the gradients, fsdp the weights too.",
                wrong=(_split(zero2="g", fsdp="w"), _split(zero2="g"), _split(fsdp="w")),
            ),
            Mistake(
                "fsdp keeps something whole",
                "fsdp splits weights, gradients and optimizer states. A layer's weights are fetched as it is computed.",
                wrong=(_split(fsdp="og"), _split(fsdp="ow"), _split(fsdp="gw")),
            ),
            Mistake(
                "nothing split",
                "zero1, zero2 and fsdp divide something among the processes.",
                wrong=(_split(zero1="", zero2="", fsdp=""),),
            ),
            Mistake(
                "all processes together",
                "Asked is what one process keeps.",
                wrong=(lambda w, g, o, n, s: n * per_process_bytes(w, g, o, n, s),),
            ),
            Mistake(
                "a fraction",
                "Bytes are whole numbers: divide with // instead of /.",
                wrong=(
                    lambda w, g, o, n, s: w / (n if s == "fsdp" else 1) + g / (n if s in ("zero2", "fsdp") else 1)
                    + o / (1 if s == "ddp" else n),
                ),
            ),
        ),
        hints=(
            "Which of the three is the largest with Adam, and needed only once a step? That one is split first.",
            "zero1 splits the optimizer's states, zero2 the gradients as well, fsdp the weights as well. ddp nothing.",
            "Divide optimizer unless ddp, gradients with zero2 and fsdp, weights with fsdp; then add.",
        ),
        reward="84 GB become 35 GB with zero1, which fits in 40, and 10.5 GB with fsdp.",
    ),
)  # fmt: skip
