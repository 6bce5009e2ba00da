"""budget: what fits where, and that the advice leads there."""

import numpy as np
import pytest

from lab_utils.errors import LabError
from lab_utils.memory.budget import GIB, GPUS, SHORTEST, advice, fits, room_bytes
from lab_utils.memory.step import estimate

SEVEN = {"architecture": "Llama-2-7B", "batch_size": 8, "sequence_length": 1024, "device": "cuda"}


def after(settings: dict, changes) -> dict:
    """The settings as the changes leave them."""
    return settings | {change.argument: change.new for change in changes}


def test_the_room_is_the_memory_less_the_headroom():
    assert room_bytes("T4, 16 GB") == int(0.9 * 14.5 * 2**30)
    assert room_bytes(16, headroom=0) == 16 * 2**30
    assert room_bytes(0.5, headroom=0.5) == 2**28


def test_a_card_has_what_cuda_can_use_of_what_it_is_sold_as():
    """Of 10⁹ or of 2³⁰ bytes, as its maker counts: less than sold, and never less than nine tenths."""
    named = {name: int(name.split()[-2]) for name in GPUS}
    assert all(0.9 * named[name] < size < named[name] for name, size in GPUS.items())
    assert GPUS["T4, 16 GB"] < 15 and GPUS["L4, 24 GB"] < GPUS["RTX 4090, 24 GB"]  # those with error correction


def test_a_step_fits_up_to_its_last_byte():
    one = estimate("SmolLM2-135M", "qlora")
    assert fits(one, one.total_bytes / GIB, headroom=0)
    assert not fits(one, (one.total_bytes - 1) / GIB, headroom=0)


def test_a_step_that_fits_needs_no_advice():
    assert advice("H100, 80 GB", architecture="SmolLM2-135M", method="full") == []


def test_the_advice_is_an_estimate_after_the_other():
    changes = advice("T4, 16 GB", method="full", **SEVEN)
    settings = {**SEVEN, "method": "full"}
    for number, change in enumerate(changes):
        assert change.old == after({"gradient_checkpointing": False, **settings}, changes[:number])[change.argument]
        assert change.estimate == estimate(**after(settings, changes[: number + 1]))
        assert str(change.new) in str(change)
    assert fits(changes[-1].estimate, "T4, 16 GB")


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("gpu", GPUS)
def test_followed_the_advice_makes_it_fit_and_no_change_could_be_left_out(gpu, method):
    settings = {**SEVEN, "method": method}
    changes = advice(gpu, **settings)
    assert fits(estimate(**after(settings, changes)), gpu)
    for change in changes:
        others = [one for one in changes if one is not change]
        assert not fits(estimate(**after(settings, others)), gpu), f"{change} is not needed"


def test_time_is_paid_before_the_training_changes_and_that_before_the_data():
    order = ("gradient_checkpointing", "batch_size", "method", "moments", "sequence_length")
    named = [change.argument for change in advice(24, architecture="LLaMA-65B", method="full", batch_size=4)]
    assert named == [argument for argument in order if argument in named] and len(named) > 3


def test_checkpointing_alone_where_that_is_enough():
    settings = {"architecture": "SmolLM2-135M", "method": "qlora", "batch_size": 8, "sequence_length": 1024}
    with_it = estimate(**settings, gradient_checkpointing=True).total_bytes
    (change,) = advice(with_it / GIB, headroom=0, **settings)
    assert (change.argument, change.old, change.new) == ("gradient_checkpointing", False, True)


def test_where_nothing_helps_the_last_estimate_says_so():
    changes = advice("laptop GPU, 8 GB", architecture="LLaMA-65B", method="full", batch_size=4, sequence_length=600)
    assert not fits(changes[-1].estimate, "laptop GPU, 8 GB")
    new = {change.argument: change.new for change in changes}
    assert new["method"] == "qlora" and new["batch_size"] == 1 and SHORTEST <= new["sequence_length"] < 2 * SHORTEST


def test_the_share_of_supervised_tokens_stays():
    settings = {"architecture": "SmolLM2-135M", "method": "lora", "batch_size": 8, "sequence_length": 256,
                "gradient_checkpointing": True, "supervised_tokens": 400}  # fmt: skip
    smaller = estimate(**{**settings, "batch_size": 4, "supervised_tokens": 200})
    (change,) = advice(smaller.total_bytes / GIB, headroom=0, **settings)
    assert change.new == 4 and change.estimate == smaller


@pytest.mark.parametrize(
    ("gpu", "headroom", "named"),
    [("Voodoo 2", 0.1, "T4"), (0, 0.1, "gpu=0"), (float("inf"), 0, "gpu=inf"), (8, 1, "headroom=1"),
     (8, -0.1, "headroom"), (True, 0.1, "True"), (None, 0.1, "None"), (float("nan"), 0.1, "gpu=nan"),
     (["T4, 16 GB"], 0.1, "Unknown GPU"), ("16", 0.1, "Unknown GPU '16'"), (10**400, 0.1, "gpu=.a number of"),
     (8, "0.1", "headroom='0.1'"), (8, None, "headroom=None"), (8, False, "headroom=False"),
     (8, float("nan"), "headroom=nan")],
)  # fmt: skip
def test_nonsense_is_named(gpu, headroom, named):
    with pytest.raises(LabError, match=named):
        room_bytes(gpu, headroom)


def test_numpys_numbers_are_gigabytes_too():
    assert room_bytes(np.int64(16)) == room_bytes(np.float32(16)) == room_bytes(16)
    assert room_bytes(1e300) > room_bytes(80)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"batch": 4}, "Unknown setting 'batch'.*batch_size"), ({"method": None}, "Unknown method None"),
     ({"architecture": {}}, "Unknown architecture"), ({"batch_size": "8"}, "batch_size='8'"),
     ({"target_modules": []}, "names nothing"), ({"gradient_checkpointing": "no"}, "gradient_checkpointing='no'")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(settings, named):
    with pytest.raises(LabError, match=named):
        advice(8, **{"architecture": "GPT-2", "method": "lora", **settings})


def test_missing_settings_are_named():
    with pytest.raises(LabError, match="method is missing"):
        advice(8, architecture="GPT-2")
    with pytest.raises(LabError, match="architecture is missing"):
        advice(8)


def test_targets_that_can_be_read_once_last_through_the_advice():
    settings = {**SEVEN, "method": "full"}
    listed = advice(8, **settings, target_modules=["q_proj", "v_proj"])
    assert listed and advice(8, **settings, target_modules=(name for name in ("q_proj", "v_proj"))) == listed


def test_what_is_no_estimate_is_refused():
    with pytest.raises(LabError, match="5 is not an estimate"):
        fits(5, 8)
