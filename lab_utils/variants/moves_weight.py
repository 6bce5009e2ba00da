"""What PiSSA and Delta-LoRA share: they change the base's weight, and taking them off brings it back."""

from torch import Tensor, nn

from ..lora import LoRALinear


class MovesWeight(LoRALinear):
    """A layer whose base weight is not what it was. The original is kept, so that it comes back to the bit.

    That costs a second copy of the weight, which neither method needs for training.
    """

    PLAIN = False

    def move(self, weight: Tensor) -> None:
        """Give the base `weight` in place of its own, which is kept as `.original`."""
        self.register_buffer("original", self.base_layer.weight.data, persistent=False)
        self.base_layer.weight.data = weight

    def learned_update(self) -> Tensor:
        """Weight that the layer computes with, less the original one, (out, in)."""
        moved = self.base_layer.weight - self.original
        return moved if self.merged else moved + self.delta_weight()

    def release(self) -> nn.Module:
        """The base layer with its original weight, or with the merged one if it is merged."""
        if not self.merged:
            self.base_layer.weight.data = self.original
        return self.base_layer
