"""A linear layer whose frozen weight is held in 4 bits: the layer under every QLoRA adapter.

    y = x · dequantize(weight)ᵀ + bias          gradient for x: grad · dequantize(weight)

The dense weight exists only while one of these two lines is computed. `bitsandbytes.nn.Linear4bit` gives the
same numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import LabError
from .codec import Quantized4Bit, dequantize_4bit, quantize_4bit
from .double_quant import DoubleQuantized


class FrozenLinear(torch.autograd.Function):
    """y = x Wᵀ + bias with W in 4 bits: no dense W is kept for the backward pass, and only x gets a gradient."""

    @staticmethod
    def forward(ctx, x, quantized, bias):
        """x (..., in), quantized a Quantized4Bit of (out, in), bias (out,) or None -> (..., out)."""
        ctx.quantized = quantized
        return F.linear(x, dequantize_4bit(quantized, x.dtype), bias)

    @staticmethod
    def backward(ctx, grad):
        """grad (..., out) -> (..., in). As in bitsandbytes W is rounded to the original weight's dtype first."""
        return grad @ dequantize_4bit(ctx.quantized).to(grad.dtype), None, None


class Linear4bit(nn.Linear):
    """A frozen linear layer in 4 bits, made from an ordinary one, which does not change.

    Parameters
    ----------
    linear : nn.Linear in float32, bfloat16 or float16
    blocksize, quant_type, double_quant : see `nf4.quantize_4bit`; here double quantization is on by default
    compute_dtype : float dtype to multiply in; None: the input's. The output has the input's dtype.

    Attributes
    ----------
    weight : uint8 Parameter, shape (ceil(out · in / 2), 1), the packed indices
        It has half as many entries as the layer has weights.
    absmax : float32 buffer (blocks,), or with double quantization uint8 buffer `absmax` of that shape and float32
        buffers `nested_absmax` (groups,) and `offset` ()
    bias : Parameter of shape (out,), frozen, or None
    quantized : Quantized4Bit, the same tensors in the form that `nf4.dequantize_4bit` takes

    A change of dtype, such as `model.half()`, leaves all of them as they are; a change of device moves them.

    Raises
    ------
    LabError
        `linear` is not a plain nn.Linear, or a setting or the weight is not allowed.

    Source: Dettmers et al. 2023 (QLoRA), equation 5. https://arxiv.org/abs/2305.14314

    >>> linear = nn.Linear(2, 1, bias=False)
    >>> linear.weight.data = torch.tensor([[2.0, 0.6]])
    >>> round(Linear4bit(linear, double_quant=False)(torch.tensor([1.0, 10.0])).item(), 2)  # 2 + 10 · 0.676, not 0.6
    8.76
    """

    def __init__(
        self,
        linear: nn.Linear,
        *,
        blocksize: int = 64,
        quant_type: str = "nf4",
        double_quant: bool = True,
        compute_dtype: torch.dtype | None = None,
    ):
        if not isinstance(linear, nn.Linear) or isinstance(linear, Linear4bit):
            raise LabError(f"Linear4bit is made from a plain nn.Linear; this is {type(linear).__name__}.")
        quantized = quantize_4bit(linear.weight, blocksize, quant_type, double_quant)
        nn.Module.__init__(self)  # nn.Linear's own would make a dense weight
        self.in_features, self.out_features, self.compute_dtype = linear.in_features, linear.out_features, compute_dtype
        self.weight = nn.Parameter(quantized.packed, requires_grad=False)
        nested = quantized.nested
        self.register_buffer("absmax", nested.codes if nested else quantized.scales)
        self.register_buffer("nested_absmax", nested.absmax if nested else None)
        self.register_buffer("offset", nested.offset if nested else None)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
        self.weight_dtype, self.blocksize, self.quant_type = quantized.dtype, blocksize, quant_type

    @property
    def quantized(self) -> Quantized4Bit:
        """The weight in the form that `nf4.dequantize_4bit` takes; nothing is copied."""
        nested = self.nested_absmax is not None
        scales = DoubleQuantized(self.absmax, self.nested_absmax, self.offset) if nested else self.absmax
        shape = torch.Size((self.out_features, self.in_features))
        return Quantized4Bit(self.weight.data, scales, shape, self.weight_dtype, self.blocksize, self.quant_type)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out) in the dtype of x."""
        dtype = self.compute_dtype or x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return FrozenLinear.apply(x.to(dtype), self.quantized, bias).to(x.dtype)

    def dequantize(self) -> Tensor:
        """The dense weight (out, in) in the dtype it had before it was quantized."""
        return dequantize_4bit(self.quantized)

    def _apply(self, fn, recurse=True):
        """Let `to`, `half` and the like move the tensors but keep their dtypes: a 16-bit absmax would be wrong."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor.new_empty(0)).device), recurse)

    def extra_repr(self) -> str:
        """What `print(model)` shows beside the class."""
        double = self.nested_absmax is not None
        return f"{super().extra_repr()}, {self.quant_type}, blocksize={self.blocksize}, double_quant={double}"
