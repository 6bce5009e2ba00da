"""Common mistakes on page 06, as a learner would write them: exercise -> (mistake's name, function)."""

import math
from statistics import NormalDist

import torch


def of_normal(shares):
    def code(k):
        values = [NormalDist().inv_cdf(p) if 0 < p < 1 else math.copysign(math.inf, p - 0.5) for p in shares(k)]
        return torch.tensor([value / max(values) for value in values])

    return code


def by_loop(choose):
    return lambda values, code: torch.tensor([choose(v, code.tolist()) for v in values.tolist()])


def packed_by_loop(byte):
    return lambda indices: torch.tensor([byte(a, b) for a, b in indices.view(-1, 2).tolist()], dtype=torch.uint8)


def restored(value):
    def restore(codes, code, nested_absmax, offset, blocksize):
        made = [value(c, code, nested_absmax[n // blocksize], offset) for n, c in enumerate(codes)]
        return torch.stack([torch.as_tensor(number, dtype=code.dtype) for number in made])

    return restore


LEARNERS = {
    "equal_mass_code": [
        ("the left edges instead of the middles", of_normal(lambda k: [i / k for i in range(k)])),
        ("infinite ends", of_normal(lambda k: [i / (k - 1) for i in range(k)])),
        ("one entry too few", of_normal(lambda k: [i / k for i in range(1, k)])),
        ("NF4's own ends", of_normal(lambda k: [0.032 + 0.936 * i / (k - 1) for i in range(k)])),
        ("slices of equal width", lambda k: torch.tensor([2 * i / (k - 1) - 1 for i in range(k)])),
        ("not scaled to [-1, 1]", lambda k: torch.distributions.Normal(0, 1).icdf((torch.arange(k) + 0.5) / k)),
    ],
    "nearest_code": [
        ("the left edge instead of the nearest", by_loop(lambda v, code: sum(entry <= v for entry in code) - 1)),
        ("the right edge instead of the nearest", by_loop(lambda v, code: sum(entry < v for entry in code))),
        ("off by one", lambda values, code: torch.bucketize(values, (code[1:] + code[:-1]) / 2) + 1),
        ("the entries instead of their indices", lambda v, code: code[torch.bucketize(v, (code[1:] + code[:-1]) / 2)]),
    ],
    "pack": [
        ("nibbles swapped", packed_by_loop(lambda first, second: first + 16 * second)),
        ("every second number lost", lambda indices: torch.bitwise_left_shift(indices[::2], 4)),
        ("added without a shift", packed_by_loop(lambda first, second: first + second)),
        ("a missing bracket", lambda indices: indices.view(-1, 2)[:, 0] << 4 + indices.view(-1, 2)[:, 1]),
        ("shifted by the wrong amount", packed_by_loop(lambda first, second: (first << 3) + second)),
        ("not the neighbours", lambda indices: 16 * indices.chunk(2)[0] + indices.chunk(2)[1]),
    ],
    "restore_absmax": [
        ("the offset forgotten", restored(lambda c, code, nested, offset: code[c] * nested)),
        ("the offset subtracted", restored(lambda c, code, nested, offset: code[c] * nested - offset)),
        ("the offset scaled too", restored(lambda c, code, nested, offset: nested * (code[c] + offset))),
        ("the codes not looked up", restored(lambda c, code, nested, offset: c * nested + offset)),
        ("one nested_absmax for all", lambda c, code, nested, offset, size: code[c] * nested.max() + offset),
    ],
}
