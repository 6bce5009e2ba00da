"""gguf_adapter: what is written is the adapter, in llama.cpp's order, or nothing is written."""

import gguf
import numpy as np
import pytest
import torch
from export_models import fields_of, read_gguf
from merge_models import adapt

from lab_utils.errors import LabError
from lab_utils.merging.gguf_adapter import export_gguf_adapter

ONE_LAYER = {"target_modules": ["q_proj", "k_proj", "down_proj"]}


def paired_by_hand(B, heads):
    """Rows in llama.cpp's order: in each head, row i of the first half, then row i of the second."""
    size = len(B) // heads
    order = [head * size + i + half for head in range(heads) for i in range(size // 2) for half in (0, size // 2)]
    return B[order]


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"alpha_pattern": {"k_proj": 6}}])
def test_each_product_is_the_layers_own_update_in_llama_cpps_rows(tiny_llama, tmp_path, changes):
    model = adapt(tiny_llama(), **ONE_LAYER, **changes)
    file = export_gguf_adapter(model, tmp_path / "one.gguf", "F32")
    found, fields = read_gguf(file), fields_of(file)
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    assert len(found) == 2 * 2 * 3  # A and B, two layers, three matrices
    layers = {"attn_q": ("self_attn.q_proj", 4), "attn_k": ("self_attn.k_proj", 2), "ffn_down": ("mlp.down_proj", 0)}
    for name, (theirs, heads) in layers.items():
        A, B = (found[f"blk.1.{name}.weight.lora_{which}"] for which in "ab")
        delta = fields["adapter.lora.alpha"] / len(A) * (B @ A)  # as llama.cpp does
        layer = model.base_model.model.model.layers[1].get_submodule(theirs)
        wanted = layer.get_delta_weight("default").detach().numpy()
        wanted = paired_by_hand(wanted, heads) if heads else wanted
        assert np.allclose(delta, wanted, atol=1e-5)


def test_float16_halves_the_file(tiny_llama, tmp_path):
    model = adapt(tiny_llama())
    sizes = [export_gguf_adapter(model, tmp_path / f"{kind}.gguf", kind).stat().st_size for kind in ("F32", "F16")]
    numbers = sum(part.numel() for name, part in model.named_parameters() if "lora_" in name)
    assert sizes[0] - sizes[1] == pytest.approx(2 * numbers, rel=0.05)
    kinds = {one.tensor_type for one in gguf.GGUFReader(tmp_path / "F16.gguf").tensors}
    assert kinds == {gguf.GGMLQuantizationType.F16}


@pytest.mark.parametrize(
    "changes, words",
    [({"use_dora": True}, "DoRA"), ({"lora_bias": True}, "bias"), ({"modules_to_save": ["lm_head"]}, "lm_head")],
)
def test_what_the_format_has_no_place_for_is_refused(tiny_llama, tmp_path, changes, words):
    model = adapt(tiny_llama(), **ONE_LAYER, **changes)
    with pytest.raises(LabError, match=words):
        export_gguf_adapter(model, tmp_path / "odd.gguf")
    assert list(tmp_path.iterdir()) == []


def test_other_models_and_other_files_are_refused(tiny_llama, tmp_path):
    with pytest.raises(LabError, match="no active adapter"):
        export_gguf_adapter(tiny_llama(), tmp_path / "none.gguf")
    model = adapt(tiny_llama(), **ONE_LAYER)
    letter = tmp_path / "letter.gguf"
    letter.write_text("dear reader")
    with pytest.raises(LabError, match="not a GGUF file"):
        export_gguf_adapter(model, letter)
    assert letter.read_text() == "dear reader"
    model.base_model.model.model.layers[0].mlp.down_proj.lora_B["default"].weight.data[0, 0] = 70000.0
    with pytest.raises(LabError, match="F32"):
        export_gguf_adapter(model, tmp_path / "large.gguf")
    model.base_model.model.model.layers[0].mlp.down_proj.lora_B["default"].weight.data[0, 0] = torch.nan
    with pytest.raises(LabError, match="nan"):
        export_gguf_adapter(model, tmp_path / "nan.gguf", "F32")
