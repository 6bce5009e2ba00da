"""QLoRA fine-tuning on the command line: the same training as a page's, without a notebook.

    python -m lab_utils.finetune --output runs/bookings --rank 16 --steps 100
    python -m lab_utils.finetune --data tickets.csv --prompt message --answer category --output runs/tickets
    torchrun --nproc_per_node 2 -m lab_utils.finetune --output runs/two-processes

On several GPUs or machines: deploy/cluster/README.md.
"""

import argparse
import os
from dataclasses import fields, replace

from ..errors import LabError, command_line
from ..tasks import add_arguments, from_arguments
from .recipe import Recipe
from .run import finetune


def read_command(arguments: list[str] | None = None) -> tuple[Recipe, dict]:
    """The command line, flags for every field of Recipe and for your own data: the recipe, and `finetune`'s arguments.

    Raises
    ------
    LabError
        A value is out of its range, or the data are broken.
    """
    parser = argparse.ArgumentParser(prog="python -m lab_utils.finetune", description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="folder of this run")
    parser.add_argument("--restart", action="store_true", help="start again; the old run is moved to previous/")
    parser.add_argument("--fsdp", metavar="CONFIG", help="shard the run over the processes, by this accelerate config")
    for one in fields(Recipe):
        parser.add_argument(f"--{one.name.replace('_', '-')}", help=f"default {one.default}")
    add_arguments(parser)
    values = vars(parser.parse_args(arguments))
    options = {"output_dir": values.pop("output"), "resume": not values.pop("restart"), "fsdp": values.pop("fsdp")}
    if values["data"] and values["task"]:
        raise LabError("--data and --task are two tasks: give one of them.")
    own = from_arguments(values)
    recipe = Recipe.from_text({name: text for name, text in values.items() if text is not None})
    return (replace(recipe, task=own) if own else recipe), options


@command_line
def main(arguments: list[str] | None = None) -> int:
    """Train by the command line's recipe, and say how it ended."""
    recipe, options = read_command(arguments)
    run = finetune(recipe, **options)
    if int(os.environ.get("RANK", 0)) == 0:
        world = int(os.environ.get("WORLD_SIZE", 1))
        print(f"{len(run.history)} steps on {world} process(es), last loss {run.history[-1]['loss']:.4f}, "
              f"{run.seconds:.0f} s of training. Adapter: {run.adapter_dir}")
    return 0
