"""models: the catalogue, the default and a larger choice, and what lies in memory after loading."""

import sys
from types import SimpleNamespace

import pytest
import torch
from unfolded import unfolded

import lab_utils.models.registry as models
from lab_utils.device import GIB, Device, find_device
from lab_utils.errors import LabError
from lab_utils.finetune.adapter import attach_adapter
from lab_utils.finetune.recipe import Recipe
from lab_utils.models import choice, footprint
from lab_utils.models.catalogue import MODELS, default_model, learning_rate
from lab_utils.models.choice import decide_larger, larger_model, training_bytes
from lab_utils.models.registry import four_bit_problem, load_base, load_tokenizer
from lab_utils.models.sources import Source, name_of

# The embedded model's shape (SmolLM2-135M): 30 layers of width 576, 3 of 9 heads for keys and values, MLP 1536.
LAYER = {
    "q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576),
    "gate_proj": (1536, 576), "up_proj": (1536, 576), "down_proj": (576, 1536),
}
LINEAR_PARAMETERS = 30 * sum(rows * columns for rows, columns in LAYER.values())
EMBEDDING_PARAMETERS = 49152 * 576  # tied with the head
NORM_PARAMETERS = (30 * 2 + 1) * 576


def linears(model) -> dict:
    return {name: module for name, module in model.named_modules() if name.rpartition(".")[2] in LAYER}


# The registry.

# hidden, intermediate, layers, heads, key-value heads, head size, vocabulary, tied embeddings, biases on q, k, v:
# from each model's config.json on the hub.
SHAPES = {
    "smollm2-135m": (576, 1536, 30, 9, 3, 64, 49152, True, False),
    "smollm2-360m": (960, 2560, 32, 15, 5, 64, 49152, True, False),
    "smollm2-1.7b": (2048, 8192, 24, 32, 32, 64, 49152, True, False),
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 64, 151936, True, True),
    "qwen2.5-1.5b": (1536, 8960, 28, 12, 2, 128, 151936, True, True),
    "llama-3.2-1b": (2048, 8192, 16, 32, 8, 64, 128256, True, False),
    "mistral-7b": (4096, 14336, 32, 32, 8, 128, 32768, False, False),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_parameters_follow_from_the_architecture(name):
    hidden, intermediate, layers, heads, kv_heads, size, vocabulary, tied, biased = SHAPES[name]
    query, key_value = heads * size, kv_heads * size
    layer = hidden * (2 * query + 2 * key_value) + 3 * hidden * intermediate + 2 * hidden
    layer += (query + 2 * key_value) * biased
    expected = layers * layer + vocabulary * hidden * (1 if tied else 2) + hidden
    assert MODELS[name].parameters == expected


def test_one_model_is_embedded_and_gated_ones_are_no_default():
    assert [name for name, model in MODELS.items() if model.source == "embedded"] == ["smollm2-135m"]
    assert all(model.min_gpu_gib is None for model in MODELS.values() if model.gated)


@pytest.mark.parametrize(("kind", "hub"), [("cpu", True), ("cpu", False), ("cuda", False)])
def test_on_a_cpu_or_without_the_hub_no_larger_one_is_chosen(kind, hub):
    assert decide_larger(kind, 80 * GIB, "bfloat16", hub)[0] == "smollm2-135m"


@pytest.mark.parametrize(
    ("gib", "name", "in_float16"),
    [
        (0, "smollm2-135m", "smollm2-135m"), (2.9, "smollm2-135m", "smollm2-135m"), (3, "smollm2-360m", "smollm2-360m"),
        (6, "qwen2.5-0.5b", "smollm2-360m"), (8, "qwen2.5-1.5b", "smollm2-360m"),
        (11.9, "qwen2.5-1.5b", "smollm2-360m"), (14.5, "smollm2-1.7b", "smollm2-1.7b"),
        (79, "smollm2-1.7b", "smollm2-1.7b"),
    ],
)
def test_on_a_gpu_the_larger_one_follows_its_whole_memory_and_dtype(gib, name, in_float16):
    """Without bfloat16 there is no Qwen, which float16 gives NaN: and that is said."""
    assert decide_larger("cuda", int(gib * GIB), "bfloat16", hub=True)[0] == name
    chosen, why = decide_larger("cuda", int(gib * GIB), "float16", hub=True)
    assert chosen == in_float16 and "in float16 Qwen is known to give NaN (https://" in why


def pretend_gpu(monkeypatch, total: int, free: int, hub: bool) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=total))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, total))
    monkeypatch.setattr(choice, "hub_reachable", lambda: hub)


@pytest.mark.parametrize("free", [14 * GIB, 6 * GIB])
def test_the_default_is_the_embedded_model_whatever_a_gpu_has_free(monkeypatch, free):
    """Free memory changes from call to call, and with it a name that a checkpoint keeps."""
    pretend_gpu(monkeypatch, 15 * GIB, free, hub=True)
    assert default_model() == "smollm2-135m"
    assert larger_model(device=Device("cuda", "x", "float16", "y")) == "smollm2-1.7b"


def test_a_larger_model_says_what_it_takes_before_anything_is_fetched(monkeypatch, capsys):
    """Its download is two bytes for each parameter: 1,543,714,304 make 3.1 GB."""
    pretend_gpu(monkeypatch, 15 * GIB, 15 * GIB, hub=True)
    assert larger_model("qwen2.5-1.5b", Device("cuda", "x", "float16", "y")) == "qwen2.5-1.5b"
    said = unfolded(capsys.readouterr().out)
    assert "download: 3.1 GB from huggingface.co/Qwen/Qwen2.5-1.5B-Instruct" in said and "this GPU has 15.0" in said
    assert f"memory: about {training_bytes('qwen2.5-1.5b', 'float16') / GIB:.1f} GiB" in said
    assert "learning rate: 0.0002 (" in said and "are known to give NaN in float16" in said
    assert larger_model("qwen2.5-1.5b", Device("cuda", "x", "bfloat16", "y")) and "NaN" not in capsys.readouterr().out
    pretend_gpu(monkeypatch, 8 * GIB, 8 * GIB, hub=True)
    larger_model("mistral-7b", Device("cuda", "x", "bfloat16", "y"))
    said = unfolded(capsys.readouterr().out)
    assert "It does not fit" in said and "accepted its license" in said
    monkeypatch.setattr(choice, "hub_reachable", lambda: pytest.fail("asked the network"))
    assert larger_model(device=Device("cpu", "x", "float32", "y")) == "smollm2-135m"
    assert "there is no GPU" in unfolded(capsys.readouterr().out)


def test_every_model_has_a_learning_rate_that_was_tested_or_is_cited():
    assert learning_rate("smollm2-135m") == Recipe().learning_rate
    for name, one in MODELS.items():
        assert "https://" in one.rate_source or "tested in this course" in one.rate_source, name
        assert 0 < learning_rate(name) <= 2e-3
    assert learning_rate("somebody/else") == 2e-4 and learning_rate("auto") == Recipe().learning_rate


@pytest.mark.parametrize("name", list(MODELS))
def test_the_shapes_that_memory_is_estimated_from_are_the_models(name):
    assert choice.SHAPES[name].total_parameters() == MODELS[name].parameters


def test_a_loaded_base_knows_its_name(nf4_base, tiny_llama):
    assert name_of(nf4_base) == "smollm2-135m"
    assert name_of(tiny_llama()) is None  # built in memory
    model = tiny_llama()
    for path, name in {
        "/models/own": "/models/own", "somebody/else": "somebody/else", "Qwen/Qwen2.5-0.5B-Instruct": "qwen2.5-0.5b",
        "/anywhere/smollm2-135m-instruct-q4_1-bf16": "smollm2-135m",
    }.items():
        model.name_or_path = path
        assert name_of(model) == name


# What goes wrong is said.


def test_an_unknown_model_lists_the_models():
    with pytest.raises(LabError, match=r"Unknown model 'gpt-9'\. Choose one of: smollm2-135m, smollm2-360m"):
        load_base("gpt-9")
    with pytest.raises(LabError, match="Unknown model 'gpt-9'"):
        load_tokenizer("gpt-9")


def test_an_unknown_quantization_lists_them():
    with pytest.raises(LabError, match=r"Unknown quantization 'int3'\. Choose one of: none, nf4, fp4, int8"):
        load_base("smollm2-135m", "int3")


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8"])
def test_without_bitsandbytes_there_is_a_way_out(monkeypatch, quantization):
    assert four_bit_problem() is None
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert "pip install bitsandbytes" in four_bit_problem()
    with pytest.raises(LabError, match=f"{quantization} needs bitsandbytes.*quantization='none'"):
        load_base("smollm2-135m", quantization)


def test_a_hub_model_without_a_network_points_to_the_embedded_one():
    with pytest.raises(LabError, match=r"smollm2-360m .*could not be loaded .*load_base\('smollm2-135m'\)"):
        load_base("smollm2-360m", verbose=False)


def test_a_gated_model_says_what_to_do():
    with pytest.raises(LabError, match=r"https://huggingface\.co/meta-llama/Llama-3\.2-1B-Instruct and set HF_TOKEN"):
        load_base("llama-3.2-1b", verbose=False)


@pytest.mark.parametrize("damage", ["truncated weights", "no weights"])
def test_a_damaged_model_folder_says_which_to_delete(monkeypatch, tmp_path, damage):
    import shutil

    from lab_utils.models.embedded import embedded_folder

    source = embedded_folder()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, tmp_path)
    if damage == "truncated weights":
        with open(source / "model.safetensors", "rb") as file:
            (tmp_path / "model.safetensors").write_bytes(file.read(1_000_000))
    monkeypatch.setattr(models, "find_source", lambda name: Source(name, str(tmp_path), "embedded"))
    with pytest.raises(LabError) as caught:
        load_base("smollm2-135m", verbose=False)
    assert f"The model folder {tmp_path} cannot be read" in str(caught.value) and "Delete that" in str(caught.value)


@pytest.fixture
def tiny_folder(monkeypatch, tmp_path, tiny_llama):
    """A folder with a tiny model, which `load_base` takes for the embedded one."""
    tiny_llama(49152).save_pretrained(tmp_path)
    load_tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(models, "find_source", lambda name: Source(name, str(tmp_path), "embedded"))
    return tmp_path


def change(folder, alter) -> None:
    """Write a model's weights again, changed."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    alter(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named_with_its_place(tiny_folder, quantization, value):
    name = "model.layers.1.self_attn.k_proj.weight"
    load_base("smollm2-135m", quantization, verbose=False)
    change(tiny_folder, lambda tensors: tensors[name].__setitem__((3, 5), value))
    with pytest.raises(LabError) as caught:
        load_base("smollm2-135m", quantization, verbose=False)
    assert f"is damaged: {name}[3, 5] is {value}" in str(caught.value) and str(tiny_folder) in str(caught.value)


def test_a_weight_that_is_missing_is_not_made_up(tiny_folder):
    name = "model.layers.0.mlp.gate_proj.weight"
    change(tiny_folder, lambda tensors: tensors.pop(name))
    with pytest.raises(LabError, match=rf"is damaged: no file has {name} \(1 such\)"):
        load_base("smollm2-135m", verbose=False)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"), ("config.json", "[]"), ("config.json", "{}"), ("config.json", '{"model_type": "new"}'),
        ("tokenizer.json", "{"), ("tokenizer.json", "[]"), ("tokenizer_config.json", "["), ("model.safetensors", ""),
    ],
)  # fmt: skip
def test_a_damaged_file_says_which_folder_to_delete(tiny_folder, file, content):
    (tiny_folder / file).write_text(content)
    with pytest.raises(LabError, match=r"The model folder .* cannot be read .*Delete that folder"):
        load_base("smollm2-135m", verbose=False)
    if file.startswith("tokenizer"):
        with pytest.raises(LabError, match=r"The model folder .* cannot be read"):
            load_tokenizer()


def test_weights_of_other_sizes_than_the_config_says_are_refused(tiny_folder):
    import json

    config = json.loads((tiny_folder / "config.json").read_text())
    (tiny_folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(LabError, match=r"The model folder .* cannot be read"):
        load_base("smollm2-135m", verbose=False)


def raising(error):
    def load(*_, **__):
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "does not fit into memory .*'nf4'"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"), "does not fit into memory"),
        (OSError(28, "No space left on device"), "cannot be kept on this machine: .*disk is full"),
        (PermissionError(13, "Permission denied"), "cannot be kept on this machine: .*choose a folder of your own"),
        (ConnectionResetError(104, "Connection reset by peer"), "could not be loaded from the Hugging Face hub"),
        (RuntimeError(""), r"could not be loaded from the Hugging Face hub: RuntimeError"),
        (KeyError("rope_type"), "could not be loaded from the Hugging Face hub: 'rope_type'"),
    ],
)
def test_the_hub_is_blamed_for_its_own_failures_only(monkeypatch, error, words):
    monkeypatch.setattr(models, "_tokenizer", raising(error))
    with pytest.raises(LabError, match=words):
        load_base("smollm2-360m", verbose=False)
    with pytest.raises(LabError, match=words):
        load_tokenizer("smollm2-360m")


# What lies in memory.


def test_nf4_holds_the_linears_in_four_bits_and_nothing_else(nf4_base):
    from bitsandbytes.nn import Linear4bit

    found = linears(nf4_base)
    assert len(found) == 30 * 7
    for name, module in found.items():
        state, shape = module.weight.quant_state, LAYER[name.rpartition(".")[2]]
        assert isinstance(module, Linear4bit) and module.weight.dtype == torch.uint8
        assert module.weight.numel() == shape[0] * shape[1] // 2  # two weights a byte
        assert (state.quant_type, state.blocksize, tuple(state.shape)) == ("nf4", 64, shape)
        assert state.nested and state.absmax.dtype == torch.uint8  # double quantization: absmax in 8 bits
        assert module.compute_dtype == find_device().torch_dtype
    for module in (nf4_base.get_input_embeddings(), nf4_base.get_output_embeddings()):
        assert module.weight.dtype == find_device().torch_dtype and not isinstance(module, Linear4bit)
    assert nf4_base.get_input_embeddings().weight is nf4_base.get_output_embeddings().weight


def test_nf4_with_double_quantization_costs_4_127_bits(nf4_base):
    """4 bits per weight + 8 bits per block of 64 + 32 bits per group of 256 blocks = 4.127 bits."""
    parts = footprint(nf4_base)
    blocks = LINEAR_PARAMETERS // 64
    groups = 30 * sum(-(-rows * columns // 64 // 256) for rows, columns in LAYER.values())
    assert parts["4-bit linears"] == LINEAR_PARAMETERS // 2 + blocks + 4 * groups
    assert parts["4-bit linears"] * 8 / LINEAR_PARAMETERS == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=0.001)


def test_footprint_counts_every_tensor_once(nf4_base):
    item = find_device().torch_dtype.itemsize
    parts = footprint(nf4_base)
    assert set(parts) == {"4-bit linears", "embeddings and head", "norms and buffers"}
    assert parts["embeddings and head"] == item * EMBEDDING_PARAMETERS
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in nf4_base.buffers())
    assert parts["norms and buffers"] == item * NORM_PARAMETERS + buffers
    stored = sum(parameter.numel() * parameter.element_size() for parameter in nf4_base.parameters())
    assert stored == LINEAR_PARAMETERS // 2 + item * (EMBEDDING_PARAMETERS + NORM_PARAMETERS)


def test_loading_gives_an_eval_model_on_the_cpu_and_right_padding(nf4_base, tokenizer):
    assert not nf4_base.training
    assert {tensor.device.type for tensor in (*nf4_base.parameters(), *nf4_base.buffers())} == {"cpu"}
    assert tokenizer.padding_side == "right" and tokenizer.pad_token_id is not None
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.fixture(scope="module")
def question(tokenizer):
    """Token ids of a text whose next word every SmolLM2 knows."""
    return tokenizer("The capital of France is", return_tensors="pt")["input_ids"]


@pytest.fixture(scope="module")
def plain():
    model, _ = load_base("smollm2-135m", verbose=False)
    return model


def test_unquantized_is_all_in_the_compute_dtype(plain):
    assert {parameter.dtype for parameter in plain.parameters()} == {find_device().torch_dtype}
    assert plain.num_parameters() == MODELS["smollm2-135m"].parameters
    assert plain.num_parameters() == LINEAR_PARAMETERS + EMBEDDING_PARAMETERS + NORM_PARAMETERS
    assert set(footprint(plain)) == {"other linears", "embeddings and head", "norms and buffers"}


@pytest.mark.parametrize(
    ("quantization", "kind", "dtype", "similarity"),
    [("int8", "Linear8bitLt", torch.int8, 0.97), ("fp4", "Linear4bit", torch.uint8, 0.9)],
)
def test_the_other_quantizations_load_and_answer(plain, question, quantization, kind, dtype, similarity):
    model, _ = load_base("smollm2-135m", quantization, verbose=False)
    found = linears(model).values()
    assert len(found) == 210 and {type(module).__name__ for module in found} == {kind}
    assert {module.weight.dtype for module in found} == {dtype}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    if quantization == "fp4":
        assert {module.weight.quant_state.quant_type for module in found} == {"fp4"}
        assert all(module.weight.quant_state.nested for module in found)
    with torch.no_grad():
        logits, reference = (one(input_ids=question).logits[0].float() for one in (model, plain))
    assert logits.shape == (question.shape[1], 49152) and bool(logits.isfinite().all())
    assert float(torch.cosine_similarity(logits[-1], reference[-1], dim=0)) > similarity


def test_nf4_and_unquantized_know_paris(plain, nf4_base, question, tokenizer):
    for model in (plain, nf4_base):
        with torch.no_grad():
            assert tokenizer.decode(model(input_ids=question).logits[0, -1].argmax()) == " Paris"


def test_what_was_taken_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(models, "_load", lambda *_: (torch.nn.Linear(1, 1), None))
    load_base("smollm2-135m", "nf4")
    said = unfolded(capsys.readouterr().out)
    assert "smollm2-135m, nf4" in said and find_device().compute_dtype in said
    assert "4 bits (GGUF Q4_1) once already" in said  # the embedded weights' history
    load_base("smollm2-135m", "nf4", verbose=False)
    assert capsys.readouterr().out == ""


# Trap 1: bitsandbytes repacks 4-bit weights for inference on some CPUs, in place.


def adapted(model):
    """Adapters on the model with a B that is not zero, so that gradients reach A and every layer below."""
    model = attach_adapter(model, Recipe(rank=4))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def gradients(model, ids) -> dict[str, torch.Tensor]:
    """Gradients of the adapters from one training step on `ids`."""
    model.train()
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def dequantized(model) -> list[torch.Tensor]:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    return [dequantize_4bit(layer.weight.data, layer.weight.quant_state) for layer in layers]


def look(model, ids) -> None:
    """A forward as evaluation does it."""
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)


@pytest.fixture(scope="module")
def fresh_gradients(question):
    model, _ = load_base("smollm2-135m", "nf4", verbose=False)
    return gradients(adapted(model), question)


def test_training_after_evaluation_has_the_gradients_of_a_fresh_model(question, fresh_gradients):
    model, _ = load_base("smollm2-135m", "nf4", verbose=False)
    weights = dequantized(model)
    look(model, question)  # before the adapters are on ...
    model = adapted(model)
    look(model, question)  # ... and after
    found = gradients(model, question)
    assert found.keys() == fresh_gradients.keys() and len(found) == 2 * 210
    assert [name for name in found if not torch.equal(found[name], fresh_gradients[name])] == []
    assert all(torch.equal(one, other) for one, other in zip(dequantized(model), weights, strict=True))


def test_without_the_fix_the_gradients_are_wrong(monkeypatch, question, fresh_gradients):
    """The trap is real: without `keep_weights_trainable` the test above fails on such a CPU."""
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16() or find_device().kind != "cpu":
        pytest.skip("this CPU has no AVX512-BF16: bitsandbytes does not repack here")
    monkeypatch.setattr(models, "keep_weights_trainable", lambda model: None)
    model, _ = load_base("smollm2-135m", "nf4", verbose=False)
    weights = dequantized(model)
    look(model, question)
    repacked = [module.weight.quant_state.packing_format_for_cpu for module in linears(model).values()]
    assert all(repacked) and len(repacked) == 210
    assert not any(torch.equal(one, other) for one, other in zip(dequantized(model), weights, strict=True))
    found = gradients(adapted(model), question)
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    cosine = torch.cosine_similarity(found[first].flatten(), fresh_gradients[first].flatten(), dim=0)
    assert float(cosine) < 0.9
