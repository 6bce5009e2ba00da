"""The lab's fine-tune on Ray Train: N processes on this machine or on a cluster, restarted when one is lost.

    .venv/bin/python deploy/cluster/ray_finetune.py --output runs/ray --workers 2 --steps 20
    ray start --head          # on one machine; it prints what to run on the others
    .venv/bin/python deploy/cluster/ray_finetune.py --output /shared/runs/ray --workers 8 --gpu --address auto \
        --model qwen2.5-1.5b --batch-size 64

Every machine needs this lab and its model (`make lab`), in the same folder; `--output` is a folder that all of them
share. A stopped run resumes from its last checkpoint when it is started again. Needs the lab's extra `ray`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from lab_utils.errors import LabError, at_least, command_line
from lab_utils.files import user_path
from lab_utils.finetune import finetune
from lab_utils.finetune.command import FLAGS, read_command
from lab_utils.finetune.run_folders import set_aside
from lab_utils.sweep.on_ray import connect, load_ray

LOST = 3  # how many lost processes or machines are replaced before the run stops


def train(settings: dict) -> None:
    """Run in each process: Ray has set RANK, WORLD_SIZE and the process group, where accelerate looks for them."""
    finetune(settings["recipe"], **settings["options"], progress=False)


@command_line(flags=FLAGS | {"workers": "--workers"})
def main(arguments: list[str] | None = None) -> int:
    """Start Ray or join it, train, and print where the adapter is."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All other flags: python -m lab_utils.finetune --help"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes, over all machines (default 2)")
    parser.add_argument("--gpu", action="store_true", help="one GPU per process")
    parser.add_argument("--address", help="of a running Ray: auto, or 10.0.0.1:6379; default: start Ray here")
    ours, others = parser.parse_known_args(arguments)
    at_least(1, workers=ours.workers)
    recipe, options = read_command(others)
    for name in ("output_dir", "fsdp"):  # a worker's current folder is Ray's
        options[name] = options[name] and str(user_path(options[name]).resolve())
    if not options.pop("resume"):  # once, and not again in a process that replaces a lost one
        set_aside(Path(options["output_dir"]))
    ray = load_ray()
    connect(ray, ours.workers, ours.address)
    try:
        run({"recipe": recipe, "options": options}, ours.workers, ours.gpu)
    finally:
        ray.shutdown()
    print(f"{recipe.steps} steps on {ours.workers} process(es). Adapter: {options['output_dir']}/adapter")
    return 0


def run(settings: dict, workers: int, gpu: bool) -> None:
    """Let Ray Train start the processes and restart lost ones."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    with tempfile.TemporaryDirectory() as folder:  # for Ray's own files: the checkpoints are the lab's
        trainer = TorchTrainer(
            train,
            train_loop_config=settings,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=LOST)),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise LabError(f"Training stopped: {why} The same command resumes from the last checkpoint.") from error


if __name__ == "__main__":
    sys.exit(main())
