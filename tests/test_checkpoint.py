"""checkpoint: whole or not at all, never another recipe's, never more than two."""

import errno
import json
from pathlib import Path

import pytest
import torch

import lab_utils.checkpoint as checkpoint
from lab_utils.checkpoint import KEPT, checkpoints, latest_record, save_checkpoint, set_aside
from lab_utils.errors import LabError
from lab_utils.recipe import Recipe


class Adapter:
    """Stands for a peft model: saves one tensor through safetensors, or fails as it is told."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def save_pretrained(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({"lora_A": torch.ones(2, 3)}, folder / "adapter_model.safetensors")
        if self.error:
            raise self.error


def save(folder: Path, step: int, recipe: Recipe | None = None, model: Adapter | None = None) -> Path:
    history = [{"step": i + 1, "loss": 1.0} for i in range(step)]
    return save_checkpoint(folder, step, recipe or Recipe(), model or Adapter(), {"step": torch.tensor(step)}, history)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path):
    path = save(tmp_path, 3)
    found, record, _ = latest_record(tmp_path, Recipe())
    assert found == path == tmp_path / "checkpoint-000003"
    assert record["step"] == 3 and [row["step"] for row in record["history"]] == [1, 2, 3]
    assert record["fingerprint"] == Recipe().fingerprint()
    assert int(torch.load(found / "state.pt", weights_only=True)["step"]) == 3
    assert (found / "adapter_model.safetensors").is_file()


def test_none_where_there_is_none(tmp_path):
    assert latest_record(tmp_path, Recipe()) is None
    assert latest_record(tmp_path / "missing", Recipe()) is None


def test_only_the_newest_two_stay_and_order_is_by_number(tmp_path):
    for step in (2, 9, 10, 100):
        save(tmp_path, step)
    assert KEPT == 2
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000010", "checkpoint-000100"]
    assert latest_record(tmp_path, Recipe())[1]["step"] == 100


def test_saving_a_step_again_replaces_it(tmp_path):
    (save(tmp_path, 4) / "old").write_text("")
    save(tmp_path, 4)
    assert not (tmp_path / "checkpoint-000004" / "old").exists()


def full_disk(kind: str) -> Exception:
    """What each library raises on a full disk, as seen on a full tmpfs."""
    from safetensors import SafetensorError

    return {
        "os": OSError(errno.ENOSPC, "No space left on device"),
        "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    }[kind]


@pytest.mark.parametrize("kind", ["os", "torch", "safetensors"])
def test_a_full_disk_leaves_the_older_ones_and_nothing_half(tmp_path, kind):
    save(tmp_path, 1)
    save(tmp_path, 2)
    before = everything(tmp_path)
    with pytest.raises(LabError, match=r"Checkpoint 3 .*Free some disk space.*goes on from checkpoint-000002"):
        save(tmp_path, 3, model=Adapter(full_disk(kind)))
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("function", ["torch.save", "os.fsync", "os.replace"])
def test_any_step_of_writing_may_fail(tmp_path, monkeypatch, function):
    save(tmp_path, 1)
    before = everything(tmp_path)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch if function == "torch.save" else checkpoint.os, function.split(".")[1], fail)
        with pytest.raises(LabError, match="Free some disk space"):
            save(tmp_path, 2)
    assert everything(tmp_path) == before
    save(tmp_path, 2)
    assert latest_record(tmp_path, Recipe())[1]["step"] == 2


def test_the_first_checkpoint_may_fail_too(tmp_path):
    with pytest.raises(LabError, match="goes on from the start"):
        save(tmp_path, 1, model=Adapter(full_disk("os")))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_too(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"could not be written to .*file/run"):
        save(tmp_path / "file" / "run", 1)


def test_what_is_no_checkpoint_is_not_taken_for_one(tmp_path):
    for name in ("checkpoint-", "checkpoint-000001.tmp", ".partial-000009-77", "checkpoint-best"):
        (tmp_path / name).mkdir()
    assert checkpoints(tmp_path) == [] and latest_record(tmp_path, Recipe()) is None


def test_another_recipe_is_refused_the_fields_are_named_and_nothing_is_lost(tmp_path):
    save(tmp_path, 5, Recipe(rank=8, task="bookings"))
    before = everything(tmp_path)
    with pytest.raises(LabError) as caught:
        latest_record(tmp_path, Recipe(rank=4, task="style"))
    text = str(caught.value)
    assert "rank: 8 there, 4 here" in text and "task: bookings there, style here" in text
    assert "alpha" not in text and "resume=False" in text
    assert everything(tmp_path) == before


def test_checkpoint_every_may_change_between_calls(tmp_path):
    save(tmp_path, 5, Recipe(checkpoint_every=10))
    assert latest_record(tmp_path, Recipe(checkpoint_every=1))[1]["step"] == 5


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_an_unreadable_newest_falls_back_to_the_one_before(tmp_path, capsys, damage):
    save(tmp_path, 5)
    record = save(tmp_path, 6) / "record.json"
    if damage == "missing":
        record.unlink()
    else:
        record.write_text(record.read_text()[:-5])
    found, read, _ = latest_record(tmp_path, Recipe())
    assert found.name == "checkpoint-000005" and read["step"] == 5
    assert "checkpoint-000006 cannot be read" in capsys.readouterr().out


def test_set_aside_moves_the_old_run_and_replaces_the_one_before(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    set_aside(tmp_path)
    previous = tmp_path / "previous"
    assert sorted(path.name for path in previous.iterdir()) == ["adapter", "checkpoint-000001"]
    assert json.loads((previous / "checkpoint-000001" / "record.json").read_text())["step"] == 1
    assert checkpoints(tmp_path) == [] and not (tmp_path / "adapter").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    save(tmp_path, 2)
    set_aside(tmp_path)
    assert [path.name for path in previous.iterdir()] == ["checkpoint-000002"]


def test_set_aside_with_nothing_to_move_keeps_previous(tmp_path):
    save(tmp_path, 1)
    set_aside(tmp_path)
    set_aside(tmp_path)
    assert [path.name for path in (tmp_path / "previous").iterdir()] == ["checkpoint-000001"]
    set_aside(tmp_path / "missing")
