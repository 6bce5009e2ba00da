"""A model with rounded weights: what it reads and writes, the record of it, and the explorer that shows the record."""

import hashlib
import itertools
import json

import data_scripts
import pytest
import torch
from shown import node, shown

from lab_utils import quantize
from lab_utils.errors import LabError
from lab_utils.evaluate import read_and_write, token_losses
from lab_utils.evaluate.rounded_model import rounding
from lab_utils.recorded.sentences import GRID, sentences_by_bits
from lab_utils.widgets.sentence_explorer import SentenceExplorer

TEXT = "One autumn the council built a bridge half a mile upstream."


@pytest.fixture(scope="module")
def record():
    return sentences_by_bits()


@pytest.mark.parametrize("zero_point", [False, True])
@pytest.mark.parametrize("blocksize", [16, "row"])
def test_it_rounds_as_the_library_quantizes(blocksize, zero_point):
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    how = {"axis": 0} if blocksize == "row" else {"blocksize": blocksize}
    kind = "zeropoint" if zero_point else "absmax"
    quantized = getattr(quantize, f"quantize_{kind}")(weight, 3, **how)
    rounded, bits = rounding(3, blocksize, zero_point)(weight)
    assert torch.equal(rounded, getattr(quantize, f"dequantize_{kind}")(quantized))
    assert bits == quantized.bits_per_parameter


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"bits": 1}, "bits"), ({"bits": 9}, "bits"), ({"blocksize": 0}, "blocksize"),
     ({"blocksize": "rows"}, "blocksize"), ({"zero_point": 1}, "zero_point")],
)  # fmt: skip
def test_what_cannot_be_rounded_to_is_refused(wrong, named):
    with pytest.raises(LabError, match=named):
        rounding(**({"bits": 4} | wrong))


def test_the_weights_come_back_and_sixteen_bits_change_nothing(tiny_llama, tokenizer):
    model = tiny_llama(len(tokenizer))
    before = {name: one.clone() for name, one in model.state_dict().items()}
    plain = token_losses(model, tokenizer, TEXT)
    how = {"prompts": ["Why?"], "max_new_tokens": 3}
    untouched = read_and_write(model, tokenizer, TEXT, **how)
    rounded = read_and_write(model, tokenizer, TEXT, **how, bits=2, blocksize=64)
    assert torch.equal(untouched["losses"], plain) and untouched["bits_per_parameter"] == 16
    assert not torch.equal(rounded["losses"], plain) and rounded["bits_per_parameter"] == 2 + 32 / 64
    assert [len(one["answers"]) for one in (untouched, rounded)] == [1, 1]
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_the_record_has_every_setting_once_and_its_text_is_the_courses(record):
    recorder = data_scripts.load("record_sentences")
    assert record.prompts == recorder.PROMPTS
    assert record.text["sha256"] == hashlib.sha256(record.passage().encode()).hexdigest()
    assert [{name: row[name] for name in GRID[0]} for row in record.rows[1:]] == list(GRID)


def test_the_constants_bits_are_those_of_the_shapes(record):
    """Of 576 × 576, 192 × 576, 1536 × 576 and 576 × 1536: a short block at the end of a row of 576 counts as one."""
    shapes = [(576, 576)] * 2 + [(192, 576)] * 2 + [(1536, 576)] * 2 + [(576, 1536)]
    numbers = sum(rows * columns for rows, columns in shapes)
    for row in record.rows[1:]:
        blocks = sum(
            rows * (1 if row["blocksize"] == "row" else -(-columns // row["blocksize"])) for rows, columns in shapes
        )
        wanted = row["bits"] + (40 if row["zero_point"] else 32) * blocks / numbers
        assert row["bits_per_parameter"] == pytest.approx(wanted, abs=1e-4), row


def test_losses_agree_with_each_other_and_more_bits_are_better(record):
    first, *rows = record.rows
    assert (first["loss_change"], first["loss_change_error"]) == (0, 0)
    by_way = {}
    for row in rows:
        assert row["loss_change"] == pytest.approx(row["loss"] - first["loss"], abs=2e-5)
        by_way.setdefault((row["blocksize"], row["zero_point"]), []).append(row)
    for several in by_way.values():
        for fewer, more in itertools.pairwise(several):
            noise = 3 * (fewer["loss_change_error"] + more["loss_change_error"])
            assert more["loss"] < fewer["loss"] + noise


def test_what_page_05_says_of_it_is_so(record):
    """Zero-point costs less than absmax at 4, 3 and 2 bits, blocks less than rows; and where Paris is in the answer."""
    found = {(row["bits"], row["blocksize"], row["zero_point"]): row for row in record.rows}
    for bits in (2, 3, 4):
        for blocksize in (32, 64, 256, "row"):
            assert found[bits, blocksize, True]["loss"] < found[bits, blocksize, False]["loss"]
        for zero_point in (False, True):
            losses = [found[bits, blocksize, zero_point]["loss"] for blocksize in (32, 64, 256)]
            assert max(losses) < found[bits, "row", zero_point]["loss"]
    which = record.prompts.index("What is the capital of France?")
    assert ["Paris" in found[3, 32, zero_point]["answers"][which] for zero_point in (False, True)] == [False, True]


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
def test_the_browser_says_what_python_says():
    one = SentenceExplorer()
    moves = [{}, {"bits": 3, "blocksize": "32"}, {"zero_point": True}, {"blocksize": "row", "asked": one.prompts[1]}]
    for move, seen in zip(moves, shown(SentenceExplorer(), moves), strict=True):
        for name, value in move.items():
            setattr(one, name, value)
        assert seen["sentence"] == one.summary()
    assert one.answer() == one.row()["answers"][1] and one._repr_mimebundle_()
    for name, value in (("bits", 5), ("blocksize", "128"), ("zero_point", 1), ("asked", "Who?")):
        with pytest.raises(LabError, match=name):
            setattr(one, name, value)


def test_what_was_stopped_goes_on_where_it_was_and_what_is_not_finished_is_refused(tmp_path, record):
    recorder, file = data_scripts.load("record_sentences"), tmp_path / "sentences.jsonl"
    lines = [json.dumps({"prompts": record.prompts, "text": record.text, "provenance": {}}), json.dumps(record.rows[0])]
    file.write_text("\n".join(lines) + '\n{"bits": 2, "blo', encoding="utf-8")
    assert recorder.finished(file)[1] == record.rows[0] and file.read_text(encoding="utf-8").count("\n") == 2
    with pytest.raises(LabError, match="lacks 40 of 41 settings"):
        sentences_by_bits(file)
