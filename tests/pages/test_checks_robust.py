"""Nothing that a learner hands over makes a check raise, hang or break its page."""

import functools
import html.parser
import re
import threading
import time

import pytest
import torch
from contrast import brightness, contrast

from lab_utils import checks
from lab_utils.checks import engine
from lab_utils.checks.report import EXAMPLE_WIDTH, STYLE, Report, prose
from lab_utils.plots import target_and_yours

EXERCISES = checks.EXERCISES
SOME = ("outer_product", "model_adapter_parameters", "initial_adapter")


class Rude:
    """An object that raises whatever is asked of it."""

    def __getattribute__(self, name):
        raise RuntimeError("no")

    __repr__ = __eq__ = __bool__ = __len__ = __iter__ = __float__ = lambda self, *_: 1 / 0
    __hash__ = None


class RudeError(Exception):
    def __str__(self):
        raise ValueError("not even this")


class Stop(BaseException):
    pass


def raises(error):
    def function(*_):
        raise error

    return function


def resizes(first, *_):
    first.resize_(0)
    return first


def recurses(*arguments):
    return recurses(*arguments)


def forgets(shapes, *_):
    shapes.clear()
    return 0


async def coroutine(*_):
    return 1


def generator(*_):
    yield 1


GARBAGE = {
    "list": lambda *_: [1, 2], "text": lambda *_: "<b>12</b>", "dict": lambda *_: {}, "bool": lambda *_: True,
    "rude": lambda *_: Rude(), "pair of rude": lambda *_: (Rude(), Rude()), "nan": lambda *_: float("nan"),
    "inf": lambda *_: float("inf"), "huge": lambda *_: 10**400, "complex": lambda *_: 1j, "class": lambda *_: Rude,
    "tensor nan": lambda *_: torch.full((2, 2), float("nan")), "tensor inf": lambda *_: torch.tensor(float("inf")),
    "empty": lambda *_: torch.empty(0), "3-D": lambda *_: torch.ones(2, 2, 2), "big": lambda *_: torch.ones(300, 300),
    "bool tensor": lambda *_: torch.ones(2, 2) > 0, "complex tensor": lambda *_: torch.ones(2, 2) * 1j,
    "int tensor": lambda *_: torch.ones(2, 2, dtype=torch.int64), "meta": lambda *_: torch.ones(2, 2, device="meta"),
    "sparse": lambda *_: torch.eye(2).to_sparse(), "half": lambda *_: torch.ones(2, 2).half(),
    "numpy": lambda *_: torch.ones(2, 2).numpy(), "gradient": lambda *_: torch.ones(2, 2, requires_grad=True),
    "pair of sparse": lambda *_: (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
    "its input": lambda *arguments: arguments[0], "its inputs": lambda *arguments: arguments,
    "no arguments": lambda: 1, "too many": lambda a, b, c, d, e, f, g, h: 1, "keywords": lambda *, x: 1,
    "exception": raises(ValueError("a <b>message</b>\nof two lines")), "rude exception": raises(RudeError()),
    "exit": raises(SystemExit(1)), "base exception": raises(Stop()), "assertion": raises(AssertionError()),
    "recursion": recurses, "resize": resizes, "clear": forgets, "coroutine": coroutine, "generator": generator,
    "builtin": len, "type": int, "partial": functools.partial(torch.add), "tensor method": torch.Tensor.t,
    "module": torch.nn.Linear(2, 2), "by chance": lambda *_: torch.rand(1).item(),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("function", GARBAGE.values(), ids=GARBAGE)
def test_garbage_never_raises(name, function, monkeypatch):
    monkeypatch.setattr(engine, "examples", lambda exercise, made=engine.examples: made(exercise)[:5])
    monkeypatch.setattr(engine, "SEARCHED", 5)
    report = checks.check(name, function)
    assert not report.passed and report.status == "wrong"
    assert report.text.startswith("✗") and report.html
    assert len(report.text) < 6000


@pytest.mark.parametrize("part", ["text", "rude", "huge", "complex", "tensor nan", "meta", "sparse", "bool", "empty"])
def test_garbage_in_threes_never_raises(part):
    report = checks.check("quantize_zeropoint", lambda *_: (GARBAGE[part](),) * 3)
    assert not report.passed and report.status == "wrong" and report.html and len(report.text) < 6000
    report = checks.check("quantize_zeropoint", lambda w, bits: (w.byte(), GARBAGE[part](), 1.0))
    assert not report.passed and report.text.startswith("✗")


def test_what_is_no_function_is_said_to_be_none():
    for function in (None, 3, "outer_product", torch.ones(2, 2), Rude()):
        report = checks.check("outer_product", function)
        assert not report.passed and "checks.check('outer_product', outer_product)" in report.text


@pytest.mark.parametrize("number", range(8))
def test_an_unknown_name_says_which_there_are(number):
    name = ("outer_produkt", "", None, 3, [1], len, Rude(), "<script>")[number]
    for report in (checks.check(name, len), checks.check(name), checks.hint(name), checks.solution(name)):
        assert not report.passed and "There is no exercise" in report.text
        assert all(known in report.text for known in EXERCISES) and "<script>" not in report.html


@pytest.mark.parametrize("level", [0, 4, "1", None, 1.5, True, [1]], ids=str)
def test_a_level_that_there_is_not(level):
    report = checks.hint("energy", level)
    assert ("1, 2 and 3" in report.text) or level is True


def endless(*_):
    while True:
        pass


def stubborn(*_):
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass


@pytest.mark.parametrize("function", [endless, stubborn, lambda *_: time.sleep(60)], ids=["loop", "stubborn", "sleep"])
def test_an_endless_function_is_given_up(function):
    began = time.monotonic()
    report = checks.check("outer_product", function, seconds=0.3)
    assert time.monotonic() - began < 5
    assert not report.passed and "did not come to an end within 0.3 seconds" in report.text


def test_one_that_hangs_on_some_inputs_only_and_one_that_is_slow():
    def hangs(column, row):
        return endless() if len(column) == 3 else torch.outer(column, row)

    report = checks.check("outer_product", hangs, seconds=0.5)
    assert not report.passed and "did not come to an end" in report.text

    def slow(column, row):
        time.sleep(0.03)
        return torch.outer(row, column)

    began = time.monotonic()
    report = checks.check("outer_product", slow, seconds=4)
    assert report.mistake == "column and row swapped" and report.example
    assert time.monotonic() - began < 8


def test_the_learner_can_interrupt():
    with pytest.raises(KeyboardInterrupt):
        checks.check("outer_product", raises(KeyboardInterrupt()))


def test_another_thread_may_check():
    reports = []
    thread = threading.Thread(target=lambda: reports.append(checks.check("outer_product", torch.outer)))
    thread.start()
    thread.join()
    assert reports[0].passed


def test_each_aspect_is_judged_by_itself():
    def lines(name, function):
        return {text.split(" (")[0]: status for status, text in checks.check(name, function).lines}

    only_type = lines("outer_product", lambda c, r: torch.outer(c, r).float())
    assert only_type["The numbers are right."] == "right" and only_type["The shape is right."] == "right"
    assert [text for text, status in only_type.items() if status == "wrong"] == [
        "The data type is torch.float32; torch.float64 is expected, like the input."
    ]
    changed = lines("outer_product", lambda c, r: torch.outer(c, r) + 0 * c.mul_(2).sum())
    assert changed["It changes `column` in place."] == "wrong" and "It runs without an error." in changed
    fraction = lines("adapter_parameters", lambda o, i, r: r * (o + i) / 1)
    assert "It returns a float, 2; a whole number" in fraction
    assert checks.check("relative_error", lambda w, a: (w - a).norm() / w.norm()).passed  # a tensor with one number


def test_a_single_number_may_be_a_tensor_or_not():
    def quantize(weight, bits):
        absmax = weight.abs().max().item()
        return (weight / absmax * (2 ** (bits - 1) - 1)).round().to(torch.int8), absmax

    assert checks.check("quantize_absmax", quantize).passed
    def listed(weight, bits):
        indices, scale, zero_point = EXERCISES["quantize_zeropoint"].solution(weight, bits)
        return [indices, scale.double(), int(zero_point)]

    assert checks.check("quantize_zeropoint", listed).passed
    report = checks.check("quantize_absmax", lambda w, bits: (quantize(w, bits)[0], w.abs().amax(keepdim=True)))
    assert "Result 2: It returns a tensor of shape (1, 1); a number is expected." in report.text
    report = checks.check("quantize_absmax", lambda w, bits: (quantize(w, bits)[0], -1.0))
    assert dict(report.example)["yours"].endswith("\n-1")


def test_whole_numbers_have_a_width_and_are_not_floats():
    def quantize(weight, bits, dtype):
        absmax = weight.abs().max()
        return (weight / absmax * (2 ** (bits - 1) - 1)).round().to(dtype), absmax

    for dtype in (torch.float32, torch.int64):
        report = checks.check("quantize_absmax", lambda w, bits, dtype=dtype: quantize(w, bits, dtype))
        assert not report.passed and report.mistake == "not stored as int8"
        assert f"Result 1: The data type is {dtype}; torch.int8 is expected." in report.text
    nearest = EXERCISES["nearest_code"].solution
    assert checks.check("nearest_code", lambda values, code: nearest(values, code).byte()).passed
    assert not checks.check("nearest_code", lambda values, code: nearest(values, code).float()).passed
    assert checks.check("dequantize_absmax", lambda i, absmax, bits: i / (2 ** (bits - 1) - 1) * absmax).passed


def test_an_error_comes_with_the_learners_line():
    def outer_product(column, row):
        rows = len(column)
        return column.reshape(rows, 7) * row

    report = checks.check("outer_product", outer_product)
    assert "RuntimeError" in report.text and "line 3: return column.reshape(rows, 7) * row" in report.text


def test_what_the_function_prints_is_shown_once(capsys):
    report = checks.check("scaling", lambda alpha, rank, use_rslora: print(alpha, rank) or alpha)
    assert report.printed == "16 64" and "Your function printed" in report.html
    assert capsys.readouterr().out == ""


class Reader(html.parser.HTMLParser):
    """Checks that tags are balanced, and collects them."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.summaries = [], [], 0

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        else:
            self.open.append(tag)
        self.summaries += tag == "summary"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["best_rank_r", "energy", "initial_adapter", "scaling"])
@pytest.mark.parametrize("kind", ["open", "wrong", "right"])
def test_the_html_needs_nothing_else(name, kind):
    function = {"open": lambda *_: None, "wrong": lambda *_: "<i>&", "right": EXERCISES[name].solution}[kind]
    report = checks.check(name, function)
    bundle = report._repr_mimebundle_()
    assert bundle["text/plain"] == repr(report) and repr(report).split() == report.text.split()
    reader = Reader()
    reader.feed(bundle["text/html"])
    assert reader.open == [] and report.status == kind
    assert reader.summaries == (2 if kind == "right" else 5)
    assert not re.search("<i>|<script|https?:|src=\"(?!data:)", bundle["text/html"])  # base64 has no colon
    assert len(reader.images) == (EXERCISES[name].picture is not None)
    for image in reader.images:
        assert image["src"].startswith("data:image/png;base64,") and image["alt"].startswith("Picture. Target: ")
        assert image["alt"] in report.text
        assert ("nothing to show yet" in image["alt"]) == (kind != "right"), image["alt"]
    sizes = re.findall(r"font(?:-size)?: (\d+)px", report.html)
    assert len(sizes) >= 4 and min(map(int, sizes)) >= 15


JUPYTERLAB = ({"back": "#fff", "soft": "#eee"}, {"back": "#212121", "soft": "#424242"})  # its themes, light and dark
INK = ("text back", "text soft", "link back", "right back", "wrong back", "open back", "on-named named")


def test_a_card_is_readable_in_the_light_and_in_the_dark():
    """With its own colours, and with those of JupyterLab's themes below them."""
    blocks = re.findall(r"\{([^}]+)\}", STYLE)
    found = [dict(re.findall(r"--lab-([\w-]+): (?:var\(--jp-[\w-]+, )?(#\w+)", block)) for block in blocks]
    light, dark = [block for block in found if block]
    assert light.keys() == dark.keys() and ':is([data-jp-theme-light="false"]' in STYLE
    assert brightness(light["back"]) > 0.9 and brightness(dark["back"]) < 0.05  # no white slab in the dark
    for own, theme in zip((light, dark), JUPYTERLAB, strict=True):
        for colors in (own, {**own, **theme}):
            for pair in INK:
                assert contrast(*(colors[part] for part in pair.split())) >= 4.5, pair
    assert not re.search(r"(?<!-)(?:background|color): #", STYLE)  # every colour has its two


def test_target_and_yours_draws_both():
    left, right = target_and_yours([[1, -2], [0, float("nan")]], [[1, 2], [3, 4]]).axes
    assert [axes.get_title("left") for axes in (left, right)] == ["target", "yours"]
    assert left.images[0].get_array().tolist()[0] == [1, -2] and left.images[0].get_clim() == (-2, 2)
    assert right.images[0].get_clim() == (-2, 2)  # one scale
    assert sorted(text.get_text() for text in left.texts) == ["-2", "0", "1"]
    bars, empty = target_and_yours([0.5, 1.0]).axes
    assert [bar.get_height() for bar in bars.patches] == [0.5, 1.0]
    assert [text.get_text() for text in empty.texts] == ["nothing yet"] and not empty.patches
    target, empty = target_and_yours(torch.ones(2, 8)).axes
    target.figure.draw_without_rendering()
    height, other = (axes.get_window_extent().height for axes in (target, empty))
    assert height == pytest.approx(other, rel=0.01)  # as low as the matrix beside it


def test_what_is_between_backticks_is_set_as_code_and_nothing_else():
    assert prose("end with a `return` <b>") == "end with a <code>return</code> &lt;b&gt;"
    assert prose("a ` alone") == "a ` alone"


def test_a_long_example_goes_on_below_and_loses_nothing():
    numbers = "[" + "  ".join(map(str, range(60))) + "]   shape (60,)"
    shown = Report("verdict", "open", [], example=[("k", "2"), ("gives", numbers)])._example()
    assert max(map(len, shown.splitlines())) <= EXAMPLE_WIDTH + 3
    assert shown.split() == ["k", "=", "2", "gives", "=", *numbers.split()]


def test_crowded_pictures_have_short_numbers_and_no_negative_zero():
    target = torch.linspace(-2.4567, 2.4567, 64).reshape(8, 8)
    target[0] = -0.0
    texts = [text.get_text() for text in target_and_yours(target).axes[0].texts]
    assert max(map(len, texts)) <= 5 and texts[:8] == ["0"] * 8
    assert [text.get_text() for text in target_and_yours([[-0.123, 2.0]]).axes[0].texts] == ["-0.123", "2"]
