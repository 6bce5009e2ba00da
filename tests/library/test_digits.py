"""The digit reader: its data, its training against a loop written out here, and its adapter's laws."""

import pytest
import torch
from torch import nn

from lab_utils.errors import LabError
from lab_utils.lora import digits
from lab_utils.lora import whole_model as lora


def test_the_data_are_the_whole_set_in_range():
    data = digits.load_digits()
    assert data.images.shape == (1797, 8, 8) and data.images.dtype == torch.float32
    assert data.images.min() == 0 and data.images.max() == 1
    # the class counts of the UCI test set, as its documentation lists them
    assert data.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_a_missing_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "FILE", tmp_path / "none.csv.gz")
    digits.load_digits.cache_clear()
    with pytest.raises(LabError, match=r"none\.csv\.gz"):
        digits.load_digits()
    digits.load_digits.cache_clear()


@pytest.mark.parametrize("task", digits.TASKS)
def test_a_split_holds_every_image_once(task):
    train_x, train_y, test_x, test_y = digits.split(task)
    assert train_x.shape == (1200, 64) and test_x.shape == (597, 64)
    assert torch.equal(torch.cat([train_y, test_y]), digits.load_digits().labels)


def test_the_tasks_move_pixels_as_they_say():
    upright, mirrored, turned = (digits.split(task)[0].reshape(-1, 8, 8) for task in ("upright", "mirrored", "turned"))
    assert torch.equal(mirrored[:, :, 0], upright[:, :, 7])  # left and right have changed places
    assert torch.equal(turned[:, 7, :], upright[:, :, 0])  # the left column lies at the bottom
    with pytest.raises(LabError, match="sideways"):
        digits.split("sideways")


def test_pretraining_gives_the_same_weights_and_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    first = digits.pretrained()
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)
    first.first.weight.data.zero_()
    second = digits.pretrained()
    assert second.first.weight.any(), "a change to one reader reached the next"
    _, _, x, y = digits.split("upright")
    assert digits.accuracy(second, x, y) > 0.95  # a plain network of this size reads these digits


def test_accuracy_counts_right_answers():
    model = nn.Linear(64, 10)
    x, y = torch.rand(50, 64), torch.randint(10, (50,))
    right = sum(int(torch.argmax(model(x[i])) == y[i]) for i in range(50))
    assert digits.accuracy(model, x, y) == pytest.approx(right / 50)


def test_fit_is_adam_on_all_images():
    x, y, _, _ = digits.split("mirrored")
    ours, theirs = digits.pretrained(), digits.pretrained()
    seen = []
    losses = digits.fit(ours, ours.parameters(), x, y, steps=5, learning_rate=1e-2, on_step=seen.append)
    optimizer, expected = torch.optim.Adam(theirs.parameters(), lr=1e-2), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(5):
        loss = -torch.log_softmax(theirs(x), -1)[torch.arange(len(y)), y].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    torch.set_num_threads(threads)
    assert seen == [1, 2, 3, 4, 5]
    assert losses == pytest.approx(expected, rel=1e-4)


def test_training_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    x, y, _, _ = digits.split("upright")
    model = digits.pretrained()
    run = digits.training(model, model.parameters(), x, y, steps=3, learning_rate=1e-3)
    next(run)
    assert torch.get_num_threads() == before


def test_an_adapted_reader_starts_as_the_base_and_trains_only_its_adapters():
    base, model = digits.pretrained(), digits.adapted(4, 8.0)
    x, y, test_x, _ = digits.split("mirrored")
    assert torch.equal(model(test_x), base(test_x))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {f"{layer}.lora_{side}" for layer in ("first", "second") for side in "AB"}
    digits.fit(model, lora.trainable_parameters(model), x, y, steps=3)
    assert torch.equal(model.first.base_layer.weight, base.first.weight)
    assert torch.equal(model.out.weight, base.out.weight)
    assert model.first.lora_B.any()


def test_the_seed_decides_A_and_nothing_else_does():
    torch.manual_seed(1)
    first = digits.adapted(4, 8.0, seed=7)
    torch.manual_seed(2)
    assert torch.equal(first.first.lora_A, digits.adapted(4, 8.0, seed=7).first.lora_A)
    assert not torch.equal(first.first.lora_A, digits.adapted(4, 8.0, seed=8).first.lora_A)


def test_bad_settings_are_named():
    with pytest.raises(LabError, match="65"):
        digits.adapted(65, 8.0)
    with pytest.raises(LabError, match="third"):
        digits.adapted(4, 8.0, layers=("third",))
    with pytest.raises(LabError, match="11"):
        digits.adapted(11, 8.0, layers=("out",))
