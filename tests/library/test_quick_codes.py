"""Codes of 4 bits that are found quickly are those that bitsandbytes finds, to the byte."""

import sys

import pytest
import torch
from bitsandbytes.backends.default import ops
from bitsandbytes.functional import quantize_4bit

from lab_utils.models.quick_codes import CHUNK, codes, quick_codes


def weights(dtype: torch.dtype) -> torch.Tensor:
    """More than two chunks of numbers of all sizes, with blocks of zeros and of ones."""
    weight = torch.randn(40, 1728, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 4, 40)[:, None]
    weight[3, :64], weight[4, 64:128] = 0, -1
    assert weight.numel() > 2 * CHUNK
    return weight.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_codes_and_scales_are_bitsandbytes_own(kind, dtype, monkeypatch):
    weight = weights(dtype)
    expected, state = quantize_4bit(weight, quant_type=kind, compress_statistics=True)
    monkeypatch.setattr(torch, "bucketize", None)  # it is not asked
    with quick_codes():
        found, ours = quantize_4bit(weight, quant_type=kind, compress_statistics=True)
    assert torch.equal(found, expected)
    assert torch.equal(ours.absmax, state.absmax) and torch.equal(ours.state2.absmax, state.state2.absmax)


def test_on_a_bound_beside_it_and_at_no_number_it_is_bucketizes_answer():
    bounds, _ = ops._get_4bit_quantize_bounds("nf4", torch.device("cpu"))
    beside = [torch.nextafter(bounds, torch.full_like(bounds, float(to))) for to in ("-inf", "inf")]
    values = torch.cat([bounds, *beside, torch.tensor([-1.0, 1.0, 0.0, -0.0, float("inf"), float("nan")])])
    assert torch.equal(codes(values, bounds), torch.bucketize(values, bounds, out_int32=True))
    assert codes(values.reshape(3, -1), bounds).shape == (3, 17) and codes(values[:0], bounds).shape == (0,)


def test_what_is_not_on_the_cpu_goes_bitsandbytes_own_way():
    with quick_codes():
        found = ops.torch.bucketize(torch.ones(3, device="meta"), torch.ones(2, device="meta"), out_int32=True)
    assert found.device.type == "meta" and found.dtype == torch.int32


def test_bitsandbytes_is_as_before_afterwards_and_it_nests():
    with pytest.raises(ZeroDivisionError), quick_codes():
        with quick_codes():
            pass
        assert ops.torch is not torch
        raise ZeroDivisionError
    assert ops.torch is torch


def test_without_bitsandbytes_nothing_is_done(monkeypatch):
    monkeypatch.delitem(sys.modules, ops.__name__)
    with quick_codes():
        assert ops.torch is torch and ops.__name__ not in sys.modules
