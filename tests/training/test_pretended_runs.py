"""All of the library that computes on a GPU, on pretended cards with tiny models; about 25 s of a processor per card.

What cannot be seen this way: `lab_utils.pretended`. Training itself: test_on_a_card.py.
"""

import pytest
from pretended_card import answers_of

CARDS = {"2xT4": ("float16", "Tesla T4"), "A100": ("bfloat16", "NVIDIA A100-SXM4-40GB")}


@pytest.fixture(scope="module", params=CARDS)
def found(request, tmp_path_factory) -> dict:
    """The answers of pretended_runs.py, with the card's `dtype` and `name`."""
    answers = answers_of("pretended_runs.py", request.param, str(tmp_path_factory.mktemp("card")))
    return answers | dict(zip(("dtype", "name"), CARDS[request.param], strict=True))


def test_the_report_names_the_card_and_its_dtype(found):
    device, four_bits, error = found["report"]
    assert device.startswith(f"cuda ({found['name']}), computing in {found['dtype']}")
    assert (four_bits, error) == (True, 0.092)  # of a normal matrix in NF4 at blocks of 64


def test_losses_are_those_of_a_cpu_in_float32(found):
    assert found["losses"] == pytest.approx([1.0, 1.0], rel=2e-3)  # a rounding of bfloat16 is 2**-8
    assert found["scores"] == "2 examples"


def test_merging_stays_on_the_card(found):
    made, exact, ways, kept = found["merges"]
    assert made == {"dequantized": ["cuda:0", f"torch.{found['dtype']}"], "original": "Not merged"}
    assert (exact, ways, kept) == (True, 7, True)


def test_an_exported_model_comes_back_with_the_same_logits(found):
    assert found["exported"] == [0.0, True]


def test_a_mixed_batch_answers_as_each_adapter_alone(found):
    mixed_as_alone, sums, swapped, costs = found["served"]
    assert sums == ["cuda:0"] * 3
    assert (mixed_as_alone, swapped, costs) == (True, True, True)


def test_memory_is_the_cards(found):
    peak_mib, left, checkpointing_keeps_less = found["memory"]
    assert (peak_mib, left) == (4.0, 0)  # a freed block counts as free, though the allocator keeps it
    assert checkpointing_keeps_less


def test_pictures_are_read_and_painted(found):
    assert found["seen"] == [True, True, True, "str"]
    assert found["painted"] == [["cuda:0"], True, True, [32, 32]]


def test_trl_trains_as_page_08_sets_it_up(found):
    steps, first_loss, dtypes, cards, finite = found["trl"]
    assert first_loss == pytest.approx(1.0, rel=1e-3)  # of ours, on the same batch
    assert (steps, dtypes, cards, finite) == (5, ["torch.float32"], 1, True)
