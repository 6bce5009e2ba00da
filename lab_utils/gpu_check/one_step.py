"""One training step of the lab beside plain peft's under autocast, and beside float32 on the same weights."""

from dataclasses import replace

from ..errors import LabError
from ..finetune import Recipe, collate, encode_split, finetune
from ..finetune.conversation import padding_token
from ..merging import into_dequantized
from ..models import load_base
from ..tasks import TASKS
from .recorded_steps import Step, recording
from .sections import Finding, Setting
from .stand_in import MODEL, computing_in, dtypes, lessons, standing_in, write_model

RECIPE = Recipe(model=MODEL, steps=12, rank=8, learning_rate=1e-3, max_grad_norm=1e9, checkpoint_every=12)
COSINE = 0.999  # of the gradients, between any two ways
FURTHER = 1.5  # times as far from float32 as peft's gradient the lab's may be
MOVED = 0.99  # cosine of the update and AdamW's: 8-bit moments round it


def step(setting: Setting) -> Finding:
    """The second step that is applied, in every dtype of the card: B has left zero, so A has a gradient too."""
    folder = write_model(setting.scratch / "tiny")
    values, problems = {}, []
    for dtype in dtypes():
        with computing_in(dtype), standing_in(folder):
            values[dtype] = one = _compare(setting, dtype)
        if not min(one["cosine with peft"], one["cosine with float32"]) > COSINE:
            problems.append(f"in {dtype} the gradient points elsewhere")
        if not one["relative distance to float32"] <= FURTHER * one["peft's distance"] + 1e-4:
            problems.append(f"in {dtype} the gradient is further from float32 than peft's")
        if not one["cosine of the update with AdamW's"] > MOVED:
            problems.append(f"in {dtype} the update is not AdamW's")
        if one["adapters"] != ["float32"] or one["frozen with gradient"]:
            problems.append(f"in {dtype} adapters are {one['adapters']}, {one['frozen with gradient']} frozen moved")
    return Finding(not problems, "; ".join([_text(values), *problems]), values)


def _text(values: dict) -> str:
    parts = []
    for dtype, one in values.items():
        ours, pefts = one["relative distance to float32"], one["peft's distance"]
        parts.append(f"{dtype}: gradient {ours:.2%} from float32's, peft's {pefts:.2%}")
    return "; ".join(parts)


def _compare(setting: Setting, dtype: str) -> dict:
    """The numbers of one dtype."""
    base = load_base(MODEL, "nf4", verbose=False)
    with recording() as steps:
        recipe = replace(RECIPE, steps=setting.size(RECIPE.steps, 6))
        run = finetune(recipe, setting.scratch / dtype, base=base, dataset=lessons(), progress=False)
    applied = [one for one in steps if one.applied]
    if len(applied) < 3:
        raise LabError(f"In {dtype} GradScaler left out all but {len(applied)} of {len(run.history)} steps.")
    names = [name for name, one in run.model.named_parameters() if one.requires_grad]
    kinds = sorted({str(one.dtype).removeprefix("torch.") for one in run.model.parameters() if one.requires_grad})
    touched = sum(one.grad is not None for one in run.model.parameters() if not one.requires_grad)
    model, tokenizer = load_base(MODEL, "nf4", verbose=False)
    batch = _batch(tokenizer)
    wide = into_dequantized(model, _float32())
    pefts = _gradients(model, names, applied[1], batch, dtype)
    exact = _gradients(wide, names, applied[1], batch, None)
    ours = _flat(applied[1].gradients)
    return {
        "cosine with peft": _cosine(ours, pefts),
        "cosine with float32": _cosine(ours, exact),
        "relative distance to float32": _distance(ours, exact),
        "peft's distance": _distance(pefts, exact),
        "cosine of the update with AdamW's": _cosine(*_updates(applied)),
        "adapters": kinds,
        "frozen with gradient": touched,
        "steps left out": len(run.history) - len(applied),
    }


def _float32():
    import torch

    return torch.float32


def _batch(tokenizer) -> dict:
    """The four lessons as one batch on the card, as every step of the run has them."""
    examples = encode_split(tokenizer, TASKS[RECIPE.task], lessons(), RECIPE.max_length)
    return {name: one.to("cuda") for name, one in collate(examples, padding_token(tokenizer)).items()}


def _gradients(model, names: list[str], at: Step, batch: dict, dtype: str | None):
    """The gradient of transformers' own loss at the adapter of a step, flat: peft and autocast, nothing of the lab.

    `dtype` None computes without autocast, in the model's own dtype.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RECIPE.rank, lora_alpha=RECIPE.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config).train()
    held = dict(adapted.named_parameters())
    with torch.no_grad():
        for name, value in zip(names, at.parameters, strict=True):
            held[name].data = value.clone()
    scale = 1024.0 if dtype == "float16" else 1.0  # small gradients vanish in float16
    with torch.autocast("cuda", dtype=getattr(torch, dtype or "bfloat16"), enabled=dtype is not None):
        loss = adapted(**batch).loss
    (loss * scale).backward()
    return _flat([held[name].grad for name in names]) / scale


def _updates(applied: list[Step]) -> tuple:
    """(what the lab's optimizer changed between the second and the third step, what AdamW changes), flat."""
    import torch

    mine = [one.clone().requires_grad_() for one in applied[0].parameters]
    adamw = torch.optim.AdamW(mine, lr=1.0, weight_decay=0.0)
    for at in applied[:2]:
        before = [one.detach().clone() for one in mine]
        adamw.param_groups[0]["lr"] = at.learning_rate
        for one, gradient in zip(mine, at.gradients, strict=True):
            one.grad = gradient
        adamw.step()
    theirs = _flat([one.detach() - old for one, old in zip(mine, before, strict=True)])
    ours = zip(applied[2].parameters, applied[1].parameters, strict=True)
    return _flat([new - old for new, old in ours]), theirs


def _flat(tensors: list):
    """Tensors as one of float64 numbers, on the CPU."""
    import torch

    return torch.cat([one.detach().cpu().double().flatten() for one in tensors])


def _cosine(one, other) -> float:
    return float((one @ other) / (one.norm() * other.norm()))


def _distance(one, exact) -> float:
    return float((one - exact).norm() / exact.norm())
