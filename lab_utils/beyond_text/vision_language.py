"""A model that sees: Qwen2.5-VL, tiny with random weights, the real one, or the real one's empty shape.

A vision tower reads patches of the picture, a merger joins four of them to one token, and a language model reads these
tokens among those of the text.
"""

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property

from ..device import Device, find_device
from ..errors import LabError, choose
from ..finetune.control_tokens import ControlTokens
from ..models import quantization_config
from ..models.loading import ran_out
from ..models.registry import decide_place, keep_weights_trainable
from ..quiet import quiet
from .drawings import COLOURS, THINGS
from .larger import QWEN, announce

SIGHTED = {"tiny": None, "qwen2.5-vl-3b": QWEN}
RATES = {"tiny": 5e-3, "qwen2.5-vl-3b": QWEN.learning_rate}  # of an adapter, to begin with
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<|unknown|>",
)  # fmt: skip
WORDS = ("system", "You", "are", "a", "helpful", "assistant", ".", "user", "What", "colour", "is", "this", "?")


@dataclass(frozen=True)
class PictureReader:
    """What turns words and pictures into numbers: a tokenizer, and Qwen's image processor in its version for PIL.

    The whole processor of transformers holds a third part, for films, which cannot be had without torchvision.
    """

    tokenizer: object
    image_processor: object

    @property
    def image_token_id(self) -> int:
        """The token in whose place a piece of the picture comes in."""
        return self.tokenizer.convert_tokens_to_ids("<|image_pad|>")

    @cached_property
    def control(self) -> ControlTokens:
        """Tells control tokens, `<|image_pad|>` among them, from the same letters in a question."""
        return ControlTokens(self.tokenizer, "".join(SPECIAL))


def tiny_model(seed: int = 0, quantization: str = "nf4", device: Device | None = None):
    """Qwen2.5-VL from its own classes with two small layers a tower and random weights: it knows nothing.

    Parameters
    ----------
    seed : int, of the weights
    quantization : "nf4" (with double quantization), "fp4", "int8" or "none", of every linear layer but the head
    device : Device, default this machine's; a CPU computes in float32, whatever it could, so that results are alike

    Returns
    -------
    (model, PictureReader)
    """
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    device = device or find_device()
    if device.kind == "cpu":
        device = replace(device, compute_dtype="float32")
    reader = _tiny_reader()
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        config = tiny_config(reader.tokenizer)
        with quiet():
            Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
        return _load(folder, quantization, device), reader


def tiny_config(tokenizer):
    """The shape of `tiny_model` for a tokenizer that knows `SPECIAL`: a Qwen2_5_VLConfig."""
    from transformers import Qwen2_5_VLConfig

    number = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64,
            "fullatt_block_indexes": [1], "initializer_range": 0.1,
        },
        text_config={
            "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "bos_token_id": None, "eos_token_id": number["<|im_end|>"], "pad_token_id": number["<|endoftext|>"],
            "initializer_range": 0.1,
        },
        image_token_id=number["<|image_pad|>"], video_token_id=number["<|video_pad|>"],
        vision_start_token_id=number["<|vision_start|>"], vision_end_token_id=number["<|vision_end|>"],
        initializer_range=0.1,
    )  # fmt: skip


def _tiny_reader() -> PictureReader:
    """A tokenizer of a few words, with Qwen's special tokens, beside Qwen's own way of cutting pictures."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    words = dict.fromkeys((*SPECIAL, *WORDS, *COLOURS, *THINGS))
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    named = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "unk_token": "<|unknown|>"}
    return PictureReader(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named), Qwen2VLImageProcessorPil())


def load_sighted(name: str = "tiny", *, quantization: str = "nf4", device: Device | None = None):
    """A model that sees, and its PictureReader; what the real one takes is printed before it is downloaded.

    Parameters
    ----------
    name : str, a key of SIGHTED
    quantization : "nf4" (with double quantization), "fp4", "int8" or "none", of every linear layer but the head
    device : Device, default this machine's

    Returns
    -------
    (model, PictureReader)

    Raises
    ------
    LabError
        Unknown name, no bitsandbytes for a quantized model, or the hub does not give the real one.
    """
    choose("model", name, SIGHTED)
    device = device or find_device()
    if name == "tiny":
        print(f"Qwen2.5-VL, tiny and random, {quantization}, on {device.kind}.")
        return tiny_model(quantization=quantization, device=device)
    announce(name, SIGHTED[name], device)
    where = SIGHTED[name].source
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    try:
        tokenizer = AutoTokenizer.from_pretrained(where, padding_side="right")
        processor = Qwen2VLImageProcessorPil.from_pretrained(where)
        return _load(where, quantization, device), PictureReader(tokenizer, processor)
    except LabError:
        raise
    except Exception as error:  # transformers, safetensors, the hub, its network library and CUDA can raise anything
        reason = (str(error).splitlines() or [""])[0].removesuffix(".") or type(error).__name__
        if ran_out(error):
            raise LabError(f"{where} does not fit into memory ({reason}). load_sighted('tiny') does.") from error
        raise LabError(
            f"{where} could not be loaded from the Hugging Face hub: {reason}. load_sighted('tiny') needs no network."
        ) from error


def _load(where: str, quantization: str, device: Device):
    """transformers' loading, for a folder and for the hub alike."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    with quiet():
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            where,
            quantization_config=quantization_config(quantization, device),
            dtype=device.torch_dtype,
            device_map={"": decide_place(device.kind, sharded=False)},
            attn_implementation="eager" if device.kind == "cpu" else "sdpa",
        )
    keep_weights_trainable(model)
    return model


def real_shape():
    """The real 3B model without its numbers, on torch's meta device: names and shapes, in a second and no memory."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        vision_config={"hidden_size": 1280, "out_hidden_size": 2048, "tokens_per_second": 2},
        text_config={
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(config)


def newer_shape():
    """Qwen3-VL with two blocks in each tower, on torch's meta device: for its names, which are not Qwen2.5-VL's."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        vision_config={"depth": 2, "deepstack_visual_indexes": [0, 1], "out_hidden_size": 2048},
        text_config={"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 2},
    )
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(config)
