"""scores: each number against a reference or a case worked by hand, each interval against what it promises."""

import itertools
import json
import math

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import binomtest

from lab_utils import scores, tasks
from lab_utils.errors import LabError
from lab_utils.folders import ROOT
from lab_utils.retention import Change
from lab_utils.scores.labels import OTHER, confusion, macro_f1
from lab_utils.tasks import TASKS

ROWS = [{"text": f"t{n}", "label": "aab"[n % 3]} for n in range(60)]


# Intervals.


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 50), (132, 264), (1, 10_000)])
def test_wilson_is_scipys(right, n):
    found = scores.wilson(right, n)
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.value == right / n and found.low <= found.value <= found.high


def test_no_interval_is_a_point():
    assert scores.bootstrap_mean([0] * 20).high > 0.1 and scores.bootstrap_mean([True] * 20).low < 0.9
    for written in (["a", "b"] * 10, ["c"] * 20):  # all right, none right
        found = macro_f1(confusion(["a", "b"] * 10, written, "ab"))
        assert found.high - found.low > 0.1 and found.low <= found.value <= found.high
    half = scores.bootstrap_mean([0.5] * 20)
    assert half.low < 0.4 and half.high > 0.6
    same = scores.difference([0, 1] * 10, [0, 1] * 10)
    assert same.value == 0 and same.low < -0.03 and same.high > 0.03


@pytest.mark.parametrize(
    ("value", "low", "high", "share", "said"),
    [
        (-0.003, -0.2, -0.004, True, "lead 0% (-20% to 0%)"),
        (0.0, -0.0, 0.004, True, "lead 0% (0% to 0%)"),
        (-0.0, -0.5, 0.25, False, "lead 0 (-0.5 to 0.25)"),
        (-0.125, -0.5, -0.006, True, "lead -12% (-50% to -1%)"),
    ],
)
def test_zero_has_no_sign(value, low, high, share, said):
    assert str(scores.Measure("lead", value, low, high, 20, "Newcombe", share)) == said


def test_points_never_hide_on_which_side_of_zero_an_interval_ends():
    worse = scores.Measure("lead", -0.5, -0.81, -0.002, 6, "Newcombe")
    assert worse.in_points == "-50 points (-81 to -0.2)"
    assert scores.Measure("lead", 0.0, -0.44, 0.44, 6, "Newcombe").in_points == "0 points (-44 to +44)"
    assert scores.Measure("lead", 0.12, 0.0003, 0.23, 60, "Newcombe").in_points == "+12 points (+0.03 to +23)"


@pytest.mark.parametrize(("low", "high", "clear"), [
    (0.1, 0.3, True), (-0.3, -0.1, True), (-0.1, 0.3, False), (0.0, 0.3, False), (-0.3, 0.0, False),
])  # fmt: skip
def test_a_difference_is_clear_where_its_interval_leaves_zero_out(low, high, clear):
    middle = (low + high) / 2
    for found in scores.Measure("gain", middle, low, high, 9, "Newcombe"), Change(middle, low, high, 2, 9):
        assert found.clear is clear and found.verdict == ("clear" if clear else "not clear")
    assert str(found).endswith(f": {found.verdict}")


def test_the_verdict_is_written_in_one_place():
    """Whatever else says "clear" or "not clear" asks `Verdict`."""
    found = [path.name for path in (ROOT / "lab_utils").rglob("*.py") if 'else "not clear"' in path.read_text("utf-8")]
    assert found == ["verdicts.py"]


def test_the_bootstrap_is_near_the_normal_interval_where_that_holds():
    values = np.random.default_rng(0).beta(2, 3, 400)
    found, half = scores.bootstrap_mean(values), 1.96 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    assert found.value == pytest.approx(values.mean()) and found == scores.bootstrap_mean(values)


def test_the_paired_difference_holds_the_truth_as_often_as_it_says():
    """1,000 samples of 40 pairs: of 0.55 against 0.75, correlated as two models on one test are."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(1000):
        hard = rng.random(40)  # a hard example is hard for both
        one, other = (hard * 0.6 + rng.random(40) * 0.4 < 0.53), (hard * 0.6 + rng.random(40) * 0.4 < 0.68)
        found = scores.difference(one, other)
        hits += found.low <= TRUTH <= found.high
    assert 0.935 <= hits / 1000 <= 0.985


def below(limit: float) -> float:
    """P(0.6 u + 0.4 v < limit) of two uniform numbers."""
    u = (np.arange(4000) + 0.5) / 4000
    return float(np.clip((limit - 0.6 * u) / 0.4, 0, 1).mean())


TRUTH = below(0.68) - below(0.53)


@pytest.mark.parametrize(("first", "second"), [((93, 100), (71, 100)), ((0, 8), (8, 8)), ((48, 80), (56, 70))])
def test_the_difference_of_two_samples_adds_the_sides_of_scipys_intervals_in_squares(first, second):
    one, other = (binomtest(*counts).proportion_ci(method="wilson") for counts in (first, second))
    share, larger = first[0] / first[1], second[0] / second[1]
    down, up = math.hypot(larger - other.low, one.high - share), math.hypot(other.high - larger, share - one.low)
    found = scores.difference_of_samples(scores.wilson(*first), scores.wilson(*second))
    assert (found.low, found.high) == pytest.approx((larger - share - down, larger - share + up), abs=1e-12)
    assert (found.value, found.n) == (larger - share, first[1] + second[1])


def test_pairs_without_correlation_are_two_samples():
    found = scores.difference([1, 1, 0, 0] * 5, [1, 0, 1, 0] * 5)
    apart = scores.difference_of_samples(scores.wilson(10, 20), scores.wilson(10, 20))
    assert (found.value, found.low, found.high) == pytest.approx((apart.value, apart.low, apart.high))


def test_a_difference_turns_its_sign_when_its_sides_change():
    one, other = [1, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 1, 0, 0, 1, 0]
    found, back = scores.difference(one, other), scores.difference(other, one)
    assert (found.value, found.low, found.high) == pytest.approx((-back.value, -back.high, -back.low))
    real = scores.difference([0.5, 0.25], [0.25, 0.5])
    assert real.how == "bootstrap" and real.value == 0


def test_perplexity_weighs_tokens():
    found = scores.perplexity([1.0, 2.0], [3, 1])
    assert found.value == pytest.approx(math.exp(5 / 4)) and not found.is_share
    assert (found.low, found.high) == pytest.approx((math.exp(1), math.exp(2)))
    for losses, tokens in (([], []), ([1.0], [1, 2]), ([math.inf], [1]), ([1.0], [0])):
        with pytest.raises(LabError, match="perplexity"):
            scores.perplexity(losses, tokens)


@pytest.mark.parametrize("values", [[], [2.0], [math.nan], ["a"], [[0.5]], 3])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(LabError, match="mean"):
        scores.bootstrap_mean(values)


# Texts.

TEXTS = ["the cat sat on the mat", "a cat sat", "mat the on sat cat the", "dogs!", "", "Cat, sat: on mat", "x x x y"]


@pytest.mark.parametrize("output", TEXTS)
def test_rouge_l_is_rouge_scores(output):
    reference = RougeScorer(["rougeL"])
    for answer in TEXTS:
        assert scores.rouge_l(output, answer) == reference.score(answer, output)["rougeL"].fmeasure


def test_rouge_l_knows_letters_beyond_a_to_z():
    assert scores.rouge_l("größere Äpfel", "größere Äpfel") == 1 and scores.rouge_l("мир", "мир") == 1


def test_token_f1_by_hand():
    assert scores.token_f1("The cat sat.", "a cat sat down") == pytest.approx(2 * (2 / 2) * (2 / 3) / (2 / 2 + 2 / 3))
    assert scores.token_f1("x x y", "x y y") == pytest.approx(2 / 3)  # one x and one y in common, of three and three
    assert scores.token_f1("", "") == 1 and scores.token_f1("the", "") == 1 and scores.token_f1("cat", "") == 0


# Labels.


def test_a_confusion_matrix_by_hand():
    found = confusion(["a", "a", "b", "b"], ["a", "b", "b", "?"], ["a", "b"])
    assert found.labels == ("a", "b", OTHER) and found.counts == ((1, 1, 0), (0, 1, 1))
    assert found.mistakes() == [("a", "b", 1), ("b", OTHER, 1)]
    # F1 of a: 2·1 / (2 + 1); of b: 2·1 / (2 + 2)
    assert macro_f1(found).value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert "(no label)" in str(found)


def test_the_macro_f1s_interval_is_that_of_resampled_examples():
    rng = np.random.default_rng(3)
    right = rng.integers(0, 3, 150)
    written = np.where(rng.random(150) < 0.7, right, rng.integers(0, 3, 150))

    def value(rows):
        each = [2 * ((right[rows] == k) & (written[rows] == k)).sum()
                / ((right[rows] == k).sum() + (written[rows] == k).sum()) for k in range(3)]  # fmt: skip
        return np.mean(each)

    drawn = [value(rng.integers(0, 150, 150)) for _ in range(2000)]
    found = macro_f1(confusion(list(map(str, right)), list(map(str, written)), "012"))
    assert found.value == pytest.approx(value(np.arange(150)))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.015)


# A task's scores.


def own(metric=None, rows=ROWS):
    return tasks.own(rows, metric=metric)


def test_labels_are_scored_with_their_confusion():
    found = scores.measure(own(), ["a", "a", "b", "b"], [" a", "b", "b", "pardon?"])
    assert found["label accuracy"].value == 0.5 and found["is a label"].value == 0.75
    assert found.per_row == (1, 0, 1, 0) and found.confusion.counts == ((1, 1, 0), (0, 1, 1))
    assert found.main.name == "label accuracy" and found.worst(2) == [1, 3]
    json.dumps(found.to_dict())


def test_fields_are_scored_one_by_one():
    task = TASKS["bookings"]
    answer = {"name": "Ann", "qty": 2, "item": "tents", "day": "Friday", "time": "9am"}
    wrong = {**answer, "qty": 3}
    found = scores.measure(task, [json.dumps(answer)] * 3, [json.dumps(answer), json.dumps(wrong), "no"])
    assert found["exact match"].value == pytest.approx(1 / 3) and found["is JSON"].value == pytest.approx(2 / 3)
    assert found["field qty"].value == pytest.approx(1 / 3) and found["field name"].value == pytest.approx(2 / 3)
    assert found.per_row == (1, 0.8, 0) and found.worst(1) == [2]


def test_texts_and_a_persons_own_function():
    rows = [{"prompt": f"p{n}", "answer": f"a long answer number {n}."} for n in range(9)]
    found = scores.measure(own(rows=rows), ["one two", "three"], ["one two", "four"])
    assert [one.name for one in found.measures] == ["token F1", "ROUGE-L", "exact match"] and found.main.value == 0.5

    def shares_letter(output, answer):
        return output[:1] == answer[:1]

    found = scores.measure(own(shares_letter, rows), ["one two", "three"], ["one", "t"])
    assert found.main.name == "shares_letter" and found.main.value == 1 and found.main.how == "Wilson"
    part = scores.measure(own(lambda output, answer: min(1, len(output) / 4), rows), ["a", "a"], ["b", "bb"])
    assert part.main.value == 0.375 and part.main.how == "bootstrap"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda output, answer: output[99], "raised IndexError"), (lambda output, answer: "yes", "gave 'yes'"),
        (lambda output, answer: 7, "gave 7"), (lambda output, answer: math.nan, "gave nan"),
        (lambda output: True, "raised TypeError"),
    ],
)  # fmt: skip
def test_a_function_that_fails_is_named_with_the_example(function, said):
    """Before a training, on the first right answer; and on an output that only a training gives."""
    with pytest.raises(LabError, match=rf"Your <lambda>\(output, answer\) {said}.*for the first answer itself"):
        own(function)
    late = own(lambda output, answer: function(output, answer) if output == "b" else True)
    with pytest.raises(LabError, match=rf"Your <lambda>\(output, answer\) {said}.*at example 2"):
        scores.measure(late, ["a", "a"], ["a", "b"])
    with pytest.raises(LabError, match=rf"Your <lambda>\(output, answer\) {said}"):
        late.is_right("b", "a")


def test_every_measure_lies_in_its_interval():
    long = [{"prompt": f"p{n}", "answer": f"a long answer number {n}."} for n in range(9)]
    for task, answer in ((own(), "a"), (TASKS["bookings"], '{"qty":1}'), (TASKS["style"], "x"), (own(rows=long), "x y"),
                         (own(lambda o, a: True), "a")):  # fmt: skip
        found = scores.measure(task, [answer], [answer])
        assert all(one.low <= one.value <= one.high for one in found.measures)


@pytest.mark.parametrize(("answers", "outputs"), [([], []), (["a"], []), (["a"], ["b", "c"])])
def test_numbers_that_differ_are_refused(answers, outputs):
    with pytest.raises(LabError, match="There are"):
        scores.measure(own(), answers, outputs)


# What costs nothing.


def test_the_majority_is_the_answer_that_is_right_most_often():
    task = own()
    said, share = scores.majority(task)
    outputs = scores.majority_outputs(task, task["train"])
    right = {answer: sum(task.is_right(answer, one) for one in task["train"]["answer"]) for answer in ("a", "b")}
    assert said == max(right, key=right.get) == "a" and share == right["a"] / len(outputs)
    assert scores.measure(task, task["train"]["answer"][:], outputs).main.value == share


def test_the_majority_of_fields_is_each_fields_own():
    rows = [{"text": str(n), "qty": (1, 1, 2)[n % 3], "item": ("x", "y")[n % 2]} for n in range(12)]
    task = tasks.own(rows, prompt="text", answer=("qty", "item"), split=(1, 0, 0))
    said, share = scores.majority(task)
    assert json.loads(said)["qty"] == 1
    assert share == sum(task.is_right(said, one) for one in task["train"]["answer"]) / 12
    free = [{"prompt": f"p{n}", "answer": f"a long answer number {n}."} for n in range(9)]
    with pytest.raises(LabError, match="free texts"):
        scores.majority(own(rows=free))


def test_shots_are_of_training_and_of_every_label():
    task = own(rows=[{"text": f"t{n}", "label": "a" if n % 10 else "b"} for n in range(100)])
    shots = scores.few_shots(task, 4, seed=2)
    assert sorted(row["answer"] for row in shots) == ["a", "a", "b", "b"]
    train = set(task["train"]["prompt"])
    assert {row["prompt"] for row in shots} <= train and len({row["prompt"] for row in shots}) == 4
    assert scores.few_shots(task, 4, seed=2) == shots and scores.few_shots(task, 0) == []
    orders = {tuple(row["answer"] for row in scores.few_shots(task, 4, seed)) for seed in range(8)}
    assert len(orders) > 2, "the last label before the prompt is not always the same"


def test_pairs_of_values_never_break_an_interval():
    for one, other in itertools.product(itertools.product((0, 1), repeat=3), repeat=2):
        found = scores.difference(one, other)
        assert -1 <= found.low <= found.value <= found.high <= 1
