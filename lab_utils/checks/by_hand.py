"""Two functions that page 03 has a student write into her own model: `inject` and the training loop.

They change a model in place, which the checks of the exercises forbid, so they are judged here: on a small model, by
what must be true of it afterwards. `yours_or_ours` lets the page go on whether they are solved or not.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .calling import first_line
from .report import Report, source

NAMES, RANK, ALPHA, STEPS, RATE = ("first", "second"), 2, 6, 6, 0.05


class MyLoRALinear(nn.Module):
    """A frozen nn.Linear with a low-rank update beside it: the class of page 03, section 2."""

    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)  # W: kept, never trained
        self.lora_A = nn.Parameter(torch.empty(rank, base_layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = alpha / rank

    def forward(self, x):
        low = F.linear(x, self.lora_A)  # (…, rank)
        update = F.linear(low, self.lora_B) * self.scaling  # (…, out)
        return self.base_layer(x) + update


def inject(model: nn.Module, names: list[str], rank: int, alpha: float) -> nn.Module:
    """Freeze the model and put a MyLoRALinear around each layer that is named."""
    model.requires_grad_(False)
    for name in names:
        base_layer = getattr(model, name)
        setattr(model, name, MyLoRALinear(base_layer, rank, alpha))
    return model


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int, learning_rate: float) -> list[float]:
    """Train what is not frozen on all images at once; return the loss before each step."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


OURS = {"inject": inject, "train": train}
HINTS = {
    "inject": (
        "Two things: nothing that is there now may be trained, and each named layer gets a new one around it.",
        "Freeze the whole model first. getattr(model, name) reads a layer by its name; what puts a new one there?",
        "model.requires_grad_(False); for each name, setattr(model, name, MyLoRALinear(getattr(…), rank, alpha)).",
    ),
    "train": (
        "Each step: how wrong is the model, in which direction does that fall, one step there.",
        "cross_entropy gives the loss, backward() fills the gradients, the optimizer steps. What must be emptied?",
        "An optimizer before the loop; in it: loss, zero_grad(), backward(), step(), and keep loss.item().",
    ),
}
REWARDS = {
    "inject": "Any model can be adapted like this: the library and peft do the same, with more checks before.",
    "train": "Every training of this course has this loop inside; page 08 adds data, batches and a schedule.",
}


NAMES_IGNORED = ("the names ignored", "Adapt the layers in `names`, whichever they are, and no others.")


class _Small(nn.Module):
    """Three layers, as the reader of digits has."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.second(torch.relu(self.first(x)))))


def check_by_hand(name: str, function: Callable) -> Report:
    """Try a student's `inject` or `train` on a small model.

    Parameters
    ----------
    name : "inject" or "train"
    function : inject(model, names, rank, alpha) -> the model; train(model, x, y, steps, learning_rate) -> losses

    Returns
    -------
    Report, as `checks.check` gives it
    """
    title = {"inject": "Adapters on a model", "train": "The training loop"}[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            lines, mistake = {"inject": _judge_inject, "train": _judge_train}[name](function)
        except Exception as error:
            lines = [("wrong", f"It raises {type(error).__name__}: {first_line(error)}")]
            mistake = ("", "")
    hints = [(f"Hint {level}", "text", hint) for level, hint in enumerate(HINTS[name], 1)]
    solution = ("code", source(OURS[name]))
    if not any(status != "right" for status, _ in lines):
        folded = [("One way to write it", *solution)]
        return Report(f"Solved: {title}", "right", lines, note=REWARDS[name], folded=folded)
    is_open = all(status == "open" for status, _ in lines)
    folded = [*hints, ("A solution", *solution)]
    note = "Unfold a hint if you need one. Unsolved, the page goes on with the solution."
    verdict = f"Not solved {'yet' if is_open else 'so far'}: {title}"
    status = "open" if is_open else "wrong"
    return Report(verdict, status, lines, mistake=mistake[0] or None, fix=mistake[1], note=note, folded=folded)


def yours_or_ours(name: str, function: Callable) -> Callable:
    """The student's function if it is right, else the solution; prints which."""
    right = check_by_hand(name, function).passed
    print(f"{name}: {'yours' if right else 'not solved yet, so the page goes on with the solution'}")
    return function if right else OURS[name]


def _line(right: bool, yes: str, no: str) -> tuple[str, str]:
    """A line of the report."""
    return ("right", yes) if right else ("wrong", no)


def _judge_inject(function: Callable) -> tuple[list, tuple[str, str]]:
    """Lines of the report, and the mistake with its fix; two empty texts if none has a name."""
    model, x = _Small(), torch.randn(4, 6)
    before, kept = model(x).detach(), copy.deepcopy(model)
    made = function(model, list(NAMES), RANK, ALPHA)
    layers = {name: getattr(model, name) for name in NAMES}
    wrapped = [name for name in _adapted(model) if name in NAMES]
    if made is None and not wrapped:
        return [("open", "inject(model, names, rank, alpha) gives nothing back yet: end with `return`.")], ("", "")
    lines = [_line(made is model, "It hands back the model.", "It does not hand back the model that it was given.")]
    lines.append(_line(
        len(wrapped) == len(NAMES) and type(model.out) is nn.Linear,
        "The named layers have A and B beside them, and no other.",
        f"Of the layers {', '.join(NAMES)} {', '.join(wrapped) or 'none'} got an adapter"
        + ("." if type(model.out) is nn.Linear else ", and `out`, which was not named, did too."),
    ))  # fmt: skip
    if len(wrapped) < len(NAMES):
        return lines, ("not every named layer", "Go through all names; each has a layer and its own adapter.")
    found = [(layer.lora_A.shape[0], getattr(layer, "scaling", ALPHA / RANK)) for layer in layers.values()]
    rows, scaling = next((pair for pair in found if pair != (RANK, ALPHA / RANK)), (RANK, ALPHA / RANK))
    sized = (rows, scaling) == (RANK, ALPHA / RANK)
    lines.append(_line(sized, "Rank and scaling are those asked for.",
                       f"At rank {RANK} and alpha {ALPHA}, A should have {RANK} rows and the scaling should be "
                       f"{ALPHA / RANK:g}: A has {rows} rows and the scaling is {scaling}."))  # fmt: skip
    weights = [value for key, value in model.state_dict().items() if "lora" not in key]
    same = all(map(torch.equal, weights, kept.state_dict().values())) and torch.equal(model(x).detach(), before)
    lines.append(_line(same, "W is as it was, and so is every output.", "The outputs changed before any training."))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    wanted = {f"{name}.lora_{side}" for name in NAMES for side in "AB"}
    lines.append(_line(trained == wanted, "A and B are trained, and nothing else.",
                       f"Trained are: {', '.join(sorted(trained)) or 'none'}."))  # fmt: skip
    if rows == ALPHA:
        return lines, ("rank and alpha swapped", "The layer takes the rank first, then alpha.")
    if not sized:
        return lines, ("rank or alpha fixed", "Hand on the rank and the alpha that inject is given, not numbers.")
    if type(model.out) is not nn.Linear:
        return lines, NAMES_IGNORED
    if trained > wanted:
        return lines, ("the rest is not frozen", "model.requires_grad_(False), before the adapters are put on.")
    if not wanted <= trained:
        return lines, ("A and B frozen too", "Freeze first, then put the adapters on: what is made later is trained.")
    if made is None:
        return lines, ("nothing handed back", "The model was changed; end with `return model`.")
    other = _Small()
    function(other, ["out"], RANK, ALPHA)
    heeded = _adapted(other) == ["out"]
    lines.append(_line(heeded, "Asked for `out` alone, it adapts `out` alone.",
                       f"Asked for `out` alone, it adapts {', '.join(_adapted(other)) or 'none'}."))  # fmt: skip
    return lines, ("", "") if heeded else NAMES_IGNORED


def _adapted(model: nn.Module) -> list[str]:
    """The names of the layers that have A and B."""
    return [name for name, layer in model.named_children() if hasattr(layer, "lora_A") and hasattr(layer, "lora_B")]


def _loop(
    model: nn.Module, x: Tensor, y: Tensor, *, make=torch.optim.Adam, rate: float = RATE, clear: bool = True,
    renewed: bool = False, soften: bool = False,
) -> list[float]:  # fmt: skip
    """A training loop with one thing wrong."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = make(parameters, lr=rate), []
    for _ in range(STEPS):
        if renewed:
            optimizer = make(parameters, lr=rate)
        logits = model(x)
        loss = F.cross_entropy(logits.softmax(-1) if soften else logits, y)
        if clear:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


WRONG_LOOPS = (
    ("gradients never cleared", {"clear": False},
     "backward() adds to the gradients that are there: call zero_grad() in every step."),
    ("a new optimizer in every step", {"renewed": True},
     "Adam remembers earlier gradients. Make it once, before the loop."),
    ("the learning rate ignored", {"rate": 1e-3}, "Hand learning_rate to the optimizer: lr=learning_rate."),
    ("another optimizer", {"make": torch.optim.SGD}, "The page uses torch.optim.Adam."),
    ("AdamW instead of Adam", {"make": torch.optim.AdamW}, "AdamW also shrinks the weights; the page uses Adam."),
    ("probabilities instead of logits", {"soften": True},
     "F.cross_entropy takes the model's outputs as they are: it has the softmax inside."),
)  # fmt: skip


def _judge_train(function: Callable) -> tuple[list, tuple[str, str]]:
    """Lines of the report, and the mistake with its fix; two empty texts if none has a name."""
    start, x, y = inject(_Small(), list(NAMES), RANK, ALPHA), 4 * torch.randn(12, 6), torch.randint(0, 3, (12,))
    model = copy.deepcopy(start)
    made = function(model, x, y, STEPS, RATE)
    moved = not torch.equal(model.first.lora_B, start.first.lora_B)
    if made is None and not moved:
        return [("open", "train(model, x, y, steps, learning_rate) gives nothing back yet.")], ("", "")
    if not isinstance(made, (list, tuple)) or len(made) != STEPS:
        how = "nothing" if made is None else f"{len(made)} losses" if isinstance(made, (list, tuple)) else "no list"
        lines = [("wrong", f"It hands back {how}; a list of {STEPS} losses is expected, one per step.")]
        return lines, ("no list of losses", "Keep loss.item() in every step, and return the list after the loop.")
    lines = [("right", "It hands back one loss per step.")]
    if any(isinstance(loss, Tensor) for loss in made):
        lines.append(("wrong", "The losses are tensors."))
        return lines, ("tensors kept", "A loss kept as a tensor keeps its whole backward pass: use loss.item().")
    right = train(copy.deepcopy(start), x, y, STEPS + 1, RATE)
    lines.append(_line(_close(made[:1], right[:1]), "The first loss is that of the model as it was.",
                       f"The first loss is {made[0]:.4f}; before any step it is {right[0]:.4f}."))  # fmt: skip
    lines.append(_line(_close(made, right[:-1]), "Every loss is right: Adam, one step for each.",
                       f"The losses are {_listed(made)}; {_listed(right[:-1])} is expected."))  # fmt: skip
    if _close(made, right[:-1]):
        return lines, ("", "")
    if _close(made, right[1:]):
        return lines, ("the loss after the step", "Compute the loss once, before the step, and keep that one.")
    if max(made) - min(made) < 1e-6 * abs(made[0]):
        return lines, ("nothing moves", "In every step: zero_grad(), then backward(), then step(), in this order.")
    for name, settings, fix in WRONG_LOOPS:
        if _close(made, _loop(copy.deepcopy(start), x, y, **settings)):
            return lines, (name, fix)
    return lines, ("", "")


def _close(made: list, expected: list) -> bool:
    """Are these the same losses, up to rounding?"""
    return all(math.isclose(one, other, rel_tol=1e-4) for one, other in zip(made, expected, strict=True))


def _listed(losses: list) -> str:
    """The losses in words."""
    return ", ".join(f"{loss:.3f}" for loss in losses)
