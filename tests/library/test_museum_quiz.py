"""The museum's test: its recorded cases can be told apart, its points, and that the browser says what Python does."""

import json

import alone
import pytest

from lab_utils.errors import LabError
from lab_utils.recorded.museum import CASES, FILE, MEASUREMENTS, MUSEUM, SERVED_RIGHTLY, SERVING, load_cases
from lab_utils.widgets.museum_quiz import ACCIDENTS, TEXTS, MuseumQuiz, points

TELLS = {  # case: the measurement that alone tells it apart
    "never stops": 0, "prompt in the loss": 1, "does nothing": 2, "learning rate": 3, "packing": 4, "merge": 6,
    "twice": 6, "template": 7, "half-counted": 8,
}  # fmt: skip


def test_every_accident_is_told_apart_by_its_measurement():
    cases = load_cases()
    assert tuple(cases) == (*CASES, SERVED_RIGHTLY) and set(TELLS) == set(CASES) - {"nothing"}
    for name, place in TELLS.items():
        measurement = MEASUREMENTS[place]
        right = cases[SERVED_RIGHTLY if name in SERVING else "nothing"].readings
        assert cases[name].readings[measurement] != right[measurement], name
        if name in SERVING:  # nothing but what the fault is about differs
            others = {one for one in MEASUREMENTS if cases[name].readings[one] != right[one]}
            assert others <= {measurement, MEASUREMENTS[5]}
    assert cases["never stops"].readings[MEASUREMENTS[0]].startswith("0 ")
    assert float(cases["does nothing"].readings[MEASUREMENTS[2]]) == 0
    assert float(cases["twice"].readings[MEASUREMENTS[6]].split()[0]) == pytest.approx(2, abs=0.05)
    assert float(cases["merge"].readings[MEASUREMENTS[6]].split()[0]) < 0.2
    assert float(cases["packing"].readings[MEASUREMENTS[4]].split()[0]) > 0.01
    served = {name: case.readings[MEASUREMENTS[7]] == "the same" for name, case in cases.items()}
    assert [name for name, same in served.items() if not same] == ["template"]


def test_points_by_hand():
    assert [points(measured, True) for measured in (1, 2, 6, 7, 9)] == [10, 9, 5, 4, 4]
    assert points(1, False) == 0


def test_texts_name_every_exhibit_by_its_number_and_fill_in_the_losses():
    quiz = MuseumQuiz()
    for record, name in zip(quiz.records, CASES, strict=True):
        number = TEXTS[name][0]
        assert ACCIDENTS[record["answer"]].startswith(f"{number}. " if number else "nothing")
        assert "{" not in record["symptom"]


def test_a_score_counts_measurements_and_the_first_name():
    quiz = MuseumQuiz()
    right = quiz.records[0]["answer"]
    quiz.taken, quiz.named = {"1": [6, 5], "2": [0]}, {"1": right, "2": right}
    assert quiz.score() == 9 and "right. " in quiz.summary() and quiz.summary().endswith(" 9 of 20 points.")
    quiz.case = 2
    assert f"not this one; it is {ACCIDENTS[quiz.records[1]['answer']]}" in quiz.summary()
    quiz.reset()
    assert (quiz.case, quiz.taken, quiz.named, quiz.score()) == (1, {}, {}, 0)


def test_its_picture_has_the_symptoms_and_not_the_answers():
    quiz = MuseumQuiz()
    shown = quiz.figure().axes[0].texts[0].get_text()
    assert quiz.records[0]["symptom"][:40] in shown and not any(name in shown for name in ACCIDENTS)


@pytest.mark.parametrize("damage", [
    lambda data: data.pop("cases"), lambda data: data["cases"].pop("merge"),
    lambda data: data["cases"]["merge"]["readings"].popitem(),
    lambda data: data["cases"]["nothing"].update(last_loss=float("nan")),
])  # fmt: skip
def test_damaged_cases_say_how_to_restore_them(tmp_path, damage):
    data = json.loads((MUSEUM / FILE).read_text())
    damage(data)
    (tmp_path / FILE).write_text(json.dumps(data))
    with pytest.raises(LabError, match=r"git checkout -- data/museum.*record_museum\.py"):
        load_cases(tmp_path)


def test_cases_without_the_healthy_run_and_a_case_out_of_range_are_refused():
    cases = load_cases()
    with pytest.raises(LabError, match="without a fault"):
        MuseumQuiz({"merge": cases["merge"]})
    with pytest.raises(LabError, match="case"):
        MuseumQuiz(case=11)


@pytest.mark.browser
def test_the_browser_measures_names_and_scores_by_keyboard_as_python_does():
    quiz = MuseumQuiz()
    with alone.shown(quiz) as page:
        page.evaluate("document.querySelector('main').style.width = '856px'")  # JupyterLab's page at 1024 × 768
        assert page.locator(".lab-explorer").bounding_box()["height"] < 640  # what JupyterLab leaves of 768
        assert page.locator(".lab-naming button").is_disabled()  # nothing is measured yet
        page.locator("td button").nth(6).focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # the next one has the focus
        page.locator(".lab-naming select").select_option(str(quiz.records[0]["answer"]))
        page.locator(".lab-naming button").press("Enter")
        said = page.locator(".lab-summary").text_content()
        quiz.taken, quiz.named = {"1": [6, 7]}, {"1": quiz.records[0]["answer"]}
        assert said == quiz.summary() and page.errors == []
        assert page.locator("td button").count() == 0  # all are shown once it is named
        states = [{"case": number, "named": {"1": 3, str(number): 2}} for number in (2, 5)]
        texts = alone.sentences(page, states)
    for state, text in zip(states, texts, strict=True):
        quiz.case, quiz.named = state["case"], state["named"]
        assert text == quiz.summary()
