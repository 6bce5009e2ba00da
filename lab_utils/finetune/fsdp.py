"""Sharding a training run with FSDP2: of the base in 4 bits and of the adapter, each process holds a piece.

    torchrun --nproc_per_node 2 -m lab_utils.finetune --output runs/sharded --fsdp deploy/cluster/fsdp_qlora.yaml
    accelerate launch --config_file deploy/cluster/fsdp_qlora.yaml -m lab_utils.finetune --output runs/sharded

accelerate does the sharding, the same code on CPUs and on GPUs. What it leaves to its caller is here: one dtype for all
that FSDP cuts, a CPU (on which accelerate would train unsharded and not say so), and whole tensors for files.
"""

import os
from pathlib import Path

from ..device import Device
from ..errors import LabError
from ..files import user_path
from ..models.registry import base_model
from ..models.weights import refuse_nonfinite

NAMES = {  # where a key of the file is not the plugin's own name with "fsdp_" before it
    "fsdp_version": "fsdp_version",
    "fsdp_offload_params": "cpu_offload",
    "fsdp_transformer_layer_cls_to_wrap": "transformer_cls_names_to_wrap",
}


def launched_sharded() -> bool:
    """Has `accelerate launch` been given a configuration file with FSDP in it?"""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def read_plugin(config: str | Path | None, device: Device):
    """accelerate's FSDP settings, from its own kind of file or from what `accelerate launch` has read out of one.

    Parameters
    ----------
    config : path of a YAML file as `accelerate config` writes it, or None: the environment
    device : Device, whose compute dtype everything that is sharded has

    Returns
    -------
    accelerate.FullyShardedDataParallelPlugin

    Raises
    ------
    LabError
        The file cannot be read or has a key that accelerate does not know; it asks for FSDP1; the device computes in
        float16.

    Source: https://huggingface.co/docs/bitsandbytes/fsdp_qlora and https://huggingface.co/docs/peft/accelerate/fsdp
    """
    import torch
    import yaml
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.config.config_args import ClusterConfig
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if device.compute_dtype == "float16":
        raise LabError(
            f"{device.name} computes in float16, for which sharding a 4-bit base is not made here: take GPUs that have "
            "bfloat16 (Ampere or later), or leave FSDP out, and each GPU holds the whole base."
        )
    try:
        keys = ClusterConfig.from_yaml_file(str(user_path(config))).fsdp_config or {} if config else {}
        if int(keys.get("fsdp_version", os.environ.get("FSDP_VERSION", 1))) != 2:
            raise ValueError("FSDP1 is not supported here, set fsdp_version: 2 in fsdp_config")
        plugin = FullyShardedDataParallelPlugin(
            **{NAMES.get(key, key.removeprefix("fsdp_")): value for key, value in keys.items()},
            # The packed weights' dtype: FSDP would cast, and so destroy, any other. Gradients: sums in float32.
            mixed_precision_policy=MixedPrecisionPolicy(param_dtype=device.torch_dtype, reduce_dtype=torch.float32),
        )
    except (OSError, TypeError, ValueError, AttributeError, KeyError, yaml.YAMLError) as error:
        raise LabError(f"{config or 'The configuration of accelerate launch'} is refused: {error}.") from error
    return plugin


def put_in_place(accelerator, plugin) -> None:
    """Let `accelerator.prepare` shard on a CPU too: accelerate sets its plugin in place on GPUs only.

    Raises
    ------
    LabError
        There is one process.
    """
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    if accelerator.num_processes == 1:
        raise LabError(
            "One process has nobody to share with: start several with torchrun, or leave FSDP out."
        )
    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        AcceleratorState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}


def check_shardable(model, dtype) -> None:
    """Raise a LabError unless every weight is of `dtype`, or is an adapter's: of others FSDP would keep a copy each."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter.dtype != dtype:
            raise LabError(
                f"{name} is stored in {parameter.dtype}, and sharding wants {dtype} for all. Take a quantization "
                "of nf4, fp4 or none; a base of your own, in Python, is loaded by load_base(..., sharded=True)."
            )


def mark_layers(loss, model) -> None:
    """Tell accelerate which modules are sharded one by one: the transformer layers, as transformers names them."""
    loss._no_split_modules = base_model(model)._no_split_modules


def whole(value):
    """Tensors, or dicts and lists of them, with every sharded one put together on the CPU. Called by all processes.

    Parameters
    ----------
    value : anything that a state dict holds

    Returns
    -------
    The same, without DTensors
    """
    from torch.distributed.tensor import DTensor

    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [whole(one) for one in value]
    return value.detach().full_tensor().cpu() if isinstance(value, DTensor) else value


class WholeAdapter:
    """A peft model's adapter, put together for a file: made by all processes, saved by one."""

    def __init__(self, model):
        self.model = model
        self.tensors = whole({name: one.detach() for name, one in model.named_parameters() if one.requires_grad})

    def save_pretrained(self, folder: str | Path) -> None:
        """Write it in peft's layout.

        Raises
        ------
        LabError
            A number in it is NaN or infinite: nothing is written.
        """
        refuse_nonfinite(self.tensors.items(), "The adapter is not saved", "The last checkpoint is from before.")
        self.model.save_pretrained(folder, state_dict=self.tensors)


def share_out(state: dict, parameters: list) -> dict:
    """An optimizer's state dict with whole tensors, cut as its parameters are. The inverse of `whole`.

    Parameters
    ----------
    state : what `whole(optimizer.state_dict())` gave
    parameters : list of Tensor, the optimizer's, in its order

    Returns
    -------
    dict for `optimizer.load_state_dict`
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    def cut(tensor, like):
        if not isinstance(like, DTensor) or getattr(tensor, "shape", None) != like.shape:
            return tensor  # AdamW's step count
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)

    moments = {
        index: {name: cut(tensor, parameters[index]) for name, tensor in one.items()}
        for index, one in state["state"].items()
    }
    return {**state, "state": moments}


def own_part(tensor):
    """What this process holds of a tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
