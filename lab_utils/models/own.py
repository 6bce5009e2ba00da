"""Can somebody's own model be loaded and trained here? What is wrong with it is said before it is loaded."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import LabError, shown
from ..files import read_json
from .sources import Source

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
OF_TRAINING = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state.pth", "scaler.pt")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
PICKLED = (
    "its weights are a pickle ({names}), a program that runs when it is read, and are not loaded here. Convert them "
    "once where you trust them: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder) writes safetensors; "
    "or take a version of the model with safetensors"
)
OF_CODE = (
    "it needs a program from its repository (trust_remote_code), and the lab runs none. Take a model whose "
    "architecture is part of transformers"
)
PERHAPS_EXPERTS = 0.1  # share of the weights in three-dimensional tensors that is worth a note


def check_folder(source: Source) -> None:
    """Raise a LabError unless a person's folder holds what a model is made of: config, safetensors and a tokenizer.

    Raises
    ------
    LabError
        What is missing, or not loaded here, and what to do instead.
    """
    if source.kind != "folder":
        return
    folder = Path(source.where)
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    weights = [name for name in names if name.endswith(".safetensors")]
    pickles = [name for name in names if name.endswith(PICKLES) and name not in OF_TRAINING]
    whose = f"The model folder {folder}"
    if "config.json" not in names:
        if "adapter_config.json" in names:
            raise LabError(
                f"{whose} holds an adapter and no model: name the base that it was trained on, and load the adapter on "
                "it (peft.PeftModel.from_pretrained)."
            )
        if any(name.endswith(".gguf") for name in names):
            raise LabError(f"{whose} holds a GGUF file, which is made for running: name the model it was made from.")
        raise LabError(f"{whose} has no config.json: name the folder that the model's save_pretrained wrote.")
    check_config(source, read_json(folder / "config.json"))
    if not weights and pickles:
        raise LabError(f"{whose} is refused: {PICKLED.format(names=', '.join(pickles[:3]))}.")
    if not weights:
        raise LabError(f"{whose} has no weights: there is no .safetensors file beside its config.json.")
    if not any(name in names for name in TOKENIZERS):
        raise LabError(f"{whose} has no tokenizer: write it there with tokenizer.save_pretrained({str(folder)!r}).")


def check_config(source: Source, config: object) -> None:
    """Raise a LabError for a config.json of a model that is stored in few bits, or reads before it writes.

    Raises
    ------
    LabError
        The key is named.
    """
    if not isinstance(config, dict):
        raise LabError(f"The config.json of {source.name} is {shown(config)} and no table of keys and values.")
    stored = config.get("quantization_config")
    if stored:
        how = stored.get("quant_method", "a method without a name") if isinstance(stored, dict) else shown(stored)
        raise LabError(
            f"{source.name} is stored quantized (quantization_config in its config.json: {how}). Name the model in 16 "
            "bits that it was made from: the lab quantizes it itself (quantization='nf4')."
        )
    if config.get("is_encoder_decoder"):
        raise LabError(
            f"{source.name} is an encoder with a decoder (is_encoder_decoder in its config.json). Take a causal "
            "language model, which writes on from its text."
        )


def check_causal(source: Source, model) -> None:
    """Raise a LabError for a model that does not compute, or whose word for a place depends on what comes after it.

    Raises
    ------
    LabError
        It is not a causal language model, as BERT, or does not work as it was loaded, as Mamba and Gemma 3n in 4 bits.
    """
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    texts = torch.tensor([[1 % rows, 2 % rows, 3 % rows], [1 % rows, 2 % rows, 4 % rows]], device=model.device)
    try:
        with torch.no_grad():
            first, second = model(input_ids=texts, use_cache=False).logits[:, 0].float()
            model.train()(input_ids=texts, use_cache=False)  # as in training, where Gemma 3n changes its own weights
    except Exception as error:  # whatever a model's own code raises
        how = " Load it with quantization='none'." if getattr(model, "is_quantized", False) else " Take another model."
        text = (str(error).splitlines() or [""])[0][:200]
        raise LabError(
            f"{source.name} ({type(model).__name__}) was loaded and does not compute "
            f"({type(error).__name__}: {text}).{how}"
        ) from error
    finally:
        model.eval()
    same = torch.allclose(first, second, rtol=1e-2, atol=1e-2 * float(first.abs().max()), equal_nan=True)
    if first.isfinite().all() and not same:
        raise LabError(
            f"{source.name} ({type(model).__name__}) reads the words after a place to guess the one there: it is no "
            "causal language model, and cannot learn to answer. Take one that can, as in models.MODELS."
        )


def notes(source: Source, model) -> Iterator[str]:
    """What a person should know of a model that is loaded, in sentences without a stop."""
    if source.kind == "embedded":
        return
    parameters = list(model.parameters())
    solid = sum(one.numel() for one in parameters if one.dim() == 3)
    share = solid / max(1, sum(one.numel() for one in parameters))
    if share > PERHAPS_EXPERTS:
        yield (
            f"{share:.0%} of its numbers are experts in tensors of three dimensions, not linear layers: bitsandbytes "
            "does not quantize those, and an adapter that peft puts on them cannot be merged here"
        )
