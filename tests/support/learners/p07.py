"""Common mistakes on page 07, as a learner would write them: exercise -> (mistake's name, function)."""

import math


def all_in_few_bits(parameters, unquantized, bits):
    return sum(parameters.values()) * bits / 8


def in_bits(parameters, unquantized, bits):
    total = 0
    for name in parameters:
        total += parameters[name] * (16 if name in unquantized else bits)
    return total


def adam_for_all(frozen, trained, frozen_bits):
    weights = frozen * frozen_bits / 8 + trained * 2
    return weights + trained * 2 + (frozen + trained) * 8


def batch_in_gb(gpu_gib, fixed_bytes, bytes_per_token, sequence_length):
    return max(int((gpu_gib * 1e9 - fixed_bytes) // (bytes_per_token * sequence_length)), 0)


def batch_ceil(gpu_gib, fixed_bytes, bytes_per_token, sequence_length):
    return max(math.ceil((gpu_gib * 1024**3 - fixed_bytes) / (bytes_per_token * sequence_length)), 0)


LEARNERS = {
    "bits_per_parameter": [
        ("the second-level scales forgotten", lambda size, double: 4 + (8 if double else 32) / size),
        ("absmax counted as 16 bits", lambda size, double: 4 + (8 / size + 32 / size / 256 if double else 16 / size)),
        ("the scales forgotten", lambda size, double: 4),
        ("the index itself forgotten", lambda size, double: (8 + 32 / 256) / size if double else 32 / size),
    ],
    "weight_bytes": [
        ("everything quantized", all_in_few_bits),
        ("bits instead of bytes", in_bits),
        ("the unquantized parts counted twice", lambda p, two, b: sum(p.values()) * b / 8 + sum(2 * p[n] for n in two)),
        ("nothing quantized", lambda parameters, unquantized, bits: 2.0 * sum(parameters.values())),
        ("the unquantized parts left out", lambda p, kept, bits: sum(p[n] * bits / 8 for n in p if n not in kept)),
    ],
    "training_bytes": [
        ("Adam for the frozen weights too", adam_for_all),
        ("Adam for the frozen weights too", lambda frozen, trained, bits: 12 * (frozen + trained)),
        ("one of Adam's two means", lambda frozen, trained, bits: frozen * bits / 8 + trained * (2 + 2 + 4)),
        ("the gradients forgotten, or the weights", lambda frozen, trained, bits: frozen * bits / 8 + 10 * trained),
        ("bits instead of bytes", lambda frozen, trained, bits: frozen * bits + trained * (16 + 16 + 32 + 32)),
    ],
    "largest_batch": [
        ("GB instead of GiB", batch_in_gb),
        ("rounded up", batch_ceil),
        ("the fixed part forgotten", lambda gib, fixed, token, length: int(gib * 2**30 / token / length)),
        ("a negative batch", lambda gib, fixed, token, length: (gib * 2**30 - fixed) // (token * length)),
    ],
}
