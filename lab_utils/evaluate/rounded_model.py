"""A model whose linear weights are rounded to integers: what it writes then, and what a text costs it (page 05)."""

from collections.abc import Callable

from ..decoding import generate
from ..errors import LabError, flag, whole
from ..quantize import dequantize_absmax, dequantize_zeropoint, quantize_absmax, quantize_zeropoint
from ..tasks import Task
from .changing_weights import changed_weights
from .reading_text import token_losses

ASSISTANT = Task("You are a helpful assistant.", dict)
ROW = "row"


def rounding(bits: int, blocksize: int | str = 64, zero_point: bool = False) -> Callable:
    """The function weight -> (rounded weight, bits per weight with the constants).

    Parameters
    ----------
    bits : int, 2 to 8
    blocksize : int >= 1, weights that share their constants; or "row", a whole row of the matrix
    zero_point : bool, levels from the smallest weight of a block to the largest; else absmax

    Raises
    ------
    LabError
        A value is out of range.
    """
    bits, zero_point = whole("bits", bits, 2, 8, "so that an index fits in a byte"), flag("zero_point", zero_point)
    if isinstance(blocksize, str) and blocksize != ROW:
        raise LabError(f"blocksize={blocksize!r} is out of range: a whole number of 1 or more, or {ROW!r}.")
    groups = {"axis": 0} if blocksize == ROW else {"blocksize": whole("blocksize", blocksize)}
    quantize, dequantize = (
        (quantize_zeropoint, dequantize_zeropoint) if zero_point else (quantize_absmax, dequantize_absmax)
    )

    def there_and_back(weight):
        quantized = quantize(weight, bits, **groups)
        return dequantize(quantized), quantized.bits_per_parameter

    return there_and_back


def read_and_write(
    model, tokenizer, text: str, prompts: list[str], bits: int = 16, blocksize: int | str = 64,
    zero_point: bool = False, *, max_new_tokens: int = 48,
) -> dict:
    """Round every linear weight of the layers, let the model read `text` and answer `prompts`, put the weights back.

    Embedding, head and norms stay as they are, and the model computes in its own dtype.

    Parameters
    ----------
    model, tokenizer : as `models.load_base` gives them, with quantization="none"
    text : str, of two tokens or more
    prompts : list of str, each a question to an assistant; the answers are greedy
    bits : int, 2 to 8; or 16, and nothing is rounded
    blocksize, zero_point : as in `rounding`
    max_new_tokens : int

    Returns
    -------
    dict: "losses" (float32 Tensor, one for each token of the text but the first, in nats), "answers" (list of str),
    "bits_per_parameter" (float, constants included)

    Raises
    ------
    LabError
        As `rounding`, `changed_weights`, `token_losses` and `generate`.
    """

    def measure() -> dict:
        said = generate(model, tokenizer, prompts, ASSISTANT, max_new_tokens=max_new_tokens)
        return {"losses": token_losses(model, tokenizer, text), "answers": said}

    if bits == 16:
        return {**measure(), "bits_per_parameter": 16.0}
    there_and_back, sizes = rounding(bits, blocksize, zero_point), []

    def change(weight):
        rounded, each = there_and_back(weight)
        sizes.append((each * weight.numel(), weight.numel()))
        return rounded

    with changed_weights(model, change):
        found = measure()
    held, numbers = (sum(column) for column in zip(*sizes, strict=True))
    return {**found, "bits_per_parameter": held / numbers}
