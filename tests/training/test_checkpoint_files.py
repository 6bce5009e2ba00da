"""A checkpoint is whole, or the one before it is taken and the file at fault is named; that holds for old ones too."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unfolded import unfolded

from lab_utils.finetune import checkpoint_files
from lab_utils.finetune.checkpoint import latest_record, save_checkpoint
from lab_utils.finetune.recipe import Recipe

TENSORS = {"m.lora_A.weight": torch.ones(8, 4), "m.lora_B.weight": torch.full((6, 8), 0.5)}


class Adapter:
    """What a checkpoint needs of a peft model."""

    def save_pretrained(self, folder: Path) -> None:
        save_file(TENSORS, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "target_modules": ["m"]}))
        (folder / "README.md").write_text("peft writes one")


def state() -> dict:
    """As a run with AdamW on a CPU has it."""
    moments = [{"step": torch.tensor(1.0), "exp_avg": one * 0, "exp_avg_sq": one * 0} for one in TENSORS.values()]
    optimizer = {"state": dict(enumerate(moments)), "param_groups": []}
    return {"optimizer": optimizer, "random": [torch.get_rng_state()], "random_cuda": [], "scaler": None}


@pytest.fixture(params=["with checksums", "of an earlier version"])
def run(tmp_path, request):
    """A folder with checkpoints 1 and 2."""
    for step in (1, 2):
        history = [{"step": number, "loss": 1.0} for number in range(1, step + 1)]
        path = save_checkpoint(tmp_path, step, Recipe(), Adapter(), state(), history)
        if request.param == "of an earlier version":
            change_record(path, lambda record: record.pop("files"), lambda record: record.pop("identity"))
    return tmp_path


def change_record(folder: Path, *changes) -> None:
    record = json.loads((folder / "record.json").read_text())
    for change in changes:
        change(record)
    (folder / "record.json").write_text(json.dumps(record))


def tensors(change):
    """A damage that writes the adapter again, its tensors changed."""

    def damage(folder: Path) -> None:
        found = load_file(folder / "adapter_model.safetensors")
        change(found)
        save_file(found, folder / "adapter_model.safetensors")

    return damage


def content(name: str, make):
    """A damage that writes a file again, from its bytes."""
    return lambda folder: (folder / name).write_bytes(make((folder / name).read_bytes()))


def missing(name: str):
    return lambda folder: (folder / name).unlink()


def record(change):
    return lambda folder: change_record(folder, change)


def nan_moments(folder: Path) -> None:
    found = torch.load(folder / "state.pt", weights_only=True)
    found["optimizer"]["state"][0]["exp_avg"][1, 2] = float("nan")
    torch.save(found, folder / "state.pt")


ADAPTER, CONFIG, STATE, RECORD = "adapter_model.safetensors", "adapter_config.json", "state.pt", "record.json"
DAMAGES = {
    "adapter missing": (missing(ADAPTER), ADAPTER),
    "adapter empty": (content(ADAPTER, lambda data: b""), ADAPTER),
    "adapter cut": (content(ADAPTER, lambda data: data[:-40]), ADAPTER),
    "adapter's head cut": (content(ADAPTER, lambda data: data[:20]), ADAPTER),
    "adapter of another rank": (tensors(lambda found: found.update({"m.lora_A.weight": torch.ones(4, 4)})), ADAPTER),
    "adapter without a tensor": (tensors(lambda found: found.pop("m.lora_B.weight")), ADAPTER),
    "adapter with NaN": (tensors(lambda found: found["m.lora_B.weight"][1].fill_(float("nan"))), ADAPTER),
    "adapter with an infinity": (tensors(lambda found: found["m.lora_B.weight"][1].fill_(float("inf"))), ADAPTER),
    "adapter is not safetensors": (content(ADAPTER, lambda data: b"version https://git-lfs\n" * 9), ADAPTER),
    "config missing": (missing(CONFIG), CONFIG),
    "config empty": (content(CONFIG, lambda data: b""), CONFIG),
    "config cut": (content(CONFIG, lambda data: data[:-3]), CONFIG),
    "config is a list": (content(CONFIG, lambda data: b"[]"), CONFIG),
    "state missing": (missing(STATE), STATE),
    "state empty": (content(STATE, lambda data: b""), STATE),
    "state cut": (content(STATE, lambda data: data[: len(data) // 2]), STATE),
    "state is text": (content(STATE, lambda data: b"hello"), STATE),
    "state of something else": (lambda folder: torch.save({"a": 1}, folder / STATE), STATE),
    "state is a list": (lambda folder: torch.save([1], folder / STATE), STATE),
    "state with NaN": (nan_moments, STATE),
    "record missing": (missing(RECORD), RECORD),
    "record empty": (content(RECORD, lambda data: b""), RECORD),
    "record cut": (content(RECORD, lambda data: data[:-5]), RECORD),
    "record is a list": (content(RECORD, lambda data: b"[" + data + b"]"), RECORD),
    "record in UTF-16": (content(RECORD, lambda data: data.decode().encode("utf-16")), RECORD),
    "record nested deeply": (content(RECORD, lambda data: b"[" * 100_000), RECORD),
    "record without step": (record(lambda found: found.pop("step")), RECORD),
    "record without history": (record(lambda found: found.pop("history")), RECORD),
    "record without recipe": (record(lambda found: found.pop("recipe")), RECORD),
    "record without fingerprint": (record(lambda found: found.pop("fingerprint")), RECORD),
    "record of another step": (record(lambda found: found.update(step=7)), RECORD),
    "history too short": (record(lambda found: found["history"].pop()), RECORD),
    "history with a hole": (record(lambda found: found["history"].__setitem__(1, None)), RECORD),
    "history without a loss": (record(lambda found: found["history"][1].pop("loss")), RECORD),
    "history with NaN": (record(lambda found: found["history"][1].update(loss=float("nan"))), RECORD),
}


IDENTITY = {"name": "a", "shapes": "b", "weights": "c", "made": "d", "sample": [1.0]}


def identity(**changes):
    return record(lambda found: found.update(identity={"base": IDENTITY | changes}))


def other_state(**changes):
    """A damage that writes the state again, and its checksum too."""

    def damage(folder: Path) -> None:
        found = torch.load(folder / STATE, weights_only=True)
        torch.save({name: one for name, one in (found | changes).items() if one != "gone"}, folder / STATE)
        change_record(folder, lambda found: "files" in found and found.update(files=checkpoint_files.sums_of(folder)))
        change_record(folder, lambda found: "files" in found and found["files"].pop(RECORD))

    return damage


def files(change):
    def damage(folder: Path) -> None:
        sums = checkpoint_files.sums_of(folder)
        del sums[RECORD]
        change_record(folder, lambda found: found.update(files=change(sums)))

    return damage


NO_NAMES = ("x" * 300, "a\0b", "a\ud800b", "", "../a", "..", ".", "/")
DAMAGES |= {
    f"files: {number}": (files(lambda sums, change=change: change(sums)), RECORD)
    for number, change in enumerate([
        lambda sums: {}, lambda sums: None, lambda sums: 5, lambda sums: list(sums), lambda sums: sums | {STATE: 5},
        lambda sums: sums | {STATE: [5]}, lambda sums: sums | {STATE: ["5", 5]},
        *(lambda sums, name=name: sums | {name: [1, 2]} for name in NO_NAMES),
        lambda sums: {ADAPTER: sums[ADAPTER]}, lambda sums: {STATE: sums[STATE]},
    ])
}  # fmt: skip
DAMAGES |= {
    f"state with {name}={value!r}": (other_state(**{name: value}), STATE)
    for name, value in [
        ("random", "gone"), ("random", None), ("random", 5), ("random", []), ("random", [5]), ("random_cuda", None),
        ("optimizer", "gone"), ("optimizer", 5), ("optimizer", {}), ("optimizer", {"state": []}), ("scaler", 5),
    ]
}  # fmt: skip
DAMAGES |= {
    f"identity with base={base!r}": (
        record(lambda found, base=base: found.update(identity={"base": base})), RECORD
    ) for base in (5, {}, [], "text", None)
} | {
    "identity is a list": (record(lambda found: found.update(identity=[])), RECORD),
    "identity with data 5": (record(lambda found: found.update(identity={"data": 5})), RECORD),
    "sample is null": (identity(sample=None), RECORD),
    "sample of texts": (identity(sample=["a"]), RECORD),
    "samples of numbers": (identity(samples=[5]), RECORD),
    "shapes are a list": (identity(shapes=[]), RECORD),
    "settings are a list": (identity(config=[]), RECORD),
    "loss of 400 digits": (record(lambda found: found["history"][1].update(loss=10**400)), RECORD),
    "loss is true": (record(lambda found: found["history"][1].update(loss=True)), RECORD),
    "seconds are a text": (record(lambda found: [row.update(seconds="1") for row in found["history"]]), RECORD),
    "step of 400 digits": (record(lambda found: found.update(step=10**400)), RECORD),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_damaged_checkpoint_is_passed_over_and_the_file_is_named(run, capsys, kind):
    damage, name = DAMAGES[kind]
    damage(run / "checkpoint-000002")
    if kind == "record without fingerprint":  # it may be another recipe's
        with pytest.raises(Exception, match="another recipe"):
            latest_record(run, Recipe())
        return
    found, read, _ = latest_record(run, Recipe())
    assert found.name == "checkpoint-000001" and read["step"] == 1
    said = unfolded(capsys.readouterr().out)
    assert "checkpoint-000002 cannot be read (" in said and name in said and "going back to checkpoint-000001" in said


def test_with_none_left_it_begins_again_and_says_so(run, capsys):
    for step in (1, 2):
        (run / f"checkpoint-00000{step}" / "state.pt").unlink()
    assert latest_record(run, Recipe()) is None
    assert "starting from the first step" in unfolded(capsys.readouterr().out)


@pytest.mark.parametrize(
    "change",
    [
        content(RECORD, lambda data: b"\xef\xbb\xbf" + data),
        content(RECORD, lambda data: json.dumps(json.loads(data), indent=4).replace("\n", "\r\n").encode()),
        missing("README.md"),
        lambda folder: (folder / "notes.txt").write_text("mine"),
    ],
    ids=["BOM", "other line ends", "no README", "a note"],
)
def test_what_changes_nothing_is_accepted(run, capsys, change):
    change(run / "checkpoint-000002")
    assert latest_record(run, Recipe())[0].name == "checkpoint-000002"
    assert capsys.readouterr().out == ""


def test_one_flipped_bit_is_noticed(tmp_path, capsys):
    """In the middle of a number of the adapter: every length is right, and every number is finite."""
    for step in (1, 2):
        history = [{"step": number, "loss": 1.0} for number in range(1, step + 1)]
        save_checkpoint(tmp_path, step, Recipe(), Adapter(), state(), history)
    path = tmp_path / "checkpoint-000002" / ADAPTER
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert latest_record(tmp_path, Recipe())[0].name == "checkpoint-000001"
    said = unfolded(capsys.readouterr().out)
    assert "adapter_model.safetensors is not the file that was written: other bytes" in said
