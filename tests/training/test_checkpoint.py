"""checkpoint: whole or not at all, never another recipe's, never more than two."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from checkpoints import Adapter, save
from unfolded import unfolded

import lab_utils.finetune.checkpoint as checkpoint
from lab_utils.errors import LabError
from lab_utils.finetune.checkpoint import KEPT, latest_record
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.run_folders import checkpoints, refuse_in_the_way, set_aside, set_damaged_aside


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


def test_every_file_is_flushed_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows refuses to flush a file that was opened for reading alone."""
    fcntl = pytest.importorskip("fcntl")
    flushed = []

    def strict(number: int) -> None:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise PermissionError(errno.EACCES, "Permission denied")
        flushed.append(number)

    monkeypatch.setattr(os, "fsync", strict)
    save(tmp_path, 1)
    assert len(flushed) == 3  # adapter, state, record
    checkpoint.save_adapter(tmp_path / "adapter", Adapter().save_pretrained)
    assert len(flushed) == 4


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


def test_a_step_that_cannot_be_replaced_is_still_there(tmp_path, monkeypatch):
    save(tmp_path, 4)
    before, replace = everything(tmp_path), os.replace

    def fail(source, target):
        if Path(source).parent.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(LabError, match="Input/output error"):
        save(tmp_path, 4)
    assert everything(tmp_path) == before


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
    with pytest.raises(LabError, match=r"Checkpoint 3 .*disk is full: free some space.*goes on from checkpoint-000002"):
        save(tmp_path, 3, model=Adapter(full_disk(kind)))
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("function", ["torch.save", "os.fsync", "os.rename"])
def test_any_step_of_writing_may_fail(tmp_path, monkeypatch, function):
    save(tmp_path, 1)
    before = everything(tmp_path)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch if function == "torch.save" else os, function.split(".")[1], fail)
        with pytest.raises(LabError, match="disk is full: free some space"):
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
    with pytest.raises(LabError, match=r"could not be written to .*file/run: .*A file is in the way"):
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
    assert "checkpoint-000006 cannot be read" in unfolded(capsys.readouterr().out)


def test_set_aside_moves_the_old_run_and_keeps_every_earlier_one(tmp_path):
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
    before = everything(previous)
    for step, name in ((2, "previous-2"), (3, "previous-3")):
        save(tmp_path, step)
        assert set_aside(tmp_path) == tmp_path / name
        assert [path.name for path in (tmp_path / name).iterdir()] == [f"checkpoint-00000{step}"]
    assert everything(previous) == before


@pytest.mark.parametrize("failing", [1, 2])
def test_set_aside_that_fails_leaves_everything_where_it_was(tmp_path, monkeypatch, failing):
    save(tmp_path, 1)
    save(tmp_path, 2)
    before, rename, calls = everything(tmp_path), os.rename, []

    def fail_once(start, end):
        calls.append(start)
        if len(calls) == failing:
            raise OSError(errno.EROFS, "Read-only file system")
        return rename(start, end)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(LabError, match=f"checkpoint-00000{failing} could not be moved .*choose another folder"):
        set_aside(tmp_path)
    assert everything(tmp_path) == before


def test_set_aside_with_nothing_to_move_keeps_previous(tmp_path):
    save(tmp_path, 1)
    set_aside(tmp_path)
    set_aside(tmp_path)
    assert [path.name for path in (tmp_path / "previous").iterdir()] == ["checkpoint-000001"]
    set_aside(tmp_path / "missing")


def test_damaged_ones_are_moved_out_of_the_way_and_kept(tmp_path):
    """After the one that is used they would count as newer, and push good ones out."""
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "checkpoint-000002" / "state.pt").write_bytes(b"")
    used = latest_record(tmp_path, Recipe())[0]
    assert set_damaged_aside(tmp_path, used) == tmp_path / "damaged"
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000001"]
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == ["checkpoint-000002"]
    assert set_damaged_aside(tmp_path, used) is None
    assert set_damaged_aside(tmp_path, None) == tmp_path / "damaged-2"
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize("kind", ["os", "torch", "safetensors"])
def test_an_adapter_that_cannot_be_written_leaves_the_old_one(tmp_path, kind):
    folder = tmp_path / "adapter"
    checkpoint.save_adapter(folder, Adapter().save_pretrained)
    (folder / "notes.txt").write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(LabError, match=r"adapter could not be written .*disk is full: free some space"):
        checkpoint.save_adapter(folder, Adapter(full_disk(kind)).save_pretrained)
    assert everything(tmp_path) == before
    checkpoint.save_adapter(folder, Adapter().save_pretrained)
    assert everything(tmp_path) == before


def test_another_adapter_is_kept_before_it_is_replaced(tmp_path, capsys):
    folder = tmp_path / "adapter"
    folder.mkdir()
    theirs = {"adapter_model.safetensors": b"mine", "README.md": b"my words", "notes.txt": b"notes"}
    for name, content in theirs.items():
        (folder / name).write_bytes(content)

    def pretrained(scratch: Path) -> None:
        Adapter().save_pretrained(scratch)
        (scratch / "README.md").write_text("peft's")

    checkpoint.save_adapter(folder, pretrained)
    assert everything(tmp_path / "previous") == {"adapter/adapter_model.safetensors": b"mine"}
    assert "adapter held another adapter" in unfolded(capsys.readouterr().out)
    now = everything(folder)
    assert {name: now[name] for name in ("README.md", "notes.txt")} == {"README.md": b"my words", "notes.txt": b"notes"}
    checkpoint.save_adapter(folder, pretrained)
    assert everything(folder) == now and not (tmp_path / "previous-2").exists() and capsys.readouterr().out == ""
    (folder / "adapter_model.safetensors").write_bytes(b"mine again")
    checkpoint.save_adapter(folder, pretrained)
    assert everything(tmp_path / "previous-2") == {"adapter/adapter_model.safetensors": b"mine again"}


def test_another_adapter_that_cannot_be_kept_is_not_replaced(tmp_path, monkeypatch):
    checkpoint.save_adapter(tmp_path / "adapter", Adapter().save_pretrained)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"mine")
    before = everything(tmp_path)

    def fail(*_, **__):
        raise full_disk("os")

    monkeypatch.setattr("shutil.copy2", fail)
    with pytest.raises(LabError, match="disk is full"):
        checkpoint.save_adapter(tmp_path / "adapter", Adapter().save_pretrained)
    assert everything(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_where_a_file_of_the_adapter_is_written_is_named(tmp_path):
    (tmp_path / "adapter" / "adapter_model.safetensors").mkdir(parents=True)
    with pytest.raises(LabError, match=r"adapter_model\.safetensors is a folder"):
        checkpoint.save_adapter(tmp_path / "adapter", Adapter().save_pretrained)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_dir()


def test_a_file_where_a_checkpoint_is_written_is_refused_by_name_and_stays(tmp_path):
    refuse_in_the_way(tmp_path / "missing")
    save(tmp_path, 1)
    refuse_in_the_way(tmp_path)
    for name in ("checkpoint-000002", "checkpoint-1234567", "adapter"):
        for make in (lambda path: path.write_text("mine"), lambda path: path.symlink_to(path.name),
                     lambda path: path.symlink_to("nowhere")):  # fmt: skip
            make(tmp_path / name)
            with pytest.raises(LabError, match=f"{name} is in the way: .*Move or delete it"):
                refuse_in_the_way(tmp_path)
            (tmp_path / name).unlink()


def test_another_programs_checkpoints_are_ignored_or_refused_and_never_touched(tmp_path):
    """transformers' Trainer writes `checkpoint-500`: no name of ours. `checkpoint-100000` would be one."""
    for name in ("checkpoint-500", "checkpoint-0000500", "checkpoint-²"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    before = everything(tmp_path)
    refuse_in_the_way(tmp_path)
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000002", "checkpoint-000003"]
    assert latest_record(tmp_path, Recipe())[0].name == "checkpoint-000003"
    set_damaged_aside(tmp_path, None)
    set_aside(tmp_path)
    assert before.items() <= everything(tmp_path).items()
    (tmp_path / "checkpoint-100000").mkdir()
    (tmp_path / "checkpoint-100000" / "trainer_state.json").write_text("{}")
    with pytest.raises(LabError, match="checkpoint-100000 is another program's checkpoint"):
        refuse_in_the_way(tmp_path)


def test_a_folder_of_a_persons_own_is_never_dropped(tmp_path):
    (tmp_path / "checkpoint-000001").mkdir()
    (tmp_path / "checkpoint-000001" / "notes.txt").write_text("mine")
    for step in (2, 3, 4):
        save(tmp_path, step)
    assert (tmp_path / "checkpoint-000001" / "notes.txt").read_text() == "mine"
