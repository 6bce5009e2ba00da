"""Recorded files that are damaged in any way are refused with the file's name and the way to get it back."""

import gzip
import json
import re
import shutil

import pytest

from lab_utils import recorded
from lab_utils.errors import LabError
from lab_utils.lora import digits
from lab_utils.recorded import update
from lab_utils.recorded import variants as variants_record
from lab_utils.recorded.pictures import FOLDER as PICTURES
from lab_utils.recorded.pictures import load_samples
from lab_utils.recorded_files import number, reading, restore
from lab_utils.sweep import summary as sweep_summary


def of_digits(file):
    digits.load_digits.cache_clear()
    try:
        return digits.load_digits()
    finally:
        digits.load_digits.cache_clear()


# the folder in data/ -> (the file in it, how it is read from a copy of the folder)
RECORDS = {
    "update": ("update.json", lambda folder: recorded.weight_update(folder=folder)),
    "memory": ("measurements.json", lambda folder: recorded.memory_measurements(folder / "measurements.json")),
    "bits": ("bits.json", recorded.perplexity_by_bits),
    "variants": ("variants.json", lambda folder: variants_record.load_variants(folder / "variants.json")),
    "pictures": ("samples.json", load_samples),
}
OTHERS = {
    "bits": ("sentences.jsonl", lambda folder: recorded.sentences_by_bits(folder / "sentences.jsonl")),
    "update": ("update.safetensors", lambda folder: recorded.weight_update(folder=folder)),
    "pictures": ("samples.png", load_samples),
    "sweep": ("sweep.csv", lambda folder: sweep_summary.load_sweep(folder / "sweep.csv")),
    "digits": ("digits.csv.gz", of_digits),
}
DAMAGE = {
    "cut short": lambda content: content[: len(content) // 2 - 120],
    "empty": lambda content: b"",
    "not UTF-8": lambda content: content[:50] + b"\xff\xfe\x80" + content[50:],
    "other": lambda content: b"hello",
}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A function name of a folder in data/ -> a copy of it, with blanks, an umlaut and brackets in its path."""

    def copy(name):
        folder = tmp_path / "Kopie [ä] 1" / name
        shutil.copytree(PICTURES.parent / name, folder)
        monkeypatch.setattr(digits, "FILE", folder / "digits.csv.gz")
        return folder

    return copy


def refused(read, folder, name):
    """The text of the refusal: it names where the data are, and how to get them back."""
    with pytest.raises(LabError) as caught:
        read(folder)
    assert f"`git checkout -- data/{name}`" in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_with_a_bom_and_whatever_its_folder_is_called(name, copied):
    file, read = RECORDS[name]
    folder = copied(name)
    (folder / file).write_bytes(b"\xef\xbb\xbf" + (folder / file).read_bytes())
    assert read(folder)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name, file, read", [(name, *one) for all_ in (RECORDS, OTHERS) for name, one in all_.items()])
def test_bytes_that_are_no_record_are_refused(name, file, read, damage, copied):
    folder = copied(name)
    (folder / file).write_bytes(DAMAGE[damage]((folder / file).read_bytes()))
    refused(read, folder, name)
    (folder / file).unlink()
    refused(read, folder, name)
    (folder / file).mkdir()
    refused(read, folder, name)


def parts(value, path=()):
    """The paths of all values in a record, a few of each list and dict."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, one in items[:20] if isinstance(value, dict) else items[:2]:
        yield (*path, key)
        yield from parts(one, (*path, key))


FREE = {  # what nothing is computed from
    "provenance", "recipe", "text", "settings", "versions", "command", "model", "date", "cpu", "training_loss", "base",
    "seed", "machine", "threads", "training_losses", "prompts", "twice", "llm_int8", "values_in_a_block",
    "test_examples", "exact_examples", "resident_bytes", "test_loss", "test_exact",
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("wrong", ["missing", None, "0.5", float("nan"), [], {}], ids=repr)
def test_a_part_that_is_missing_or_of_another_kind_is_refused_or_means_nothing(name, wrong, copied):
    """Nothing but a LabError comes out of it; and that does where a number is needed."""
    file, read = RECORDS[name]
    folder = copied(name)
    whole = (folder / file).read_text(encoding="utf-8")
    for path in parts(json.loads(whole)):
        record = json.loads(whole)
        place = record
        for key in path[:-1]:
            place = place[key]
        before = place[path[-1]]
        if wrong == "missing":
            del place[path[-1]]
        else:
            place[path[-1]] = wrong
        (folder / file).write_text(json.dumps(record), encoding="utf-8")
        update._read.cache_clear()
        free = FREE & set(path) or wrong == str(before)
        free = free or (wrong == "missing" and ("strengths" in path or "exact_by_rank" in path))
        if isinstance(before, float) and not free:
            refused(read, folder, name)
        else:
            try:
                read(folder)
            except LabError as error:
                assert "git checkout" in str(error)
    update._read.cache_clear()


@pytest.mark.parametrize("content", ["null", "[]", "3", '"text"', "{}"])
@pytest.mark.parametrize("name", RECORDS)
def test_json_of_another_kind_is_refused(name, content, copied):
    file, read = RECORDS[name]
    folder = copied(name)
    (folder / file).write_text(content)
    refused(read, folder, name)


@pytest.mark.parametrize("column", ["rank", "validation_loss", "use_rslora"])
def test_a_cell_of_the_sweep_that_is_no_number_is_named(column, copied):
    folder = copied("sweep")
    heading, first, *rest = (folder / "sweep.csv").read_text(encoding="utf-8").splitlines()
    cells = first.split(",")
    cells[heading.split(",").index(column)] = "eight"
    (folder / "sweep.csv").write_text("\n".join([heading, ",".join(cells), *rest]), encoding="utf-8")
    said = refused(OTHERS["sweep"][1], folder, "sweep")
    assert column in said and (("row 2" in said and "'eight'" in said) or column == "use_rslora")


@pytest.mark.parametrize("change", [
    lambda lines: lines[:-1], lambda lines: [*lines[:-1], lines[-1] + ",1"],
    lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0] + ",10"],
    lambda lines: [lines[0].replace("0", "17", 1), *lines[1:]],
    lambda lines: [lines[0].replace("0", "nan", 1), *lines[1:]],
])  # fmt: skip
def test_digits_that_are_not_all_there_are_refused(change, copied):
    folder = copied("digits")
    lines = gzip.decompress((folder / "digits.csv.gz").read_bytes()).decode().splitlines()
    (folder / "digits.csv.gz").write_bytes(gzip.compress("\n".join(change(lines)).encode()))
    refused(of_digits, folder, "digits")


def test_what_is_raised_in_the_block_is_told_and_nothing_else_is():
    with reading("The table", "Get it back."):
        pass
    with pytest.raises(LabError, match=re.escape("The table cannot be read (KeyError('rank')). Get it back.")):
        with reading("The table", "Get it back."):
            {}["rank"]
    with pytest.raises(KeyboardInterrupt), reading("The table", ""):
        raise KeyboardInterrupt
    assert restore("data/x", "y.py") == (
        "Restore it with `git checkout -- data/x`, or record it again with `python data/y.py`."
    )


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), -1.0, [1]])
def test_a_number_is_one(value):
    assert number(0.5, 0) == 0.5 and number(-3) == -3
    with pytest.raises(ValueError, match="is expected"):
        number(value, 0)
