"""What other programs need to serve an export: a Modelfile for Ollama, a command for vLLM; neither is run here."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from ..errors import LabError, whole
from ..lora.folders import read_files
from ..tasks import Task
from ..tasks.registry import find_task

CHATML = (  # Ollama's templates are Go's, not Jinja; this is what SmolLM2's chat template makes of one turn
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"
)


def modelfile(gguf: str | Path, task: str | Task, template: str = CHATML) -> str:
    """The text of a Modelfile with which `ollama create NAME -f Modelfile` takes over a merged GGUF file.

    Parameters
    ----------
    gguf : path of the merged model's file, as it is seen from the Modelfile's folder
    task : str, a name in `TASKS`, or a Task: its system message becomes the model's
    template : str, the chat template in Go's language

    Raises
    ------
    LabError
        The path has a line break, or a text has three quotes in a row, which end a text in a Modelfile.

    Source: Modelfile reference, https://docs.ollama.com/modelfile.md
    """
    found, name = find_task(task), str(gguf)
    if "\n" in name or any('"""' in text for text in (found.system, template)):
        raise LabError('A Modelfile cannot hold a path with a line break, or a text with """.')
    here = name if name.startswith(("/", "./", "../")) else f"./{name}"
    return (
        f'FROM {here}\nTEMPLATE """{template}"""\nSYSTEM """{found.system}"""\nPARAMETER temperature 0\n'
        f"PARAMETER num_predict {found.max_new_tokens}\n"
    )


def vllm_command(base: str | Path, adapters: Mapping[str, str | Path]) -> str:
    """The line that starts vLLM with a base in transformers' layout and adapters in peft's, each a model by its name.

    All adapters may be used in one batch.

    Parameters
    ----------
    base : path of a folder, as `merging.export_merged` writes it, or owner/name on the hub
    adapters : dict name -> folder of a peft adapter; the largest rank among them is read from their configs

    Raises
    ------
    LabError
        There is no adapter, a name holds "=" or a space, or a folder is not an adapter.

    Source: LoRA adapters in vLLM's documentation, https://docs.vllm.ai/en/latest/features/lora/
    """
    if not adapters:
        raise LabError("There is no adapter to serve: give a dict of names and folders.")
    wrong = next((name for name in adapters if not name or "=" in name or any(map(str.isspace, name))), None)
    if wrong is not None:
        raise LabError(f"{wrong!r} cannot be an adapter's name in vLLM's command: leave out = and spaces.")
    configs = [read_files(folder).config for folder in adapters.values()]
    rank = max(whole("r of adapter_config.json", config["r"]) for config in configs)
    parts = ["vllm", "serve", str(base), "--enable-lora", "--max-loras", str(len(adapters))]  # in one batch; default 1
    parts += ["--max-lora-rank", str(_allowed(rank)), "--lora-modules"]
    return shlex.join([*parts, *(f"{name}={folder}" for name, folder in adapters.items())])


def _allowed(rank: int) -> int:
    """The smallest rank that vLLM's option takes and that holds this one."""
    ranks = (8, 16, 32, 64, 128, 256, 320, 512)
    if rank > ranks[-1]:
        raise LabError(f"vLLM serves adapters up to rank {ranks[-1]}, and one of these has {rank}: merge it.")
    return next(one for one in ranks if one >= rank)
