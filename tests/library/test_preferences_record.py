"""data/record_preferences.py: an adapter to start from, a line per run, and going on where it was stopped."""

import json
from dataclasses import replace

import pytest
from data_scripts import load

from lab_utils.finetune.resume import load_adapter
from lab_utils.models.registry import load_tokenizer
from lab_utils.preferences import begin
from lab_utils.preferences import trainers as sampling

record = load("record_preferences")


@pytest.fixture
def quick(tiny_llama, tmp_path, monkeypatch):
    """The script with a tiny model, an adapter of two steps and answers of five tokens; a call runs it."""
    tokenizer = load_tokenizer()
    base = tiny_llama(len(tokenizer)), tokenizer
    sample = sampling.sample_groups
    monkeypatch.setattr(sampling, "sample_groups", lambda *arguments: sample(*arguments[:-1], 5))
    monkeypatch.setattr(record, "load_base", lambda *arguments, **options: base)
    monkeypatch.setattr(record, "START", replace(record.START, model="auto", steps=2, train_examples=8))
    arms = {name: (replace(recipe, model="auto", group_size=2) if hasattr(recipe, "group_size") else
                   replace(recipe, model="auto"), judge) for name, (recipe, judge) in record.ARMS.items()}  # fmt: skip
    monkeypatch.setattr(record, "ARMS", arms)
    monkeypatch.setattr(
        record, "measure", lambda model, tokenizer, count: {"exact": 0.5, "valid": 1.0, "characters": 9}
    )
    monkeypatch.setenv("LORA_LAB_TESTS_LOCK", str(tmp_path / "tests.lock"))

    def call(*arms, **options):
        more = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        record.main(["--only", "start", *arms, "--steps", "1", "--output", str(tmp_path / "out"), *more])
        return tmp_path / "out"

    return call, base


def test_a_line_per_run_and_none_twice(quick, capsys):
    call, base = quick
    folder = call("dpo", "brief", seeds=1)
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert [(line["arm"], line["seed"], line["recipe"]["start"]) for line in lines] == [
        ("dpo", 1, "start"), ("brief", 1, "start"),
    ]  # fmt: skip
    assert lines[0]["history"][0]["loss"] == pytest.approx(0.69315) and "reward" in lines[1]["history"][0]
    assert lines[0]["versions"]["torch"] and lines[0]["cpu_seconds"] >= 0
    written = (folder / "runs.jsonl").read_bytes(), (folder / "start/adapter_model.safetensors").read_bytes()
    call("dpo", "brief", seeds=1)
    assert written == ((folder / "runs.jsonl").read_bytes(), (folder / "start/adapter_model.safetensors").read_bytes())
    record.main(["--list", "--output", str(folder)])
    assert "recorded: [('brief', 1), ('dpo', 1)]" in capsys.readouterr().out
    model, start = begin(base[0], replace(record.ARMS["dpo"][0], start=str(folder / "start")))
    load_adapter(model, folder / "start")
    assert any(bool(one.any()) for name, one in start.items() if "lora_B" in name)


def test_the_judge_of_form_and_brevity_never_looks_at_the_message():
    right = '{"name":" Anna","qty":1,"item":" tents","day":"Friday","time":"noon"}'
    short = '{"name":"","qty":0,"item":"","day":"","time":""}'
    assert record.short_and_valid(short, right) > record.short_and_valid(right, right) > 0
    assert record.short_and_valid("{}", right) < 0 > record.short_and_valid("Sure!", right)
