"""The names under which an adapter's tensors are saved, and the other spellings that are met for them.

peft writes `base_model.model.<module>.lora_A.weight`. The same tensors are also found without that prefix, with the
adapter's name inside (`lora_A.default.weight`, as `state_dict()` gives them), and with the prefixes of DDP, FSDP,
activation checkpointing and `torch.compile`. peft passes over names that it does not expect, without a word; here they
are mapped, or refused.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import LabError

PREFIX = "base_model.model."  # what peft puts before every module's name
MATRICES = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
PARTNER = {"lora_A": "lora_B", "lora_embedding_A": "lora_embedding_B"} | {
    "lora_B": "lora_A", "lora_embedding_B": "lora_embedding_A"
}  # fmt: skip
# torch.compile's, FSDP's, and that of activation checkpointing
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PREFIX = re.compile(r"^(module\.)*base_model\.model\.")  # DDP's, then peft's
_PART = re.compile(
    r"^(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?P<name>\.[^.]+?)??(?P<leaf>\.(?:weight|bias))?$"
)
_WHOLE = re.compile(r"^(?P<module>.+)\.modules_to_save\.[^.]+\.(?P<leaf>[^.]+)$")


class Key(NamedTuple):
    """What a tensor's name says."""

    module: str  # the adapted module's name in the base model; of any other tensor, its whole name
    part: str  # "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"; "" for any other
    bias: bool = False

    @property
    def saved(self) -> str:
        """The name that peft writes."""
        name = f"{PREFIX}{self.module}.{self.part}" if self.part else f"{PREFIX}{self.module}"
        if self.part not in ("lora_A", "lora_B"):
            return name
        return f"{name}.bias" if self.bias else f"{name}.weight"


def parse(name: str) -> Key:
    """Read a tensor's name, in any spelling."""
    bare = _PREFIX.sub("", _WRAPPERS.sub("", name))
    match = _PART.match(bare)
    if match:
        return Key(match["module"], match["part"], match["leaf"] == ".bias")
    whole = _WHOLE.match(bare)
    return Key(f"{whole['module']}.{whole['leaf']}" if whole else bare, "")


def canonical(state: Mapping[str, Tensor], where: str = "This adapter") -> dict[str, Tensor]:
    """The same tensors under the names that peft writes, in the same order.

    Parameters
    ----------
    state : dict name -> Tensor, in any spelling
    where : str, the file, for the message

    Raises
    ------
    LabError
        Two names mean the same tensor, as when one file holds two adapters.
    """
    found: dict[str, Tensor] = {}
    came_from: dict[str, str] = {}
    for name, tensor in state.items():
        key = parse(name).saved
        if key in found:
            raise LabError(
                f"{where} holds two tensors for {key}: {came_from[key]} and {name}. Save one adapter in one file."
            )
        found[key], came_from[key] = tensor, name
    return found
