"""Merges, and many adapters on one base, on the card."""

from ..decoding import generate
from ..errors import LabError
from ..finetune import attach_adapter
from ..merging import compare_merges, dequantized_copy, into_dequantized, merge, probe_batch
from ..models import load_base
from ..serving import AdapterBank
from .sections import Finding, Setting
from .stand_in import MODEL, lessons, standing_in, write_model
from .training import recipe

SPREAD = 0.02  # of B: an update well below the steps between 4-bit values
PROMPTS = ("red", "green", "what is amber", "north or south")
NEW_TOKENS = 6
NEAR = 0.05  # root mean square, in spreads of the logits: two ways to compute one sum


def merges(setting: Setting) -> Finding:
    """What page 10 says of each way to merge, of a bank of adapters, and of decoding through a plain copy."""
    folder = write_model(setting.scratch / "tiny")
    with standing_in(folder):
        model, tokenizer = load_base(MODEL, "nf4", verbose=False)
        original, _ = load_base(MODEL, "none", verbose=False)
        adapted = _adapted(model)
        adapted.save_pretrained(setting.scratch / "adapter")
        probe = probe_batch(tokenizer, lessons())
        problems, values = _ways(setting, adapted, original, probe)
        values |= _decoding(adapted, tokenizer)
        found, more = _bank(adapted, tokenizer, setting.scratch / "adapter", probe["input_ids"])
    problems += more
    text = "as page 10 says" if not problems else "; ".join(problems)
    return Finding(not problems, text, values | found)


def _adapted(model):
    """The model with an adapter whose update is small."""
    import torch

    adapted = attach_adapter(model, recipe(1)).eval()
    with torch.no_grad():
        for name, one in adapted.named_parameters():
            if "lora_B" in name:
                one.normal_(std=SPREAD)
    return adapted


def _ways(setting: Setting, adapted, original, probe: dict) -> tuple[list[str], dict]:
    """(what is wrong, the measurements): `merge` takes the dequantized weights in three dtypes and refuses 4 bits."""
    import torch

    problems = []
    for dtype in setting.size((torch.bfloat16, torch.float16, torch.float32), (torch.float16,)):
        try:
            merged = merge(adapted, probe, "dequantized", dtype=dtype)
        except LabError as error:
            problems.append(f"the merge into dequantized {dtype} was refused: {error}"[:200])
            continue
        if {one.device.type for one in merged.parameters()} != {"cuda"}:
            problems.append(f"merged into {dtype}, the model has left the card")
    try:
        merge(adapted, probe, "4-bit")
        problems.append("the merge into 4 bits was not refused")
    except LabError:
        pass
    rows = compare_merges(adapted, probe, original)
    return problems, {row["way"]: {key: row[key] for key in ("kl", "max_difference", "top1")} for row in rows}


def _decoding(adapted, tokenizer) -> dict:
    """The share of prompts with the same greedy answer through the 4-bit layers and through a plain copy.

    It does not decide: a model of random weights has near ties, which rounding turns.
    """
    four_bit = generate(adapted, tokenizer, list(PROMPTS), max_new_tokens=NEW_TOKENS)
    plain = generate(dequantized_copy(adapted), tokenizer, list(PROMPTS), max_new_tokens=NEW_TOKENS)
    same = sum(one == other for one, other in zip(four_bit, plain, strict=True))
    return {"same answers of a plain copy": f"{same} of {len(PROMPTS)}"}


def _bank(adapted, tokenizer, folder, ids) -> tuple[dict, list[str]]:
    """(measurements, what is wrong) of mixed batches, combinations and a swap on a dequantized base."""
    with adapted.disable_adapter():
        base = into_dequantized(adapted.get_base_model())
    bank, problems = AdapterBank(base, tokenizer), []
    bank.load("one", folder, "bookings")
    bank.load("two", folder, "style")
    for how in ("cat", "svd", "linear"):
        bank.combine(f"by-{how}", {"one": 0.5, "two": 0.5}, how=how)
        if bank.delta(f"by-{how}", bank.layers[0]).device.type != "cuda":
            problems.append(f"combined by {how}, an update has left the card")
    bank.answer(["hello", "hello", "hello"], ["one", "by-svd", None], "bookings", max_new_tokens=2)
    mixed = bank.logits(ids[:2], ["one", None]).float()
    alone = [bank.logits(ids[:1], "one").float()[0], bank.logits(ids[1:2], None).float()[0]]
    spread = float(mixed.std())
    off = max(float((row - one).square().mean().sqrt()) for row, one in zip(mixed, alone, strict=True))
    if not off < NEAR * spread:
        problems.append("a row of a mixed batch is not what its adapter says alone")
    bank.swap("one", folder)
    bank.unload("two")
    return {"a mixed batch against single rows": off, "spread of the logits": spread}, problems
