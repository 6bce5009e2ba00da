"""The student's own `inject` and training loop: right ones pass, mistakes are named, the page always goes on."""

import copy
import inspect

import nbformat
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab_utils.checks import by_hand
from lab_utils.checks.by_hand import ALPHA, RANK, STEPS, MyLoRALinear, check_by_hand
from lab_utils.folders import NOTEBOOKS
from lab_utils.lora import digits


def not_frozen(model, names, rank, alpha):
    for name in names:
        setattr(model, name, MyLoRALinear(getattr(model, name), rank, alpha))
    return model


def frozen_last(model, names, rank, alpha):
    return not_frozen(model, names, rank, alpha).requires_grad_(False)


def swapped(model, names, rank, alpha):
    return by_hand.inject(model, names, alpha, rank)


def first_name(model, names, rank, alpha):
    return by_hand.inject(model, names[:1], rank, alpha)


def silent(model, names, rank, alpha):
    by_hand.inject(model, names, rank, alpha)


def hard_coded(model, names, rank, alpha):
    return by_hand.inject(model, ["first", "second"], rank, alpha)


def every_layer(model, names, rank, alpha):
    return by_hand.inject(model, [name for name, _ in model.named_children()], rank, alpha)


def fixed_alpha(model, names, rank, alpha):
    return by_hand.inject(model, names, rank, 8)


INJECTS = {
    "the rest is not frozen": not_frozen, "A and B frozen too": frozen_last, "rank and alpha swapped": swapped,
    "not every named layer": first_name, "nothing handed back": silent, "the names ignored": hard_coded,
    "rank or alpha fixed": fixed_alpha,
}  # fmt: skip


def shifted(model, x, y, steps, learning_rate):
    return by_hand.train(model, x, y, steps + 1, learning_rate)[1:]


def still(model, x, y, steps, learning_rate):
    return [F.cross_entropy(model(x), y).item() for _ in range(steps)]


def stepped_first(model, x, y, steps, learning_rate):
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=learning_rate), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        optimizer.step()
        loss.backward()
        losses.append(loss.item())
    return losses


def graphs(model, x, y, steps, learning_rate):
    return [torch.tensor(loss) for loss in by_hand.train(model, x, y, steps, learning_rate)]


def unreturned(model, x, y, steps, learning_rate):
    by_hand.train(model, x, y, steps, learning_rate)


TRAINS = {
    "the loss after the step": shifted, "nothing moves": still, "tensors kept": graphs, "no list of losses": unreturned,
}  # fmt: skip
TRAINS |= {
    name: lambda model, x, y, steps, learning_rate, settings=settings: by_hand._loop(model, x, y, **settings)
    for name, settings, _ in by_hand.WRONG_LOOPS
}


@pytest.mark.parametrize(("name", "mistake", "function"), [
    *(("inject", mistake, function) for mistake, function in INJECTS.items()),
    *(("train", mistake, function) for mistake, function in TRAINS.items()),
    ("train", "nothing moves", stepped_first), ("inject", "the names ignored", every_layer),
])  # fmt: skip
def test_a_common_mistake_is_named(name, mistake, function, capsys):
    report = check_by_hand(name, function)
    assert report.status == "wrong" and report.mistake == mistake and report.fix.endswith(".")
    assert by_hand.yours_or_ours(name, function) is by_hand.OURS[name]
    assert "goes on with the solution" in capsys.readouterr().out


@pytest.mark.parametrize("name", by_hand.OURS)
def test_right_stub_and_broken_functions(name, capsys):
    def broken(*_):
        raise RuntimeError("no such thing")

    state = torch.get_rng_state()
    report = check_by_hand(name, by_hand.OURS[name])
    assert report.passed and "✗" not in report.text and report._repr_mimebundle_()
    assert by_hand.yours_or_ours(name, by_hand.OURS[name]) is by_hand.OURS[name]
    assert torch.equal(torch.get_rng_state(), state)
    stub = check_by_hand(name, lambda *_: None)
    assert stub.status == "open" and stub.mistake is None
    assert [title for title, *_ in stub.folded] == ["Hint 1", "Hint 2", "Hint 3", "A solution"]
    assert "setattr" not in stub.text and "backward" not in stub.text  # the solution is folded
    assert "no such thing" in check_by_hand(name, broken).text
    assert not check_by_hand(name, lambda *_: 3).passed and not check_by_hand(name, lambda *_: []).passed


def test_a_wrong_scaling_is_told_with_the_right_one():
    text = check_by_hand("inject", fixed_alpha).text
    assert f"A has {RANK} rows and the scaling is {8 / RANK}" in text and f"should be {ALPHA / RANK:g}:" in text


def test_a_loop_that_trains_another_way_round_is_right_too():
    """Clearing after the step, or all parameters handed over, is the same training."""

    def loop(model, x, y, steps, learning_rate):
        optimizer, losses = torch.optim.Adam(model.parameters(), lr=learning_rate), []
        for _ in range(steps):
            loss = nn.CrossEntropyLoss()(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach().item())
        return losses

    assert check_by_hand("train", loop).passed


def test_the_loop_is_the_librarys():
    start = by_hand.inject(digits.pretrained(), ["first"], RANK, ALPHA)
    x, y = (part[:30] for part in digits.split("mirrored")[:2])
    other = copy.deepcopy(start)
    parameters = [parameter for parameter in other.parameters() if parameter.requires_grad]
    ours = by_hand.train(start, x, y, STEPS, 5e-3)
    assert ours == digits.fit(other, parameters, x, y, steps=STEPS, learning_rate=5e-3)


def test_the_class_is_the_one_on_the_page():
    cells = nbformat.read(NOTEBOOKS / "03_lora_from_scratch.ipynb", as_version=4).cells
    (cell,) = (cell.source for cell in cells if cell.source.startswith("class MyLoRALinear"))
    body = [line for line in inspect.getsource(MyLoRALinear).splitlines() if '"""' not in line]
    assert [line for line in cell.splitlines() if '"""' not in line] == body
