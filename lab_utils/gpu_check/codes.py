"""Are 4-bit codes the same, byte for byte: the lab's and bitsandbytes', each on the CPU and on the card?"""

from itertools import product

from ..nf4 import dequantize_4bit, fp4_code, nf4_code, quantize_4bit
from .sections import Finding, Setting, Skipped
from .stand_in import tokenizer_folder

BLOCKSIZES = (64, 128, 256, 512, 1024, 2048, 4096)
KINDS = ("nf4", "fp4")
LAYER = "model.layers.15.self_attn.v_proj.weight"  # of the embedded model: 192 × 576
PLACES = ("the lab on the CPU", "the lab on the card", "bitsandbytes on the CPU", "bitsandbytes on the card")
NESTED_SHARE = 1e-3  # of the codes of absmax: their offset is a mean, which a card sums in another order


def codes(setting: Setting) -> Finding:
    """All kinds of weights, block sizes and dtypes; ties are counted, and do not decide."""
    differing = {place: 0 for place in PLACES[1:]}
    nested, total, cases = 0, 0, 0
    for kind, (weight, blocksize) in product(KINDS, _cases(setting)):
        found = _everywhere(weight, blocksize, kind)
        first = found[PLACES[0]]
        for place in differing:
            differing[place] += sum(_count(one, other) for one, other in zip(first, found[place], strict=True))
        nested += _nested(weight, kind)
        total, cases = total + weight.numel(), cases + 1
    ties = {kind: _ties(kind) for kind in KINDS}
    blocks = 2 * sum(-(-weight.numel() // 64) for weight, _ in _cases(setting))
    values = {
        "cases": cases, "weights": total, "differing bytes and numbers": differing, "differing codes of absmax": nested,
        "differing bytes of exact ties and their neighbours": ties,
    }  # fmt: skip
    wrong = [place for place, count in differing.items() if count]
    if nested > NESTED_SHARE * blocks:
        wrong.append("double quantization on the card")
    text = f"{cases} cases, {total:,} weights: " + (f"differs: {', '.join(wrong)}" if wrong else "all equal")
    return Finding(not wrong, text, values)


def _cases(setting: Setting) -> list[tuple]:
    """(weight on the CPU, blocksize)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    # Rows of whole blocks: for longer blocks, bitsandbytes 0.50 on a CPU with AVX-512 leaves ends of rows out.
    normal = torch.randn(setting.size(32, 2), max(BLOCKSIZES), generator=generator) * 0.02
    found = [(normal, blocksize) for blocksize in BLOCKSIZES]
    found += [(normal.to(dtype), 64) for dtype in (torch.float16, torch.bfloat16)]
    found += [(torch.zeros(4, 64), 64), (torch.randn(257, 3, generator=generator), 64)]
    return found + _real(setting)


def _real(setting: Setting) -> list[tuple]:
    """A matrix of the embedded model, where that is on the machine."""
    from safetensors import safe_open

    try:
        folder = tokenizer_folder()
    except Skipped:
        return []
    with safe_open(folder / "model.safetensors", "pt") as file:
        weight = file.get_tensor(LAYER)
    return [(weight[: setting.size(len(weight), 16)].contiguous(), 64)]


def _everywhere(weight, blocksize: int, kind: str) -> dict[str, tuple]:
    """(packed, absmax, dequantized) of a weight in all four places, on the CPU."""
    import bitsandbytes.functional as bnb

    found = {}
    for place in PLACES:
        here = weight.to("cuda") if place.endswith("card") else weight
        if place.startswith("the lab"):
            quantized = quantize_4bit(here, blocksize, kind)
            parts = quantized.packed, quantized.absmax, dequantize_4bit(quantized)
        else:
            packed, state = bnb.quantize_4bit(here, blocksize=blocksize, quant_type=kind, compress_statistics=False)
            parts = packed, state.absmax, bnb.dequantize_4bit(packed, state)
        found[place] = tuple(part.detach().cpu().flatten() for part in parts)
    return found


def _count(one, other) -> int:
    """Numbers of two tensors that differ; all of them where the shapes do."""
    if one.shape != other.shape:
        return max(one.numel(), other.numel())
    return int((one != other).sum())


def _nested(weight, kind: str) -> int:
    """Codes of absmax that differ between the lab on the CPU and bitsandbytes on the card, with double quantization."""
    import bitsandbytes.functional as bnb

    ours = quantize_4bit(weight, 64, kind, double_quant=True).nested.codes
    _, state = bnb.quantize_4bit(weight.to("cuda"), blocksize=64, quant_type=kind, compress_statistics=True)
    return _count(ours.cpu().flatten(), state.absmax.cpu().flatten())


def _ties(kind: str) -> int:
    """Bytes that differ on the card where a weight is in the exact middle of two values, or the next number to it."""
    import torch

    code = nf4_code() if kind == "nf4" else fp4_code()
    middles = (code[:-1] + code[1:]) / 2
    near = [middles, torch.nextafter(middles, torch.tensor(2.0)), torch.nextafter(middles, torch.tensor(-2.0))]
    block = torch.zeros(64)
    block[0], block[1:46] = 1.0, torch.cat(near)
    found = _everywhere(block, 64, kind)
    return _count(found[PLACES[0]][0], found[PLACES[3]][0])
