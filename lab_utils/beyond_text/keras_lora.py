"""The LoRA and the int8 of Keras' attention layers as plain tensors, to be held against the lab's own arithmetic.

Keras writes x·W where the papers write W·x: what goes in comes before what comes out, and the update is A·B.
"""

from dataclasses import dataclass

from torch import Tensor

from ..counts.architectures import Architecture
from ..errors import LabError, choose
from .keras_gemma import load_keras


def lora_layers(model) -> dict[str, object]:
    """The attention layers that have an adapter, by name, say "decoder_block_0/query"."""
    return {
        f"{block.name}/{layer.name}": layer
        for block in model.backbone.transformer_layers
        for layer in _projections(block.attention) if layer.lora_enabled
    }  # fmt: skip


def dequantized(layer) -> Tensor:
    """An attention projection's frozen weight as Keras computes with it, whether it is stored in float, int8 or int4.

    Parameters
    ----------
    layer : keras.layers.EinsumDense. Its `kernel` will not do: of an int8 layer with an adapter that is the whole
        numbers plus the update.

    Returns
    -------
    float32 Tensor, Keras' shape: (heads, hidden, head_dim) of query, key and value
    """
    stored = _stored(layer)
    kernel, mode = stored["kernel"], layer.quantization_mode
    choose("quantization mode", mode, (None, "int8", "int4"))
    if mode is None:
        return kernel.float()
    scale = stored["kernel_scale"].float()
    if mode == "int8":  # Keras keeps 127 / absmax, and divides by it
        return kernel.float() / scale.reshape(-1, 1, kernel.shape[-1])
    keras, _ = load_keras()
    columns = scale.shape[-1]
    levels = keras.quantizers.unpack_int4(kernel, columns, axis=-1).cpu().float()  # (rows, columns)
    group = stored["g_idx"].long()
    return ((levels - stored["kernel_zero"][group]) * scale[group]).reshape(layer.original_kernel_shape)


def int8_codes(layer) -> Tensor:
    """The whole numbers of an int8 attention projection: int8 Tensor, shape as of `dequantized`."""
    if layer.quantization_mode != "int8":
        mode = layer.quantization_mode or "float"
        raise LabError(f"{layer.name} is stored in {mode}, not in int8: call quantize('int8') on the model first.")
    return _stored(layer)["kernel"]


def channels(kernel: Tensor) -> Tensor:
    """(heads, hidden, head_dim) as the lab writes a weight, (out, in): one row for each number that comes out."""
    return kernel.permute(0, 2, 1).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class KerasLora:
    """A query or value layer in Keras' shapes, float32: what goes in comes first, so the update is A·B.

    weight : Tensor, shape (heads, hidden, head_dim), the frozen W, dequantized
    lora_A : Tensor, shape (heads, hidden, rank), random at the start, one for each head
    lora_B : Tensor, shape (rank, head_dim), zeros at the start, shared by all heads
    scaling : float, alpha / rank; 1 unless alpha is given, for Keras' alpha is the rank
    """

    weight: Tensor
    lora_A: Tensor
    lora_B: Tensor
    scaling: float

    def delta_weight(self) -> Tensor:
        """The update, shape (heads, hidden, head_dim)."""
        return self.scaling * (self.lora_A @ self.lora_B)

    def effective(self) -> Tensor:
        """W + scaling · A·B, shape (heads, hidden, head_dim)."""
        return self.weight + self.delta_weight()


def taken_apart(layer) -> KerasLora:
    """The frozen weight and the adapter of one of `lora_layers`."""
    if not layer.lora_enabled:
        raise LabError(f"{layer.name} has no adapter: call enable_lora first.")
    stored = _stored(layer)
    scaling = layer.lora_alpha / layer.lora_rank
    return KerasLora(dequantized(layer), stored["lora_kernel_a"], stored["lora_kernel_b"], scaling)


def keras_lora_parameters(architecture: Architecture, rank: int) -> int:
    """What `backbone.enable_lora(rank)` trains on a Gemma: query and value, an A for each head, one B for all heads."""
    kinds = (architecture.heads, architecture.kv_heads)
    width = architecture.head_size
    return architecture.n_layers * sum(heads * architecture.hidden * rank + rank * width for heads in kinds)


def _projections(attention) -> tuple:
    """The four linear layers of an attention."""
    return attention.query_dense, attention.key_dense, attention.value_dense, attention.output_dense


def _stored(layer) -> dict[str, Tensor]:
    """A layer's variables by name, on the CPU."""
    return {variable.name: variable.value.detach().cpu() for variable in layer.weights}
