"""llama_cpp: the real server, on a tiny model, against transformers; and the texts for other servers."""

import json
import re
import shlex
import sys

import psutil
import pytest
import torch
from export_models import build_tokenizer
from merge_models import adapt

from lab_utils.errors import LabError
from lab_utils.merging import export_gguf, export_gguf_adapter
from lab_utils.serving import LlamaServer, modelfile, recorded_adapter, vllm_command
from lab_utils.tasks import TASKS

PROMPT = "Put nomvula down for 12"
ODD = "{% for turn in messages %}### {{ turn.content }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def served(tiny_llama, tokenizer, tmp_path_factory):
    """(server, peft model with adapters "one" and "two" of different ranks)."""
    pytest.importorskip("xllamacpp")
    folder, base = tmp_path_factory.mktemp("gguf"), tiny_llama(len(tokenizer))
    file = export_gguf(base, tokenizer, folder / "base.gguf", "F32")
    model, adapters = adapt(base, ("one", "two")), {}
    for name in ("one", "two"):
        model.set_adapter(name)
        adapters[name] = export_gguf_adapter(model, folder / f"{name}.gguf", "F32")
    with LlamaServer(file, adapters, threads=1, context=512) as server:
        yield server, model


def greedy(model, tokenizer, tokens=8) -> list[int]:
    ids = torch.tensor([tokenizer(PROMPT, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        found = model.generate(ids, max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=2)
    return found[0, ids.shape[1] :].tolist()


def test_each_request_gets_its_adapter_and_says_what_transformers_says(served, tokenizer):
    server, model = served
    found = {}
    for name in (None, "one", "two", None):
        body = {"prompt": PROMPT, "n_predict": 8, "temperature": 0, "return_tokens": True, "ignore_eos": True}
        found[name] = server.post("/completion", body | {"lora": server.choice(name)})["tokens"]
        if name is None:
            with model.disable_adapter():
                assert found[name] == greedy(model, tokenizer)
        else:
            model.set_adapter(name)
            assert found[name] == greedy(model, tokenizer), name
    assert found["one"] != found[None] and found["two"] != found[None] and found["one"] != found["two"]


def test_the_prompt_is_what_the_chat_template_makes_of_it(served, tokenizer):
    server, _ = served
    body = server.body("hello", "one", "style")
    assert server.prompt("hello", "style") == tokenizer.apply_chat_template(body["messages"], tokenize=False)
    assert body["lora"] == [{"id": 0, "scale": 1.0}, {"id": 1, "scale": 0.0}] and body["temperature"] == 0
    answer = server.ask("hello", "one", "style")
    assert isinstance(answer.text, str) and 0 < answer.tokens <= TASKS["style"].max_new_tokens
    assert answer.tokens_per_second > 0 and server.memory_bytes() > 1e6


def test_a_template_of_ones_own_replaces_the_files_and_the_process_ends(tiny_llama, tokenizer, tmp_path):
    pytest.importorskip("xllamacpp")
    file = export_gguf(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "base.gguf", "F32")
    with LlamaServer(file, chat_template=ODD, threads=1, context=512) as server:
        assert server.prompt("hello", "style") == f"### {TASKS['style'].system}### hello"
        process = psutil.Process(server._process.pid)
    assert not process.is_running()
    server.close()
    for call in (lambda: server.prompt("hello", "style"), server.memory_bytes):
        with pytest.raises(LabError, match="start a new LlamaServer"):
            call()


def test_what_cannot_be_served_is_refused(served, tmp_path):
    server, _ = served
    with pytest.raises(LabError, match="three"):
        server.choice("three")
    with pytest.raises(LabError, match="refuses the request"):
        server.post("/v1/chat/completions", {"messages": "hello"})
    with pytest.raises(LabError, match="no file"):
        LlamaServer(tmp_path / "nowhere.gguf")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(LabError, match="did not start"):
        LlamaServer(damaged)


def test_without_the_extra_the_way_to_install_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr("lab_utils.notebook.extras._found", lambda package: package != "xllamacpp")
    with pytest.raises(LabError, match=r"xllamacpp is not installed: .*llamacpp"):
        LlamaServer(tmp_path / "base.gguf")


def test_a_modelfile_has_one_instruction_each_and_the_models_own_turns(tokenizer):
    text = modelfile("bookings.gguf", "bookings")
    found = dict(re.findall(r'^(FROM|TEMPLATE|SYSTEM) (?:"""((?:.|\n)*?)"""|\S+)$', text, re.M))
    assert text.startswith("FROM ./bookings.gguf\n") and found["SYSTEM"] == TASKS["bookings"].system
    rendered = found["TEMPLATE"].replace("{{ if .System }}", "").replace("{{ end }}", "")
    rendered = rendered.replace("{{ .System }}", "S").replace("{{ .Prompt }}", "P")
    assert rendered == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nP<|im_end|>\n<|im_start|>assistant\n"
    assert re.findall(r"^PARAMETER (\w+) ", text, re.M) == ["temperature", "num_predict"]
    for path, template in (("a\nb.gguf", "x"), ("a.gguf", '"""')):
        with pytest.raises(LabError, match="Modelfile"):
            modelfile(path, "bookings", template)


def test_vllms_command_names_base_adapters_and_a_rank_that_it_takes(tmp_path):
    folders = {name: recorded_adapter(name) for name in ("bookings", "style")}
    parts = shlex.split(vllm_command("my base", folders))
    assert parts[:4] == ["vllm", "serve", "my base", "--enable-lora"]
    assert parts[parts.index("--max-lora-rank") + 1] == "8"  # both have rank 4, and vLLM begins at 8
    assert parts[parts.index("--max-loras") + 1] == "2"  # its default, 1, would keep the two out of one batch
    assert parts[parts.index("--lora-modules") + 1 :] == [f"{name}={folder}" for name, folder in folders.items()]
    for wrong in ({}, {"a b": folders["style"]}, {"none": tmp_path}):
        with pytest.raises(LabError):
            vllm_command("base", wrong)
    assert all(json.loads((folder / "adapter_config.json").read_text())["r"] == 4 for folder in folders.values())
