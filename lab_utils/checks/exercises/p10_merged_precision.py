"""Exercises of page 10: what becomes of an update when the merged weights are rounded."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake, tensor_maker


def changed_codes_spec(weight: Tensor, delta: Tensor, code: Tensor) -> int:
    """Quantize before and after, block by block, and count where another entry of the code is the nearest."""
    changed = 0
    for n in range(len(weight)):
        before, after = weight[n], weight[n] + delta[n]
        for i in range(len(before)):
            old = [abs(before[i] / max(abs(before)) - entry) for entry in code]
            new = [abs(after[i] / max(abs(after)) - entry) for entry in code]
            changed += old.index(min(old)) != new.index(min(new))
    return changed


def changed_codes(weight: Tensor, delta: Tensor, code: Tensor) -> int:
    indices = []
    for blocks in (weight, weight + delta):
        scaled = blocks / blocks.abs().amax(dim=1, keepdim=True)
        indices.append((scaled[..., None] - code).abs().argmin(dim=-1))
    return int((indices[0] != indices[1]).sum())


def lost_in_rounding_spec(weight: Tensor, delta: Tensor) -> float:
    """Store the sum in 16 bits; what is then there beyond the old weight, and how far is that from the update?"""
    wrong, whole = 0.0, 0.0
    for w, d in zip(weight.flatten().tolist(), delta.flatten().tolist(), strict=True):
        stored = torch.tensor(w + d).to(torch.bfloat16).item()
        wrong += ((stored - w) - d) ** 2
        whole += d**2
    return (wrong / whole) ** 0.5


def lost_in_rounding(weight: Tensor, delta: Tensor) -> float:
    stored = (weight + delta).to(torch.bfloat16).to(weight.dtype)
    return ((stored - weight - delta).norm() / delta.norm()).item()


def _scaled(blocks: Tensor) -> Tensor:
    """Blocks over their absmax."""
    return blocks / blocks.abs().amax(dim=1, keepdim=True)


def _codes(scaled: Tensor, code: Tensor) -> Tensor:
    """Index of the nearest entry of the code."""
    return (scaled[..., None] - code).abs().argmin(dim=-1)


def _counted(count, before=lambda w, d: _scaled(w), after=lambda w, d: _scaled(w + d)):
    """changed_codes with another count of two sets of indices, or from other scaled weights."""
    return lambda weight, delta, code: count(_codes(before(weight, delta), code), _codes(after(weight, delta), code))


def _next_entry(right=False):
    """changed_codes with the place where a value would be inserted into the code."""
    return lambda weight, delta, code: _differ(
        *(torch.searchsorted(code, _scaled(w).contiguous(), right=right) for w in (weight, weight + delta))
    )


def _differ(old, new):
    return int((old != new).sum())


def _values(weight, delta, code):
    """changed_codes for values after dequantization, which change with the absmax of a block."""
    old, new = (code[_codes(_scaled(w), code)] * w.abs().amax(dim=1, keepdim=True) for w in (weight, weight + delta))
    return int((old != new).sum())


def _lost(error, size=lambda w, d: d.norm()):
    """lost_in_rounding with another error, or compared with another size."""
    return lambda weight, delta: (error(weight, delta).norm() / size(weight, delta)).item()


def _rounded(values: Tensor) -> Tensor:
    """To bfloat16 and back."""
    return values.to(torch.bfloat16).to(values.dtype)


def _error(weight, delta):
    return _rounded(weight + delta) - (weight + delta)


@st.composite
def _blocks(draw):
    """Weights in blocks (rows), an update, a code; each weight has one nearest entry, before and after."""
    shape = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    inner = draw(st.sets(st.integers(-8, 8), min_size=1, max_size=4))
    code = torch.tensor([-10, *sorted(inner), 10], dtype=dtype) / 10
    size = draw(st.sampled_from([0.03, 0.3, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    while True:
        weight, delta = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
        weight, delta = (10 * weight).round() / 10, (100 * size * delta).round() / 100
        if all(_one_nearest(blocks, code) for blocks in (weight, weight + delta)):
            return weight, delta, code


def _one_nearest(blocks: Tensor, code: Tensor) -> bool:
    """Has every block a weight, and is none near the middle between two entries?"""
    if bool((blocks.abs().amax(dim=1) < 0.05).any()):
        return False
    middles = (code[1:] + code[:-1]) / 2
    return bool(((_scaled(blocks)[..., None] - middles).abs() > 1e-3).all())


@st.composite
def _update(draw):
    """Weights that bfloat16 holds exactly, and an update small beside them; float32 holds their sum exactly."""
    make = tensor_maker(draw)
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    steps = draw(st.sampled_from([3, 25, 90]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    delta = torch.randint(1, steps + 1, shape, generator=generator) * make(*shape).sign() / 2**14
    return make(*shape) / 4, delta.to(make(1).dtype)


_NOISE = torch.Generator().manual_seed(0)
_W = torch.randn(8, 16, generator=_NOISE).to(torch.bfloat16).float()
_D = (0.005 * torch.randn(8, 16, generator=_NOISE) * 2**14).round() / 2**14  # float32 holds each sum exactly
_BLOCKS = torch.tensor([[-1.0, 0.2, 0.7, 0.1], [-1.0, 0.4, 0.1, 0.0]])
_CHANGE = torch.tensor([[0.0, 0.1, 0.1, 0.0], [-1.0, 0.0, 0.0, 0.0]])  # 2 codes; 1, as the absmax moves
_CODE = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])

EXERCISES = (
    Exercise(
        name="changed_codes", page=10, title="What an update changes in 4 bits",
        spec=changed_codes_spec, solution=changed_codes, inputs=_blocks(), demo=(_BLOCKS, _CHANGE, _CODE),
        mistakes=(
            Mistake(
                "the old absmax for the new weights",
                "The merged weights are quantized again: a block whose largest weight has changed has another absmax.",
                wrong=(_counted(_differ, after=lambda w, d: (w + d) / w.abs().amax(dim=1, keepdim=True)),),
            ),
            Mistake(
                "the new absmax for the old weights",
                "What is stored before the merge was divided by the old absmax: each of the two gets its own.",
                wrong=(_counted(_differ, before=lambda w, d: w / (w + d).abs().amax(dim=1, keepdim=True)),),
            ),
            Mistake(
                "the update not scaled",
                "Add the update to the weights first, and divide the sum: the update has the unit of the weights.",
                wrong=(_counted(_differ, after=lambda w, d: _scaled(w) + d),),
            ),
            Mistake(
                "the absmax of a column",
                "A block is a row: take the maximum along dim 1.",
                wrong=(
                    _counted(
                        _differ, lambda w, d: w / w.abs().amax(dim=0), lambda w, d: (w + d) / (w + d).abs().amax(dim=0)
                    ),
                ),
            ),
            Mistake(
                "distances with their sign",
                "The smallest difference is the most negative one, that to the last entry: take absolute values first.",
                wrong=(
                    lambda w, d, code: _differ(*((_scaled(b)[..., None] - code).argmin(-1) for b in (w, w + d))),
                ),
            ),
            Mistake(
                "the largest weight instead of the largest size",
                "A block's largest weight in size may be negative: take the absolute values first, then the maximum.",
                wrong=(
                    _counted(
                        _differ, lambda w, d: w / w.amax(dim=1, keepdim=True),
                        lambda w, d: (w + d) / (w + d).amax(dim=1, keepdim=True),
                    ),
                ),
            ),
            Mistake(
                "the next entry instead of the nearest",
                "searchsorted and bucketize give the first entry that is not smaller. Compare with the middles between "
                "entries, or take the smallest distance.",
                wrong=(_next_entry(), _next_entry(right=True)),
            ),
            Mistake(
                "the update quantized by itself",
                "Add it to the weights first. Alone it would get its own scales, and lose nothing.",
                wrong=(
                    _counted(_differ, after=lambda w, d: _scaled(d)),
                    _counted(_differ, after=lambda w, d: d / w.abs().amax(dim=1, keepdim=True)),
                ),
            ),
            Mistake(
                "values instead of codes",
                "If an absmax changes, all values of its block change a little. Compare the indices.",
                wrong=(_values, lambda w, d, code: int((d != 0).sum())),
            ),
            Mistake(
                "not scaled",
                "The code reaches from -1 to 1: divide each block by its absmax first.",
                wrong=(_counted(_differ, lambda w, d: w, lambda w, d: w + d),),
            ),
            Mistake(
                "one absmax for all",
                "Each row is a block and has its own absmax.",
                wrong=(_counted(_differ, lambda w, d: w / w.abs().max(), lambda w, d: (w + d) / (w + d).abs().max()),),
            ),
            Mistake(
                "the unchanged ones",
                "Count where the two indices differ.",
                wrong=(_counted(lambda old, new: int((old == new).sum())),),
            ),
            Mistake(
                "blocks counted instead of codes",
                "Count every weight whose index is another one, not every block that holds such a weight.",
                wrong=(_counted(lambda old, new: int((old != new).any(dim=1).sum())),),
            ),
            Mistake(
                "how far instead of how many",
                "An index may move by more than one, and still counts once.",
                wrong=(
                    _counted(lambda old, new: int((old - new).abs().sum())),
                    _counted(lambda old, new: abs(int((old - new).sum()))),
                ),
            ),
            Mistake(
                "a share instead of a count",
                "Hand back how many there are.",
                wrong=(_counted(lambda old, new: (old != new).float().mean().item()),),
            ),
        ),
        hints=(
            "Do the same thing twice, with the weights and with weights plus update. What do you compare?",
            "Divide each row by its own absmax, find the nearest entries of the code, and compare the indices.",
            "scaled = blocks / blocks.abs().amax(dim=1, keepdim=True); (scaled[..., None] - code).abs().argmin(-1); "
            "count where they differ.",
        ),
        reward="An update of 0.5 % changes 1.5 % of NF4's codes; none if the weights came out of 4 bits. Then only "
        "what moves an absmax is left of it.",
    ),
    Exercise(
        name="lost_in_rounding", page=10, title="What a merge into 16 bits loses",
        spec=lost_in_rounding_spec, solution=lost_in_rounding, inputs=_update(), demo=(_W, _D),
        mistakes=(
            Mistake(
                "compared with the weight",
                "The question is what is lost of the update: divide by its norm. The weight is much larger.",
                wrong=(_lost(_error, lambda w, d: w.norm()), _lost(_error, lambda w, d: (w + d).norm())),
            ),
            Mistake(
                "the update rounded by itself",
                "Alone it loses next to nothing. What is stored is weight plus update, in one number of 16 bits.",
                wrong=(
                    _lost(lambda w, d: _rounded(d) - d), _lost(lambda w, d: _rounded(w) + _rounded(d) - w - d),
                ),
            ),
            Mistake(
                "rounded to float16",
                "float16 has three more digits in binary, but not bfloat16's range. Here it is bfloat16.",
                wrong=(_lost(lambda w, d: (w + d).half().to(w.dtype) - (w + d)),),
            ),
            Mistake(
                "the norm squared",
                "Take the root: norm over norm.",
                wrong=(lambda w, d: lost_in_rounding(w, d) ** 2,),
            ),
            Mistake(
                "what is left instead of what is lost",
                "You found how much of the update is stored. Compare it with the update itself: take the difference.",
                wrong=(
                    _lost(lambda w, d: _rounded(w + d) - w), lambda w, d: 1 - lost_in_rounding(w, d),
                    lambda w, d: (1 - (_rounded(w + d) - w).norm() / d.norm()).item(),
                ),
            ),
            Mistake(
                "the mean of single ratios",
                "Single small entries would decide. Divide one norm by the other.",
                wrong=(lambda w, d: (_error(w, d).abs() / d.abs()).mean().item(),),
            ),
            Mistake(
                "the largest error",
                "Take the norm of all errors together.",
                wrong=(
                    lambda w, d: (_error(w, d).abs().max() / d.abs().max()).item(),
                    lambda w, d: _error(w, d).abs().max().item(),
                ),
            ),
            Mistake(
                "means of sizes instead of norms",
                "A norm squares first, so that large errors count more: the root of a sum of squares, over another.",
                wrong=(lambda w, d: (_error(w, d).abs().mean() / d.abs().mean()).item(),),
            ),
            Mistake(
                "what is missing along the update",
                "An error may also point elsewhere. Take the norm of the whole difference, not its part along delta.",
                wrong=(
                    lambda w, d: (1 - ((_rounded(w + d) - w) * d).sum() / d.square().sum()).item(),
                    lambda w, d: (1 - ((_rounded(w + d) - w) * d).sum() / d.square().sum()).abs().item(),
                ),
            ),
            Mistake(
                "compared with what is stored",
                "Divide by the norm of delta, of what should have been added; what was added may even be zero.",
                wrong=(_lost(_error, lambda w, d: (_rounded(w + d) - w).norm()),),
            ),
            Mistake(
                "not divided by the update",
                "A share is asked for: divide by the norm of delta.",
                wrong=(_lost(_error, lambda w, d: 1),),
            ),
        ),
        hints=(
            "What is stored after merging? How much of it is new, and how far is that from what should be new?",
            "stored = weight + delta in bfloat16. stored - weight should be delta. Compare norms.",
            "(stored - weight - delta).norm() / delta.norm(), with stored brought back to the dtype of weight.",
        ),
        reward="At 0.5 % of the weights, a third of the update is noise after bfloat16. It points nowhere, and so it "
        "hardly harms.",
    ),
)  # fmt: skip
