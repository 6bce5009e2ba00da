"""painter_states: a state is written whole, and read whole or not at all. test_painter.py trains."""

import errno
import os

import pytest
import torch

from lab_utils.beyond_text import painter_states
from lab_utils.errors import LabError

HISTORY = [{"step": 1, "loss": 0.5, "seconds": 1.0, "pictures": 4}]


def parts() -> tuple:
    """(parameters, average, optimizer, scaler) after one step of a tiny training, the same every time."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(2, 3)), torch.nn.Parameter(torch.randn(4))]
    average = [torch.randn_like(parameter) for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters)
    sum(parameter.square().sum() for parameter in parameters).backward()
    optimizer.step()
    return parameters, average, optimizer, torch.amp.GradScaler("cpu", enabled=False)


def fresh() -> tuple:
    """The same before it has begun: other values, no step."""
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
    average = [torch.zeros(2, 3), torch.zeros(4)]
    return parameters, average, torch.optim.AdamW(parameters), torch.amp.GradScaler("cpu", enabled=False)


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "deep" / "state.pt"
    saved, loaded = parts(), fresh()
    assert painter_states.restore(path, *loaded) == []
    painter_states.save(path, *saved, HISTORY)
    assert painter_states.restore(path, *loaded) == HISTORY
    for one, other in zip(saved[0] + saved[1], loaded[0] + loaded[1], strict=True):
        assert torch.equal(one, other)
    moments = [optimizer.state_dict()["state"][1]["exp_avg"] for optimizer in (saved[2], loaded[2])]
    assert torch.equal(*moments) and moments[0].abs().min() > 0
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]


def test_a_finished_run_has_one_set_of_weights(tmp_path):
    _, average, _, _ = parts()
    painter_states.save(tmp_path / "state.pt", average, average, None, None, HISTORY)
    loaded = fresh()
    assert painter_states.restore(tmp_path / "state.pt", *loaded) == HISTORY
    assert all(map(torch.equal, loaded[0] + loaded[1], average + average))


@pytest.mark.parametrize("damage", [
    {"parameters": None}, {"parameters": [torch.zeros(2, 3)]}, {"parameters": [torch.zeros(2, 3), torch.zeros(5)]},
    {"parameters": [torch.zeros(2, 3), "text"]}, {"average": None}, {"average": [torch.zeros(4), torch.zeros(2, 3)]},
    {"optimizer": {}}, {"optimizer": {"state": {}}}, {"optimizer": "text"}, {"scaler": None}, {"history": None},
], ids=repr)  # fmt: skip
def test_a_state_that_is_not_whole_is_not_begun_with(tmp_path, capsys, damage):
    parameters, average, optimizer, scaler = parts()
    whole = {
        "parameters": parameters, "average": average, "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(), "history": HISTORY,
    }  # fmt: skip
    loaded = fresh()
    torch.save({key: one for key, one in (whole | damage).items() if one is not None}, tmp_path / "state.pt")
    assert painter_states.restore(tmp_path / "state.pt", *loaded) == []
    assert not any(tensor.any() for tensor in loaded[0] + loaded[1]) and not loaded[2].state_dict()["state"]
    assert "state.pt cannot be read: training starts from the beginning" in capsys.readouterr().out
    torch.save(whole, tmp_path / "state.pt")
    assert painter_states.restore(tmp_path / "state.pt", *loaded) == HISTORY


@pytest.mark.parametrize("content", [b"", b"half a file", b"PK\x03\x04half", b"[1, 2]"])
def test_a_damaged_file_is_begun_again(tmp_path, capsys, content):
    (tmp_path / "state.pt").write_bytes(content)
    assert painter_states.restore(tmp_path / "state.pt", *fresh()) == []
    assert "training starts from the beginning" in capsys.readouterr().out


def test_a_file_that_may_not_be_read_is_not_written_over(tmp_path):
    (tmp_path / "state.pt").mkdir()
    with pytest.raises(LabError, match=r"The saved painter .*state\.pt cannot be read: .*That is a folder"):
        painter_states.restore(tmp_path / "state.pt", *fresh())
    with pytest.raises(LabError, match=r"state\.pt is a folder, and a file is to be written there"):
        painter_states.save(tmp_path / "state.pt", *parts(), HISTORY)


@pytest.mark.parametrize("number, way_out", [
    (errno.ENOSPC, "The disk is full: free some space"), (errno.EROFS, "That disk can only be read"),
    (errno.EACCES, "You may not do that there"),
])  # fmt: skip
def test_a_disk_that_refuses_leaves_the_old_state_and_says_why(tmp_path, monkeypatch, number, way_out):
    painter_states.save(tmp_path / "state.pt", *parts(), HISTORY)
    before = (tmp_path / "state.pt").read_bytes()

    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(LabError, match=rf"could not be saved to .*{way_out}.*run the same cell again") as caught:
        painter_states.save(tmp_path / "state.pt", *parts(), HISTORY)
    assert ("free some space" in str(caught.value)) == (number == errno.ENOSPC)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_what_another_process_trains_is_refused_and_what_cannot_be_written_is_read(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    with painter_states.alone(path):
        with pytest.raises(LabError, match=r"state\.pt is in use"), painter_states.alone(path):
            pass
        with painter_states.alone(tmp_path / "other.pt"):
            pass
        path.write_text("")
        monkeypatch.setattr(os, "access", lambda *_: False)
        with painter_states.alone(path):
            pass
