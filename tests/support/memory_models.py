"""What the tests of memory share: counters of tensors' bytes, tiny models of several families, and cases for a twin."""

import itertools

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from lab_utils.counts.architectures import ARCHITECTURES, Architecture
from lab_utils.memory.step import as_record, estimate


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are alive while it is on, and keeps the peak; `own` does not count."""

    def __init__(self, own: set[int]):
        super().__init__()
        self.own, self.alive, self.now, self.peak = own, {}, 0, 0

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.own and storage._cdata not in self.alive:
                    self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                    self.now += storage.nbytes()
        if self.now > self.peak:  # perhaps a new peak: see first what has died meanwhile
            self.peak = max(self.peak, self.count())
        return out

    def count(self) -> int:
        """Bytes alive now."""
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.now = sum(count for _, count in self.alive.values())
        return self.now


# ---- tiny models ----

_LLAMA = {
    "vocab_size": 97, "hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
_TINY = {
    "llama, tied": ("llama", "Llama", {**_LLAMA, "tie_word_embeddings": True}, 24, 2, 0),
    "llama, untied": ("llama", "Llama", {**_LLAMA, "tie_word_embeddings": False}, 24, 2, 0),
    "mistral": ("llama", "Mistral", {**_LLAMA, "tie_word_embeddings": False}, 24, 2, 0),
    "qwen2": ("qwen2", "Qwen2", {**_LLAMA, "tie_word_embeddings": True}, 24, 2, 0),
    "gemma": ("gemma", "Gemma", {**_LLAMA, "head_dim": 32, "num_key_value_heads": 1}, 32, 1, 0),
    "gpt2": (
        "gpt2", "GPT2",
        {"vocab_size": 97, "n_embd": 96, "n_inner": 160, "n_head": 4, "n_positions": 50,
         "bos_token_id": 1, "eos_token_id": 2}, 24, 4, 50,
    ),
}  # fmt: skip
TINY = tuple(_TINY)


def tiny(name: str, layers: int = 2) -> tuple[object, Architecture]:
    """A random float32 model with eager attention, and its shape. No matrix's size is a multiple of 64 · 256."""
    import transformers

    family, kind, settings, head_size, kv_heads, positions = _TINY[name]
    torch.manual_seed(0)
    depth = {"n_layer" if kind == "GPT2" else "num_hidden_layers": layers}
    config = getattr(transformers, f"{kind}Config")(**settings, **depth, attn_implementation="eager")
    model = getattr(transformers, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}")(config)
    shape = Architecture(
        name=name, family=family, hidden=96, n_layers=layers, heads=4, kv_heads=kv_heads, head_size=head_size,
        intermediate=160, vocabulary=97, tied=settings.get("tie_word_embeddings", True), positions=positions,
    )  # fmt: skip
    return model, shape


# ---- input and expected output, for a twin in another language ----


def cases() -> list[dict]:
    """Arguments of `memory.estimate`, the record of the model, and what comes out: every branch of the formula."""
    found = []
    names = ("SmolLM2-135M", "Llama-2-7B", "LLaMA-65B", "Qwen2.5-0.5B", "GPT-2", "Falcon-180B", "RoBERTa-base")
    axes = itertools.product(
        names, ("full", "lora", "qlora"), ("cpu", "cuda"), ("float32", "bfloat16"), ("float32", "8bit"), (False, True)
    )
    for number, (name, method, device, dtype, moments, checkpointing) in enumerate(axes):
        arguments = {
            "method": method, "rank": (1, 8, 64)[number % 3], "target_modules": ("all-linear", "qv", "mlp")[number % 3],
            "batch_size": (1, 3, 16)[number // 2 % 3], "sequence_length": (77, 512, 4096)[number // 3 % 3],
            "dtype": dtype, "adapter_dtype": ("float32", "bfloat16")[number // 5 % 2], "moments": moments,
            "gradient_checkpointing": checkpointing, "double_quant": number % 4 != 0, "device": device,
        }  # fmt: skip
        arguments["supervised_tokens"] = arguments["batch_size"] * (38 if number % 2 else arguments["sequence_length"])
        shape = ARCHITECTURES[name]
        result = estimate(shape, **arguments)
        found.append(
            {
                "record": as_record(shape),
                "arguments": {**arguments, "targets": list(shape.select(arguments["target_modules"]))},
                "expected": {**vars(result), "total_bytes": result.total_bytes, "parts": result.parts()},
            }
        )
    return found
