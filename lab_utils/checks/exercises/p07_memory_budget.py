"""Exercises of page 07: what training keeps in memory, and which batch still fits."""

import math

from hypothesis import strategies as st

from ..exercise import Exercise, Mistake

GIB = 2**30
MIB = 2**20


def training_bytes_spec(frozen: int, trained: int, frozen_bits: float) -> float:
    """A frozen weight is only stored. A trained one has a gradient and Adam's two running means too."""
    frozen_bytes = frozen * frozen_bits / 8
    trained_bytes = trained * 2  # the weight, 16 bits
    trained_bytes += trained * 2  # its gradient, 16 bits
    trained_bytes += trained * 4  # Adam's mean of the gradients, 32 bits
    trained_bytes += trained * 4  # Adam's mean of their squares, 32 bits
    return frozen_bytes + trained_bytes


def training_bytes(frozen: int, trained: int, frozen_bits: float) -> float:
    return frozen * frozen_bits / 8 + 12 * trained


def largest_batch_spec(gpu_gib: int, fixed_bytes: int, bytes_per_token: int, sequence_length: int) -> int:
    """Put in one more example as long as it fits."""
    batch, used = 0, fixed_bytes
    while used + bytes_per_token * sequence_length <= gpu_gib * 2**30:
        used += bytes_per_token * sequence_length
        batch += 1
    return batch


def largest_batch(gpu_gib: int, fixed_bytes: int, bytes_per_token: int, sequence_length: int) -> int:
    free = gpu_gib * 2**30 - fixed_bytes
    return max(0, free // (bytes_per_token * sequence_length))


def _costs(trained=lambda bits: 12, frozen=lambda bits: bits / 8):
    """training_bytes with other bytes for a trained and for a frozen weight."""
    return lambda count, trained_count, bits: count * frozen(bits) + trained_count * trained(bits)


def _fits(batch=lambda free, token, length: free // (token * length), gib=GIB, fixed=lambda fixed: fixed):
    """largest_batch with another division, another GiB, another fixed part; stopping at zero, and not."""

    def wrong(gpu_gib, fixed_bytes, bytes_per_token, sequence_length):
        return batch(gpu_gib * gib - fixed(fixed_bytes), bytes_per_token, sequence_length)

    return lambda *arguments: max(0, wrong(*arguments)), wrong


COUNT = st.integers(1, 1000)
BUDGET = st.tuples(
    st.sampled_from([1, 4, 8, 16, 24]), st.integers(0, 12).map(lambda halves: halves * GIB // 2 + 7 * MIB),
    st.sampled_from([300_000, 700_000, 2_000_000]), st.sampled_from([128, 500, 1024]),
)  # fmt: skip

EXERCISES = (
    Exercise(
        name="training_bytes", page=7, title="What does training keep in memory?",
        spec=training_bytes_spec, solution=training_bytes, demo=(65_000_000_000, 200_000_000, 4.127),
        inputs=st.tuples(COUNT, COUNT, st.sampled_from([4.127, 4.5, 8.0, 16.0])),
        mistakes=(
            Mistake(
                "Adam for the frozen weights too",
                "What is never updated needs no optimizer state: a frozen weight is stored and no more.",
                wrong=(
                    _costs(frozen=lambda bits: bits / 8 + 8), _costs(frozen=lambda bits: bits / 8 + 10),
                    _costs(frozen=lambda bits: 12), _costs(frozen=lambda bits: 10),
                ),
            ),
            Mistake(
                "gradients for the frozen weights too",
                "The gradient flows through them, but none is kept for them.",
                wrong=(_costs(frozen=lambda bits: bits / 8 + 2), _costs(frozen=lambda bits: bits / 4)),
            ),
            Mistake(
                "the gradients forgotten, or the weights",
                "A trained weight takes 2 bytes for itself and 2 for its gradient, beside Adam's 8.",
                wrong=(_costs(lambda bits: 10),),
            ),
            Mistake(
                "one of Adam's two means",
                "Adam keeps two running numbers per weight, of the gradients and of their squares, 4 bytes each.",
                wrong=(_costs(lambda bits: 8), _costs(lambda bits: 6)),
            ),
            Mistake(
                "Adam forgotten",
                "A trained weight has Adam's two running means on top of weight and gradient: 8 bytes more.",
                wrong=(_costs(lambda bits: 4), _costs(lambda bits: 2)),
            ),
            Mistake(
                "bits instead of bytes",
                "Eight bits are a byte: divide by 8.",
                wrong=(
                    _costs(frozen=lambda bits: bits), _costs(lambda bits: 96, lambda bits: bits),
                    _costs(lambda bits: 96),
                ),
            ),
            Mistake(
                "frozen_bits ignored",
                "A frozen weight has frozen_bits bits; only the trained ones always have 16.",
                wrong=(_costs(frozen=lambda bits: 2), _costs(frozen=lambda bits: 0.5), _costs(frozen=lambda bits: 4)),
            ),
            Mistake(
                "the frozen weights forgotten",
                "They are not trained, but they have to be there: frozen_bits bits each.",
                wrong=(_costs(frozen=lambda bits: 0),),
            ),
            Mistake(
                "trained weights in few bits",
                "Small steps would be rounded away in 4 bits. A trained weight has 16, whatever the frozen ones have.",
                wrong=(_costs(lambda bits: bits / 8 + 10),),
            ),
            Mistake(
                "everything trained in 32 bits",
                "Here a trained weight and its gradient have 16 bits each. Only Adam's two means have 32.",
                wrong=(_costs(lambda bits: 16), _costs(lambda bits: 14)),
            ),
        ),
        hints=(
            "What is kept for a weight that never changes? And what else for one that Adam updates?",
            "Trained: the weight (2 bytes), its gradient (2), two numbers of Adam (4 each). Frozen: frozen_bits bits.",
            "frozen · frozen_bits / 8 bytes, plus 12 bytes for each trained weight.",
        ),
        reward="65 billion weights: 780 GB if all are trained, about 36 GB with QLoRA. Activations come on top.",
    ),
    Exercise(
        name="largest_batch", page=7, title="Which batch still fits?",
        spec=largest_batch_spec, solution=largest_batch, demo=(16, 6_000_000_000, 2_000_000, 512), inputs=BUDGET,
        mistakes=(
            Mistake(
                "GB instead of GiB",
                "1 GiB is 2**30 bytes, 7 % more than 10**9.",
                wrong=_fits(gib=10**9),
            ),
            Mistake("MiB instead of GiB", "1 GiB is 2**30 bytes; 2**20 are a MiB.", wrong=_fits(gib=MIB)),
            Mistake(
                "the fixed part forgotten",
                "Weights, gradients and optimizer states are there before the first token: take fixed_bytes off first.",
                wrong=_fits(fixed=lambda fixed: 0),
            ),
            Mistake(
                "the fixed part counted for every example",
                "The model is there once, however many examples a batch has: take fixed_bytes off, then divide.",
                wrong=(lambda gib, fixed, token, length: gib * GIB // (fixed + token * length),),
            ),
            Mistake(
                "tokens instead of examples",
                "An example has sequence_length tokens: divide by that, too.",
                wrong=_fits(lambda free, token, length: free // token),
            ),
            Mistake(
                "bytes instead of tokens",
                "Each of the sequence_length tokens takes bytes_per_token: divide by both.",
                wrong=_fits(lambda free, token, length: free // length),
            ),
            Mistake(
                "rounded up",
                "Half an example more does not fit. Round down.",
                wrong=(
                    *_fits(lambda free, token, length: -(-free // (token * length))),
                    *_fits(lambda free, token, length: free // (token * length) + 1),
                    *_fits(lambda free, token, length: round(free / (token * length))),
                ),
            ),
            Mistake(
                "a fraction",
                "A batch is a whole number: divide with // instead of /.",
                wrong=_fits(lambda free, token, length: free / (token * length)),
            ),
            Mistake(
                "a negative batch",
                "If not even the fixed part fits, the answer is 0.",
                wrong=(_fits()[1], _fits(lambda free, token, length: math.trunc(free / (token * length)))[1]),
            ),
        ),
        hints=(
            "Two things want memory: what is there once, and what each example adds. What is left for the examples?",
            "A GiB has 2**30 bytes. Take the fixed part off. How often does one example go into the rest?",
            "(gpu_gib · 2**30 − fixed_bytes) // (bytes_per_token · sequence_length), and 0 if that is negative.",
        ),
        reward="Halve the length and the batch doubles. When 0 comes out, only fewer bits or a smaller model help.",
    ),
)  # fmt: skip
