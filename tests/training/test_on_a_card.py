"""`finetune`, full fine-tuning, decoding and serving on a pretended card, float16 and bfloat16; about 20 s per card."""

import json
import math
import os
import subprocess
import sys

import pytest

from lab_utils.folders import ROOT

SUPPORT = ROOT / "tests" / "support"


@pytest.fixture(scope="module", params=["T4", "A100"])
def found(request, tmp_path_factory) -> dict:
    """What `card_runs.py` prints of a card."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}", "OMP_NUM_THREADS": "1"}
    environment.pop("LORA_LAB_DEVICE", None)
    command = [sys.executable, SUPPORT / "card_runs.py", request.param, tmp_path_factory.mktemp(request.param)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"card": request.param}


def test_a_run_trains_in_the_cards_dtype_and_its_record_names_the_model(found):
    assert found["dtype"] == {"T4": "float16", "A100": "bfloat16"}[found["card"]]
    for name in ("whole", "int8", "none"):
        one = found[name]
        assert all(math.isfinite(loss) for loss in one["losses"])
        assert one["scaler"] is (found["card"] == "T4") and one["random"] == 1
        assert one["model"].endswith("tiny")


def test_a_resumed_run_has_the_losses_of_a_whole_one(found):
    """With dropout, so that the card's random numbers matter, and recomputed activations."""
    assert found["again"]["resumed"] == 2
    assert found["again"]["losses"] == found["whole"]["losses"]


def test_the_optimizer_is_fused_and_a_run_with_a_paged_one_goes_on_with_it(found):
    assert {found[name]["optimizer"] for name in ("whole", "again", "none")} == {"adamw"}
    assert found["paged"]["optimizer"] == "paged_adamw_8bit" and found["paged"]["resumed"] == 2


def test_a_base_that_was_loaded_on_the_cpu_trains_there(found):
    assert found["beside"]["random"] == 0 and not found["beside"]["scaler"]
    assert all(math.isfinite(loss) for loss in found["beside"]["losses"])


def test_steps_that_overflow_are_left_out_and_on_record(found):
    if found["card"] == "T4":
        assert found["overflow"]["skipped"] == [1, 1, 0]


def test_answers_come_from_the_copy_and_from_the_four_bit_layers_alike(found):
    assert len(found["answers"]) == 2 and found["answers"] == found["slow answers"]
    assert len(found["bank"]) == 2


def test_full_fine_tuning_moves_its_batches(found):
    assert len(found["full"]) == 2 and found["full"][1] < found["full"][0]
