"""The registry of base models, and one function that loads any of them, quantized or not."""

from dataclasses import dataclass
from types import MappingProxyType

from ..device import GIB, Device, find_device
from ..errors import LabError, choose
from ..memory.free import free_memory_bytes
from ..quiet import quiet
from .hub import hub_reachable
from .loading import not_loaded, refuse_damaged

QUANTIZATIONS = ("none", "nf4", "fp4", "int8")


@dataclass(frozen=True)
class BaseModel:
    """One entry of the registry.

    Attributes
    ----------
    source : "embedded", or the repository on the Hugging Face hub
    parameters : int, as the model has them (tied embeddings counted once)
    min_gpu_gib : float, free GPU memory from which this model is a sensible default for 4-bit fine-tuning
        (weights, a batch of 8 short examples, and room); None: never a default
    gated : bool, the hub requires an accepted license and an access token
    note : str, what a reader should know
    """

    source: str
    parameters: int
    min_gpu_gib: float | None
    gated: bool = False
    note: str = ""


MODELS = MappingProxyType(
    {
        "smollm2-135m": BaseModel(
            "embedded", 134_515_008, 0, note="embedded; its weights went through 4 bits (GGUF Q4_1) once already"
        ),
        "smollm2-360m": BaseModel("HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, 3),
        "qwen2.5-0.5b": BaseModel("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, 5),
        "qwen2.5-1.5b": BaseModel("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304, 8),
        "smollm2-1.7b": BaseModel("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384, 12),
        "llama-3.2-1b": BaseModel("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400, None, gated=True),
        "mistral-7b": BaseModel("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552, None, gated=True),
    }
)


def decide_model(kind: str, free_bytes: int, hub: bool) -> str:
    """The default model for a device.

    Parameters
    ----------
    kind : "cuda" or "cpu"
    free_bytes : int, free memory of the device
    hub : bool, the hub can be reached

    Returns
    -------
    A name in `MODELS`: the embedded one on a CPU or without the hub, else the largest that fits.
    """
    if kind == "cpu" or not hub:
        return "smollm2-135m"
    fitting = {
        name: model for name, model in MODELS.items()
        if model.min_gpu_gib is not None and model.min_gpu_gib * GIB <= free_bytes
    }
    return max(fitting, key=lambda name: fitting[name].min_gpu_gib)


def default_model(device: Device | None = None) -> str:
    """The default model here and now (see `decide_model`)."""
    device = device or find_device()
    on_gpu = device.kind == "cuda"
    return decide_model(device.kind, free_memory_bytes(device.kind), on_gpu and hub_reachable())


def four_bit_problem() -> str | None:
    """None if bitsandbytes can quantize on this machine, else a sentence that says why not."""
    try:
        with quiet():
            import bitsandbytes  # noqa: F401
    except Exception as error:  # a broken native library can raise anything
        why = f"{type(error).__name__}: {error}"
        return f"bitsandbytes cannot be imported ({why}); `pip install bitsandbytes` installs it"
    return None


def quantization_config(quantization: str, device: Device, sharded: bool = False):
    """The transformers config for a name in `QUANTIZATIONS`; None for "none".

    bitsandbytes' own defaults are fp4 without double quantization, so everything is set here. For sharding, packed
    weights are stored in the compute dtype: FSDP splits only floats, all of one dtype.
    """
    import torch

    choose("quantization", quantization, QUANTIZATIONS)
    if quantization == "none":
        return None
    problem = four_bit_problem()
    if problem:
        raise LabError(f"{quantization} needs bitsandbytes: {problem}. Or load with quantization='none'.")
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=device.torch_dtype,
        bnb_4bit_quant_storage=device.torch_dtype if sharded else torch.uint8,
    )


def load_base(name: str | None = None, quantization: str | None = None, device: Device | None = None,
              verbose: bool = True, *, sharded: bool = False):
    """Load a base model and its tokenizer.

    Parameters
    ----------
    name : str, optional
        A name in `MODELS`. Default: the embedded model; on a GPU with network access, the largest that fits.
    quantization : "none", "nf4", "fp4" or "int8", optional
        How bitsandbytes stores the linear layers. Default "none": the device's compute dtype.
        nf4 and fp4 use double quantization.
    device : Device, optional
        Default: this machine's (`lab_utils.device.find_device`).
    verbose : bool
        Print which model, device and dtype are used.
    sharded : bool
        For FSDP: in a dtype that it can split, and in the CPU's memory, from which it takes layer by layer.

    Returns
    -------
    (model, tokenizer) : transformers model in eval mode on the device, tokenizer that pads on the right.

    Raises
    ------
    LabError
        Unknown name or quantization, no bitsandbytes, no network for a hub model, a gated model, too little memory; a
        weight is NaN or infinite.
    """
    device = device or find_device()
    name = name or default_model(device)
    choose("model", name, MODELS)
    config = quantization_config(quantization or "none", device, sharded)
    if verbose:
        print(f"{name}, {quantization or 'none'}, on {device}.")
        if MODELS[name].note:
            print(f"Note: {MODELS[name].note}.")
    model, tokenizer = _load(name, config, device, decide_place(device.kind, sharded))
    keep_weights_trainable(model)
    return model, tokenizer


def load_tokenizer(name: str = "smollm2-135m"):
    """Only the tokenizer of a model in `MODELS`; takes a fraction of a second.

    Raises
    ------
    LabError
        Unknown name, no network for a hub model, a gated model, a damaged folder.
    """
    choose("model", name, MODELS)
    where = _where(name)
    try:
        return _tokenizer(where)
    except Exception as error:
        raise LabError(not_loaded(name, where, MODELS[name].gated, error)) from error


def _tokenizer(where: str):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(where, padding_side="right")


def _where(name: str) -> str:
    """Folder or hub repository of a model."""
    if MODELS[name].source != "embedded":
        return MODELS[name].source
    from .embedded import embedded_folder

    return str(embedded_folder())


def decide_place(kind: str, sharded: bool) -> str | int:
    """Where a base is loaded: "cpu", or the number of this process's GPU. To be sharded, it may fit on no GPU."""
    import torch

    return "cpu" if sharded or kind == "cpu" else torch.cuda.current_device()


def _load(name: str, config, device: Device, place: str | int):
    """Load with transformers; its failures and the hub's become advice."""
    from transformers import AutoModelForCausalLM

    where = _where(name)
    try:
        with quiet():
            tokenizer = _tokenizer(where)
            model, found = AutoModelForCausalLM.from_pretrained(
                where,
                quantization_config=config,
                dtype=device.torch_dtype,
                device_map={"": place},
                # eager: SDPA's bfloat16 backward with a padding mask is slow on CPUs (see tests/bench/bench.py).
                attn_implementation="eager" if device.kind == "cpu" else "sdpa",
                output_loading_info=True,
            )
    except Exception as error:  # transformers, safetensors, the hub, its network library and CUDA can raise anything
        raise LabError(not_loaded(name, where, MODELS[name].gated, error)) from error
    refuse_damaged(name, where, model, found["missing_keys"], quantized=config is not None)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def base_model(model):
    """The transformers model itself, whether or not peft wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def keep_weights_trainable(model) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in place.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 turns `Linear4bit` weights into an inference-only layout at the
    first forward without gradients, and never back: gradients through the layer, `dequantize_4bit` and merging are
    silently wrong afterwards. `load_base` calls this; tests/library/test_models.py checks it.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit" and hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def footprint(model) -> dict[str, int]:
    """Bytes of a model's tensors by part, tied tensors counted once.

    Returns
    -------
    dict of int: "4-bit linears" (packed codes and their absmax, as quantized), "8-bit linears", "other linears",
    "embeddings and head", "norms and buffers", "adapter"; parts that the model lacks are left out
    """
    parts = dict.fromkeys(
        ("4-bit linears", "8-bit linears", "other linears", "embeddings and head", "norms and buffers", "adapter"), 0
    )
    seen = set()
    for name, module in model.named_modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            parts[_part(name, module, tensor)] += tensor.numel() * tensor.element_size() + _state_bytes(tensor)
    return {part: count for part, count in parts.items() if count}


def _part(name: str, module, tensor) -> str:
    """Which part of `footprint` a tensor belongs to."""
    kind = type(module).__name__
    if "lora_" in name:
        return "adapter"
    if hasattr(tensor, "quant_state"):
        return "4-bit linears"
    if kind == "Linear8bitLt":
        return "8-bit linears"
    if kind == "Embedding" or name.endswith("lm_head"):
        return "embeddings and head"
    return "other linears" if "Linear" in kind else "norms and buffers"


def _state_bytes(tensor) -> int:
    """Bytes of a 4-bit tensor's absmax, its double quantization included; 0 for any other tensor."""
    state = getattr(tensor, "quant_state", None)
    if state is None:
        return 0
    held = [state.absmax] + ([state.state2.absmax] if state.nested else [])
    return sum(one.numel() * one.element_size() for one in held)
