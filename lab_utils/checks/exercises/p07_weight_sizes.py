"""Exercises of page 07: how many bits a quantized weight has, and how many bytes a quantized model."""

from hypothesis import strategies as st

from ..exercise import Exercise, Mistake


def bits_per_parameter_spec(blocksize: int, double_quant: bool) -> float:
    """Count the bits of as many weights as one second-level constant serves, and share them out."""
    weights = 256 * blocksize
    bits = 4 * weights
    for _block in range(256):
        bits += 8 if double_quant else 32  # its absmax
    if double_quant:
        bits += 32  # the scale of these 256 absmax
    return bits / weights


def bits_per_parameter(blocksize: int, double_quant: bool) -> float:
    if double_quant:
        return 4 + 8 / blocksize + 32 / (256 * blocksize)
    return 4 + 32 / blocksize


def weight_bytes_spec(parameters: dict[str, int], unquantized: list[str], bits: float) -> float:
    """Add up the bits of every part of the model; eight are a byte."""
    total_bits = 0
    for name, count in parameters.items():
        if name in unquantized:
            total_bits += 16 * count
        else:
            total_bits += bits * count
    return total_bits / 8


def weight_bytes(parameters: dict[str, int], unquantized: list[str], bits: float) -> float:
    return sum(count * (16 if name in unquantized else bits) for name, count in parameters.items()) / 8


def _bits(single, double):
    """bits_per_parameter with another overhead, without and with double quantization."""
    return lambda blocksize, double_quant: 4 + (double if double_quant else single)(blocksize)


def _plain(blocksize):
    return 32 / blocksize


def _nested(blocksize):
    return 8 / blocksize + 32 / (256 * blocksize)


def _parts(quantized=lambda bits: bits / 8, other=lambda bits: 2):
    """weight_bytes with other bytes for a quantized weight, and for one left as it is."""
    return lambda parameters, unquantized, bits: sum(
        count * (other if name in unquantized else quantized)(bits) for name, count in parameters.items()
    )


@st.composite
def _model(draw):
    """A model's parts, some of them left as they are."""
    names = ("embed_tokens", "attention", "mlp", "norms")
    parameters = {name: draw(st.integers(1, 1000)) for name in names}
    kept = draw(st.sets(st.sampled_from(names), min_size=1, max_size=3))
    return parameters, [name for name in names if name in kept], draw(st.sampled_from([4.5, 4.127, 8.0, 4.0]))


EXERCISES = (
    Exercise(
        name="bits_per_parameter", page=7, title="How many bits has a 4-bit weight?",
        spec=bits_per_parameter_spec, solution=bits_per_parameter, demo=(64, True),
        inputs=st.tuples(st.sampled_from([32, 64, 128, 256, 512, 1024, 2048, 4096]), st.booleans()),
        mistakes=(
            Mistake(
                "the scales forgotten",
                "Every block keeps an absmax beside its indices, and its bits are shared by `blocksize` weights.",
                wrong=(_bits(lambda size: 0, lambda size: 0),),
            ),
            Mistake(
                "the index itself forgotten",
                "A weight has its own 4 bits too. What you count is what comes on top of them.",
                wrong=(lambda blocksize, double_quant: (_nested if double_quant else _plain)(blocksize),),
            ),
            Mistake(
                "the second-level scales forgotten",
                "With double quantization every 256 absmax share one more 32-bit number: 32 / (256 · blocksize).",
                wrong=(_bits(_plain, lambda size: 8 / size),),
            ),
            Mistake(
                "absmax counted as 16 bits",
                "absmax is kept in float32, 32 bits, without double quantization.",
                wrong=(
                    _bits(lambda size: 16 / size, _nested),
                    _bits(lambda size: 16 / size, lambda size: 8 / size + 16 / (256 * size)),
                    _bits(_plain, lambda size: 8 / size + 16 / (256 * size)),
                ),
            ),
            Mistake(
                "absmax still kept in 32 bits",
                "Double quantization takes the place of the 32 bits of an absmax: 8 remain.",
                wrong=(
                    _bits(_plain, lambda size: 32 / size + 8 / size), _bits(_plain, _plain),
                    _bits(_plain, lambda size: 32 / size + _nested(size)),
                    _bits(_plain, lambda size: 32 / size + 32 / (256 * size)),
                ),
            ),
            Mistake(
                "the second level shared by 256 weights",
                "256 blocks share it, and that is 256 · blocksize weights.",
                wrong=(_bits(_plain, lambda size: 8 / size + 32 / 256),),
            ),
            Mistake(
                "the two cases swapped",
                "double_quant=True is the smaller one.",
                wrong=(_bits(_nested, _plain),),
            ),
            Mistake(
                "bytes of the scales instead of bits",
                "float32 has 4 bytes, and these are 32 bits.",
                wrong=(_bits(lambda size: 4 / size, lambda size: 1 / size + 4 / (256 * size)),),
            ),
            Mistake(
                "the scales not shared out",
                "A scale serves a whole block: divide its bits by blocksize.",
                wrong=(_bits(lambda size: 32, lambda size: 8 + 32 / 256), _bits(lambda size: 32, lambda size: 8)),
            ),
        ),
        hints=(
            "Beside its 4 bits, a weight has a share in the scale of its block. How many weights share one scale?",
            "32 bits for an absmax, shared by `blocksize` weights. With double quantization 8 bits, and 256 blocks "
            "share another 32.",
            "4 + 32 / blocksize, or 4 + 8 / blocksize + 32 / (256 · blocksize) with double quantization.",
        ),
        reward="At block 64: 4.5 bits, and 4.127 with double quantization. For 65 billion weights that saves 3 GB.",
    ),
    Exercise(
        name="weight_bytes", page=7, title="How large is the quantized model?",
        spec=weight_bytes_spec, solution=weight_bytes, inputs=_model(),
        demo=(
            {"embed_tokens": 28_311_552, "attention_and_mlp": 106_168_320, "norms": 35_136},
            ["embed_tokens", "norms"], 4.127,
        ),
        mistakes=(
            Mistake(
                "everything quantized",
                "What is in `unquantized` keeps its 16 bits: embedding and norms are not linear layers.",
                wrong=(
                    _parts(other=lambda bits: bits / 8), _parts(lambda bits: bits, lambda bits: bits),
                    _parts(lambda bits: 4 / 8, lambda bits: 4 / 8),
                ),
            ),
            Mistake(
                "nothing quantized",
                "16 bits are for the parts in `unquantized` only; all others have `bits`.",
                wrong=(_parts(lambda bits: 2),),
            ),
            Mistake(
                "bits instead of bytes",
                "Eight bits are a byte: divide by 8, for every part.",
                wrong=(
                    _parts(lambda bits: bits, lambda bits: 16), _parts(other=lambda bits: 16),
                    _parts(lambda bits: bits, lambda bits: 2),
                ),
            ),
            Mistake(
                "the unquantized parts left out",
                "They are few in number, but each weight takes four times as much. Count them too, with 16 bits.",
                wrong=(_parts(other=lambda bits: 0), _parts(lambda bits: bits, lambda bits: 0)),
            ),
            Mistake(
                "the unquantized parts counted twice",
                "Each part is stored once, with 16 bits or with `bits`.",
                wrong=(_parts(other=lambda bits: 2 + bits / 8),),
            ),
            Mistake(
                "only the unquantized parts",
                "The others are stored too, with `bits` bits each.",
                wrong=(_parts(lambda bits: 0),),
            ),
            Mistake(
                "the two kinds swapped",
                "The names in `unquantized` are those that keep 16 bits.",
                wrong=(_parts(lambda bits: 2, lambda bits: bits / 8),),
            ),
            Mistake(
                "32 bits for what is not quantized",
                "Here it is kept in 16 bits, two bytes per weight.",
                wrong=(_parts(other=lambda bits: 4),),
            ),
            Mistake(
                "the scales forgotten",
                "A 4-bit weight takes `bits` bits, its share in the scales among them: use `bits`, not 4.",
                wrong=(_parts(lambda bits: 4 / 8),),
            ),
        ),
        hints=(
            "Go through the parts one by one. There are two kinds: how many bits has a weight of each?",
            "16 bits if the part's name is in `unquantized`, else `bits`. Then make bytes of the sum.",
            "Sum count · (16 or bits) over parameters.items(), and divide by 8.",
        ),
        reward="SmolLM2-135M: 111 MB, and half of that is the embedding. In LLaMA-65B what stays in 16 bits is 3 %.",
    ),
)  # fmt: skip
