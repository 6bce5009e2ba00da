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


def small(arm):
    """An arm with the tiny model, and two answers to a message."""
    groups = {"group_size": 2} if hasattr(arm.recipe, "group_size") else {}
    return replace(arm, recipe=replace(arm.recipe, model="auto", **groups))


def answers_made_up(model, tokenizer, rows, group_size):
    """Of the first message a right and two wrong answers, of the second only right ones, of the third only wrong."""
    wrong = ['{"qty":0}', "Sure!"]
    outputs = [[rows[0]["answer"], *wrong], [rows[1]["answer"]] * 2, wrong]
    return [{**row, "outputs": found} for row, found in zip(rows, outputs, strict=True)]


@pytest.fixture
def quick(tiny_llama, tmp_path, monkeypatch):
    """The script with a tiny model, an adapter of two steps and answers of five tokens; a call runs it."""
    tokenizer = load_tokenizer()
    base = tiny_llama(len(tokenizer)), tokenizer
    sample = sampling.sample_groups
    monkeypatch.setattr(sampling, "sample_groups", lambda *arguments: sample(*arguments[:-1], 5))
    monkeypatch.setattr(record, "load_base", lambda *arguments, **options: base)
    monkeypatch.setattr(record, "START", replace(record.START, model="auto", steps=2, train_examples=8))
    monkeypatch.setattr(record, "ARMS", {name: small(arm) for name, arm in record.ARMS.items()})
    monkeypatch.setattr(record, "DPO", replace(record.DPO, model="auto"))
    monkeypatch.setattr(record, "MESSAGES", 3)
    monkeypatch.setattr(record, "own_answers", answers_made_up)
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
    folder = call("near misses", "brief", seeds=1)
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert [(line["arm"], line["seed"], line["recipe"]["start"]) for line in lines] == [
        ("near misses", 1, "start"), ("brief", 1, "start"),
    ]  # fmt: skip
    assert lines[0]["history"][0]["loss"] == pytest.approx(0.69315) and "reward" in lines[1]["history"][0]
    assert lines[0]["versions"]["torch"] and lines[0]["cpu_seconds"] >= 0
    written = (folder / "runs.jsonl").read_bytes(), (folder / "start/adapter_model.safetensors").read_bytes()
    call("near misses", "brief", seeds=1)
    assert written == ((folder / "runs.jsonl").read_bytes(), (folder / "start/adapter_model.safetensors").read_bytes())
    record.main(["--list", "--output", str(folder)])
    assert "recorded: [('brief', 1), ('near misses', 1)]" in capsys.readouterr().out
    model, start = begin(base[0], replace(record.ARMS["near misses"].recipe, start=str(folder / "start")))
    load_adapter(model, folder / "start")
    assert any(bool(one.any()) for name, one in start.items() if "lora_B" in name)


def test_the_judge_of_form_and_brevity_never_looks_at_the_message():
    right = '{"name":" Anna","qty":1,"item":" tents","day":"Friday","time":"noon"}'
    short = '{"name":"","qty":0,"item":"","day":"","time":""}'
    assert record.short_and_valid(short, right) > record.short_and_valid(right, right) > 0
    assert record.short_and_valid("{}", right) < 0 > record.short_and_valid("Sure!", right)


def test_arms_that_learn_from_the_starts_own_answers_are_shown_the_same_ones(quick, monkeypatch):
    call, base = quick
    folder = call("own pairs", "rejection", "labels", seeds=2)
    lines = {line["arm"]: line for line in map(json.loads, (folder / "runs.jsonl").read_text().splitlines())}
    assert {arm: line["rows"] for arm, line in lines.items()} == {"own pairs": 2, "rejection": 2, "labels": 3}
    sampled = [json.loads(line) for line in (folder / "samples-2.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in sampled] == [row["prompt"] for row in record.messages(2)]
    monkeypatch.setattr(record, "own_answers", None)  # sampled once: a second arm reads the file
    pairs = record.examples_of(record.ARMS["own pairs"], 2, folder, base)
    assert {pair["chosen"] for pair in pairs} == {sampled[0]["answer"]}
    assert all(len(line["history"]) == 1 and line["history"][0]["loss"] > 0 for line in lines.values())


def test_to_imitate_lowers_the_loss_of_what_is_imitated(quick):
    call, base = quick
    folder = call(seeds=0)
    recipe = replace(record.SFT, model="auto", steps=8, batch_size=2, start=str(folder / "start"), learning_rate=1e-2)
    model, history = record.imitate(recipe, record.messages(0)[:2], base)
    assert history[-1]["loss"] < history[0]["loss"] - 0.1
    assert "lora" in " ".join(name for name, one in model.named_parameters() if one.requires_grad)


def test_all_arms_of_a_seed_see_the_same_messages_and_none_that_the_start_saw():
    seen, drawn = set(range(record.START.train_examples)), [record.messages(seed) for seed in (0, 1)]
    assert len(drawn[0]) == record.MESSAGES == record.GRPO.steps * record.GRPO.batch_size and drawn[0] != drawn[1]
    assert not seen & set(record.UNSEEN) and record.GRPO.group_size == record.GROUP
    near = record.near_misses(drawn[0], 0)
    assert {pair["prompt"] for pair in near} == {row["prompt"] for row in drawn[0]} and len(near) > 60
    assert len({pair["rejected"] for pair in near}) == len(near)


def test_pairs_are_read_before_the_first_step_and_after_each(quick, monkeypatch):
    from lab_utils.folders import DATA
    from lab_utils.preferences import pair_logprobs

    call, base = quick
    folder = call()
    monkeypatch.syspath_prepend(str(DATA))
    pairs = load("record_pairs")
    rows = answers_made_up(None, None, [{"prompt": one, "answer": f'{{"qty":{one}}}'} for one in "123"], 2)
    monkeypatch.setattr(pairs, "load_base", lambda *arguments, **options: base)
    monkeypatch.setattr(pairs, "samples", lambda *arguments: rows)
    monkeypatch.setattr(pairs, "RUNS", {name: small(arm) for name, arm in pairs.RUNS.items()})
    for _ in range(2):  # the second call finds nothing to do
        pairs.main(["--steps", "2", "--output", str(folder)])
    first, second = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert [one["recipe"]["learning_rate"] for one in (first, second)] == [1e-3, 2e-4]
    assert first["places"] == [0] and len(first["logprobs"]) == 3 and first["logprobs"][0] == second["logprobs"][0]
    begin(base[0], replace(record.ARMS["own pairs"].recipe, start=str(folder / "start")))
    [chosen] = pair_logprobs(base[0], base[1], pairs.own_pairs(rows)[:1])[0].tolist()
    assert first["logprobs"][0] == [pytest.approx(chosen, abs=1e-4)]
    read = first["history"][0]["chosen_logprob"], first["logprobs"]
    assert read[1][0] != read[1][1] != read[1][2]  # it moved with each step
