"""What a card says of a run: each function makes one section, and claims no more than was measured."""

import os
import platform
from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..device import GIB, find_device
from ..models import MODELS
from ..models.registry import base_model, name_of
from ..scores import Measure
from ..tasks import OwnTask
from ..tasks.findings import Report, clipped
from .blocks import Code, Items, Section, Table, Text
from .comparing import Scored
from .curve import curve

WORST = 10
LONGEST = 400  # characters of a text that are shown
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "numpy")
HUB_OF_EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"


def base_name(run) -> str:
    """What a card calls the base: its name or hub address; of a folder the last part, for a path names people."""
    name = name_of(run.model) or run.recipe.model
    return Path(name).name if Path(name).is_absolute() else name


def hub_name(run) -> str | None:
    """The base's address on the hub; None if it is not known to have one."""
    name = name_of(run.model) or run.recipe.model
    if name in MODELS:
        source = MODELS[name].source
        return HUB_OF_EMBEDDED if source == "embedded" else source
    return name if name.count("/") == 1 and not Path(name).is_absolute() else None


def task_name(run, own: OwnTask | None = None) -> str:
    """The name of a run's task."""
    return own.name if own is not None else getattr(run.recipe.task, "name", run.recipe.task)


def summary(run, own: OwnTask | None, scored: Sequence[Scored]) -> Section:
    """What it is, and whether it was worth it."""
    recipe = run.recipe
    today = date.today()
    said = [
        f"A LoRA adapter of rank {recipe.rank} on {base_name(run)} for the task {task_name(run, own)!r}, trained for "
        f"{len(run.history):,} steps with {recipe.batch_size} examples each, on {today.day} {today:%B %Y}."
    ]
    if scored:
        said += verdict(scored)
    trained = sum(one.numel() for one in run.model.parameters() if one.requires_grad)
    rows = (
        ("base model", hub_name(run) or base_name(run)), ("model type", f"{_kind(run)}, LoRA adapter (peft)"),
        ("base while training", "not quantized" if recipe.quantization == "none" else recipe.quantization),
        ("trained parameters", f"{trained:,}"), ("license", "that of the base model, and of your data: look at both"),
    )  # fmt: skip
    return Section("Summary", (*map(Text, said), Table(("", ""), rows)), "Model Details")


def _kind(run) -> str:
    return str(getattr(base_model(run.model).config, "model_type", "causal language model"))


def verdict(scored: Sequence[Scored]) -> list[str]:
    """The adapter's score, and its difference to the best of what costs nothing."""
    adapter, others = scored[0], scored[1:]
    said = [f"On {adapter.measured.main.n:,} held-out examples: {adapter.measured.main}."]
    if others:
        best = max(others, key=lambda one: one.measured.main.value)
        gain = adapter.better_than(best)
        side = "better" if gain.value > 0 else "worse"
        said.append(
            f"The best of what costs nothing, {best.name}: {best.measured.main}. The difference on the same examples "
            f"is {gain.in_points}: {side if gain.clear else gain.verdict}. This is one seed; another run differs too."
        )
    return said


def data(run, own: OwnTask | None, report: Report | None) -> Section:
    """What it was trained on, and what the linter says of that."""
    if own is None:
        said = f"The task {task_name(run)!r} of the course; data/README.md describes its data."
        return Section("Data", (Text(said),), "Training Data")
    settings = own.settings
    source = Path(settings["own"]).name if settings.get("own") else "rows in memory"
    rows = [("source", source), ("digest of the examples", own.data_digest)]
    rows += [(f"rows for {split}", f"{len(own[split]):,}") for split in own.splits]
    rows += [("split", f"shares {settings['split']}, seed {settings['seed']}"), ("groups", settings["group"] or "none")]
    rows += [("system message", own.system or "none")]
    blocks = [Table(("", ""), tuple(rows)), Text(" ".join(own.notes))]
    if report:
        blocks.append(Text("What the data linter says:"))
        found = [f"{one.kind}: {one}" for one in report.findings]
        blocks.append(Items((*found, f"Nothing found: {', '.join(report.clean)}.")))
        blocks.append(Text(str(report.lengths).splitlines()[0] + "."))
    return Section("Data", tuple(blocks), "Training Data")


def recipe(run) -> Section:
    """Every choice that decided the result."""
    rows = []
    for one in fields(run.recipe):
        value = getattr(run.recipe, one.name)
        if isinstance(value, OwnTask):
            value = value.key
        elif one.name == "model":
            value = base_name(run)
        rows.append((one.name, str(value)))
    seconds, tokens = run.seconds, sum(row.get("tokens", 0) for row in run.history)
    took = f"{seconds:,.0f} s of training, {tokens:,} tokens read."
    return Section("Recipe", (Table(("field", "value"), tuple(rows)), Text(took)), "Training Procedure")


def history(run) -> Section:
    """The curve."""
    picture = curve(run.history)
    return Section("Curve", (picture or Text("Nothing was trained."),), "Training Curve")


def results(scored: Sequence[Scored]) -> Section:
    """All scores with their intervals, and the differences."""
    if not scored:
        said = "Nothing was scored. Give report_card the task, or the scores."
        return Section("Scores", (Text(said),), "Evaluation")
    names = [one.name for one in scored[0].measured.measures]
    rows = [[way.name, *(_value(one) for one in way.measured.measures)] for way in scored]
    if any(way.perplexity for way in scored):
        names.append("perplexity of the right answers")
        for row, way in zip(rows, scored, strict=True):
            row.append(_value(way.perplexity) if way.perplexity else "–")
    methods = ", ".join(sorted({one.how for way in scored for one in way.measured.measures}))
    blocks = [Table(("", *names), tuple(map(tuple, rows))), Text(f"In brackets: 95 % intervals ({methods}).")]
    differences = [_difference(scored[0], other) for other in scored[1:]]
    if differences:
        family = " Several comparisons at once: one in twenty of such intervals misses." if len(differences) > 1 else ""
        blocks += [Items(tuple(differences)), Text(f"Each on the same examples, {names[0]}.{family}")]
    if matrix := scored[0].measured.confusion:
        blocks += [Text("Right labels down, written labels across, of the adapter:"), Code(str(matrix), "text")]
    return Section("Scores", tuple(blocks), "Evaluation")


def _value(one: Measure) -> str:
    """A measure without its name, which is over the column."""
    return str(one).removeprefix(f"{one.name} ")


def _difference(adapter: Scored, other: Scored) -> str:
    gain = adapter.better_than(other)
    return f"{gain.name}: {gain.in_points}, {gain.verdict}"


def worst(scored: Sequence[Scored]) -> Section:
    """The ten worst answers of the adapter: what to read before anything is decided."""
    if not scored:
        return Section("Worst answers", (Text("Nothing was scored."),), "Worst Answers")
    way = scored[0]
    numbers = [number for number in way.measured.worst(WORST) if way.measured.per_row[number] < 1]
    rows = tuple(
        (_short(way.prompts[n]), _short(way.answers[n]), _short(way.outputs[n]), f"{way.measured.per_row[n]:.2f}")
        for n in numbers
    )
    said = "These are rows of your data: look whether they may be shown before you share this file."
    blocks = (Table(("asked", "right", "written", "score"), rows), Text(said)) if rows else (Text("All were right."),)
    return Section(f"The {len(rows)} worst answers" if rows else "Worst answers", blocks, "Worst Answers")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def loading(run, own: OwnTask | None) -> Section:
    """A program that loads base and adapter and asks them."""
    name = name_of(run.model) or run.recipe.model
    name = f"path/to/{Path(name).name}" if Path(name).is_absolute() else name
    system = [{"role": "system", "content": own.system}] if own is not None and own.system else []
    room = own.max_new_tokens if own is not None else 64
    text = f"""from lab_utils.models import load_base
from peft import PeftModel

base, tokenizer = load_base({name!r})
model = PeftModel.from_pretrained(base, {f"{run.output_dir.name}/adapter"!r})
messages = {system!r} + [{{"role": "user", "content": "your question"}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
tokens = model.generate(**inputs.to(model.device), max_new_tokens={room}, do_sample=False)
print(tokenizer.decode(tokens[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""
    said = "Without the lab, load the base with transformers.AutoModelForCausalLM and its tokenizer with AutoTokenizer."
    return Section("How to load it", (Code(text), Text(said)), "How to Get Started with the Model")


def limits(own: OwnTask | None) -> Section:
    """What no program can know: questions to the person who shares the adapter."""
    items = (
        "Who made it, and whom to write to?",
        "What is it for, and what must it not be used for? It was measured on data like its training data only.",
        "Whose are the data, and may a model that learnt from them be shared? It can repeat what it was trained on.",
        "Which languages and groups of people are in the data, and which are not?",
    )  # fmt: skip
    said = "To be answered by you before you share it:"
    return Section("What this card cannot know", (Text(said), Items(items)), "Bias, Risks, and Limitations")


def surroundings() -> Section:
    """Versions and machine."""
    import psutil

    device = find_device()
    rows = [("machine", f"{device.kind}: {device.name}, {os.cpu_count()} threads, "
             f"{psutil.virtual_memory().total / GIB:.0f} GiB"), ("computing in", device.compute_dtype),
            ("system", f"{platform.system()} {platform.machine()}"), ("Python", platform.python_version()),
            ("lora-lab", __version__)]  # fmt: skip
    for name in PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return Section("Machine and versions", (Table(("", ""), tuple(rows)),), "Technical Specifications")


def card_data(run, own: OwnTask | None, scored: Sequence[Scored]) -> dict:
    """The head of a model card, for the hub's search."""
    found = {"library_name": "peft", "pipeline_tag": "text-generation", "tags": ["lora", "lora-lab"]}
    if hub := hub_name(run):
        found |= {"base_model": hub, "tags": [f"base_model:adapter:{hub}", "lora", "lora-lab"]}
    if scored:
        metrics = [
            {"type": one.name, "name": one.name, "value": round(one.value, 4)} for one in scored[0].measured.measures
        ]
        result = {
            "task": {"type": "text-generation"}, "dataset": {"name": task_name(run, own), "type": "private"},
            "metrics": metrics,
        }  # fmt: skip
        found["model-index"] = [{"name": clipped(run.output_dir.name), "results": [result]}]
    return found
