"""recipe: bad values are refused by name, the schedule is the one on paper, a fingerprint tells runs apart."""

import math
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from lab_utils.errors import LabError
from lab_utils.finetune.recipe import Recipe

NAN, INF = math.nan, math.inf
BAD = {
    "model": ["gpt-9", "", None, ["smollm2-135m"]],
    "task": ["poems", None, 3],
    "quantization": ["int4", "NF4", None],
    "rank": [0, -1, 1025, 8.0, "8", True, None],
    "alpha": [0, -1.0, INF, NAN, "16", True, None],
    "dropout": [-0.1, 1, 1.5, NAN, "0"],
    "use_rslora": ["false", 1, None],
    "target_modules": ["everything", (), [], 5, None, ("q_proj", 3), ("",)],
    "learning_rate": [0, -1e-3, 1, 3, NAN, "fast"],
    "warmup": [-0.1, 1, 10, NAN],
    "steps": [0, -5, 1_000_001, 2.5, None],
    "batch_size": [0, 4097, 1.0],
    "max_length": [7, 0, 1_000_001, "long"],
    "max_grad_norm": [0, -1, INF, NAN],
    "weight_decay": [-0.01, INF, NAN],
    "gradient_checkpointing": ["no", 0],
    "train_examples": [0, -1, 1.5, "all"],
    "supervise_end": ["false", 0],
    "seed": [-1, 2**32, 0.5],
    "checkpoint_every": [0, -1, 1_000_001],
    "turns": ["first", None, 1],
    "validate_every": [-1, 0.5, 1_000_001],
    "validation_examples": [0, 1.5],
    "patience": [-1, 0.5],
    "keep_best": ["no", 0],
}


def test_bad_values_are_listed_for_every_field():
    assert set(BAD) == set(asdict(Recipe()))


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_and_field_and_value_are_named(field, value):
    with pytest.raises(LabError) as caught:
        Recipe(**{field: value})
    text = str(caught.value)
    assert field in text
    assert repr(value) in text or repr(tuple(value)) in text or (not value and "empty" in text)


@pytest.mark.parametrize(
    "values",
    [
        {"rank": 1}, {"rank": 1024}, {"dropout": 0}, {"dropout": 0.99}, {"warmup": 0}, {"learning_rate": 0.99},
        {"max_length": 8}, {"seed": 2**32 - 1}, {"train_examples": None}, {"train_examples": 1}, {"weight_decay": 0},
        {"target_modules": ["q_proj"]}, {"model": "auto"}, {"alpha": 1e-6},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(values):
    recipe = Recipe(**values)
    for name, value in values.items():
        assert getattr(recipe, name) == (tuple(value) if isinstance(value, list) else value)


def test_numpys_numbers_are_numbers_and_make_the_same_recipe():
    numpy = pytest.importorskip("numpy")
    ours = Recipe(
        model=numpy.str_("smollm2-135m"), rank=numpy.int64(4), alpha=numpy.float64(8), dropout=numpy.float32(0.5),
        use_rslora=numpy.bool_(True), target_modules=[numpy.str_("q_proj")], steps=numpy.uint8(7),
        train_examples=numpy.int32(5), seed=numpy.array(3),
    )  # fmt: skip
    plain = Recipe(
        model="smollm2-135m", rank=4, alpha=8, dropout=0.5, use_rslora=True, target_modules=["q_proj"], steps=7,
        train_examples=5, seed=3,
    )  # fmt: skip
    assert ours == plain and ours.fingerprint() == plain.fingerprint()
    assert {type(value) for value in asdict(ours).values()} <= {str, int, float, bool, tuple}
    assert type(ours.target_modules[0]) is str


@pytest.mark.parametrize(
    ("field", "value"),
    [("alpha", 10**400), ("rank", 10**400), ("model", [[1]]), ("task", {}), ("rank", 8 + 0j), ("learning_rate", b"1")],
)
def test_values_that_no_comparison_is_made_for_are_refused_too(field, value):
    with pytest.raises(LabError, match=field):
        Recipe(**{field: value})
    numpy = pytest.importorskip("numpy")
    with pytest.raises(LabError, match=field):
        Recipe(**{field: numpy.array([1, 2])})


def test_the_default_recipes_fingerprint_has_not_changed():
    """Runs that are on people's disks are found by it."""
    assert Recipe().fingerprint() == "72d55a6c6fbe"
    assert Recipe(model="smollm2-135m", steps=5, checkpoint_every=2, dropout=0.05).fingerprint() == "f7b4fcdf10f9"


def test_a_recipe_is_frozen_and_takes_no_positions():
    with pytest.raises(FrozenInstanceError):
        Recipe().rank = 4
    with pytest.raises(TypeError):
        Recipe("smollm2-135m")


# What it works out.


def test_scaling():
    assert Recipe(rank=16, alpha=8).scaling == 0.5  # 8 / 16
    assert Recipe(rank=16, alpha=8, use_rslora=True).scaling == 2.0  # 8 / sqrt(16)
    assert Recipe(rank=1, alpha=3).scaling == Recipe(rank=1, alpha=3, use_rslora=True).scaling == 3.0


def test_target_modules_in_pefts_words():
    assert Recipe().peft_targets == "all-linear"
    assert Recipe(target_modules="qv").peft_targets == ["q_proj", "v_proj"]
    assert Recipe(target_modules=("o_proj",)).peft_targets == ["o_proj"]


def test_the_schedule_worked_by_hand():
    """Ten steps, two of warm-up: half, whole, then half a cosine over eight steps from step 2 on."""
    recipe = Recipe(learning_rate=0.008, steps=10, warmup=0.2)
    rates = [recipe.learning_rate_at(step) for step in range(11)]
    half_of_root_two = math.sqrt(2) / 2
    assert rates[0] == pytest.approx(0.004)  # 1/2
    assert rates[1] == pytest.approx(0.008)  # 2/2
    assert rates[2] == pytest.approx(0.008)  # cos 0 = 1
    assert rates[4] == pytest.approx(0.004 * (1 + half_of_root_two))  # a quarter of the way: cos(pi/4)
    assert rates[6] == pytest.approx(0.004)  # half the way: cos(pi/2) = 0
    assert rates[8] == pytest.approx(0.004 * (1 - half_of_root_two))  # three quarters: cos(3 pi/4)
    assert rates[10] == pytest.approx(0, abs=1e-12)  # the step that is not taken any more
    assert sorted(rates[2:], reverse=True) == rates[2:]


def test_every_step_of_any_run_has_a_positive_rate_up_to_the_peak():
    for steps in (1, 2, 3, 85):
        for warmup in (0, 0.06, 0.5, 0.99):
            recipe = Recipe(steps=steps, warmup=warmup)
            rates = [recipe.learning_rate_at(step) for step in range(steps)]
            assert all(0 < rate <= recipe.learning_rate * (1 + 1e-12) for rate in rates)
            assert max(rates) == pytest.approx(recipe.learning_rate)


# Which runs are one and the same.


def test_the_fingerprint_counts_everything_but_checkpoint_every():
    base = Recipe()
    changes = {
        "model": "smollm2-135m", "task": "style", "quantization": "fp4", "rank": 4, "alpha": 17.0, "dropout": 0.1,
        "use_rslora": True, "target_modules": "qv", "learning_rate": 1e-3, "warmup": 0.1, "steps": 7, "batch_size": 3,
        "max_length": 99, "max_grad_norm": 2.0, "weight_decay": 0.1, "gradient_checkpointing": True,
        "train_examples": 12, "supervise_end": False, "seed": 1, "turns": "last", "validate_every": 5,
        "validation_examples": 9,
    }
    measured = {"patience": 2, "keep_best": True}  # of the validation loss
    assert {*changes, *measured, "checkpoint_every"} == set(asdict(base))
    prints = {name: replace(base, **{name: value}).fingerprint() for name, value in changes.items()}
    prints |= {name: replace(base, validate_every=5, **{name: one}).fingerprint() for name, one in measured.items()}
    assert base.fingerprint() not in prints.values() and len(set(prints.values())) == len(prints)
    assert replace(base, checkpoint_every=3).fingerprint() == base.fingerprint()
    assert len(base.fingerprint()) == 12 and int(base.fingerprint(), 16) >= 0


def test_equal_recipes_have_equal_fingerprints_however_they_were_written():
    written = Recipe(alpha=32, dropout=0, target_modules=["q_proj", "v_proj"])
    typed = Recipe.from_text({"alpha": "32", "dropout": "0.0", "target_modules": "q_proj,v_proj"})
    assert written == typed and written.fingerprint() == typed.fingerprint()


def test_the_fingerprint_does_not_depend_on_the_process():
    import subprocess
    import sys

    code = "from lab_utils.finetune.recipe import Recipe; print(Recipe(rank=3, target_modules='mlp').fingerprint())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert out.stdout.strip() == Recipe(rank=3, target_modules="mlp").fingerprint()


# From the command line.


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(model="smollm2-135m", rank=3, alpha=0.5, use_rslora=True, target_modules=("q_proj", "k_proj"),
               train_examples=10, gradient_checkpointing=True, learning_rate=1e-4, supervise_end=False),
        Recipe(target_modules="mlp", task="style", quantization="none", checkpoint_every=1),
    ],
)
def test_text_and_back(recipe):
    text = {
        name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in asdict(recipe).items()
    }
    assert Recipe.from_text(text) == recipe


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rnak": "8"}, "Unknown recipe field 'rnak'"),
        ({"rank": "eight"}, "rank='eight' is not a number"),
        ({"rank": "8.5"}, "rank='8.5' is not a number"),
        ({"alpha": ""}, "alpha='' is not a number"),
        ({"use_rslora": "yes"}, "use_rslora 'yes'"),
        ({"rank": "0"}, "rank=0 is out of range"),
        ({"train_examples": "some"}, "train_examples='some' is not a number"),
    ],
)
def test_bad_text_is_named(values, words):
    with pytest.raises(LabError) as caught:
        Recipe.from_text(values)
    assert words in str(caught.value)
