"""The memory model in the browser: the bytes of Python, part by part, moment by moment, and the same advice."""

import json
import random
import subprocess
from dataclasses import asdict

import pytest
from shown import node, shown

from lab_utils.counts import ARCHITECTURES, from_config
from lab_utils.errors import LabError
from lab_utils.memory import METHODS, advice, estimate, timeline
from lab_utils.memory.budget import GPUS, room_bytes
from lab_utils.widgets import explorer
from lab_utils.widgets.budget_explorer import BudgetExplorer, browser_record

needs_node = pytest.mark.skipif(node() is None, reason="no node and no Playwright")
CASES = 200
RUN = """
let text = "";
for await (const part of process.stdin) text += part;
console.log(JSON.stringify(JSON.parse(text).map(([record, settings, room]) => {
  const one = estimate(record, settings), moments = timeline(one, settings.method, settings.gradient_checkpointing);
  return [one, totalBytes(one), peakParts(one), moments, totalBytes(one) > room ? advice(record, settings, room) : []];
})));
"""


def cases() -> list[tuple[dict, float]]:
    """Settings of `memory.estimate` with a card, drawn at random; every argument takes each of its values."""
    draw = random.Random(7)
    dtypes = ("float32", "bfloat16", "float16")
    found = []
    for number in range(CASES):
        batch, length = draw.choice((1, 3, 16)), draw.choice((1, 77, 512, 8192))
        found.append((
            {
                "architecture": list(ARCHITECTURES)[number % len(ARCHITECTURES)], "method": METHODS[number % 3],
                "rank": draw.choice((1, 7, 64)), "target_modules": draw.choice(("all-linear", "attention", "qv")),
                "batch_size": batch, "sequence_length": length,
                "supervised_tokens": draw.choice((None, draw.randint(1, batch * length))),
                "dtype": draw.choice(dtypes), "adapter_dtype": draw.choice(dtypes),
                "moments": draw.choice((*dtypes, "8bit")), "foreach": draw.random() < 0.5,
                "gradient_checkpointing": draw.random() < 0.5,
                "double_quant": draw.random() < 0.5, "rest_dtype": draw.choice((None, *dtypes)),
                "device": draw.choice(("cpu", "cuda")),
            },
            draw.choice(list(GPUS)),
        ))  # fmt: skip
    return found


@needs_node
def test_two_hundred_estimates_are_pythons_to_the_byte(tmp_path):
    file, given = tmp_path / "estimate.mjs", []
    file.write_text((explorer.FOLDER / "memory_estimate.js").read_text(encoding="utf-8") + RUN, encoding="utf-8")
    for settings, gpu in cases():
        record = browser_record(ARCHITECTURES[settings["architecture"]], settings["target_modules"])
        given.append([record, settings, room_bytes(gpu)])
    done = subprocess.run([node(), str(file)], input=json.dumps(given), capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    advised = 0
    for (settings, gpu), seen in zip(cases(), json.loads(done.stdout), strict=True):
        one, total, parts, moments, changes = seen
        wanted = estimate(**settings)
        assert one == asdict(wanted), settings
        assert (total, parts) == (wanted.total_bytes, wanted.parts())
        assert moments == [
            asdict(each) for each in timeline(wanted, settings["method"], settings["gradient_checkpointing"])
        ]
        if settings["supervised_tokens"] is None:  # the browser's explorer always supervises the whole batch
            told = [] if total <= room_bytes(gpu) else advice(gpu, **settings)
            advised += bool(told)
            assert changes == [
                {"argument": each.argument, "old": each.old, "new": each.new, "total": each.estimate.total_bytes}
                for each in told
            ], settings
    assert advised >= 20


@needs_node
def test_the_sentence_says_what_python_says():
    moves = [{}, {"model": "Llama-2-7B", "method": "full", "gpu": "A100, 80 GB"}, {"moments": "8bit"},
             {"method": "qlora", "sequence_length": 8192, "checkpointing": True, "batch_size": 16}]  # fmt: skip
    one, start = BudgetExplorer(), BudgetExplorer()
    for move, seen in zip(moves, shown(start, moves), strict=True):
        for name, value in move.items():
            setattr(one, name, value)
        assert seen["sentence"] == one.summary()
        assert ("ends" in seen["sentence"]) == (one.method == "full")


def test_it_opens_where_its_question_is_not_answered():
    one = BudgetExplorer()
    assert one.model not in one.question and one.gpu.partition(",")[0] not in one.question


def test_a_configuration_of_ones_own_joins_the_menu():
    """A model of 2 layers: its total by hand is in the record that the browser gets."""
    keys = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 10,
            "num_attention_heads": 2, "tie_word_embeddings": True}  # fmt: skip
    one = BudgetExplorer(model="mine", others=[from_config(keys, name="mine")])
    layer = 4 * 8 * 8 + 3 * 8 * 16 + 2 * 8
    [record] = [each for each in one.records if each["name"] == "mine"]
    assert record["total"] == 10 * 8 + 2 * layer + 8
    assert one.budget["parts"]["weights"] == 2 * record["total"] and "mine, lora" in one.summary()
    experts = from_config(
        {**keys, "model_type": "mixtral", "num_local_experts": 4, "tie_word_embeddings": False}, experts=True
    )
    for wrong, message in ((experts, "mixture of experts"), ("Llama", "from_config")):
        with pytest.raises(LabError, match=message):
            BudgetExplorer(others=[wrong])
