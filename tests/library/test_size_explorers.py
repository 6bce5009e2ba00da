"""The explorers of sizes: what they take and refuse, and that page and kernel say the same."""

import numpy as np
import pytest

from lab_utils import counts
from lab_utils.errors import LabError
from lab_utils.memory import step as memory
from lab_utils.memory.budget import GIB, GPUS, fits, room_bytes
from lab_utils.widgets.budget_explorer import BudgetExplorer
from lab_utils.widgets.cluster_explorer import ClusterExplorer
from lab_utils.widgets.parameter_explorer import ParameterExplorer
from lab_utils.widgets.values import three


@pytest.mark.parametrize(
    ("make", "name", "values"),
    [
        (BudgetExplorer, "rank", [0, -1, 8.0, "8", True, None, float("nan"), 10**30]),
        (BudgetExplorer, "batch_size", [0, 1.5, "1", False]),
        (BudgetExplorer, "sequence_length", [0, 512.0, [512]]),
        (BudgetExplorer, "checkpointing", ["yes", 1, None]),
        (BudgetExplorer, "model", [None, 5, "GPT-9", ["GPT-2"], {}]),
        (BudgetExplorer, "method", [None, "dora"]), (BudgetExplorer, "gpu", [16, "T4"]),
        (ParameterExplorer, "rank", [0, 8.0, "8", True, None]), (ParameterExplorer, "model", [None, 5, ["GPT-2"]]),
        (ParameterExplorer, "targets", [["attention2"], ["q_proj", "wq"]]),
        (ClusterExplorer, "processes", [0, 3, 8.0, "8", True]), (ClusterExplorer, "rank", [3, True, None]),
        (ClusterExplorer, "link", [None, "pigeon", 5]), (ClusterExplorer, "model", ["GPT-2-XL", None]),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_changes_nothing(make, name, values):
    explorer = make()
    before = getattr(explorer, name)
    for value in values:
        with pytest.raises(LabError):
            setattr(explorer, name, value)
        assert getattr(explorer, name) == before
        with pytest.raises(LabError):
            make(**{name: value})


def test_numpys_numbers_are_taken():
    assert BudgetExplorer(rank=np.int64(16), batch_size=np.int8(4), checkpointing=np.True_).rank == 16
    assert ParameterExplorer(rank=np.int64(16)).rank == 16
    assert ClusterExplorer(processes=np.int64(16), rank=np.int8(8)).processes == 16


def test_targets_of_another_model_give_way_as_in_the_browser():
    explorer = ParameterExplorer("Llama-2-7B", targets=["q_proj", "v_proj"])
    explorer.model = "GPT-2"
    assert explorer.targets == ["attention", "mlp"]
    assert explorer.trained == counts.lora_parameters("GPT-2", 8, "all-linear")
    explorer.targets = []
    explorer.model = "Llama-2-7B"
    assert explorer.targets == [] and explorer.trained == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1"), (0.0123456, "0.0123"), (14.4, "14.4"), (2087.4, "2090"), (12.25, "12.3"), (999.5, "1000"),
     (1234567, "1230000"), (22.35, "22.4"), (72, "72")],
)  # fmt: skip
def test_numbers_are_written_as_the_browser_writes_them(value, text):
    """As `String(Number(x.toPrecision(3)))` in a browser: no exponent, halves up (22.35 is a little more than that)."""
    assert three(value) == text


@pytest.mark.parametrize("method", memory.METHODS)
@pytest.mark.parametrize("model", counts.ARCHITECTURES)
def test_every_choice_shows_what_the_library_computes(model, method):
    explorer = BudgetExplorer(model=model, method=method)
    one = memory.estimate(model, method, device="cuda")
    for explorer.gpu in GPUS:
        shown = explorer.budget
        assert shown["parts"] == one.parts() and shown["total"] == one.total_bytes
        assert shown["room"] == room_bytes(explorer.gpu)
        assert (shown["total"] <= shown["room"]) == fits(one, explorer.gpu)
        said = f"{three(shown['total'] / GIB)} GiB of {three(shown['room'] / GIB)} GiB"
        assert said in explorer.summary() and "e+" not in explorer.summary()


def test_another_architecture_joins_the_menu_of_the_layer():
    own = counts.from_config(
        {"model_type": "mixtral", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "vocab_size": 97,
         "num_attention_heads": 6, "num_local_experts": 4}, name="mine", experts=True,
    )  # fmt: skip
    explorer = ParameterExplorer("mine", targets=["attention", "router", "experts"], others=[own])
    assert explorer.trained == counts.lora_parameters(own, 8) and "mine, rank 8" in explorer.summary()
    explorer.targets = ["experts"]
    boxes = sorted((abs(box.get_width()), abs(box.get_height())) for box in explorer.figure().axes[0].patches)
    strips = [(16, 160), (48, 16), (8, 48), (80, 8)]  # B and A: gate and up, in one matrix, get twice the rank
    assert boxes == sorted([(one["in"], one["out"]) for one in explorer._modules()] + strips)
    explorer.targets, explorer.model = ["attention", "router", "experts"], "GPT-2"
    assert explorer.trained == counts.lora_parameters("GPT-2", 8, "attention")
    with pytest.raises(LabError, match="from_config"):
        ParameterExplorer(others=["Llama"])
    with pytest.raises(LabError, match="mine"):
        ParameterExplorer("mine")
