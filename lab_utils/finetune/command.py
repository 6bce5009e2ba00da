"""QLoRA fine-tuning on the command line: the same training as a page's, without a notebook.

    python -m lab_utils.finetune --output runs/bookings --rank 16 --steps 100
    python -m lab_utils.finetune --data tickets.csv --prompt message --answer category --output runs/tickets
    torchrun --nproc_per_node 2 -m lab_utils.finetune --output runs/two-processes

How good it is: python -m lab_utils.evaluate runs/tickets
Was it worth it: python -m lab_utils.report_card runs/tickets
On several GPUs or machines: deploy/cluster/README.md.
"""

import argparse
import os
import re
from dataclasses import fields, replace
from pathlib import Path

from ..errors import LabError, command_line
from ..models import MODELS
from ..outputs import print_anything
from ..tasks import add_arguments, from_arguments
from ..tasks.arguments import FLAGS as DATA_FLAGS
from ..tasks.arguments import command_parser
from ..tasks.file_sources import KINDS
from .recipe import Recipe
from .run import finetune

RECIPE_FLAGS = {one.name: f"--{one.name.replace('_', '-')}" for one in fields(Recipe)}
FLAGS = RECIPE_FLAGS | DATA_FLAGS | {"output_dir": "--output", "resume=False": "--restart"}
HELP = {  # where a command's words are other than Recipe's
    "model": f"one of {', '.join(MODELS)}, a folder with a model in it, owner/name on the Hugging Face hub, or auto: "
             "the embedded model",
    "task": "bookings, style or dolly, the tasks of the course; for your own data give --data",
    "target_modules": "all-linear, attention, qv or mlp, or names of modules with commas between",
    "train_examples": "a whole number >= 1 or none, use the first so many examples (none: all)",
}  # fmt: skip
KINDS_OF_VALUES = {"bool": "true or false", "int": "a whole number", "float": "a number"}


def read_command(arguments: list[str] | None = None) -> tuple[Recipe, dict]:
    """The command line, flags for every field of Recipe and for your own data: the recipe, and `finetune`'s arguments.

    Raises
    ------
    LabError
        A value is out of its range, or the data are broken.
    """
    values = vars(_parser().parse_args(arguments))
    options = {"output_dir": values.pop("output"), "resume": not values.pop("restart"), "fsdp": values.pop("fsdp")}
    task, data = values["task"], values["data"]
    if data and task:
        raise LabError("--data and --task are two tasks: give one of them.")
    if task and Path(task).suffix.lower() in KINDS:
        raise LabError(f"--task {task} is a file: give it as your own data, --data {task}.")
    own = from_arguments(values)
    recipe = Recipe.from_text({name: text for name, text in values.items() if text is not None})
    return (replace(recipe, task=own) if own else recipe), options


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "lab_utils.finetune")
    parser.add_argument("--output", required=True, help="folder of this run")
    parser.add_argument("--restart", action="store_true", help="start again; the old run is moved to previous/")
    parser.add_argument("--fsdp", metavar="CONFIG", help="shard the run over the processes, by this accelerate config")
    said = described(Recipe.__doc__ or "") | HELP
    for one in fields(Recipe):
        text = re.sub(r"^(bool|int|float)\b", lambda found: KINDS_OF_VALUES[found[1]], said.get(one.name, ""))
        text = f"{text} (default: {str(one.default).lower()})"
        parser.add_argument(RECIPE_FLAGS[one.name], metavar="VALUE", help=text.strip().replace("%", "%%"))
    add_arguments(parser)
    return parser


def described(docstring: str) -> dict[str, str]:
    """What a docstring says of each parameter, in one line each.

    >>> described('''Make tea.
    ...
    ...     Parameters
    ...     ----------
    ...     cups : int >= 1
    ...     sugar : bool, put some
    ...         into each
    ... ''')
    {'cups': 'int >= 1', 'sugar': 'bool, put some into each'}
    """
    found: dict[str, str] = {}
    section = docstring.partition("----------\n")[2].partition("\n\n")[0]
    margin = len(section) - len(section.lstrip(" "))
    for line in section.splitlines():
        if match := re.match(rf" {{{margin}}}(\w+) : (.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif line.strip():
            found[name] += f" {line.strip()}"
    return found


@command_line(flags=FLAGS)
def main(arguments: list[str] | None = None) -> int:
    """Train by the command line's recipe, and say how it ended."""
    print_anything()
    recipe, options = read_command(arguments)
    run = finetune(recipe, **options)
    if int(os.environ.get("RANK", 0)) == 0:
        world = int(os.environ.get("WORLD_SIZE", 1))
        print(f"{len(run.history)} steps on {world} process(es), last loss {run.history[-1]['loss']:.4f}, "
              f"{run.seconds:.0f} s of training. Adapter: {run.adapter_dir}")
    return 0
