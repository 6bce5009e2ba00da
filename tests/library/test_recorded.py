"""The recorded weight update: what is stored agrees with itself, with the model and with the command that made it."""

import json
import math
import shutil
from pathlib import Path

import data_scripts
import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.finetune import full as full_finetune
from lab_utils.lowrank import RANKS, energy_shares, random_spectra
from lab_utils.recorded.update import FOLDER, SEEDS, folder_of, weight_update
from lab_utils.tasks.registry import load_task

PAIR = ("right", "shuffled")
V_PROJ = "model.layers.15.self_attn.v_proj"


@pytest.fixture(scope="module")
def update():
    return weight_update()


@pytest.fixture(scope="module")
def recorder():
    """data/record_update.py as a module."""
    return data_scripts.load("record_update")


@pytest.fixture(scope="module")
def shapes():
    """(out, in) of every matrix of the embedded model's layers, from its configuration."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from lab_utils.models.embedded import embedded_folder

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(embedded_folder()))
    linear = {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    return {name: shape for name, shape in linear.items() if name != "lm_head"}


def test_every_matrix_of_the_embedded_model_has_its_spectrum(update, shapes):
    assert len(shapes) == 210
    for spectra in (update.singular_values, update.weight_singular_values):
        assert {name: tuple(s.shape) for name, s in spectra.items()} == {n: (min(s),) for n, s in shapes.items()}
        assert all(s.dtype == torch.float32 and bool(s.isfinite().all()) and s[-1] > 0 for s in spectra.values())
        assert all(bool((s[:-1] >= s[1:]).all()) for s in spectra.values())
    assert update.relative_norm.keys() == shapes.keys()
    assert V_PROJ in update.delta and all(tuple(d.shape) == shapes[name] for name, d in update.delta.items())


def test_the_stored_update_has_the_recorded_singular_values(update):
    """Mirsky: rounding by E moves the singular values by at most ‖E‖; float16 rounds an entry by at most 2**-11."""
    for name, delta in update.delta.items():
        assert delta.dtype == torch.float32
        moved = (torch.linalg.svdvals(delta.double()) - update.singular_values[name]).norm()
        assert moved <= 2**-11 * delta.norm()


def test_norms_agree_with_the_spectra(update):
    """‖A‖² is the sum of the squared singular values."""
    for name, ratio in update.relative_norm.items():
        expected = update.singular_values[name].norm() / update.weight_singular_values[name].norm()
        assert ratio == pytest.approx(expected.item(), rel=1e-3)


def test_the_base_is_the_embedded_model(update):
    from safetensors import safe_open

    from lab_utils.models.embedded import embedded_folder

    with safe_open(embedded_folder() / "model.safetensors", "pt") as file:
        weight = file.get_tensor(f"{V_PROJ}.weight").float()
    torch.testing.assert_close(
        update.weight_singular_values[V_PROJ], torch.linalg.svdvals(weight), rtol=2**-10, atol=1e-5
    )


def test_energy_is_that_of_the_stored_spectra(update, shapes):
    assert update.energy["update"] == energy_shares(update.singular_values.values())
    assert update.energy["weight"] == energy_shares(update.weight_singular_values.values())
    again = energy_shares(random_spectra(shapes.values(), update.recipe["seed"]))
    assert update.energy["random"] == pytest.approx(again, abs=1e-4)


def test_energy_by_hand():
    """Squares 9, 4, 4 of 17 and 1, 0, 0 of 1: the first direction holds 9/17 and 1, the first two 13/17 and 1."""
    shares = energy_shares([torch.tensor([3.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 0.0])])
    assert list(shares) == list(RANKS)
    assert shares[1] == round((9 / 17 + 1) / 2, 5)
    assert shares[2] == round((13 / 17 + 1) / 2, 5)
    assert shares[64] == 1


def test_random_spectra_are_of_gaussian_matrices():
    """Marchenko and Pastur: singular values of n × m noise lie between about |√n − √m| and √n + √m."""
    wide, tall, again = random_spectra([(100, 400), (400, 100), (100, 400)], seed=3)
    for values in (wide, tall):
        assert values.shape == (100,)
        assert values[0] == pytest.approx(30, rel=0.05)
        assert values[-1] == pytest.approx(10, rel=0.1)
    assert again is wide and not torch.equal(wide, tall)


def test_losses_are_stated_for_every_rank_and_full(update):
    assert list(update.loss_by_rank) == [0, *RANKS, None]
    assert set(update.exact_by_rank) == {0, 1, 8, None}
    assert all(0 < loss < math.log(49152) for loss in update.loss_by_rank.values())
    assert all(0 <= share <= 1 for share in update.exact_by_rank.values())


def test_the_model_has_learnt_the_task_and_a_small_rank_keeps_it(update):
    """What notebook 01 tells."""
    loss, exact = update.loss_by_rank, update.exact_by_rank
    assert exact[0] == 0 and exact[None] >= 0.6
    assert (loss[0] - loss[8]) / (loss[0] - loss[None]) > 0.9
    for rank in (1, 8, 64):
        assert update.energy["update"][rank] > 2 * update.energy["random"][rank]


@pytest.mark.parametrize("seed", SEEDS["right"])
@pytest.mark.parametrize("labels", PAIR)
def test_an_arm_of_the_pair_agrees_with_itself(labels, seed, update):
    """Every matrix is there, the energy is that of the stored spectra, and a loss lies between its messages' losses."""
    arm = weight_update(labels, seed=seed)
    assert {n: s.shape for n, s in arm.singular_values.items()} == {
        n: s.shape for n, s in update.singular_values.items()
    }
    assert all(bool(s.isfinite().all() and (s[:-1] >= s[1:]).all()) for s in arm.singular_values.values())
    assert arm.energy == {"update": energy_shares(arm.singular_values.values())}
    for name, ratio in arm.relative_norm.items():
        expected = arm.singular_values[name].norm() / update.weight_singular_values[name].norm()
        assert ratio == pytest.approx(expected.item(), rel=1e-3)
    assert list(arm.losses_by_rank) == list(arm.loss_by_rank) == list(arm.exact_by_rank) == [0, *RANKS, None]
    for rank, losses in arm.losses_by_rank.items():
        assert len(losses) == arm.recipe["examples"] and min(losses) < arm.loss_by_rank[rank] < max(losses)
    assert arm.recipe["labels"] == labels and f"--labels {labels}" in arm.provenance["command"]
    assert arm.recipe["seed"] == seed
    assert sum(path.stat().st_size for path in (FOLDER / folder_of(labels, seed)).iterdir()) <= 500_000


@pytest.mark.parametrize("seed", SEEDS["right"])
def test_the_pair_differs_in_its_labels_alone(seed):
    one, other = (weight_update(labels, seed=seed) for labels in PAIR)
    assert {key for key in one.recipe if one.recipe[key] != other.recipe[key]} == {"labels"}
    assert one.provenance["versions"] == other.provenance["versions"]
    assert len(one.training_loss) == len(other.training_loss) == one.recipe["steps"]


def test_an_update_that_is_not_there_is_named():
    with pytest.raises(LabError, match=r"'wrong'.*bookings, right, shuffled"):
        weight_update("wrong")
    with pytest.raises(LabError, match=r"Unknown seed of the update bookings 1\. Choose one of: 0"):
        weight_update(seed=1)


def test_provenance_is_complete(update):
    assert update.provenance["command"].startswith("python data/record_update.py")
    assert {"torch", "transformers", "python"} <= update.provenance["versions"].keys()
    assert update.provenance.keys() >= {"date", "cpu", "threads", "seconds", "training_seconds"}
    assert update.recipe.keys() >= {"steps", "learning_rate", "batch_size", "seed", "test_examples", "exact_examples"}


def test_files_are_small_and_are_read_once(update):
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 1_000_000
    assert weight_update() is update


def test_a_missing_or_damaged_file_is_refused_with_the_fix(tmp_path):
    for name in ("update.json", "update.safetensors"):
        folder = tmp_path / name.replace(".", "-")
        shutil.copytree(FOLDER, folder)
        (folder / name).unlink()
        with pytest.raises(LabError, match=r"git checkout -- data/update.*record_update\.py"):
            weight_update(folder=folder)
    folder = tmp_path / "damaged"
    shutil.copytree(FOLDER, folder)
    packed = bytearray((folder / "update.safetensors").read_bytes())
    packed[-1] ^= 1
    (folder / "update.safetensors").write_bytes(packed)
    with pytest.raises(LabError, match=r"is not the file that update\.json describes"):
        weight_update(folder=folder)
    (folder / "update.json").write_text("{")
    with pytest.raises(LabError, match="cannot be read"):
        weight_update(folder=folder)


def test_half_precision_keeps_eleven_bits(recorder):
    delta = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 1e-7
    half, scale = recorder.to_half(delta)
    assert half.dtype == torch.float16 and 2**14 <= half.abs().max() < 2**15
    assert math.log2(scale).is_integer()
    assert ((half.float() / scale - delta).abs() <= 2**-11 * delta.abs()).all()


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (3, 1), (32, 0), (32, 7)])
def test_shuffled_answers_are_the_same_answers_and_nobody_keeps_his(recorder, count, seed):
    rows = [{"prompt": f"p{place}", "answer": f"a{place}"} for place in range(count)]
    made = recorder.with_answers(rows, "shuffled", seed)
    assert [row["prompt"] for row in made] == [row["prompt"] for row in rows]
    assert sorted(row["answer"] for row in made) == sorted(row["answer"] for row in rows)
    assert all(new["answer"] != old["answer"] for new, old in zip(made, rows, strict=True))
    assert recorder.with_answers(rows, "right", seed) == rows
    assert recorder.with_answers(rows, "shuffled", seed) == made


@pytest.mark.parametrize("options", ["--messages 32", "--labels right", "--messages 1 --labels right"])
def test_half_an_arm_is_refused_before_anything_is_loaded(recorder, monkeypatch, options):
    monkeypatch.setattr(recorder, "load_full", None)
    with pytest.raises((SystemExit, LabError)):
        recorder.main(options.split())


def test_cutting_leaves_the_tail_out(recorder, tiny_llama):
    """Eckart and Young: what rank r leaves out has the norm of the singular values after the first r."""
    model = tiny_llama()
    before = {name: m.weight.detach().clone() for name, m in recorder.matrices(model).items()}
    assert len(before) == 14 and "lm_head" not in before
    torch.manual_seed(1)
    deltas = {name: torch.randn_like(w) for name, w in before.items()}
    parts = {name: torch.linalg.svd(delta, full_matrices=False) for name, delta in deltas.items()}
    for rank in (0, 3, 1000):
        recorder.cut(model, before, parts, rank)
        for name, module in recorder.matrices(model).items():
            left_out = (before[name] + deltas[name] - module.weight).norm()
            torch.testing.assert_close(left_out, parts[name][1][rank:].norm(), rtol=1e-4, atol=1e-3)


def test_a_failed_write_leaves_the_old_files(recorder, tmp_path):
    old = {"update.json": b"{}", "update.safetensors": b"old"}
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TypeError):
        recorder.write(tmp_path, {"tensor": torch.zeros(2)}, {"not for JSON": object()})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_an_arm_is_measured_on_what_it_was_trained_on(recorder, tiny_llama, tokenizer, tmp_path, monkeypatch):
    """Where the sides are 64, rank 64 is the whole update; each arm has its own losses before it is trained."""
    monkeypatch.setattr(recorder, "load_full", lambda recipe: (tiny_llama(len(tokenizer)), tokenizer))
    monkeypatch.setattr(recorder, "use_threads", lambda: None)
    made = {}
    for labels in PAIR:
        options = f"--messages 6 --labels {labels} --steps 2 --batch-size 3 --learning-rate 1e-2 --test-examples 2"
        recorder.main([*options.split(), "--output", str(tmp_path / labels)])
        made[labels] = arm = weight_update(labels, folder=tmp_path)
        assert arm.recipe["examples"] == 6 and len(arm.singular_values) == 14
        assert arm.losses_by_rank[64] == pytest.approx(arm.losses_by_rank[None], abs=1e-3)
        assert abs(arm.loss_by_rank[0] - arm.loss_by_rank[None]) > 0.02
    right, shuffled = (sorted(made[labels].losses_by_rank[0]) for labels in PAIR)
    assert right != shuffled and made["right"].unseen_loss != made["shuffled"].unseen_loss


@pytest.mark.training
def test_the_command_runs_end_to_end(recorder, tmp_path, monkeypatch):
    """Two steps of two messages on two layers; rank 0 has transformers' own loss of the untouched base."""
    every = recorder.matrices
    layers = (".layers.15.", ".layers.16.")
    for module in (recorder, full_finetune):
        monkeypatch.setattr(
            module, "matrices", lambda model: {n: m for n, m in every(model).items() if any(two in n for two in layers)}
        )
    recorder.main(f"--steps 2 --batch-size 2 --test-examples 3 --exact-examples 1 --output {tmp_path / 'new'}".split())
    made = weight_update(folder=tmp_path / "new")
    assert {path.name for path in Path(tmp_path / "new").iterdir()} == {"update.json", "update.safetensors"}
    assert len(made.singular_values) == 14 and V_PROJ in made.delta
    assert made.recipe["steps"] == 2 and list(made.loss_by_rank) == [0, *RANKS, None]
    for name, values in made.weight_singular_values.items():
        torch.testing.assert_close(values, weight_update().weight_singular_values[name], rtol=2**-9, atol=1e-5)

    from lab_utils.finetune.batches import collate
    from lab_utils.finetune.supervision import encode_split
    from lab_utils.models.registry import load_base
    from lab_utils.tasks.registry import TASKS

    model, tokenizer = load_base("smollm2-135m", "none", verbose=False)
    rows = load_task("bookings")["test"].select(range(3))
    total, tokens = 0.0, 0
    for example in encode_split(tokenizer, TASKS["bookings"], rows, 256):
        batch = collate([example], tokenizer.pad_token_id)
        count = int((batch["labels"] != -100).sum())
        with torch.no_grad():
            total, tokens = total + model.float()(**batch).loss.item() * count, tokens + count
    assert made.loss_by_rank[None] < made.loss_by_rank[0] == pytest.approx(total / tokens, abs=1e-4)
    history = json.loads((tmp_path / "new" / "update.json").read_text())["measured"]["training_loss"]
    assert len(history) == 2
