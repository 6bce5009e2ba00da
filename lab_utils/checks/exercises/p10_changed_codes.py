"""Exercise of page 10: how many codes an update changes when the merged weights are quantized again."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..exercise import Exercise, Mistake


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
)  # fmt: skip
