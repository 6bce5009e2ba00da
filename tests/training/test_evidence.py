"""The evidence's lines: a run has one key, what is packed comes back, a torn line is lost and nothing else."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import made_up_runs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.errors import LabError
from lab_utils.finetune.recipe import Recipe
from lab_utils.folders import ROOT
from lab_utils.sweep.evidence import (
    FIELDS,
    Recorded,
    Run,
    add_row,
    merge_tables,
    packed,
    packed_bits,
    read_table,
    unpacked,
    unpacked_bits,
)
from lab_utils.sweep.studies import STUDIES

SUPPORT = ROOT / "tests" / "support"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])}
RUN = Run(recipe=Recipe(model="smollm2-135m"))


def rows(count: int) -> list[dict]:
    return [made_up_runs.row(RUN.changed(seed=seed)) for seed in range(count)]


@settings(derandomize=True, database=None, max_examples=100)
@given(st.lists(st.floats(0, 60000)), st.lists(st.booleans(), max_size=40))
def test_what_is_packed_comes_back_to_eleven_bits(values, bits):
    assert unpacked(packed(values)) == pytest.approx(values, rel=2**-11, abs=2**-24)
    assert unpacked_bits(packed_bits(bits), len(bits)).tolist() == bits


def test_a_line_is_small():
    """300 losses, 300 bits, 400 training losses, all choices: below 4 kB, so a thousand runs are below 4 MB."""
    row = made_up_runs.row(RUN, messages=150, training_losses=packed([1.0] * 400))
    assert len(json.dumps(row)) < 4000


def test_a_run_is_told_by_everything_that_trains_differently():
    others = [
        RUN, replace(RUN, method="full"), replace(RUN, adapter_dtype="bfloat16"), replace(RUN, labels="shuffled"),
        replace(RUN, method="variant", variant="dora"),
        replace(RUN, method="variant", variant="lora+", settings=(("ratio", 16.0),)), RUN.changed(seed=1),
        RUN.changed(learning_rate=1e-3), RUN.changed(target_modules=("q_proj",)), RUN.changed(train_examples=30),
    ]  # fmt: skip
    assert len({one.key for one in others}) == len(others)
    assert RUN.changed(checkpoint_every=3).key == RUN.key
    for one in others:
        again = Run.from_choices(json.loads(json.dumps(one.choices)))
        assert again == one and again.key == one.key


def test_a_key_outlives_new_fields_of_a_recipe():
    """A field that is not among `FIELDS` counts where it is used only; this key was recorded."""
    assert RUN.key == "10b33fcdd7edf584"
    assert set(RUN.choices) == {*FIELDS, "method", "variant", "adapter_dtype", "labels", "settings"}


def test_all_planned_runs_have_keys_of_their_own():
    runs = [(study, arm.at(1e-4, seed)) for study in STUDIES for arm in STUDIES[study].arms for seed in (0, 1)]
    assert len({run.key for _, run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": Recipe()}, "model='auto'"),
        ({"method": "magic"}, "Unknown method"),
        ({"labels": "none"}, "Unknown labels"),
        ({"adapter_dtype": "int8"}, "Unknown adapter_dtype"),
        ({"variant": "dora"}, "a variant belongs to"),
        ({"method": "variant"}, "a variant belongs to"),
    ],
)
def test_a_run_that_cannot_be_is_refused(changes, message):
    with pytest.raises(LabError, match=message):
        replace(RUN, **changes)


def test_a_line_gives_its_run_and_its_losses_back():
    done = Recorded.from_row(json.loads(json.dumps(made_up_runs.row(RUN, loss=0.25))))
    assert done.run == RUN and done.study == "rates" and done.problem == ""
    assert done.loss() == pytest.approx(done.losses["test"].mean()) and 0.25 < done.loss() < 0.26
    assert done.exact("test") == np.mean(done.losses["test"] < 0.255)
    assert done.training_losses.tolist() == [1.0, 0.5]
    failed = Recorded.from_row(made_up_runs.row(RUN, losses={}, right={}, problem="The loss is nan"))
    assert failed.loss() == float("inf") and failed.exact() == 0


def test_rows_are_added_once_and_read_sorted(tmp_path):
    table = tmp_path / "new" / "rates.jsonl"
    assert read_table(table) == []
    some = rows(4)
    assert [add_row(table, row) for row in (some[2], some[0], some[3], some[0], some[1])] == [1, 1, 1, 0, 1]
    assert read_table(table) == some
    assert len(table.read_text().splitlines()) == 4


@pytest.mark.parametrize("cut", [1, 40, 600])
def test_a_torn_line_is_lost_and_nothing_else(tmp_path, cut):
    table = tmp_path / "rates.jsonl"
    for row in rows(3):
        add_row(table, row)
    table.write_bytes(table.read_bytes()[:-cut])
    assert read_table(table) == rows(2)
    assert add_row(table, rows(3)[2]) and read_table(table) == rows(3)


def test_a_damaged_line_is_named(tmp_path):
    table = tmp_path / "rates.jsonl"
    for text in ("{", "[]", '{"arm": "x"}', "null"):
        table.write_text(json.dumps(rows(1)[0]) + "\n" + text + "\n")
        with pytest.raises(LabError, match=r"rates\.jsonl, line 2: not a recorded run"):
            read_table(table)


def test_two_folders_become_one_whichever_is_first(tmp_path):
    some = rows(5)
    for folder, part in (("a", some[:3]), ("b", some[1:])):
        for row in part:
            add_row(tmp_path / folder / "rates.jsonl", row)
    (tmp_path / "a" / "update-1.safetensors").write_bytes(b"numbers")
    assert merge_tables(tmp_path / "a", tmp_path / "b") == 1
    assert merge_tables(tmp_path / "a", tmp_path / "b") == 0
    assert merge_tables(tmp_path / "b", tmp_path / "c") == 5
    assert read_table(tmp_path / "b" / "rates.jsonl") == read_table(tmp_path / "c" / "rates.jsonl") == some
    assert (tmp_path / "c" / "update-1.safetensors").read_bytes() == b"numbers"


def test_lines_joined_by_git_are_read_once(tmp_path):
    """Two branches that recorded one run: the first line counts, in whatever order the rest comes."""
    some = rows(3)
    lines = [some[2], some[0], some[1], some[0] | {"cpu": "another"}]
    (tmp_path / "rates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    assert read_table(tmp_path / "rates.jsonl") == some


def test_processes_that_add_at_once_lose_nothing(tmp_path):
    code = (
        "import sys, made_up_runs\n"
        "from lab_utils.finetune.recipe import Recipe\n"
        "from lab_utils.sweep.evidence import *\n"
        "for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 20):\n"
        "    run = Run(recipe=Recipe(model='smollm2-135m', seed=seed)); add_row(sys.argv[1], made_up_runs.row(run))"
    )
    table = tmp_path / "rates.jsonl"
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(table), start], env=ENVIRONMENT)
        for start in ("0", "10")
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert [row["choices"]["seed"] for row in read_table(table)] == list(range(30))
    assert len(table.read_text().splitlines()) == 30
