"""What each process of `lab_utils.machines.traffic` does: it trains its share of a small Llama and counts what it
sends.

Started by torchrun, with its settings as JSON: `python -m torch.distributed.run … -m
lab_utils.machines.traffic_process JSON`.
"""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..counts.architectures import Architecture
from ..finetune.fsdp import own_part
from ..lora import inject, trainable_parameters
from ..memory.saved import quantized_state
from .loopback import loopback_bytes

WHOLE = {  # torch's operator -> our name, and which argument is the whole tensor
    "c10d::broadcast_": ("broadcast", 0),  # of DDP in the second step, when it has seen the order of the gradients
    "c10d::allreduce_": ("all_reduce", 0),
    "c10d::_allgather_base_": ("all_gather", 0),
    "c10d::_reduce_scatter_base_": ("reduce_scatter", 1),
}


def small_llama(shape: Architecture) -> nn.Module:
    """transformers' Llama with the sizes of `shape` and random weights; its output matrix is the embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.n_layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size, initializer_range=shape.hidden**-0.5, tie_word_embeddings=True, use_cache=False,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    ))  # fmt: skip


def build(method: str, shape: Architecture, rank: int) -> nn.Module:
    """The model, its linear layers in NF4 if `method` is "qlora", with adapters unless it is "full"."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as they would have
        torch.manual_seed(0)
        model = small_llama(shape)
        if method == "qlora":
            for name, module in list(model.model.layers.named_modules()):
                if isinstance(module, nn.Linear):
                    model.model.layers.set_submodule(name, four_bit(module))
        return model if method == "full" else inject(model, list(shape.linears()), rank, 2 * rank)


def four_bit(linear: nn.Linear) -> nn.Linear:
    """bitsandbytes' layer with the same weight in NF4, its bytes held as bfloat16: FSDP shards numbers with a point."""
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(
        linear.in_features, linear.out_features, bias=False, compute_dtype=torch.float32, compress_statistics=True,
        quant_type="nf4", quant_storage=torch.bfloat16,
    )  # fmt: skip
    layer.load_state_dict(linear.state_dict())
    layer.support_avx512bf16_for_cpu = False  # else it may repack its weight, and has no gradient then
    return layer.to("cpu")  # quantizes


def distribute(model: nn.Module, strategy: str) -> nn.Module:
    """The model as `strategy` trains it: "ddp" or "fsdp"."""
    if strategy == "ddp":
        # Its one buffer, the rotary angles, is the same everywhere.
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


class Counter(TorchDispatchMode):
    """While it is on, adds up the bytes of whole tensors that go through the collectives."""

    def __init__(self):
        super().__init__()
        self.bytes = dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter"), 0)

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        if function.namespace == "c10d":
            name, place = WHOLE[function._schema.name]
            tensors = args[place] if isinstance(args[place], (list, tuple)) else [args[place]]
            self.bytes[name] = self.bytes.get(name, 0) + held_bytes(tensors)
        return function(*args, **(kwargs or {}))


def held_bytes(tensors) -> int:
    """Bytes of this process's part of tensors, sharded or not."""
    return sum(own_part(tensor).nbytes for tensor in tensors)


def train(settings: dict, method: str, strategy: str = "ddp", processes: int = 1, process: int = 0) -> dict:
    """A few steps of this process on its share of the batches; alone on the whole of them."""
    shape = Architecture(**settings["shape"])
    model = build(method, shape, settings["rank"])
    trained = model if processes == 1 else distribute(model, strategy)
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=settings["learning_rate"], weight_decay=0.0)
    generator, size = torch.Generator().manual_seed(1), settings["batch_size"]
    whole = size * settings["processes"], settings["tokens"]
    record = {"losses": [], "sent": [], "seconds": [], "collectives": []}
    for _ in range(settings["steps"]):
        tokens = torch.randint(shape.vocabulary, whole, generator=generator)
        own = tokens[process * size : (process + 1) * size] if processes > 1 else tokens
        optimizer.zero_grad()
        wait(processes)
        before, began = loopback_bytes(), time.perf_counter()
        wait(processes)  # nobody begins before all have looked
        with Counter() as counter:
            loss = trained(input_ids=own, labels=own).loss
            loss.backward()
            optimizer.step()
        wait(processes)
        after, seconds = loopback_bytes(), time.perf_counter() - began
        record["losses"].append(loss.item())
        record["sent"].append(None if before is None else (after - before) // processes)
        record["seconds"].append(seconds)
        record["collectives"].append(counter.bytes)
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    named = list(model.named_parameters())
    return record | {
        "weights_bytes": held_bytes([*(one for name, one in named if "lora_" not in name), *quantized_state(model)]),
        "adapter_bytes": held_bytes(one for name, one in named if "lora_" in name),
        "gradients_bytes": held_bytes(one.grad for _, one in named if one.grad is not None),
        "optimizer_bytes": held_bytes(moments),
    }


def wait(processes: int) -> None:
    """Until all processes are here."""
    if processes > 1:
        dist.barrier()


def main() -> None:
    """Train as one of several processes; the first one writes what all of them found."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=settings["timeout_seconds"]))
    process, processes = dist.get_rank(), dist.get_world_size()
    found = [None] * processes
    dist.all_gather_object(found, [train(settings, *case, processes, process) for case in settings["cases"]])
    if process == 0:
        Path(settings["result"]).write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)  # all is done: now and then a thread of torch's, still running while Python ends, would abort it


if __name__ == "__main__":
    main()
