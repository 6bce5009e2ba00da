"""How many parameters a model and its adapters have (page 02)."""

from .architectures import ARCHITECTURES
from .article_tables import (
    PRINTED_COUNTS,
    PRINTED_DECOMPOSITION,
    PRINTED_SHARES,
    SIZES,
    decomposition_table,
    differing_cells,
    rank_table,
)  # fmt: skip
from .configurations import from_config
from .parameters import adapter_bytes, lora_parameters, lora_parameters_by_module, training_bytes

__all__ = [
    "ARCHITECTURES", "PRINTED_COUNTS", "PRINTED_DECOMPOSITION", "PRINTED_SHARES", "SIZES", "adapter_bytes",
    "decomposition_table", "differing_cells", "from_config", "lora_parameters", "lora_parameters_by_module",
    "rank_table", "training_bytes",
]  # fmt: skip
