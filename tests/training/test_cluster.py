"""Several processes train what one trains, sharded or not; the files in deploy/cluster start them as they say."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_runs
import torch
from tiny_runs import CONFIG, EXACT, load_tiny

from lab_utils.device import Device
from lab_utils.errors import LabError
from lab_utils.finetune.command import main
from lab_utils.finetune.fsdp import check_shardable, read_plugin
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.run_folders import checkpoints
from lab_utils.models.registry import decide_place, quantization_config

CLUSTER = CONFIG.parent
SLURM = CLUSTER / "finetune.slurm"
BF16 = Device("cuda", "any", "bfloat16", "")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs of two processes that `tiny_runs` names, and `one`, `one-plain` of this process."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_runs.save_tiny(folder / "tiny")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, tiny_runs.__file__, str(folder)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CLUSTER.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    tiny_runs.train(folder, "one")
    tiny_runs.train(folder, "one-plain", quantization="none")
    return folder


def losses(folder: Path) -> list[float]:
    record = json.loads((checkpoints(folder)[-1] / "record.json").read_text())
    return [row["loss"] for row in record["history"]]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


# Two processes.


@pytest.mark.training
@pytest.mark.parametrize(
    ("several", "one"), [("ddp", "one"), ("sharded", "one"), ("resumed", "one"), ("plain", "one-plain")]
)
def test_two_processes_train_what_one_trains(runs, several, one):
    """In float32 losses and weights differ by rounding alone: a wrong share of a gradient would be far from that."""
    assert len(losses(runs / one)) == 3
    assert losses(runs / several) == pytest.approx(losses(runs / one), rel=2e-6)
    ours, theirs = adapter(runs / several), adapter(runs / one)
    assert ours.keys() == theirs.keys()
    assert max(float(tensor.abs().max()) for name, tensor in theirs.items() if "lora_B" in name) > 1e-3
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=2e-6)


@pytest.mark.training
def test_a_sharded_run_that_was_stopped_ends_in_the_same_bytes(runs):
    """The checkpoint holds whole tensors, moments too, and they are cut again as they were."""
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        whole, resumed = (runs / run / "adapter" / name for run in ("sharded", "resumed"))
        assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.training
def test_each_process_holds_half(runs):
    """Of every parameter, packed weights too: both halves together are the whole, and none is kept twice."""
    first, second = (json.loads((runs / f"held-{rank}.json").read_text()) for rank in (0, 1))
    assert sum("base_layer.weight" in name for name in first) == 2 * 7
    for name, (here, whole) in first.items():
        assert here + second[name][0] == whole and here >= whole // 2, name
    # q_proj: 64 × 64 weights of 4 bits
    assert first["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"] == [1024, 2048]


@pytest.mark.training
def test_a_sharded_runs_adapter_loads_in_peft_alone(runs):
    from peft import PeftModel

    tokens = torch.arange(20).reshape(2, 10)
    logits = {}
    for name in ("one", "sharded", None):
        model, _ = load_tiny(runs / "tiny")
        model = PeftModel.from_pretrained(model, runs / name / "adapter") if name else model
        with torch.no_grad():
            logits[name] = model.eval()(tokens).logits
    torch.testing.assert_close(logits["sharded"], logits["one"], rtol=0, atol=1e-5)
    assert float((logits["one"] - logits[None]).abs().max()) > 1e-3


# What is sharded, and by which settings.


@pytest.mark.parametrize(("device", "dtype"), [(BF16, torch.bfloat16), (EXACT, torch.float32)])
def test_one_dtype_for_compute_storage_and_travel(device, dtype):
    """What bitsandbytes' and peft's documents ask for; what they leave open is that FSDP casts what is of another."""
    config, plugin = quantization_config("nf4", device, sharded=True), read_plugin(CONFIG, device)
    assert config.bnb_4bit_quant_storage == config.bnb_4bit_compute_dtype == dtype
    assert plugin.mixed_precision_policy.param_dtype == dtype
    assert plugin.mixed_precision_policy.reduce_dtype == torch.float32
    assert quantization_config("nf4", device).bnb_4bit_quant_storage == torch.uint8


def test_each_process_loads_onto_its_own_gpu_what_is_not_to_be_sharded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert decide_place("cuda", sharded=False) == 3
    assert decide_place("cuda", sharded=True) == decide_place("cpu", sharded=False) == "cpu"


def test_the_files_settings_are_those_of_accelerate_launch(monkeypatch):
    """`--fsdp CONFIG` under torchrun and `accelerate launch --config_file CONFIG` are two ways to say the same."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(CONFIG), "x.py"]))
    assert arguments.use_fsdp and arguments.mixed_precision == "bf16"
    from_file = read_plugin(CONFIG, BF16)
    for name in [name for name in os.environ if name.startswith("FSDP_")]:
        monkeypatch.delenv(name)
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    launched = read_plugin(None, BF16)
    assert launched.fsdp_version == 2 and launched.reshard_after_forward is True
    for field in fields(launched):
        assert getattr(from_file, field.name) == getattr(launched, field.name), field.name


def test_accelerate_knows_every_key_of_the_file():
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    known = {action.dest for action in launch_command_parser()._actions}
    assert set(ClusterConfig.from_yaml_file(str(CONFIG)).fsdp_config) <= known


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("fsdp_version: 2", "fsdp_version: 1", "FSDP1 is not supported"),
        ("fsdp_reshard_after_forward", "fsdp_reshard", "unexpected keyword argument 'reshard'"),
        ("num_machines", "machines", r"unknown keys \(\['machines'\]\)"),
        ("fsdp_config:", "fsdp_config: [", r"other\.yaml is refused: while parsing"),
    ],
)
def test_other_settings_are_refused(tmp_path, old, new, words):
    text = CONFIG.read_text()
    assert old in text
    (tmp_path / "other.yaml").write_text(text.replace(old, new))
    with pytest.raises(LabError, match=words):
        read_plugin(tmp_path / "other.yaml", EXACT)


def test_what_cannot_be_sharded_is_refused(runs_model, tmp_path):
    with pytest.raises(LabError, match=r"nowhere\.yaml"):
        read_plugin(tmp_path / "nowhere.yaml", EXACT)
    with pytest.raises(LabError, match="T4 computes in float16"):
        read_plugin(CONFIG, Device("cuda", "T4", "float16", ""))
    model, _ = load_tiny(runs_model)
    with pytest.raises(LabError, match=r"q_proj.weight is stored in torch.uint8.*sharded=True"):
        check_shardable(model, torch.float32)
    check_shardable(load_tiny(runs_model, sharded=True)[0], torch.float32)


@pytest.fixture
def runs_model(tmp_path):
    tiny_runs.save_tiny(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_one_process_has_nobody_to_share_with(runs_model, tmp_path, capsys):
    assert main(["--output", str(tmp_path / "alone"), "--fsdp", str(CONFIG)]) == 2
    assert "One process has nobody to share with" in capsys.readouterr().err
    assert "ACCELERATE_USE_FSDP" not in os.environ


# SLURM, with stand-ins for its commands: two machines that are both this one.

SRUN = """#!/bin/bash
echo "$@" >> "$PLACE/srun"
while [[ $1 == --* ]]; do shift; done
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
trap 'kill $first $second' TERM
echo $$ > "$PLACE/step"
wait $first && wait $second
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo 127.0.0.1; echo 127.0.0.1; exit; fi
echo "$@" >> "$PLACE/scontrol"
kill "$(< "$PLACE/step")"
"""
WORKER = """
import json, os, sys
import torch, torch.distributed as dist
dist.init_process_group("gloo")
ranks = torch.tensor([2.0 ** dist.get_rank()])
dist.all_reduce(ranks)
with open(f"rank-{dist.get_rank()}", "w") as file:
    json.dump([os.environ["SLURM_NODEID"], ranks.item(), os.environ["OMP_NUM_THREADS"], *sys.argv[1:]], file)
dist.destroy_process_group()
"""


@pytest.fixture
def slurm(tmp_path):
    """A function that starts the script as SLURM does, in a folder whose `lab_utils.finetune` is WORKER."""
    commands = tmp_path / "bin"
    (tmp_path / "lab_utils").mkdir()
    commands.mkdir()
    (tmp_path / "lab_utils" / "__init__.py").touch()
    (tmp_path / "lab_utils" / "finetune.py").write_text(WORKER)
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    started = []

    def start(*arguments, **environment):
        given = {
            "PATH": f"{commands}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"), "PLACE": str(tmp_path),
            "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": str(40000 + os.getpid()), "SLURM_CPUS_PER_TASK": "6",
            "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]", "PYTHON": sys.executable, **environment,
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", str(SLURM), *arguments], env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.stdout.close()


def test_bash_can_read_the_script():
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    directives = [line for line in SLURM.read_text().splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --ntasks-per-node=1" in directives and "#SBATCH --requeue" in directives


def test_four_processes_on_two_machines_meet(slurm, tmp_path):
    """The whole script, torchrun's rendezvous and gloo included; one and the same folder for all, and all flags."""
    process = slurm("--steps", "2", "--task", "bookings", PROCESSES="2")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    seen = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("rank-*")}
    assert sorted(seen) == ["rank-0", "rank-1", "rank-2", "rank-3"]
    assert sorted(node for node, *_ in seen.values()) == ["0", "0", "1", "1"]
    flags = ["--output", f"runs/slurm-{40000 + os.getpid()}", "--steps", "2", "--task", "bookings"]
    assert all(rest == [1.0 + 2 + 4 + 8, "3", *flags] for _, *rest in seen.values())


def test_before_the_time_is_over_the_job_goes_back_into_the_queue(slurm, tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/bash\nexec sleep 60\n')
    stub.chmod(0o755)
    process = slurm(PYTHON=str(stub))
    end = time.monotonic() + 30
    while not (tmp_path / "step").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=30)
    assert (tmp_path / "scontrol").read_text() == f"requeue {40000 + os.getpid()}\n"
    assert "goes on from the last checkpoint" in output and process.returncode != 0


def test_a_failed_training_fails_the_job(slurm, tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/bash\nexit 3\n')
    stub.chmod(0o755)
    process = slurm(PYTHON=str(stub), OUTPUT="elsewhere", SLURM_GPUS_ON_NODE="8")
    assert "8 process(es) each" in process.communicate(timeout=30)[0]
    assert process.returncode == 3
    flags = (tmp_path / "srun").read_text()
    assert "--nproc_per_node 8" in flags and "--output elsewhere" in flags and "--kill-on-bad-exit=1" in flags


# Ray Train. Two of its workers on two cores take 100 s of processor time, most of it to start Ray: see the README.


@pytest.fixture(scope="module")
def ray_finetune():
    """The script as a module."""
    pytest.importorskip("ray.train.torch")
    spec = importlib.util.spec_from_file_location("ray_finetune", CLUSTER / "ray_finetune.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.training
def test_ray_train_takes_the_settings_and_trains_the_same(ray_finetune, runs, tmp_path):
    """In Ray Train's local mode, which it enters for 0 workers: in this process, without Ray's own ones."""
    options = {"output_dir": str(tmp_path / "ray"), "fsdp": None}
    with tiny_runs.as_tiny(runs):
        ray_finetune.run({"recipe": tiny_runs.RECIPE, "options": options}, workers=0, gpu=False)
    assert losses(tmp_path / "ray") == losses(runs / "one")


def test_rays_command_line(ray_finetune, monkeypatch, tmp_path, capsys):
    """Paths are made absolute, the recipe's flags are the lab's, and an old run is set aside once, here."""
    seen = []
    monkeypatch.setattr(ray_finetune, "load_ray", lambda: SimpleNamespace(shutdown=lambda: seen.append("down")))
    monkeypatch.setattr(ray_finetune, "connect", lambda ray, workers, address: seen.append((workers, address)))
    monkeypatch.setattr(ray_finetune, "run", lambda *settings: seen.append(settings))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "adapter").mkdir(parents=True)
    flags = ["--output", "out", "--workers", "3", "--rank", "4", "--address", "auto", "--restart", "--fsdp", "my.yaml"]
    assert ray_finetune.main(flags) == 0
    options = {"output_dir": str(tmp_path / "out"), "fsdp": str(tmp_path / "my.yaml")}
    assert seen == [(3, "auto"), ({"recipe": Recipe(rank=4), "options": options}, 3, False), "down"]
    assert (tmp_path / "out" / "previous" / "adapter").exists()
    for flag in ("workers", "rank"):
        assert ray_finetune.main(["--output", "out", f"--{flag}", "0"]) == 2
        assert f"--{flag} 0 is out of range" in capsys.readouterr().err
    assert len(seen) == 3
