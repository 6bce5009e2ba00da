"""Training: the loss is the right one, a killed run goes on as if nothing had happened, bad input is refused."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from unfolded import unfolded

from lab_utils.errors import LabError
from lab_utils.finetune import run as module
from lab_utils.finetune import trainer
from lab_utils.finetune.adapter import attach_adapter, take_off_adapter, twin
from lab_utils.finetune.answer_loss import build_supervised
from lab_utils.finetune.batches import collate
from lab_utils.finetune.command import main
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.run import finetune
from lab_utils.finetune.run_folders import checkpoints
from lab_utils.finetune.runs import run_folder
from lab_utils.finetune.supervision import IGNORED, encode
from lab_utils.tasks.registry import TASKS, load_task

SHORT = Recipe(model="smollm2-135m", steps=2, batch_size=2, train_examples=16, checkpoint_every=1, rank=4, alpha=8)


@pytest.fixture(scope="module")
def data():
    return load_task("bookings")


def adapter_bytes(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def flags(recipe, folder):
    """The command line that trains `recipe`."""
    command = ["--output", str(folder)]
    for name in ("model", "steps", "batch_size", "train_examples", "checkpoint_every", "rank", "alpha", "dropout"):
        command += [f"--{name.replace('_', '-')}", str(getattr(recipe, name))]
    return command


def test_loss_equals_the_librarys(trainable_base, data):
    """Sum over supervised tokens = transformers' own mean loss times their number."""
    base, tokenizer = trainable_base
    model = attach_adapter(base, SHORT)
    rows = data["train"].select(range(3))
    batch = collate([encode(tokenizer, TASKS["bookings"], r["prompt"], r["answer"]) for r in rows], 2)
    with torch.no_grad():
        ours = float(build_supervised(model)(**batch))
        theirs = float(model(**batch, use_cache=False).loss)
    count = int((batch["labels"][:, 1:] != IGNORED).sum())
    assert ours == pytest.approx(theirs * count, rel=1e-3)  # bfloat16 logits, summed in another order


def test_an_adapter_on_a_twin_leaves_the_model_bare(trainable_base, data):
    """Nor does one on the model reach the twin's; the weights are the same tensors, in 4 bits too."""
    base, tokenizer = take_off_adapter(trainable_base[0]).eval(), trainable_base[1]
    ids = tokenizer(data["test"][0]["prompt"], return_tensors="pt").input_ids
    with torch.no_grad():
        bare = base(ids).logits
        model = attach_adapter(twin(base), SHORT).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.ones_(parameter)
        adapted = model(ids).logits
        assert not torch.equal(adapted, bare) and torch.equal(base(ids).logits, bare)
        attach_adapter(base, SHORT)
        assert torch.equal(model(ids).logits, adapted)
        kept, shared = dict(take_off_adapter(base).named_parameters()), dict(take_off_adapter(model).named_parameters())
        assert kept.keys() == shared.keys() and all(kept[name] is shared[name] for name in kept)


def test_only_the_adapter_is_trained(trainable_base, data, tmp_path):
    base = take_off_adapter(trainable_base[0])
    frozen = {n: p.detach().clone() for n, p in base.named_parameters()}
    run = finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False)
    after = dict(take_off_adapter(run.model).named_parameters())
    assert after.keys() == frozen.keys() and len(frozen) == 272  # 30 × 9, embedding, last norm
    for name, parameter in frozen.items():
        assert torch.equal(parameter, after[name]), name


def test_attaching_twice_leaves_one_fresh_adapter(trainable_base):
    base, _ = trainable_base
    first = attach_adapter(base, SHORT)
    for name, parameter in first.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    second = attach_adapter(first, replace(SHORT, rank=2))
    tensors = {n: p for n, p in second.named_parameters() if p.requires_grad}
    assert len(tensors) == 2 * 210
    assert all(p.dtype == torch.float32 for p in tensors.values())
    assert not any(p.detach().any() for n, p in tensors.items() if "lora_B" in n)
    assert all(p.shape[0] == 2 for n, p in tensors.items() if "lora_A" in n)
    # r (in + out) over q, o 576×576; k, v 192×576; gate, up 1536×576; down 576×1536; 30 layers
    assert sum(p.numel() for p in tensors.values()) == 2 * 30 * (2 * 1152 + 2 * 768 + 3 * 2112)


def test_a_finished_run_is_loaded_at_once(trainable_base, data, tmp_path):
    first = finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False)
    saved = adapter_bytes(tmp_path)
    seen = []
    began = time.perf_counter()
    again = finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False, on_step=seen.append)
    assert again.resumed_from == 2 and again.history == first.history and seen == [first.history]
    assert adapter_bytes(tmp_path) == saved
    assert time.perf_counter() - began < 30


def test_another_recipe_is_refused_and_loses_nothing(trainable_base, data, tmp_path):
    finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False)
    saved = adapter_bytes(tmp_path)
    with pytest.raises(LabError, match="rank: 4 there, 2 here"):
        finetune(replace(SHORT, rank=2), tmp_path, base=trainable_base, dataset=data, progress=False)
    assert adapter_bytes(tmp_path) == saved and len(checkpoints(tmp_path)) == 2
    finetune(replace(SHORT, rank=2, steps=1), tmp_path, resume=False, base=trainable_base, dataset=data, progress=False)
    assert adapter_bytes(tmp_path / "previous") == saved


def test_hiding_the_end_of_turn_takes_one_token_an_example(trainable_base, data, tmp_path):
    with_end = finetune(replace(SHORT, steps=1), tmp_path / "a", base=trainable_base, dataset=data, progress=False)
    hidden = replace(SHORT, steps=1, supervise_end=False)
    without = finetune(hidden, tmp_path / "b", base=trainable_base, dataset=data, progress=False)
    assert with_end.history[0]["supervised_tokens"] - without.history[0]["supervised_tokens"] == SHORT.batch_size


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target_modules": ("q_proj", "w_proj")}, "no linear layer 'w_proj'.*q_proj"),
        ({"rank": 200}, "rank=200 is larger than layer .*_proj .*1 to 192"),
    ],
)
def test_impossible_adapters_are_refused(trainable_base, change, words):
    with pytest.raises(LabError, match=words):
        attach_adapter(trainable_base[0], replace(SHORT, **change))


def test_rank_is_checked_against_the_adapted_layers_only(trainable_base):
    """k and v have 192 rows; q has 576: rank 200 is possible on q alone."""
    attach_adapter(trainable_base[0], replace(SHORT, rank=200, target_modules=("q_proj",)))


def test_too_little_memory_stops_before_training(trainable_base, data, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "free_memory_bytes", lambda kind: 50 * 2**20)
    with pytest.raises(LabError, match=r"batch_size \(2\).*gradient_checkpointing=True"):
        finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False)
    assert not checkpoints(tmp_path)


def test_an_adapter_that_does_not_move_is_noticed(trainable_base, data, tmp_path, monkeypatch):
    monkeypatch.setattr(Recipe, "learning_rate_at", lambda self, step: 0.0)
    with pytest.raises(LabError, match="every lora_B is still zero"):
        finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False)


def test_a_loss_that_is_not_finite_stops_training(trainable_base, data, tmp_path, monkeypatch):
    def blown_up(model):
        class Blown(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, **batch):
                return sum(p.sum() for p in self.model.parameters() if p.requires_grad) * float("nan")

        return Blown()

    monkeypatch.setattr(trainer, "build_supervised", blown_up)
    with pytest.raises(LabError, match=r"loss is nan at step 1.*learning_rate"):
        finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False)


def test_interrupting_says_how_to_go_on(trainable_base, data, tmp_path, capsys):
    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False, on_step=stop)
    assert "Steps 1 to 1 are saved" in unfolded(capsys.readouterr().out)
    assert finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False).resumed_from == 1


def test_interrupting_before_the_first_checkpoint_promises_none(trainable_base, data, tmp_path, capsys, monkeypatch):
    def stop(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Trainer, "take_step", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False)
    said = unfolded(capsys.readouterr().out)
    assert "before the first checkpoint. Run the same cell again to start over" in said


def test_other_trainers_find_accelerate_as_new(trainable_base, data, tmp_path):
    """Where another precision is left in its shared state, making an Accelerator raises a ValueError."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    Accelerator(cpu=True, mixed_precision="bf16")
    finetune(SHORT, tmp_path, base=trainable_base, dataset=data, progress=False)
    assert Accelerator(cpu=True, mixed_precision="bf16").mixed_precision == "bf16"
    with pytest.raises(ValueError, match="already been initialized"):
        Accelerator(cpu=True, mixed_precision="no")
    AcceleratorState._reset_state()


def test_checkpointed_activations_give_the_same_training(trainable_base, data, tmp_path):
    plain = finetune(SHORT, tmp_path / "a", base=trainable_base, dataset=data, progress=False)
    recipe = replace(SHORT, gradient_checkpointing=True)
    saved = finetune(recipe, tmp_path / "b", base=trainable_base, dataset=data, progress=False)
    for a, b in zip(plain.history, saved.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


def test_command_line_refuses_with_a_sentence(capsys):
    assert main(["--output", "unused", "--rank", "0"]) == 2
    assert "--rank 0 is out of range" in capsys.readouterr().err
    assert main(["--output", "unused", "--task", "booking"]) == 2
    assert "Unknown task 'booking'" in capsys.readouterr().err


def test_run_folders_differ_with_the_recipe(monkeypatch):
    monkeypatch.setenv("LORA_LAB_RUNS", "/elsewhere")
    assert run_folder(SHORT) != run_folder(replace(SHORT, rank=2))
    assert run_folder(SHORT) == run_folder(replace(SHORT, checkpoint_every=5))
    assert str(run_folder(SHORT)).startswith("/elsewhere/bookings-")


@pytest.mark.training
def test_killed_and_resumed_is_bit_equal(trainable_base, data, tmp_path):
    """SIGKILL in the middle, then the same command: adapter and losses as in a run that nobody disturbed.

    With dropout, so that the random state matters too. The undisturbed run is one of this process.
    """
    recipe = replace(SHORT, steps=8, checkpoint_every=2, dropout=0.1)
    finetune(recipe, tmp_path / "whole", base=trainable_base, dataset=data, progress=False)
    command = [sys.executable, "-m", "lab_utils.finetune"]

    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, *flags(recipe, killed)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not checkpoints(killed) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)  # somewhere inside a later step
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "adapter").exists()

    done = subprocess.run([*command, *flags(recipe, killed)], check=True, capture_output=True, text=True)
    assert "Going on from checkpoint-" in done.stdout
    assert adapter_bytes(killed) == adapter_bytes(tmp_path / "whole")


@pytest.mark.training
def test_two_processes_train_as_one(trainable_base, data, tmp_path):
    """torchrun with two ranks and the same whole batch reaches the losses of this process."""
    recipe = replace(SHORT, steps=3, batch_size=4)
    finetune(recipe, tmp_path / "one", base=trainable_base, dataset=data, progress=False)
    command = ["-m", "lab_utils.finetune"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, *command, *flags(recipe, tmp_path / "two")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 steps on 2 process(es)" in done.stdout

    def losses(folder):
        state = torch.load(checkpoints(folder)[-1] / "state.pt", weights_only=True)
        import json

        record = json.loads((checkpoints(folder)[-1] / "record.json").read_text())
        return len(state["random"]), [row["loss"] for row in record["history"]]

    ranks_one, one = losses(tmp_path / "one")
    ranks_two, two = losses(tmp_path / "two")
    assert (ranks_one, ranks_two) == (1, 2)
    assert two == pytest.approx(one, rel=0.01)  # bfloat16 sums over other batches
