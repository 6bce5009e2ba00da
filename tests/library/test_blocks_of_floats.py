"""E2M1, MXFP4 and NVFP4: what torchao makes of the same weights, and the laws of the formats."""

import hashlib

import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.nf4 import e2m1_code, round_to_mxfp4, round_to_nvfp4
from lab_utils.nf4.blocks_of_floats import E2M1, round_to_e2m1


def weights() -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    normal = torch.randn(16, 64, generator=made)
    uneven = torch.randn(16, 64, generator=made)
    uneven[3] = 0
    uneven[:, :5] *= 100
    ties = torch.randint(-24, 25, (16, 64), generator=made) / 4
    return {"normal": normal, "tiny": normal * 1e-20, "uneven": uneven, "ties": ties, "bfloat16": normal.bfloat16()}


# Of the bytes of MXTensor.to_mx(weight, torch.float4_e2m1fn_x2, 32) and NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=
# per_tensor_amax_to_scale(weight.abs().max())), both dequantized to float32, in torchao 0.18 on a CPU.
TORCHAO = {
    ("normal", "mxfp4"): "160ab53cb1d0c6ea", ("normal", "nvfp4"): "1ee821897b145939",
    ("tiny", "mxfp4"): "48abbf44b2bf7f79", ("tiny", "nvfp4"): "28c5cf1c22eef866",
    ("uneven", "mxfp4"): "343dba0f40b4721f", ("uneven", "nvfp4"): "45c983f66ae6411f",
    ("ties", "mxfp4"): "7f47f4ef03766793", ("ties", "nvfp4"): "f931749d842cee24",
    ("bfloat16", "mxfp4"): "ef59049a8bfd9ed5", ("bfloat16", "nvfp4"): "b89239e34b47c4fd",
}  # fmt: skip


def digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "kind"), TORCHAO)
def test_the_rounded_weights_are_torchaos(name, kind):
    rounded = {"mxfp4": round_to_mxfp4, "nvfp4": round_to_nvfp4}[kind](weights()[name])
    assert digest(rounded + 0.0) == TORCHAO[name, kind]  # + 0.0 makes −0 a plain 0


def test_e2m1_rounds_to_the_nearest_and_half_to_even():
    values = torch.linspace(-7, 7, 1401)
    numbers = torch.tensor([-value for value in E2M1[:0:-1]] + list(E2M1))
    distance = (values[:, None] - numbers).abs()
    rounded = round_to_e2m1(values)
    assert torch.equal((values - rounded).abs(), distance.min(1).values)
    halfway = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert round_to_e2m1(halfway).tolist() == [0, 1, 1, 2, 2, 4, 4] == (-round_to_e2m1(-halfway)).tolist()
    assert torch.equal(e2m1_code() * 6, numbers)


def test_scales_are_powers_of_two_or_fit_the_largest():
    weight = weights()["normal"]
    for rounded, size in ((round_to_mxfp4(weight), 32), (round_to_nvfp4(weight), 16)):
        error = (weight - rounded).reshape(-1, size)
        largest = weight.reshape(-1, size).abs().amax(1)
        assert (error.abs().amax(1) <= largest * (0.26 if size == 32 else 0.21)).all()
    again = round_to_mxfp4(round_to_mxfp4(weight))
    assert torch.equal(again, round_to_mxfp4(weight))
    assert torch.equal(round_to_mxfp4(weight * 8), round_to_mxfp4(weight) * 8)


@pytest.mark.parametrize("rounding", [round_to_mxfp4, round_to_nvfp4])
def test_what_cannot_be_rounded_is_named(rounding):
    assert not rounding(torch.zeros(2, 32)).any()
    with pytest.raises(LabError, match=r"33 numbers is not made of blocks of \d\d\. Add zeros"):
        rounding(torch.ones(33))
    with pytest.raises(LabError, match="holds 1 entries that are NaN"):
        rounding(torch.tensor([float("nan")] + [0.0] * 31))
    with pytest.raises(LabError, match="weight is list"):
        rounding([1.0])
