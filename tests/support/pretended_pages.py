"""Pages on a pretended card, in a separate process: `python pretended_pages.py T4 FOLDER 07 08 …`.

Each page's cells run one after the other in fast mode, with a stand-in of the embedded model, small enough for a test;
on a machine in TWICE those of a page in AGAIN a second time, as somebody does who runs the page again. What a cell ends
with is drawn, as a notebook draws it. A line of JSON says what became of each page.
"""

import ast
import contextlib
import gc
import io
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

NEVER_ASK = {"01", "02", "03", "04", "05", "06", "11", "13"}  # pages that stay on the processor, GPU or not
TWICE = {"2xT4"}
AGAIN = {"00", "07", "08", "09", "10", "14", "15", "16"}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
WITH_PICTURES = {"2xT4"}  # the tiny painter and Keras' Gemma compute in float32 on every card
ADAPTED = {"00", "10", "15", "16", "A"}  # pages that load the adapters that come with the course
ABOUT_THE_REAL_MODEL = {"A"}  # its assertions say what the real weights do
NEW_TOKENS = 3
LOOKED_AT = {"layers.15": "layers.1"}  # the layer in the middle of the real model, and of the thin stand-in


def save_stand_in(cache: Path, tokenizer_from: Path) -> None:
    """Write a Llama of random weights where the embedded model is looked for, if it is not there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lab_utils.models.embedded import FOLDER

    folder = cache / FOLDER
    if folder.exists():
        return
    settings = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 49_152, "tie_word_embeddings": True, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.1,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16).save_pretrained(folder)
    for name in TOKENIZER:
        if (tokenizer_from / name).exists():
            (folder / name).write_bytes((tokenizer_from / name).read_bytes())


def save_adapters(data: Path) -> None:
    """Adapters for the stand-in, in the place of those that come with the course; their Bs are random."""
    import torch

    from lab_utils import finetune, models
    from lab_utils.quiet import quiet

    base, _ = models.load_base("smollm2-135m", device="cpu", verbose=False)
    for task in ("bookings", "style"):
        with quiet():
            model = finetune.attach_adapter(base, finetune.Recipe(task=task))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        model.save_pretrained(data / "adapters" / task)
        (data / "adapters" / task / "record.json").write_text(json.dumps({"recipe": {"task": task}}))
        base = finetune.take_off_adapter(model)


def answer_briefly() -> None:
    """A stand-in never ends its answers: let it write a few tokens."""
    from transformers import GenerationMixin

    generate = GenerationMixin.generate

    def cut_short(self, *arguments, generation_config, **options):
        generation_config.max_new_tokens = min(generation_config.max_new_tokens, NEW_TOKENS)
        return generate(self, *arguments, generation_config=generation_config, **options)

    GenerationMixin.generate = cut_short


def use_small_records(data: Path) -> None:
    """What pages read of the real model's records, in the stand-in's shapes."""
    from types import SimpleNamespace

    import torch

    from lab_utils import preferences, recorded
    from lab_utils.serving import adapter_records

    update = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    recorded.weight_update = lambda: SimpleNamespace(delta={"model.layers.1.self_attn.v_proj": update})
    adapter_records.DATA = data
    _, scored = preferences.recorded_start()
    preferences.recorded_start = lambda rank=4: (data / "adapters" / "bookings", scored)


def draw_small_pictures() -> None:
    """Page 12's painter with few channels, which paints in few steps and learns from few pictures at a time."""
    from lab_utils.beyond_text import painter, painter_training

    painter.CHANNELS = (8, 16, 16)
    painter.paint.__kwdefaults__["steps"] = 2
    painter_training.first_pictures.__defaults__ = (1, painter.SIZE)
    painter_training.PainterRecipe.__init__.__kwdefaults__["batch_size"] = 4


def run_page(path: Path, card: str) -> dict:
    """Run a page's cells; what failed, what it printed, its seconds of processor time, and what the card held."""
    from lab_utils.notebook.notebook_files import read_notebook
    from lab_utils.pretended.places import MEMORY

    gc.collect()  # what an earlier page has left
    for memory in MEMORY:
        memory.reset_peak()
    names, failed, said, began = {"__name__": "__main__", "display": draw}, [], io.StringIO(), time.process_time()
    environment = dict(os.environ)
    held = MEMORY[0].peak
    number = path.stem.partition("_")[0]
    cells = [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(said), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        for place, cell in [*enumerate(cells, 1)] * (1 + (card in TWICE and number in AGAIN)):
            source = cell.source
            if "exercise" in cell.metadata.get("tags", []):  # the stub, for later cells, without its check
                source = source.partition("\nchecks.check")[0]
            before = time.process_time()
            try:
                source = prepared(source, card, number in ADAPTED)
                run_cell(source, f"cell {place}", names, number in ABOUT_THE_REAL_MODEL)
            except Exception as error:
                failed.append(describe(place, error))
            print(f"[cell {place}: {time.process_time() - before:.1f} s]")
    os.environ.clear()
    os.environ.update(environment)  # page A hides the card
    return {
        "page": number, "card": card, "failed": failed, "said": said.getvalue(), "cells": len(cells),
        "seconds": time.process_time() - began, "card_bytes": MEMORY[0].peak - held,
        "warned": sorted({str(one.message) for one in heard}),
    }  # fmt: skip


def prepared(source: str, card: str, thin: bool) -> str:
    """A cell's Python: no magics; nothing where an extra is missing; a process that it starts has the card too."""
    from lab_utils.notebook.extras import needs, skipped

    if skipped(source) or (card not in WITH_PICTURES and {"pictures", "keras"} & {*needs(source)}):
        return ""
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    inner = '"-m", "lab_utils.finetune"'
    source = "\n".join(lines).replace(inner, f'"-m", "lab_utils.pretended", "{card}", "lab_utils.finetune"')
    for real, ours in LOOKED_AT.items() if thin else ():
        source = source.replace(real, ours)
    return source


def run_cell(source: str, name: str, names: dict, drop_assertions: bool) -> None:
    """Run a cell, and draw what its last line is."""
    tree = ast.parse(source)
    if drop_assertions:
        tree.body = [node for node in tree.body if not isinstance(node, ast.Assert)]
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if last is not None:
        draw(eval(compile(ast.Expression(last.value), name, "eval"), names))


def draw(value) -> None:
    """What a notebook makes of a value: the picture of a figure, all of a widget's representations, else its text."""
    if hasattr(value, "_repr_mimebundle_"):
        value._repr_mimebundle_()
    elif hasattr(value, "savefig"):
        value.savefig(io.BytesIO())
    elif value is not None:
        print(repr(value))


def describe(place: int, error: Exception) -> str:
    """The cell, the error, and the lab's lines on the way to it."""
    frames = [
        f"{Path(one.filename).name}:{one.lineno} {one.line}" for one in traceback.extract_tb(error.__traceback__)
        if "lab_utils" in one.filename or one.filename.startswith("cell")
    ]  # fmt: skip
    return f"cell {place}: {type(error).__name__}: {str(error)[:400]}  <- {' <- '.join(reversed(frames[1:]))}"


def explorers_on_the_card() -> dict:
    """Explorers and plots of tensors on the card, in its dtype: each says what it says of them on the CPU."""
    import torch

    from lab_utils import plots
    from lab_utils.device import find_device
    from lab_utils.widgets.code_explorer import CodeExplorer
    from lab_utils.widgets.lora_explorer import LoraExplorer
    from lab_utils.widgets.merge_explorer import MergeExplorer
    from lab_utils.widgets.quantizer_explorer import QuantizerExplorer
    from lab_utils.widgets.rank_explorer import RankExplorer

    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    there = weight.to(find_device().torch_dtype).cuda().requires_grad_()
    makers = {
        "rank": lambda w: RankExplorer({"w": w}), "code": lambda w: CodeExplorer({"w": w}),
        "quantizer": lambda w: QuantizerExplorer({"w": w}), "merge": lambda w: MergeExplorer(w, w, rank=2),
        "lora": lambda w: LoraExplorer(w, [(w[:2], w[:, :2])], alpha=2),
        "matrices": lambda w: plots.matrices({"w": w}), "histograms": lambda w: plots.histograms({"w": w}, "w", 1.0),
    }  # fmt: skip
    failed = []
    for name, make in makers.items():
        try:
            one, other = make(weight), make(there)
            draw(other)
            if getattr(one, "_moved", ()) and one.summary() != other.summary():
                failed.append(f"{name}: {other.summary()} instead of {one.summary()}")
        except Exception as error:
            failed.append(f"{name}: {describe(0, error)}")
    return {"page": "explorers", "failed": failed}


def main(card: str, folder: Path, pages: list[str]) -> None:
    """Pretend the card and run the pages."""
    from lab_utils.folders import NOTEBOOKS
    from lab_utils.models.embedded import embedded_folder
    from lab_utils.pretended import enable

    real = embedded_folder()
    enable(card)
    answer_briefly()
    os.environ["LORA_LAB_CACHE"] = str(folder / "cache")
    save_stand_in(folder / "cache", real)
    for page in pages:
        if page == "explorers":
            print(json.dumps(explorers_on_the_card()), flush=True)
            continue
        if page == "12":
            draw_small_pictures()
        if page in ADAPTED:
            if not (folder / "data").exists():
                save_adapters(folder / "data")
            use_small_records(folder / "data")
        [path] = NOTEBOOKS.glob(f"{page}_*.ipynb")
        os.environ["LORA_LAB_RUNS"] = str(folder / f"runs-{card}-{page}")
        print(json.dumps(run_page(path, card)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
