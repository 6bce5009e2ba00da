"""A run opened from its folder answers as the run that was trained, in Python and by command, or says why it cannot."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_runs
from unfolded import unfolded

from lab_utils import evaluate, tasks
from lab_utils.errors import LabError
from lab_utils.evaluate.__main__ import main as score_command
from lab_utils.finetune import Recipe, finetune, open_run
from lab_utils.models import load_tokenizer
from lab_utils.report_card import report_card
from lab_utils.report_card.__main__ import main as card_command

LABELS = ("billing", "login")
ROWS = [{"message": f"Ticket {n} about {LABELS[n % 2]}", "category": LABELS[n % 2]} for n in range(20)]
SHORT = {"quantization": "none", "steps": 2, "batch_size": 2, "rank": 2, "alpha": 4, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a tiny model, a file of tickets, and a run on it in `run`."""
    folder = tmp_path_factory.mktemp("home")
    tiny_runs.save_tiny(folder / "tiny")
    load_tokenizer().save_pretrained(folder / "tiny")
    lines = ["message,category", *(f"{row['message']},{row['category']}" for row in ROWS)]
    (folder / "tickets.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def own(home):
    return tasks.own(home / "tickets.csv", prompt="message", answer="category", system="Sort it.", max_new_tokens=4)


@pytest.fixture(scope="module")
def run(home, own):
    recipe = Recipe(model=str(home / "tiny"), task=own, learning_rate=0.1, **SHORT)
    return finetune(recipe, home / "run", progress=False)


@pytest.fixture
def copy(run, home, tmp_path) -> Path:
    """The folder of the run, to be changed."""
    return Path(shutil.copytree(run.output_dir, tmp_path / "copy"))


def files_of(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_from_its_folder_is_the_run_that_was_trained(run, own):
    before = files_of(run.output_dir)
    found = open_run(str(run.output_dir))
    assert (found.recipe, found.history, found.task) == (run.recipe, run.history, own)
    there, here = (dict(one.model.named_parameters()) for one in (run, found))
    assert there.keys() == here.keys() and all(there[name].equal(here[name]) for name in there)
    assert any(there[name].any() for name in there if "lora_B" in name)
    assert files_of(run.output_dir) == before


def test_scores_and_card_take_a_folder(run, own, capsys):
    trained = evaluate.score(run)
    assert evaluate.score(run.output_dir).rows == evaluate.score(str(run.output_dir), own).rows == trained.rows
    card = report_card(str(run.output_dir), limit=2, shots=0)
    assert card.html.parent == run.output_dir and card.scored[0].name == "the adapter"
    capsys.readouterr()
    assert score_command([str(run.output_dir)]) == 0
    assert capsys.readouterr().out.strip().endswith(str(trained))
    assert score_command([str(run.output_dir), "--split", "validation", "--limit", "1"]) == 0
    assert "1 example" in unfolded(capsys.readouterr().out)
    assert card_command([str(run.output_dir), "--limit", "1", "--shots", "0"]) == 0
    said = " ".join(unfolded(capsys.readouterr().out).split())  # lines break where the folder's name is long
    assert f"Card: {card.html} and {card.markdown.name}" in said


def test_a_run_that_is_not_finished_has_the_adapter_of_its_last_checkpoint(run, copy, capsys):
    shutil.rmtree(copy / "checkpoint-000002")
    found = open_run(copy)
    said = unfolded(capsys.readouterr().out)
    assert "This run is not finished: it has taken 1 of 2 steps (checkpoint-000001)." in said
    assert len(found.history) == 1 and found.history == run.history[:1]
    there, here = (dict(one.model.named_parameters()) for one in (run, found))
    assert not all(there[name].equal(here[name]) for name in there)


def test_a_damaged_checkpoint_is_passed_over_and_a_damaged_adapter_is_named(copy, capsys):
    (copy / "checkpoint-000002" / "state.pt").write_bytes(b"")
    open_run(copy)
    assert "checkpoint-000002 cannot be read (state.pt" in unfolded(capsys.readouterr().out)
    (copy / "checkpoint-000001" / "record.json").write_text("{")
    with pytest.raises(LabError, match=r"No checkpoint in .*copy can be read: restore one, or train again"):
        open_run(copy)


def test_an_adapter_that_cannot_be_read_is_named(copy):
    (copy / "adapter" / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(LabError, match=r"adapter cannot be read \(\w+: .*Copy the adapter's files again"):
        open_run(copy)


def test_what_is_no_run_is_refused_with_the_way_to_one(run, tmp_path):
    for folder, said in (
        (tmp_path / "nowhere", "There is no folder .*nowhere"), (tmp_path, "holds no run: no checkpoint"),
        (run.output_dir / "adapter", r"adapter is a part of a run\. Name the run: .*run\.$"),
        (run.output_dir.parent, "There are runs in it: run"), (3, "folder=3 is out of range"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=said):
            open_run(folder)


def test_another_base_is_not_taken_for_the_one_that_was_trained_on(copy, home, tmp_path):
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(home / "tiny", tmp_path / "tiny"))
    weights = load_file(other / "model.safetensors")
    save_file({name: one + 0.1 for name, one in weights.items()}, other / "model.safetensors", {"format": "pt"})
    for path in copy.glob("checkpoint-*/record.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"recipe": record["recipe"] | {"model": str(other)}}))
    with pytest.raises(LabError, match=r"copy cannot be opened on .*: the run was trained on another base model"):
        open_run(copy)


def test_a_file_that_moved_is_named_by_data_alone(run, home, tmp_path, capsys):
    moved = tmp_path / "elsewhere.csv"
    shutil.move(home / "tickets.csv", moved)
    try:
        with pytest.raises(LabError, match=r"tickets\.csv is not there any more.*by tasks\.own\(…\), and pass it"):
            evaluate.score(run.output_dir)
        assert score_command([str(run.output_dir)]) == 2
        assert "Put it back, or name the file where it is now, by --data." in capsys.readouterr().err
        assert score_command([str(run.output_dir), "--data", str(moved), "--limit", "1"]) == 0
        assert open_run(run.output_dir, moved).task.system == "Sort it."
        moved.write_text(moved.read_text().replace("Ticket 3", "Ticket three"))
        assert score_command([str(run.output_dir), "--data", str(moved)]) == 2
        said = capsys.readouterr().err
        assert "elsewhere.csv has changed: 20 rows (16 train, 2 validation, 2 test) then, 20 rows (" in said
    finally:
        (home / "tickets.csv").write_text(moved.read_text().replace("Ticket three", "Ticket 3"))


def test_data_that_were_in_memory_are_passed_again(home, tmp_path, capsys):
    own = tasks.own(ROWS, prompt="message", answer="category", name="tickets", max_new_tokens=4)
    run = finetune(Recipe(model=str(home / "tiny"), task=own, **SHORT), tmp_path / "run", progress=False)
    with pytest.raises(LabError, match="were in memory, not in a file"):
        evaluate.score(str(tmp_path / "run"))
    assert evaluate.score(tmp_path / "run", own).rows == evaluate.score(run).rows
    other = tasks.own(ROWS[:-4], prompt="message", answer="category", name="tickets", max_new_tokens=4)
    capsys.readouterr()
    evaluate.score(tmp_path / "run", other)
    said = unfolded(capsys.readouterr().out)
    assert "Note: this is not the task that the run was trained on: rows in memory have" in said


# The rows that are scored.


def test_validation_rows_are_said_where_there_is_no_test_split(run, capsys):
    own = tasks.own(ROWS, prompt="message", answer="category", name="two", split=(0.8, 0.2, 0), max_new_tokens=4)
    capsys.readouterr()
    scores = evaluate.score(run, own)
    said = unfolded(capsys.readouterr().out)
    assert said.count("two has no test split, so these are 4 rows of its validation split.") == 1
    assert [row["prompt"] for row in scores.rows] == list(own["validation"]["prompt"])
    evaluate.score(run)
    assert "no test split" not in unfolded(capsys.readouterr().out)
    with pytest.raises(LabError, match=r"two has no test rows \(it has: train, validation\)"):
        evaluate.held_out(own, "test")
