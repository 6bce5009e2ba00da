"""A run's folder: whose it is, what it was trained on, and what is done with a damaged one; with a tiny model."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_runs
import torch
from run_folders import RECIPE, everything
from safetensors.torch import load_file, save_file
from unfolded import unfolded

from lab_utils.errors import LabError
from lab_utils.finetune import run as module
from lab_utils.finetune import starting, trainer, training
from lab_utils.finetune.adapter import attach_adapter, take_off_adapter
from lab_utils.finetune.resume import load_adapter
from lab_utils.finetune.run_folders import checkpoints
from lab_utils.folders import ROOT
from lab_utils.models.footprint import stored_as
from lab_utils.models.registry import QUANTIZATIONS
from lab_utils.report_card import facts
from lab_utils.tasks.registry import load_task


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


# Which run it is.


def test_the_same_data_in_another_form_is_the_same_run(train, run):
    data = load_task("bookings")
    for same in (None, data, {"train": data["train"]}, data["train"], list(data["train"].select(range(16)))):
        assert train(run, dataset=same).resumed_from == 3


def test_other_data_are_refused_and_nothing_is_lost(train, run):
    before = everything(run)
    rows = list(load_task("bookings")["train"].select(range(16)))
    rows[7] = {**rows[7], "answer": rows[7]["answer"] + " "}
    with pytest.raises(LabError, match=r"run holds a run of the same recipe, with other training data.*resume=False"):
        train(run, dataset=rows)
    assert everything(run) == before
    fresh = train(run, dataset=rows, resume=False)
    assert fresh.resumed_from == 0 and weights(run) != before["adapter/adapter_model.safetensors"]
    assert weights(run / "previous") == before["adapter/adapter_model.safetensors"]


def test_another_base_is_refused_and_nothing_is_lost(train, home, run):
    before = everything(run)
    model, tokens = tiny_runs.load_tiny(home / "tiny", "none")
    assert train(run, base=(model, tokens)).resumed_from == 3
    model = take_off_adapter(model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] += 0.5
    with pytest.raises(LabError, match="with another base model"):
        train(run, base=(model, tokens))
    assert everything(run) == before


def test_another_chat_template_is_refused(train, home, run):
    model, tokens = tiny_runs.load_tiny(home / "tiny", "none")
    tokens.chat_template = tokens.chat_template.replace("system", "System")
    with pytest.raises(LabError, match="another tokenizer or chat template"):
        train(run, base=(model, tokens))


def test_a_run_of_an_earlier_version_goes_on_with_a_note(train, run, capsys):
    for path in checkpoints(run):
        record = json.loads((path / "record.json").read_text())
        del record["identity"], record["files"]
        (path / "record.json").write_text(json.dumps(record))
    assert train(run).resumed_from == 3
    assert "Note: checkpoint-000003 does not say which data and base" in unfolded(capsys.readouterr().out)


# Damage.


@pytest.mark.parametrize("damage", ["empty", "missing", "cut", "nan"])
def test_a_damaged_newest_checkpoint_is_trained_again(train, run, capsys, damage):
    before, path = weights(run), run / "checkpoint-000003" / "adapter_model.safetensors"
    if damage == "nan":
        tensors = load_file(path)
        next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, path)
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -9])
    again = train(run)
    assert again.resumed_from == 2 and len(again.history) == 3 and weights(run) == before
    said = unfolded(capsys.readouterr().out)
    assert "checkpoint-000003 cannot be read (adapter_model.safetensors" in said and "going back to checkpoint-" in said
    assert [path.name for path in (run / "damaged").iterdir()] == ["checkpoint-000003"]
    assert [path.name for path in checkpoints(run)] == ["checkpoint-000002", "checkpoint-000003"]


@pytest.mark.parametrize("damage", ["empty", "missing", "config"])
def test_a_finished_runs_adapter_is_written_again(train, run, damage):
    before, path = everything(run / "adapter"), run / "adapter" / "adapter_model.safetensors"
    (run / "adapter" / "notes.txt").write_text("mine")
    if damage == "config":
        (run / "adapter" / "adapter_config.json").write_text("{")
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    train(run)
    assert everything(run / "adapter")["adapter_model.safetensors"] == before["adapter_model.safetensors"]
    assert json.loads((run / "adapter" / "adapter_config.json").read_text())["r"] == 4
    assert (run / "adapter" / "notes.txt").read_text() == "mine"


def test_a_tensor_that_the_model_has_no_place_for_is_named(home, run):
    from lab_utils.finetune.adapter import attach_adapter

    model = attach_adapter(tiny_runs.load_tiny(home / "tiny", "none")[0], RECIPE)
    folder = run / "checkpoint-000003"
    load_adapter(model, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = min(tensors)
    for changed in ({**tensors, name: tensors[name][:-1]}, {**tensors, "lora_C.weight": torch.ones(2)}):
        save_file(changed, folder / "adapter_model.safetensors")
        with pytest.raises(LabError, match=r"28 tensors .* there and .* here" if len(changed) == 28 else "29 tensors"):
            load_adapter(model, folder)
    del tensors[name]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(LabError, match=f"27 tensors and this model's adapter 28; {name} is None there"):
        load_adapter(model, folder)


def test_no_number_that_is_none_is_saved(train, tmp_path, monkeypatch):
    """A gradient that is NaN while the loss is finite: the step is refused, the checkpoint before it is good."""
    backward = trainer.Trainer.__init__

    def spoil(self, *arguments):
        backward(self, *arguments)
        first = self.parameters[0]
        first.register_hook(lambda gradient: gradient * float("nan") if self.model.steps == 1 else gradient)
        self.model.steps = 0
        take_step = self.take_step

        def counted(step):
            self.model.steps = step
            return take_step(step)

        self.take_step = counted

    monkeypatch.setattr(trainer.Trainer, "__init__", spoil)
    with pytest.raises(LabError, match=r"gradient is nan at step 2, with a loss of .*Lower learning_rate"):
        train(tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000001"]
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_with_nan_is_never_a_checkpoint(train, tmp_path, monkeypatch):
    check = trainer.Trainer.check_moves

    def spoil(self, row):
        check(self, row)
        with torch.no_grad():
            self.parameters[5][0, 0] = float("nan")

    monkeypatch.setattr(trainer.Trainer, "check_moves", spoil)
    with pytest.raises(LabError, match=r"adapter is not saved: .*lora_.*\[0, 0\] is nan"):
        train(tmp_path)
    assert checkpoints(tmp_path) == [] and not list(tmp_path.glob(".checkpoint*"))


# Before anything is trained.


def test_a_base_with_a_weight_that_is_none_is_refused(train, home, tmp_path):
    model, tokens = tiny_runs.load_tiny(home / "tiny", "none")
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight[2, 7] = float("inf")
    with pytest.raises(LabError, match=r"base is damaged: model\.layers\.0\.self_attn\.v_proj\.weight\[2, 7\] is inf"):
        train(tmp_path, base=(model, tokens))
    assert checkpoints(tmp_path) == []


def test_the_adapter_of_a_run_that_blew_up_is_not_the_bases_fault(train, home, tmp_path):
    first = train(tmp_path / "first")
    with torch.no_grad():
        next(p for p in first.model.parameters() if p.requires_grad).fill_(float("nan"))
    train(tmp_path / "second", base=(first.model, first.tokenizer))
    assert weights(tmp_path / "second") == weights(tmp_path / "first")


@pytest.mark.parametrize(
    "rows",
    [[{"instruction": "a", "output": "b"}], [{"prompt": "a", "answer": None}], {"test": []}, [], "file.jsonl"],
    ids=str,
)
def test_bad_rows_are_refused_before_the_base_is_loaded(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(training, "load_base", lambda *_, **__: pytest.fail("loaded the base"))
    with pytest.raises(LabError):
        module.finetune(RECIPE, tmp_path / "run", dataset=rows)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("base", [5, "smollm2-135m", (1, 2), (None,), [object(), object(), object()]])
def test_a_base_that_is_no_pair_is_named(tmp_path, base):
    with pytest.raises(LabError, match=r"base=.* is out of range: the pair \(model, tokenizer\)"):
        module.finetune(RECIPE, tmp_path, base=base)


@pytest.mark.parametrize(
    ("recipe", "folder"), [({"rank": 8}, "run"), (None, "run"), (RECIPE, None), (RECIPE, "")], ids=str
)
def test_a_recipe_or_a_folder_that_is_none_is_named(recipe, folder):
    with pytest.raises(LabError, match=r"(recipe|output_dir)=.* is out of range"):
        module.finetune(recipe, folder)


def test_answers_without_a_token_to_learn_are_refused(train, home, tmp_path, monkeypatch):
    """Without the end of turn nothing would be left of an empty answer."""
    monkeypatch.setattr(trainer.Trainer, "supervised", lambda self, batch: 0)
    with pytest.raises(LabError, match="Step 1 has no token to learn"):
        train(tmp_path)


def test_a_step_that_memory_ran_out_in_says_what_takes_less(train, tmp_path, monkeypatch):
    def full(self, step):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(trainer.Trainer, "take_step", full)
    with pytest.raises(LabError, match=r"memory ran out in step 1 .*batch_size \(4\).*gradient_checkpointing"):
        train(tmp_path)


def test_a_step_too_small_is_not_blamed_on_the_base(train, tmp_path, monkeypatch):
    monkeypatch.setattr(type(RECIPE), "learning_rate_at", lambda self, step: 0.0)
    with pytest.raises(LabError, match=r"every lora_B is still zero\. A gradient of .* raise learning_rate"):
        train(tmp_path)


@pytest.fixture
def overflowing(monkeypatch):
    """A function: gradients overflow in so many first steps, under a scaler as float16 has one on a GPU."""

    def overflow(steps: int):
        begin = trainer.Trainer.__init__

        def with_a_scaler(self, *arguments):
            begin(self, *arguments)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
            self.accelerator.scaler = scaler
            self.optimizer = type(self.optimizer)(self.optimizer.optimizer, device_placement=False, scaler=scaler)
            take_step, now = self.take_step, [0]
            self.parameters[0].register_hook(lambda gradient: gradient * (math.inf if now[0] < steps else 1.0))

            def counted(step):
                now[0] = step
                return take_step(step)

            self.take_step = counted

        monkeypatch.setattr(trainer.Trainer, "__init__", with_a_scaler)

    return overflow


def test_a_step_that_float16_left_out_is_no_fault_and_is_on_record(train, tmp_path, overflowing):
    """Loss scaling begins too high, and the first steps may overflow: the first one that is applied tells."""
    overflowing(2)
    run = train(tmp_path)
    assert [row["skipped"] for row in run.history] == [1, 1, 0]
    assert train(tmp_path).history == run.history


def test_not_moving_is_blamed_on_the_step_that_was_applied(train, tmp_path, overflowing, monkeypatch):
    overflowing(2)
    monkeypatch.setattr(type(RECIPE), "learning_rate_at", lambda self, step: 0.0)
    with pytest.raises(LabError, match=r"did not move in step 3: every lora_B is still zero"):
        train(tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000001", "checkpoint-000002"]


def test_ten_steps_in_a_row_that_were_left_out_are_said_once_over_a_resume_too(train, tmp_path, overflowing, capsys):
    overflowing(12)
    recipe = replace(RECIPE, steps=12)
    with tiny_runs.stopping_after(7), pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe=recipe)
    assert "left out" not in unfolded(capsys.readouterr().out)
    train(tmp_path, recipe=recipe)
    said = unfolded(capsys.readouterr().out)
    assert said.count("10 steps in a row were left out, because a gradient overflowed") == 1


# Which model it is.


def test_auto_is_the_model_of_the_base_then_that_of_the_record(home, train, tmp_path, monkeypatch):
    """Decided once: a second call may find another default, as where the first has filled the GPU."""
    pair = tiny_runs.load_tiny(home / "tiny", "none")
    monkeypatch.setattr(starting, "name_of", lambda model: "smollm2-360m")
    auto = replace(RECIPE, model="auto")
    first = train(tmp_path / "given", recipe=auto, base=pair)
    assert first.recipe.model == "smollm2-360m"
    record = json.loads((checkpoints(tmp_path / "given")[-1] / "record.json").read_text())
    assert record["recipe"]["model"] == "smollm2-360m"
    monkeypatch.setattr(starting, "name_of", lambda model: None)
    monkeypatch.setattr(starting, "default_model", lambda: "qwen2.5-0.5b")
    assert train(tmp_path / "given", recipe=auto).recipe.model == "smollm2-360m"
    assert train(tmp_path / "new", recipe=auto).recipe.model == "qwen2.5-0.5b"


def test_another_base_than_the_recipe_names_is_refused(home, train, tmp_path):
    pair = tiny_runs.load_tiny(home / "tiny", "none")
    pair[0].lab_model = "smollm2-360m"
    with pytest.raises(LabError, match=r"recipe\.model is 'smollm2-135m' and base is 'smollm2-360m'"):
        train(tmp_path, base=pair)
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(("asked", "given", "said", "card"), [
    ("nf4", "none", "base is not quantized, and recipe.quantization is 'nf4'", "not quantized"),
    ("none", "nf4", "base is in nf4, and recipe.quantization is 'none'", "nf4"),
    ("none", "fp4", "base is in fp4, and recipe.quantization is 'none'", "fp4"),
])  # fmt: skip
def test_the_record_says_what_the_base_is_stored_in(home, train, tmp_path, capsys, asked, given, said, card):
    """Whatever the recipe says: the run, its record and its card. Asked again, the same call loads the run."""
    base = tiny_runs.load_tiny(home / "tiny", given)
    recipe = replace(RECIPE, quantization=asked, steps=1)
    run = train(tmp_path, recipe=recipe, base=base)
    assert f"Note: {said}. The run trains on the base as it is" in unfolded(capsys.readouterr().out)
    assert run.recipe == replace(recipe, quantization=given)
    record = json.loads((checkpoints(tmp_path)[-1] / "record.json").read_text())
    assert record["recipe"]["quantization"] == given and record["fingerprint"] == run.recipe.fingerprint()
    assert ("base while training", card) in facts.summary(run, None, []).blocks[-1].rows
    assert train(tmp_path, recipe=recipe, base=base).resumed_from == 1
    capsys.readouterr()
    assert train(tmp_path, recipe=run.recipe, base=base).resumed_from == 1
    assert "Note: base" not in unfolded(capsys.readouterr().out)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_how_a_base_is_stored_is_read_off_its_weights(home, quantization):
    """Also of a model with an adapter on it, and after a forward pass, for which LLM.int8 lays its codes out again."""
    model, _ = tiny_runs.load_tiny(home / "tiny", quantization)
    assert stored_as(model) == quantization
    model(input_ids=torch.tensor([[1, 2, 3]]))
    assert stored_as(model) == stored_as(attach_adapter(model, RECIPE)) == quantization


def test_a_base_that_something_else_has_quantized_leaves_the_recipe(home):
    model, tokens = tiny_runs.load_tiny(home / "tiny", "none")
    model.config.quantization_config = {"quant_method": "gptq"}
    assert starting.as_loaded(replace(RECIPE, quantization="nf4"), (model, tokens), True).quantization == "nf4"
    assert starting.as_loaded(RECIPE, None, True) is RECIPE


def test_a_run_goes_on_with_the_optimizer_that_wrote_its_state(train, tmp_path, run, monkeypatch):
    """Decided by the memory that is free, which changes: the state on disk decides from then on."""
    made = []
    build = trainer.build_optimizer
    monkeypatch.setattr(trainer, "build_optimizer", lambda *a, **k: made.append(k["name"]) or build(*a, **k))
    train(run)
    train(tmp_path / "new")
    assert made == ["adamw", None]


# Where it lies.


def test_a_home_is_expanded(train, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert train("~/x").output_dir == tmp_path / "x"
    assert not (tmp_path / "~").exists()


def test_a_file_in_the_way_is_named(train, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(LabError, match=r"run cannot be this run's folder: .*A file is in the way"):
        train(tmp_path / "run")


def test_a_second_process_is_refused_and_the_first_loses_nothing(home, train, tmp_path):
    """The first waits inside its second step until the second was refused."""
    code = (
        "import sys, pathlib, tiny_runs\n"
        "from dataclasses import replace\n"
        "from lab_utils.finetune import run as finetune, trainer\n"
        "take_step = trainer.Trainer.take_step\n"
        "def wait(self, step):\n"
        "    if step == 1: print('training', flush=True); sys.stdin.readline()\n"
        "    return take_step(self, step)\n"
        "trainer.Trainer.take_step = wait\n"
        "home, folder = map(pathlib.Path, sys.argv[1:])\n"
        "recipe = replace(tiny_runs.RECIPE, quantization='none', gradient_checkpointing=False, max_length=128)\n"
        "with tiny_runs.as_tiny(home): finetune.finetune(recipe, folder, progress=False)\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, home, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}"},
    )  # fmt: skip
    assert "training" in first.stdout.readline()
    for options in ({}, {"resume": False}, {"recipe": replace(RECIPE, seed=1)}):
        with pytest.raises(LabError, match="run is in use: another process trains there"):
            train(tmp_path / "run", **options)
    first.stdin.write("\n")
    first.communicate()
    assert first.returncode == 0
    assert weights(tmp_path / "run") == weights(home / "run")
    assert train(tmp_path / "run").resumed_from == 3


@pytest.mark.training
def test_several_processes_take_one_lock_and_are_refused_together(home, train, tmp_path):
    """torchrun with two ranks into a folder that this process holds: both say so, none waits for the other.

    At their end they are in no group: a process that ends inside one is now and then aborted by gloo's threads.
    """
    from lab_utils.finetune.run_lock import held

    code = (
        "import atexit, os, sys, pathlib, tiny_runs, torch\n"
        "from lab_utils.errors import LabError\n"
        "home, name = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "end = home / f\"end-{os.environ['RANK']}\"\n"
        "atexit.register(lambda: end.write_text(f'in a group: {torch.distributed.is_initialized()}'))\n"
        "try: tiny_runs.train(home, name, quantization='none')\n"
        "except LabError as error: (home / f\"{name}-{os.environ['RANK']}.txt\").write_text(str(error))\n"
    )
    (home / "several.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def start():
        done = subprocess.run([*command, home / "several.py", home, "two"], capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        assert [(home / f"end-{rank}").read_text() for rank in range(2)] == ["in a group: False"] * 2
        return [path.read_text() for path in sorted(home.glob("two-*.txt"))]

    with held(home / "two"):
        said = start()
    assert len(said) == 2 and said[0] == said[1] and "is in use" in said[0]
    for path in home.glob("two-*.txt"):
        path.unlink()
    assert start() == [] and len(checkpoints(home / "two")) == 2  # and now they are alone


def test_a_call_that_was_interrupted_goes_on_in_the_same_process(train, home, tmp_path):
    with pytest.raises(KeyboardInterrupt), tiny_runs.stopping_after(2):
        train(tmp_path)
    assert train(tmp_path).resumed_from == 2
    assert weights(tmp_path) == weights(home / "run")
