"""The two models of page 12 that are downloaded only when somebody names them, and what is printed of them before."""

from dataclasses import dataclass

from ..device import GIB, Device
from ..memory.free import total_memory_bytes
from ..models.catalogue import OTHER_RATE, OTHER_RATE_SOURCE
from ..printing import say


@dataclass(frozen=True)
class Larger:
    """A model on the Hugging Face hub.

    Attributes
    ----------
    source : str, the repository
    download_bytes : int, of the files that are fetched once
    weights_bytes : int, that the frozen weights take on a GPU
    held : str, in which form they do
    learning_rate : float, of an adapter, to begin with
    rate_source : str, where that is from
    float16 : str, what is known against computing in float16; "" where nothing is
    """

    source: str
    download_bytes: int
    weights_bytes: int
    held: str
    learning_rate: float
    rate_source: str
    float16: str = ""


STABLE_DIFFUSION = Larger(  # 1,066,235,307 numbers of U-Net, text encoder and autoencoder, downloaded in float32
    "stable-diffusion-v1-5/stable-diffusion-v1-5", 4 * 1_066_235_307, 2 * 1_066_235_307, "16 bits", 1e-4,
    "diffusers' LoRA example, rank 4, https://github.com/huggingface/diffusers/tree/main/examples/text_to_image; "
    "not tested here",
)  # fmt: skip
QWEN = Larger(  # 3,754,622,976 numbers, of which all linear layers but the head get 4.127 bits
    "Qwen/Qwen2.5-VL-3B-Instruct", 2 * 3_754_622_976, 2_402_059_208, "NF4, the rest in 16 bits", OTHER_RATE,
    OTHER_RATE_SOURCE,
    "in float16 its predecessor Qwen2-VL is known to give NaN (https://github.com/huggingface/transformers/issues/33294)",
)  # fmt: skip


def announce(name: str, larger: Larger, device: Device) -> None:
    """Print what a model takes, before it is fetched.

    Parameters
    ----------
    name : str, by which it was asked for
    larger : Larger
    device : Device, on which it is going to compute
    """
    has = f"; this GPU has {total_memory_bytes() / GIB:.1f} GiB" if device.kind == "cuda" else ""
    print(f"{name}:")
    say(f"  download: {larger.download_bytes / 1e9:.1f} GB, once, from huggingface.co/{larger.source}")
    say(f"  memory: {larger.weights_bytes / GIB:.1f} GiB of weights ({larger.held}), and what training adds{has}")
    say(f"  learning rate of an adapter: {larger.learning_rate:g} ({larger.rate_source})")
    if device.compute_dtype == "float16" and larger.float16:
        say(f"  This GPU has no bfloat16, and {larger.float16}.")
    if device.kind == "cpu":
        print("  There is no GPU here: it is computed on the processor.")
