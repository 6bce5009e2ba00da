"""All that computes on a GPU, with tiny models, training apart (card_runs.py): see pretended_card.py.

python tests/support/pretended_runs.py T4 FOLDER
"""

import functools
import math
import sys
from pathlib import Path
from unittest import mock

import pretended_card
import torch

FOLDER = Path(sys.argv[2])
ROWS = [{"prompt": f"{count} tents", "answer": f'{{"qty":{count}}}'} for count in range(1, 9)]
TEXT = "The tent is pitched by the lake, and the kettle sings. " * 4


def recipe(**changes):
    from lab_utils.finetune import Recipe

    return Recipe(**{"steps": 2, "batch_size": 2, "rank": 2, "alpha": 4, "warmup": 0.5} | changes)


def base(quantization: str = "nf4", device=None) -> tuple:
    """(model, tokenizer) of the tiny model, as `load_base` loads one."""
    import tiny_runs

    from lab_utils.models import load_base, load_tokenizer

    folder = FOLDER / "tiny"
    if not folder.exists():
        tiny_runs.save_tiny(folder)
        load_tokenizer().save_pretrained(folder)
    return load_base(str(folder), quantization, device, verbose=False)


def adapted(seed: int = 0):
    """The tiny model in nf4 with an adapter that changes something."""
    from lab_utils.finetune import attach_adapter

    model, tokenizer = base()
    model = attach_adapter(model, recipe())
    generator = torch.Generator("cuda").manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=generator)
    return model, tokenizer


def where(model) -> list[str]:
    return sorted({str(one.device) for one in (*model.parameters(), *model.buffers())})


@functools.cache
def probe():
    from lab_utils.merging.costs import probe_batch
    from lab_utils.models import load_tokenizer

    return probe_batch(load_tokenizer(), ROWS[:2])


def report():
    """What page 00's table says of the card, and an NF4 round trip there."""
    from lab_utils.models.capabilities import four_bit_error, report

    rows = {row["what"]: row for row in report()}
    return [rows["device"]["found"], rows["4-bit weights"]["ok"], round(four_bit_error(), 3)]


def losses():
    """Losses and perplexity on the card, as shares of a CPU's in float32."""
    from lab_utils.device import Device
    from lab_utils.evaluate import answer_losses, perplexity

    found = []
    for device in (None, Device("cpu", "a processor", "float32", "to compare with")):
        model, tokenizer = base("none", device)
        found.append((answer_losses(model, tokenizer, ROWS[:3]).loss, perplexity(model, tokenizer, TEXT)))
    return [one / other for one, other in zip(*found, strict=True)]


def scores():
    """How two answers of the model are scored."""
    from lab_utils.evaluate import score

    return str(score(*base(), ROWS[:2]))[:10]


def merges():
    """Where each merged model is and its dtype; the loss of merging in float32; a page's table has all its rows."""
    from lab_utils.errors import LabError
    from lab_utils.merging import compare_merges, merge, survival

    model, _ = adapted()
    original, _ = base("none")
    found = {}
    for into in ("dequantized", "original"):
        try:
            made = merge(model, probe(), into, original=original if into == "original" else None)
            found[into] = [*where(made), str(made.dtype)]
        except LabError as error:  # the original's weights are not those that the adapter learned on
            found[into] = str(error)[:10]
    rows = {row["way"]: row for row in compare_merges(model, probe(), original)}
    layer = next(
        name.removesuffix(".lora_A.default.weight") for name, _ in model.named_parameters() if "lora_A" in name
    )
    kept = survival(model, layer.removeprefix("base_model.model.")).kept
    return [found, rows["into dequantized, float32"]["kl"] < 1e-5, len(rows), 0 < kept <= 1.1]


def exported():
    """A merged model's folder and GGUF file, and the logits that come back."""
    from lab_utils.merging import export_gguf, export_merged, merge
    from lab_utils.merging.checked import distance
    from lab_utils.models import load_base

    model, tokenizer = adapted()
    merged = merge(model, probe())
    folder = export_merged(merged, tokenizer, FOLDER / "merged")
    again, _ = load_base(str(folder), verbose=False)
    file = export_gguf(merged, tokenizer, FOLDER / "merged.gguf")
    return [distance(merged, again, probe()), Path(file).stat().st_size > 2**20]


def served():
    """A mixed batch against each of its rows alone, three sums, a swap, and the cost of an adapter."""
    from lab_utils.merging import merge
    from lab_utils.serving import AdapterBank, latency

    for number, name in enumerate(("one", "two")):
        model, _ = adapted(number)
        model.save_pretrained(FOLDER / name)
    rows = latency(model, merge(model, probe()), repeats=1)
    bank = AdapterBank(*base("none"))
    for name in ("one", "two"):
        bank.load(name, FOLDER / name, task="bookings")
    names, prompts = ["one", "two", None], ["2 tents", "3 tents", "4 tents"]
    mixed = bank.answer(prompts, names, tasks="bookings", max_new_tokens=3)
    alone = [
        bank.answer([prompt], name, tasks="bookings", max_new_tokens=3)[0]
        for prompt, name in zip(prompts, names, strict=True)
    ]
    places = []
    for how in ("cat", "svd", "linear"):
        bank.combine(how, {"one": 0.5, "two": 0.5}, how=how)
        places.append(str(bank.delta(how, bank.layers[0]).device))
    bank.swap("one", FOLDER / "two")
    same = torch.equal(bank.delta("one", bank.layers[0]), bank.delta("two", bank.layers[0]))
    bank.unload("two")
    return [mixed == alone, places, same, len(rows) > 2]


def memory():
    """The peak of a block that comes and goes in MiB, what it leaves taken, and does checkpointing keep less?"""
    from lab_utils.finetune import attach_adapter
    from lab_utils.memory import free_memory_bytes, measured_peak, saved_bytes

    def step():
        torch.empty(4 * 2**20, dtype=torch.uint8, device="cuda")

    before = free_memory_bytes("cuda")
    peak = measured_peak(step)
    left = before - free_memory_bytes("cuda")
    kept = []
    for checkpointing in (False, True):
        model = attach_adapter(base()[0], recipe()).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        kept.append(saved_bytes(model, lambda model=model: model(torch.ones(1, 64, dtype=torch.long, device="cuda"))))
    return [peak / 2**20, left, kept[1] < kept[0]]


def seen():
    """Qwen2.5-VL in small: two steps, and an answer."""
    from lab_utils.beyond_text import picture_questions as questions
    from lab_utils.beyond_text.drawings import draw
    from lab_utils.beyond_text.towers import add_adapters
    from lab_utils.beyond_text.vision_language import tiny_model
    from lab_utils.finetune import build_optimizer

    model, reader = tiny_model()
    picture = draw("house", "red", size=56, seed=1)
    batch = questions.prepare(reader, [picture], [questions.QUESTION], ["red"])
    model = add_adapters(model)
    optimizer = build_optimizer(model, 5e-3)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        losses.append(questions.training_step(model, optimizer, batch))
    return [*map(math.isfinite, losses), losses[0] != losses[1], type(questions.ask(model, reader, picture)).__name__]


def painted():
    """The tiny painter: two steps, loaded again, and a picture."""
    from lab_utils.beyond_text import painter_training
    from lab_utils.beyond_text.painter import load_painter, paint
    from lab_utils.beyond_text.painter_training import PainterRecipe, style_pictures, train_base

    painter = load_painter("tiny")
    pictures, captions = style_pictures(copies=1)
    recipe = PainterRecipe(steps=2, batch_size=2, checkpoint_every=1)
    with mock.patch.object(painter_training, "first_pictures", lambda *_, **__: (pictures, captions)):
        history = train_base(painter, recipe, FOLDER / "painter")
        again = train_base(load_painter("tiny"), recipe, FOLDER / "painter")
    picture = paint(painter, captions[:1], steps=1)[0]
    return [where(painter.unet), all(math.isfinite(row["loss"]) for row in history), again == history, picture.size]


def trl():
    """TRL's five steps as page 08 takes them, and ours on the same batch: device count, dtype, losses."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from lab_utils.device import find_device
    from lab_utils.finetune import finetune, float32_adapters, one_card, prompt_text
    from lab_utils.tasks import TASKS

    here, own, (model, tokenizer) = find_device(), recipe(batch_size=8, steps=5), base()
    rows = [{"prompt": prompt_text(tokenizer, TASKS["bookings"], row["prompt"]), "completion": row["answer"]}
            for row in ROWS]  # fmt: skip
    arguments = SFTConfig(
        output_dir=str(FOLDER / "trl"), max_steps=5, warmup_steps=own.warmup, per_device_train_batch_size=8,
        learning_rate=own.learning_rate, lr_scheduler_type="cosine", max_grad_norm=own.max_grad_norm, weight_decay=0.0,
        logging_steps=1, report_to="none", save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
        train_sampling_strategy="sequential", use_cpu=here.kind == "cpu", bf16=here.mixed_precision == "bf16",
        fp16=here.mixed_precision == "fp16", seed=own.seed,
    )  # fmt: skip
    data = Dataset.from_list(rows)
    trainer = SFTTrainer(
        model=model, args=one_card(arguments), train_dataset=data, eval_dataset=data, processing_class=tokenizer,
        peft_config=LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    float32_adapters(trainer).train()
    theirs = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    run = finetune(own, FOLDER / "ours", base=base(), dataset=ROWS, progress=False)
    ours = [row["loss"] for row in run.history]
    dtypes = sorted({str(p.dtype) for p in trainer.model.parameters() if p.requires_grad})
    return [len(theirs), theirs[0] / ours[0], dtypes, trainer.args.n_gpu, all(map(math.isfinite, theirs + ours))]


CHECKS = {
    "report": report, "losses": losses, "scores": scores, "merges": merges, "exported": exported, "served": served,
    "memory": memory, "seen": seen, "painted": painted, "trl": trl,
}  # fmt: skip

if __name__ == "__main__":
    pretended_card.main({name: CHECKS[name] for name in (sys.argv[3:] or CHECKS)})
