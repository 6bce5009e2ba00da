"""Gemma's trained weights through keras-hub: which of them a GPU takes, and loading them with advice where that fails.

The names are keras-hub's own. Kaggle has the weights; it asks for an account, and for accepting Gemma's license once.
"""

from types import MappingProxyType

from ..device import GIB, Device, find_device
from ..errors import LabError, at_least, choose
from ..memory.free import free_memory_bytes
from ..models.hub import answers
from .keras_gemma import load_keras

PRESETS = MappingProxyType({"gemma3_270m": 268_098_176, "gemma3_1b": 999_885_952, "gemma_2b_en": 2_506_172_416})
ROOM_BYTES = 3 * GIB  # for activations, logits over a quarter of a million words, and what CUDA takes itself


def needed_bytes(preset: str) -> int:
    """Free GPU memory from which a preset is sensible: its weights as they are loaded, and room. An estimate."""
    choose("preset", preset, PRESETS)
    return 4 * PRESETS[preset] + ROOM_BYTES


def decide_preset(kind: str, free_bytes: int, reachable: bool) -> tuple[str | None, str]:
    """The preset for a device, and why.

    Parameters
    ----------
    kind : "cuda" or "cpu"
    free_bytes : int, free memory of the device
    reachable : bool, Kaggle answers

    Returns
    -------
    (name, reason) : the largest in `PRESETS` that fits, or None if none makes sense here; one sentence
    """
    if kind == "cpu":
        return None, "There is no GPU here, and the smallest preset has 268 million parameters: the tiny Gemma must do."
    if not reachable:
        return None, "Kaggle, which has the weights, does not answer: the tiny Gemma must do."
    fitting = [name for name in PRESETS if needed_bytes(name) <= free_bytes]
    free = f"The GPU has {free_bytes / GIB:.1f} GiB free"
    if not fitting:
        smallest = needed_bytes(min(PRESETS, key=PRESETS.get)) / GIB
        return None, f"{free}, and the smallest preset wants {smallest:.1f}: the tiny Gemma must do."
    return max(fitting, key=PRESETS.get), f"{free}: the largest preset that fits."


def default_preset(device: Device | None = None) -> tuple[str | None, str]:
    """The preset here and now, and why (see `decide_preset`)."""
    device = device or find_device()
    on_gpu = device.kind == "cuda"
    return decide_preset(device.kind, free_memory_bytes(device.kind), on_gpu and answers("www.kaggle.com"))


def load_preset(preset: str, sequence_length: int = 64):
    """Download, once, and load a Gemma with its tokenizer.

    Parameters
    ----------
    preset : str, a name in `PRESETS`
    sequence_length : int, tokens that `fit` cuts or fills each text to; keras-hub's own choice is 1024, which is
        gigabytes of logits

    Returns
    -------
    A `CausalLM` of keras-hub: float32 weights until `quantize`, computing in bfloat16 (in bfloat16 alone, Keras 3.15
    refuses an adapter on a quantized layer on torch). Its `fit` and `generate` take text.

    Raises
    ------
    LabError
        Unknown preset, `sequence_length` out of range, or keras-hub could not load it: no account, license not
        accepted, no network, a package missing.
    """
    choose("preset", preset, PRESETS)
    at_least(2, sequence_length=sequence_length)
    _, keras_hub = load_keras()
    try:
        model = keras_hub.models.CausalLM.from_preset(preset, dtype="mixed_bfloat16")
    except Exception as error:  # kagglehub, requests and h5py each raise their own
        raise LabError(
            f"{preset} could not be loaded ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). Accept "
            "Gemma's license at https://www.kaggle.com/models/keras/gemma, make a token in your Kaggle account's "
            "settings, and set KAGGLE_USERNAME and KAGGLE_KEY, on Colab as secrets. The whole extra must be installed: "
            "pip install -e '.[keras]'."
        ) from error
    model.preprocessor.sequence_length = sequence_length
    return model
