"""What page 05 says about its recorded tables is so: each sentence is on the page and holds on the record."""

import pytest
from page_prose import prose

from lab_utils.recorded.bits import perplexity_by_bits
from lab_utils.recorded.sentences import sentences_by_bits

SMALL, BLOCKS = "smollm2-135m", (32, 64, 256, "row")
IN_64 = ("nf4", "nf4 double", "fp4", "int4 block 64", "int3 block 64", "int2 zero-point block 64", "int2 block 64")


def error(name: str, of: str = SMALL) -> float:
    """Relative error of the weights in a format."""
    return perplexity_by_bits().formats[name].relative_rms[of]


def times(name: str) -> float:
    """How many times bf16's perplexity a format has."""
    formats = perplexity_by_bits().formats
    return formats[name].perplexity / formats["bf16"].perplexity


def interval(one) -> tuple[float, float]:
    """95 % interval of the loss that a format adds."""
    change, half = (one["loss_change"], one["loss_change_half"]) if isinstance(one, dict) else (
        one.loss_change, one.loss_change_half)  # fmt: skip
    return change - half, change + half


def below(less, more) -> bool:
    """The first interval ends before the second begins."""
    return interval(less)[1] < interval(more)[0]


def rounded(bits: int, blocksize, zero_point: bool) -> dict:
    """The record of the whole model at one setting."""
    (found,) = (
        one for one in sentences_by_bits().rows[1:]
        if (one["bits"], one["blocksize"], one["zero_point"]) == (bits, blocksize, zero_point)
    )  # fmt: skip
    return found


CLAIMS = {
    "grows by about a quarter at nine percent, and is 6.5 times as large at 26":
        lambda: 1.2 < times("nf4") < 1.3 and 6.45 <= times("int3 block 64") < 6.55 and error("int3 block 64") < 0.265,
    "8 bits cost next to nothing, if each row has its own absmax: the interval holds zero":
        lambda: interval(perplexity_by_bits().formats["int8 by channel"])[0] < 0
        < interval(perplexity_by_bits().formats["int8 by tensor"])[0],
    "its weights are further off, its perplexity is lower, and the two intervals do not meet":
        lambda: error("fp4") > error("int4 block 64")
        and below(*(perplexity_by_bits().formats[name] for name in ("fp4", "int4 block 64"))),
    "where it costs the three others 7 to 8 %":
        lambda: {round(100 * error("q4_1", of)) for of in ("digits", "gaussian", "minilm")} == {7, 8}
        and error("q4_1") < 0.002,
    "On the other grids in blocks of 64 its error lies between those of *gaussian* and *minilm*":
        lambda: all(error(name, "gaussian") < error(name) < error(name, "minilm") for name in IN_64),
    "there a row is a block of 64":
        lambda: error("int4 by channel", "digits") == pytest.approx(error("int4 block 64", "digits"), rel=1e-3),
    "in blocks of every size, and at 4 and 3 bits blocks cost less than rows: in none of these 24 pairs do the "
    "two intervals meet (the closest pair is 4 bits in blocks of 32, where 0.01 nats lie between them)":
        lambda: all(
            below(rounded(bits, size, True), rounded(bits, size, False)) for bits in (4, 3, 2) for size in BLOCKS
        )
        and all(
            below(rounded(bits, size, shifted), rounded(bits, "row", shifted))
            for bits in (4, 3) for size in BLOCKS[:-1] for shifted in (False, True)
        ),
    "at 3 bits zero-point in blocks of 64 (3.62 bits per weight) costs less than absmax in blocks of 32 (4.00 bits)":
        lambda: below(rounded(3, 64, True), rounded(3, 32, False))
        and [rounded(3, 64, True)["bits_per_parameter"], rounded(3, 32, False)["bits_per_parameter"]]
        == pytest.approx([3.625, 4.0], abs=0.006),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CLAIMS)
def test_the_sentence_is_on_the_page_and_holds(sentence):
    assert sentence in prose("05_quantization.ipynb")
    assert CLAIMS[sentence]()
