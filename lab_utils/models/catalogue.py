"""The base models that the lab knows by name, and what is known about training each of them."""

from dataclasses import dataclass
from types import MappingProxyType

from ..errors import choose

SMOLLM = "https://github.com/huggingface/smollm/blob/main/text/finetuning/train.py"
TRL = "https://github.com/huggingface/trl/blob/main/trl/scripts/sft.py"
TINKER = "https://github.com/thinking-machines-lab/tinker-cookbook/blob/main/tinker_cookbook/hyperparam_utils.py"
QLORA = "https://github.com/artidoro/qlora/blob/main/qlora.py"
OTHER_RATE = 2e-4  # for a model that is not in MODELS: what QLoRA takes up to 13 billion parameters
OTHER_RATE_SOURCE = f"QLoRA's own for up to 13 billion parameters, {QLORA}; not tested here"
# Model types whose activations are known to leave float16's range, and where that is reported.
OVERFLOWS = MappingProxyType(
    {
        "qwen2": "https://github.com/QwenLM/Qwen3/issues/670",  # of Qwen2; Qwen2.5 has the same architecture
        "gemma3": "https://github.com/huggingface/transformers/issues/39972",
        "gemma3_text": "https://github.com/huggingface/transformers/issues/39972",
    }
)


@dataclass(frozen=True)
class BaseModel:
    """One base model.

    Attributes
    ----------
    source : "embedded", or the repository on the Hugging Face hub
    parameters : int, as the model has them (tied embeddings counted once)
    min_gpu_gib : float, a GPU's whole memory from which this model is sensible for 4-bit fine-tuning (weights, a batch
        of 8 short examples, and room); None: never chosen by itself
    learning_rate : float, to begin with; at rank 8 and the recipe's other defaults, unless `rate_source` says otherwise
    rate_source : str, where that is from: tested in this course, or cited
    model_type : str, transformers' name of the architecture
    gated : bool, the hub requires an accepted license and an access token
    note : str, what a reader should know
    """

    source: str
    parameters: int
    min_gpu_gib: float | None
    learning_rate: float
    rate_source: str
    model_type: str = "llama"
    gated: bool = False
    note: str = ""

    @property
    def download_bytes(self) -> int:
        """Bytes that are fetched once: two for each parameter, or the wheel with the embedded model."""
        return 93_000_000 if self.source == "embedded" else 2 * self.parameters


_SMOLLM_RATE = (2e-4, f"the authors' LoRA script for SmolLM2-1.7B, rank 16, {SMOLLM}; not tested here")
_QWEN_RATE = (2e-4, f"TRL's LoRA example for Qwen2-0.5B, rank 32, {TRL}; not tested here")

MODELS = MappingProxyType(
    {
        "smollm2-135m": BaseModel(
            "embedded", 134_515_008, 0, 2e-3, "tested in this course, for runs of about 175 steps",
            note="embedded; its weights went through 4 bits (GGUF Q4_1) once already",
        ),
        "smollm2-360m": BaseModel("HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, 3, *_SMOLLM_RATE),
        "qwen2.5-0.5b": BaseModel("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, 5, *_QWEN_RATE, "qwen2"),
        "qwen2.5-1.5b": BaseModel("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304, 8, *_QWEN_RATE, "qwen2"),
        "smollm2-1.7b": BaseModel("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384, 12, *_SMOLLM_RATE),
        "llama-3.2-1b": BaseModel(
            "meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400, None, 1e-3,
            f"the best of a sweep over LoRA with Llama-3.2-1B on Tulu 3, batches of 128, {TINKER}; not tested here",
            gated=True,
        ),
        "mistral-7b": BaseModel(
            "mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552, None, OTHER_RATE, OTHER_RATE_SOURCE, "mistral",
            gated=True,
        ),
    }
)  # fmt: skip


def default_model() -> str:
    """The name of the model that is taken where nobody names one: the embedded one, on every machine."""
    return "smollm2-135m"


def learning_rate(name: str) -> float:
    """A learning rate to begin with for a model, a name in `MODELS` or any other; where from, `larger_model` prints."""
    name = default_model() if name == "auto" else name
    return MODELS[name].learning_rate if name in MODELS else OTHER_RATE


def float16_warning(what: str, model_type: str, dtype: str) -> str:
    """Why a model should not be trained in float16, in words; "" where nothing is known against it.

    Parameters
    ----------
    what : str, the model's name, for the sentence
    model_type : str, transformers' name of the architecture, as "qwen2"
    dtype : str, the compute dtype
    """
    if dtype != "float16" or model_type not in OVERFLOWS:
        return ""
    return (
        f"Models like {what} ({model_type}) are known to give NaN in float16 ({OVERFLOWS[model_type]}), and this GPU "
        "has no bfloat16. A SmolLM2 is safe there."
    )


def known(name: str) -> BaseModel:
    """The entry of a name in `MODELS`.

    Raises
    ------
    LabError
        There is none of that name.
    """
    return MODELS[choose("model", name, MODELS)]
