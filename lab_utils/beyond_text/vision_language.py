"""A model that sees: Qwen2.5-VL, tiny with random weights, real on a GPU, or as an empty shape.

A vision tower reads patches of the picture, a merger joins four of them to one token, and a language model reads these
tokens among those of the text.
"""

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property

from ..device import GIB, Device, find_device
from ..errors import LabError
from ..finetune.control_tokens import ControlTokens
from ..memory.free import free_memory_bytes
from ..models import quantization_config
from ..models.hub import hub_reachable
from ..models.registry import decide_place, keep_weights_trainable
from ..quiet import quiet
from .drawings import COLOURS, THINGS

REAL = "Qwen/Qwen2.5-VL-3B-Instruct"
MIN_GPU_GIB = 8  # an estimate: 2.2 GiB of weights with NF4, counted from the shapes, and room for activations
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<|unknown|>",
)  # fmt: skip
WORDS = ("system", "You", "are", "a", "helpful", "assistant", ".", "user", "What", "colour", "is", "this", "?")


@dataclass(frozen=True)
class Reader:
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
    (model, Reader)
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


def _tiny_reader() -> Reader:
    """A tokenizer of a few words, with Qwen's special tokens, beside Qwen's own way of cutting pictures."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    words = dict.fromkeys((*SPECIAL, *WORDS, *COLOURS, *THINGS))
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    named = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "unk_token": "<|unknown|>"}
    return Reader(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named), Qwen2VLImageProcessorPil())


def decide_sight(kind: str, free_bytes: int, hub: bool) -> str:
    """Which model to take: `REAL` on a GPU with room for it where the hub answers, else "tiny"."""
    return REAL if kind == "cuda" and hub and free_bytes >= MIN_GPU_GIB * GIB else "tiny"


def load_sighted(device: Device | None = None, quantization: str = "nf4"):
    """The model for this machine (see `decide_sight`), and its Reader; prints which one it is.

    Returns
    -------
    (model, Reader)

    Raises
    ------
    LabError
        No bitsandbytes for a quantized model, or the hub does not give the real one.
    """
    device = device or find_device()
    on_gpu = device.kind == "cuda"
    name = decide_sight(device.kind, free_memory_bytes(device.kind), on_gpu and hub_reachable())
    print(f"Qwen2.5-VL, {'tiny and random' if name == 'tiny' else name}, {quantization}, on {device.kind}.")
    if name == "tiny":
        return tiny_model(quantization=quantization, device=device)
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="right")
        return _load(name, quantization, device), Reader(tokenizer, Qwen2VLImageProcessorPil.from_pretrained(name))
    except OSError as error:
        raise LabError(
            f"{name} could not be loaded from the Hugging Face hub: {str(error).splitlines()[0]}. "
            "tiny_model() needs no network."
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
    """`REAL` without its numbers, on torch's meta device: every name and shape, in a second and no memory."""
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
