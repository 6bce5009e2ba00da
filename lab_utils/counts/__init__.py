"""How many parameters a model and its adapters have (page 02)."""

from .architectures import ARCHITECTURES
from .configurations import from_config
from .parameters import (
    PRINTED_COUNTS,
    PRINTED_DECOMPOSITION,
    PRINTED_SHARES,
    SIZES,
    adapter_bytes,
    decomposition_table,
    differing_cells,
    lora_parameters,
    lora_parameters_by_module,
    rank_table,
    training_bytes,
)  # fmt: skip

__all__ = [
    "ARCHITECTURES", "PRINTED_COUNTS", "PRINTED_DECOMPOSITION", "PRINTED_SHARES", "SIZES", "adapter_bytes",
    "decomposition_table", "differing_cells", "from_config", "lora_parameters", "lora_parameters_by_module",
    "rank_table", "training_bytes",
]  # fmt: skip
