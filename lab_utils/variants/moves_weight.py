"""What PiSSA and Delta-LoRA share: they change the base's weight, and taking them off restores it."""

from torch import Tensor, nn

from ..lora import LoRALinear


class MovesWeight(LoRALinear):
    """A layer that changes its base weight. The original is kept and can be restored bit for bit.

    This costs a second copy of the weight, which neither method needs for training.
    """

    PLAIN = False

    def move(self, weight: Tensor) -> None:
        """Replace the base's weight with `weight`; the original is kept as `.original`."""
        self.register_buffer("original", self.base_layer.weight.data, persistent=False)
        self.base_layer.weight.data = weight

    def learned_update(self) -> Tensor:
        """The weight that the layer computes with minus the original one, (out, in)."""
        moved = self.base_layer.weight - self.original
        return moved if self.merged else moved + self.delta_weight()

    def release(self) -> nn.Module:
        """The base layer with its original weight, or with the merged one if it is merged."""
        if not self.merged:
            self.base_layer.weight.data = self.original
        return self.base_layer
