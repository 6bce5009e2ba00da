"""Weights by name: all of them, quantized ones too, and the first that is not a number is named with its place."""

import pytest
import torch
from safetensors.torch import save_file

from lab_utils.errors import LabError
from lab_utils.models.weights import refuse_nonfinite, tensors_in, tensors_of

NAN, INF = float("nan"), float("inf")


def test_a_models_tensors_are_its_parameters_and_buffers(tiny_llama):
    model = tiny_llama()
    found = dict(tensors_of(model))
    assert found.keys() == {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}


@pytest.mark.parametrize(("value", "word"), [(NAN, "nan"), (INF, "inf"), (-INF, "-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensor_and_place_are_named(tiny_llama, value, word, dtype):
    model = tiny_llama().to(dtype)
    refuse_nonfinite(tensors_of(model), "base", "")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = value
    with pytest.raises(LabError) as caught:
        refuse_nonfinite(tensors_of(model), "base is damaged", "Load it again.")
    expected = f"base is damaged: model.layers.1.mlp.down_proj.weight[3, 5] is {word}. Load it again."
    assert str(caught.value) == expected


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_bad_weight_is_seen_through_four_bits(nested, value):
    """Its block's absmax is not a number, and with double quantization all of them are not."""
    from bitsandbytes.nn import Linear4bit

    layer = Linear4bit(128, 16, bias=False, quant_type="nf4", compress_statistics=nested)
    weight = torch.randn(16, 128)
    weight[3, 70] = value
    layer.load_state_dict({"weight": weight})
    layer = layer.to("cpu")
    with pytest.raises(LabError, match=r"base: weight\.absmax"):
        refuse_nonfinite(tensors_of(layer), "base", "")


def test_files_are_read_tensor_by_tensor(tmp_path):
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_file({"a": torch.ones(2)}, first)
    save_file({"b": torch.tensor([[1.0, 2.0], [3.0, NAN]])}, second)
    assert [name for name, _ in tensors_in(first, second)] == ["a", "b"]
    with pytest.raises(LabError, match=r"file: b\[1, 1\] is nan"):
        refuse_nonfinite(tensors_in(first, second), "file", "")
