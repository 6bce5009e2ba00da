"""Gemma's trained weights through keras-hub: which of them a GPU takes, and loading them with advice where that fails.

The names are keras-hub's own. Kaggle has the weights; it asks for an account, and for accepting Gemma's license once.
"""

from types import MappingProxyType

from ..device import GIB, Device, find_device
from ..errors import LabError, at_least, choose
from ..memory.free import total_memory_bytes
from ..models.hub import answers
from ..printing import say
from .keras_gemma import load_keras

PRESETS = MappingProxyType({"gemma3_270m": 268_098_176, "gemma3_1b": 999_885_952, "gemma_2b_en": 2_506_172_416})
RATE = 1e-4
RATE_SOURCE = (
    "Keras' own example of Gemma 2B, with SGD, "
    "https://keras.io/examples/keras_recipes/parameter_efficient_finetuning_of_gemma_with_lora_and_qlora; "
    "not tested here"
)
ROOM_BYTES = 3 * GIB  # for activations, logits over a quarter of a million words, and what CUDA takes itself


def needed_bytes(preset: str) -> int:
    """GPU memory from which a preset is sensible: its weights as they are loaded, and room. An estimate."""
    choose("preset", preset, PRESETS)
    return 4 * PRESETS[preset] + ROOM_BYTES


def decide_preset(kind: str, total_bytes: int, reachable: bool) -> tuple[str | None, str]:
    """The largest preset that is sensible on a device, and why.

    Parameters
    ----------
    kind : "cuda" or "cpu"
    total_bytes : int, the device's whole memory
    reachable : bool, Kaggle answers

    Returns
    -------
    (name, reason) : the largest in `PRESETS` that fits, or None if none makes sense here; one sentence
    """
    if kind == "cpu":
        return None, "There is no GPU here, and the smallest preset has 268 million parameters: the tiny Gemma must do."
    if not reachable:
        return None, "Kaggle, which has the weights, does not answer: the tiny Gemma must do."
    fitting = [name for name in PRESETS if needed_bytes(name) <= total_bytes]
    has = f"The GPU has {total_bytes / GIB:.1f} GiB"
    if not fitting:
        smallest = needed_bytes(min(PRESETS, key=PRESETS.get)) / GIB
        return None, f"{has}, and the smallest preset wants {smallest:.1f}: the tiny Gemma must do."
    return max(fitting, key=PRESETS.get), f"{has}: the largest preset that fits."


def larger_preset(preset: str | None = None, device: Device | None = None) -> str | None:
    """The one line that leaves the tiny Gemma: prints what a preset takes, and returns its name.

    Nothing is downloaded; `load_preset` does that.

    Parameters
    ----------
    preset : str, optional
        A name in `PRESETS`. Default: the largest that this GPU has room for (`decide_preset`).
    device : Device, optional
        Default: this machine's.

    Returns
    -------
    str, a name in `PRESETS`; None where none makes sense

    Raises
    ------
    LabError
        There is no preset of that name.
    """
    device, reason = device or find_device(), "As asked for."
    if preset is None:
        on_gpu = device.kind == "cuda"
        total, reachable = (total_memory_bytes(), answers("www.kaggle.com")) if on_gpu else (0, False)
        preset, reason = decide_preset(device.kind, total, reachable)
    say(f"{preset or 'No preset'}: {reason}")
    if preset is not None:
        needed = needed_bytes(preset) / GIB
        least, most = (size * PRESETS[preset] / 1e9 for size in (2, 4))
        say(f"  download: {least:.1f} GB from Kaggle, or {most:.1f} if it is stored in 32 bits")
        say(f"  memory: about {needed:.1f} GiB, computing in {preset_dtype(device)}: {_why_dtype(device)}")
        say(f"  learning rate: {RATE:g} ({RATE_SOURCE})")
    return preset


def preset_dtype(device: Device) -> str:
    """Keras' dtype policy for a preset: float32 weights, computing in bfloat16 where the hardware does.

    Never float16, whose range Gemma's activations leave (https://github.com/huggingface/transformers/issues/39972).
    """
    return "mixed_bfloat16" if device.compute_dtype == "bfloat16" else "float32"


def _why_dtype(device: Device) -> str:
    if device.compute_dtype == "bfloat16":
        return device.reason
    return "there is no fast bfloat16 here, and Gemma leaves the range of float16"


def load_preset(preset: str, sequence_length: int = 64):
    """Download, once, and load a Gemma with its tokenizer.

    Parameters
    ----------
    preset : str, a name in `PRESETS`
    sequence_length : int, tokens that `fit` cuts or fills each text to; keras-hub's own choice is 1024, which is
        gigabytes of logits

    Returns
    -------
    A `CausalLM` of keras-hub: float32 weights until `quantize`, computing in bfloat16 where the hardware does (in
    bfloat16 alone, Keras 3.15 refuses an adapter on a quantized layer on torch). Its `fit` and `generate` take text.

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
        model = keras_hub.models.CausalLM.from_preset(preset, dtype=preset_dtype(find_device()))
    except Exception as error:  # kagglehub, requests and h5py each raise their own
        raise LabError(
            f"{preset} could not be loaded ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). Accept "
            "Gemma's license at https://www.kaggle.com/models/keras/gemma, make a token in your Kaggle account's "
            "settings, and set KAGGLE_USERNAME and KAGGLE_KEY, on Colab as secrets. The whole extra must be installed: "
            "pip install -e '.[keras]'."
        ) from error
    model.preprocessor.sequence_length = sequence_length
    return model
