"""Many adapters on one base: load, switch, mix in a batch, measure it; and llama.cpp's server (page 10)."""

from .adapter_records import recorded_adapter
from .answers import answers_of
from .bank import AdapterBank
from .costs import file_sizes, latency
from .llama_cpp import Completion, LlamaServer
from .other_servers import modelfile, vllm_command

__all__ = [
    "AdapterBank", "Completion", "LlamaServer", "answers_of", "file_sizes", "latency", "modelfile",
    "recorded_adapter", "vllm_command",
]  # fmt: skip
