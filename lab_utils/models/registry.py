"""One function that loads any base model with its tokenizer, quantized or not."""

from pathlib import Path

from ..device import Device, find_device
from ..errors import LabError, choose
from ..printing import say
from ..quiet import quiet
from .catalogue import MODELS as MODELS  # handed on
from .catalogue import default_model, float16_warning
from .chat_template import give_template
from .loading import not_loaded, refuse_damaged
from .own import check_causal, check_folder, notes
from .quick_codes import quick_codes
from .sources import Source, find_source
from .sources import base_model as base_model  # handed on
from .sources import name_of as name_of

QUANTIZATIONS = ("none", "nf4", "fp4", "int8")


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


def load_base(name: str | Path | None = None, quantization: str | None = None, device: Device | str | None = None,
              verbose: bool = True, *, sharded: bool = False):
    """Load a base model and its tokenizer.

    Parameters
    ----------
    name : str or Path, optional
        A name in `MODELS`, a folder, or owner/name on the hub. Default: the embedded model. See `larger_model`.
    quantization : "none", "nf4", "fp4" or "int8", optional
        How bitsandbytes stores the linear layers. Default "none": the device's compute dtype.
        nf4 and fp4 use double quantization.
    device : Device, "cpu" or "cuda", optional
        Default: this machine's (`lab_utils.device.find_device`).
    verbose : bool
        Print which model, device and dtype are used.
    sharded : bool
        For FSDP: in a dtype that it can split, and in the CPU's memory, from which it takes layer by layer.

    Returns
    -------
    (model, tokenizer) : transformers model in eval mode on the device, tokenizer that pads on the right. The model
        decodes greedily unless it is told otherwise, whatever generation settings its authors recommend.

    Raises
    ------
    LabError
        Unknown name or quantization, no bitsandbytes, no network for a hub model, a gated model, too little memory; a
        weight is NaN or infinite; a user's model has its weights in a pickle or quantized already, needs
        its own code, or is not a causal language model.
    """
    device = device if isinstance(device, Device) else find_device(device)
    config = quantization_config(quantization or "none", device, sharded)
    source = find_source(default_model() if name is None else name)
    if verbose:
        say(f"{source.name}, {quantization or 'none'}, on {device}.")
        if source.note:
            say(f"Note: {source.note}.")
    check_folder(source)
    model, tokenizer = _load(source, config, device, decide_place(device.kind, sharded))
    keep_weights_trainable(model)
    model.lab_model = source.name
    said = [give_template(tokenizer), *notes(source, model)]
    if source.name not in MODELS and not sharded:
        check_causal(source, model)
    if verbose:
        for note in filter(None, said):
            say(f"Note: {note}.")
        if warning := float16_warning(source.name, _model_type(model), device.compute_dtype):
            say(f"Warning: {warning}")
    return model, tokenizer


def load_tokenizer(name: str | Path = "smollm2-135m"):
    """Only the tokenizer of a base model, as `load_base` gives it; takes a fraction of a second.

    One without a chat template gets a plain one, and that is printed.

    Raises
    ------
    LabError
        Unknown name, no network for a hub model, a gated model, a damaged folder.
    """
    source = find_source(name)
    try:
        tokenizer = _tokenizer(source.where)
    except Exception as error:
        raise LabError(not_loaded(source, error)) from error
    if said := give_template(tokenizer):
        say(f"Note: {said}.")
    return tokenizer


def _tokenizer(where: str):
    """A tokenizer that pads on the right; with the end of text, where it has no token to pad with."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(where, padding_side="right", trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _model_type(model) -> str:
    """transformers' name of a model's architecture."""
    return str(getattr(getattr(model, "config", None), "model_type", ""))


def decide_place(kind: str, sharded: bool) -> str | int:
    """Where a base is loaded: "cpu", or the number of this process's GPU. To be sharded, it may fit on no GPU."""
    import torch

    return "cpu" if sharded or kind == "cpu" else torch.cuda.current_device()


def _load(source: Source, config, device: Device, place: str | int):
    """Load with transformers; its failures and the hub's become advice."""
    from transformers import AutoModelForCausalLM

    try:
        with quiet(), quick_codes():
            tokenizer = _tokenizer(source.where)
            model, found = AutoModelForCausalLM.from_pretrained(
                source.where,
                quantization_config=config,
                dtype=device.torch_dtype,
                device_map={"": place},
                # eager: SDPA's bfloat16 backward with a padding mask is slow on CPUs (see tests/bench/bench.py).
                # On a GPU transformers takes SDPA where the model has it.
                attn_implementation="eager" if device.kind == "cpu" else None,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except Exception as error:  # transformers, safetensors, the hub, its network library and CUDA can raise anything
        raise LabError(not_loaded(source, error)) from error
    refuse_damaged(source, model, found["missing_keys"], quantized=config is not None)
    _own_generation(model, tokenizer)
    return model, tokenizer


def _own_generation(model, tokenizer) -> None:
    """Leave of a model's recommended generation settings only which tokens begin, end and fill up.

    A repetition penalty works without sampling too: greedy decoding would then not take the likeliest token.
    """
    from transformers import GenerationConfig

    theirs = model.generation_config
    pad = tokenizer.pad_token_id if theirs.pad_token_id is None else theirs.pad_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=theirs.bos_token_id, eos_token_id=theirs.eos_token_id, pad_token_id=pad
    )


def keep_weights_trainable(model) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in place.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 turns `Linear4bit` weights into an inference-only layout at the
    first forward without gradients, and never back: gradients through the layer, `dequantize_4bit` and merging are
    silently wrong afterwards. `load_base` calls this; tests/library/test_models.py checks it.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit" and hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
