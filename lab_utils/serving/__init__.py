"""Many adapters on one base: load, switch, mix in a batch, and measure it (page 10)."""

from .adapter_records import recorded_adapter
from .answers import answers_of
from .bank import AdapterBank
from .costs import file_sizes, latency

__all__ = [
    "AdapterBank", "answers_of", "file_sizes", "latency", "recorded_adapter",
]  # fmt: skip
