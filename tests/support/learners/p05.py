"""Common mistakes on page 05, as a learner would write them: exercise -> (mistake's name, function)."""

import torch


def to_int8(scale, levels=lambda bits: 2 ** (bits - 1) - 1, rounding=torch.round):
    def quantize(weight, bits):
        step = scale(weight) / levels(bits)
        return rounding(weight / step).clamp(-levels(bits), levels(bits)).to(torch.int8), scale(weight)

    return quantize


def truncated(weight, bits):
    absmax = weight.abs().max()
    return (weight / absmax * (2 ** (bits - 1) - 1)).to(torch.int8), absmax


def to_uint8(low=lambda w: min(w.min(), 0 * w.min()), high=lambda w: max(w.max(), 0 * w.max()), rounding=torch.round):
    def quantize(weight, bits):
        scale = (high(weight) - low(weight)) / (2**bits - 1)
        zero_point = torch.round(-low(weight) / scale)
        return (rounding(weight / scale) + zero_point).to(torch.uint8), scale, zero_point

    return quantize


def with_zero(made):
    def quantize(weight, bits):
        indices, scale, _ = to_uint8()(weight, bits)
        return indices, scale, made(min(weight.min(), 0 * weight.min()), scale)

    return quantize


def without_offset(weight, bits):
    indices, scale, zero_point = to_uint8()(weight, bits)
    return (indices - zero_point).to(torch.uint8), scale, zero_point.item()


def with_chunks(largest):
    return lambda w, size: torch.stack([largest(part) for part in w.split(size, dim=1)], dim=1)


LEARNERS = {
    "quantize_absmax": [
        ("the mean instead of the largest", to_int8(lambda w: w.abs().sum() / w.numel())),
        ("the standard deviation instead of the largest", to_int8(lambda w: torch.std(w))),
        ("the largest weight without its absolute value", to_int8(torch.max)),
        ("one step too many", to_int8(lambda w: w.abs().max(), levels=lambda bits: 2 ** (bits - 1))),
        ("cut off instead of rounded", truncated),
        ("always the 127 steps of 8 bits", to_int8(lambda w: w.abs().max(), levels=lambda bits: 127)),
        ("not stored as int8", lambda w, bits: (w * ((2 ** (bits - 1) - 1) / w.abs().max()), torch.max(torch.abs(w)))),
        ("an absmax for each row", to_int8(lambda w: w.abs().max(dim=1, keepdim=True).values)),
        ("results in the wrong order", lambda w, bits: to_int8(lambda w: w.abs().max())(w, bits)[::-1]),
    ],
    "dequantize_absmax": [
        ("scaled once more instead of back", lambda i, absmax, bits: i * ((2 ** (bits - 1) - 1) / absmax)),
        ("divided by absmax", lambda i, absmax, bits: i.to(absmax.dtype) / absmax),
        ("the steps forgotten", lambda i, absmax, bits: absmax * i),
        ("always the 127 steps of 8 bits", lambda i, absmax, bits: absmax / 127 * i),
        ("the largest index in sight", lambda i, absmax, bits: i * (absmax / i.abs().amax())),
        ("one step too many", lambda i, absmax, bits: i / 2 ** (bits - 1) * absmax),
    ],
    "quantize_zeropoint": [
        ("a range without zero", to_uint8(torch.min, torch.max)),
        ("zero point not added", without_offset),
        ("rounded down instead of to the nearest", to_uint8(rounding=torch.floor)),
        ("the lower end handed back as zero_point", with_zero(lambda low, scale: low)),
        ("zero_point not rounded", with_zero(lambda low, scale: -low / scale)),
        ("not stored as uint8", lambda w, bits: (to_uint8()(w, bits)[0].float(), *to_uint8()(w, bits)[1:])),
        ("always the 255 steps of 8 bits", lambda w, bits: to_uint8()(w, 8)),
        ("the absmax scale", to_uint8(lambda w: -w.abs().max(), lambda w: w.abs().max())),
    ],
    "block_absmax": [
        ("blocks along the wrong axis", lambda w, size: w.T.reshape(w.shape[1], -1, size).abs().max(-1).values.T),
        ("the absolute value forgotten", with_chunks(lambda part: part.max(dim=1)[0])),
        ("one absmax for all", lambda w, size: torch.max(torch.abs(w))),
        ("one absmax for all", lambda w, size: torch.full((w.shape[0], w.shape[1] // size), w.abs().max().item())),
        ("one absmax a row", lambda w, size: w.abs().max(dim=1, keepdim=True).values),
        ("blocksize taken as the number of blocks", lambda w, size: w.unflatten(1, (size, -1)).abs().amax(-1)),
        ("the mean instead of the largest", with_chunks(lambda part: part.abs().mean(dim=1))),
    ],
}
