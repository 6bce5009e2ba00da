"""The exercise of page 15 on retrieval: against scikit-learn's search, and each mistake by its name."""

import pytest
import torch
from learners.p15_facts import LEARNERS

from lab_utils.checks.engine import examples, recognise, run
from lab_utils.checks.exercises import p15_facts

EXERCISES = {exercise.name: exercise for exercise in p15_facts.EXERCISES}
WRONG = [(name, mistake.name, wrong) for name, exercise in EXERCISES.items()
         for mistake in exercise.mistakes for wrong in mistake.wrong]  # fmt: skip
WRONG += [(name, mistake, wrong) for name, wrongs in LEARNERS.items() for mistake, wrong in wrongs]


def test_the_nearest_notes_are_those_that_scikit_learn_finds():
    from sklearn.neighbors import NearestNeighbors

    exercise = EXERCISES["nearest_notes"]
    for question, notes, top_k in [exercise.demo, *examples(exercise)]:
        index = NearestNeighbors(n_neighbors=top_k, metric="cosine", algorithm="brute").fit(notes.double().numpy())
        [expected] = index.kneighbors(question.double().numpy()[None], return_distance=False)
        assert exercise.solution(question, notes, top_k).tolist() == expected.tolist()
        assert exercise.spec(question, notes, top_k).tolist() == expected.tolist()


def test_the_longest_note_of_the_worked_example_has_the_largest_product_and_is_not_found():
    question, notes, top_k = EXERCISES["nearest_notes"].demo
    assert (notes @ question).tolist() == [6, -2, 1, 2] and notes.norm(dim=1).argmax() == 0
    assert EXERCISES["nearest_notes"].solution(question, notes, top_k).tolist() == [3, 2]
    assert 0.5**2 + 1 == pytest.approx(torch.tensor([1.0, 0.5]).norm().item() ** 2)


@pytest.mark.parametrize(("name", "mistake", "wrong"), WRONG, ids=[f"{m} ({n})" for n, (_, m, _) in enumerate(WRONG)])
def test_each_wrong_function_is_named(name, mistake, wrong):
    exercise = EXERCISES[name]
    trials = [run(exercise, wrong, inputs) for inputs in (exercise.demo, *examples(exercise))]
    assert any(trial.failed for trial in trials) and recognise(exercise, trials).name == mistake
