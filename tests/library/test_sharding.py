"""sharding: bytes worked out by hand on a tiny shape, laws on the real ones, and a ring that is walked round.

What real processes hold and send is in test_traffic.py.
"""

from dataclasses import replace

import numpy as np
import pytest

from lab_utils.counts.architectures import ARCHITECTURES, Architecture
from lab_utils.counts.parameters import adapter_bytes
from lab_utils.errors import LabError
from lab_utils.machines.sharding import LINKS, STRATEGIES, Communication, communication, sharded
from lab_utils.memory.step import METHODS, as_record, estimate

# Per layer: q and o 64 numbers each, k and v 32, three MLP matrices 128, two norms 8: 592. Outside: 10 · 8 + 8 = 88.
HAND = Architecture(
    name="by hand", family="llama", hidden=8, n_layers=3, heads=2, kv_heads=1, head_size=4, intermediate=16,
    vocabulary=10,
)  # fmt: skip
ADAPTER = 256  # per layer with rank 2: 2 · (16 + 12 + 12 + 16 + 3 · 24)
WHOLE = 3 * 592 + 88
REAL = ("SmolLM2-135M", "Llama-2-7B", "GPT-2", "RoBERTa-base", "Falcon-180B")
every_method = pytest.mark.parametrize("method", METHODS)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


# ---- by hand ----


def test_full_fine_tuning_by_hand():
    settings = {"dtype": "float32", "batch_size": 2, "sequence_length": 5}
    alone = estimate(HAND, "full", **settings)
    one = sharded(HAND, "full", 4, "fsdp", **settings)
    assert one.local.weights_bytes == one.local.gradients_bytes == 4 * WHOLE / 4
    assert one.local.optimizer_bytes == 2 * 4 * WHOLE / 4
    assert one.gathered_bytes == 4 * (88 + 2 * 592)
    assert one.local.activations_bytes == alone.activations_bytes
    assert one.local.begin_bytes == alone.begin_bytes + one.gathered_bytes
    assert one.local.end_bytes == alone.end_bytes + one.gathered_bytes + 4 * 88  # the last gradients, still whole


def test_lora_by_hand():
    one = sharded(HAND, "lora", 4, "fsdp", rank=2)
    assert one.local.weights_bytes == 2 * WHOLE / 4
    assert one.local.adapter_bytes == one.local.gradients_bytes == 4 * 3 * ADAPTER / 4
    assert one.local.optimizer_bytes == 8 * 3 * ADAPTER / 4
    assert one.gathered_bytes == 2 * 88 + 2 * (2 * 592 + 4 * ADAPTER)
    assert one.local.end_bytes == estimate(HAND, "lora", 2).end_bytes + one.gathered_bytes  # nothing trained outside


def test_of_a_4_bit_base_the_packed_bytes_are_shared_out_and_the_scales_are_not():
    blocks = 3 * (4 * 1 + 3 * 2)  # of 64: a matrix of 64 numbers or fewer has one, one of 128 two
    scales = blocks + 3 * 7 * (4 + 4 + 4 * 256 + 4 * 16)  # a byte a block; a scale of scales, an offset, two tables
    packed, rest = 3 * 576 / 2, 2 * (3 * 16 + 88)
    one = sharded(HAND, "qlora", 4, "fsdp", rank=2, device="cuda")
    assert one.local.weights_bytes == (packed + rest) / 4 + scales
    assert one.gathered_bytes == 2 * 88 + 2 * (288 + 2 * 16 + 4 * ADAPTER)
    plain = sharded(HAND, "qlora", 4, "fsdp", rank=2, device="cuda", double_quant=False)
    assert plain.local.weights_bytes == (packed + rest) / 4 + 4 * blocks + 3 * 7 * 4 * 16


def test_communication_by_hand():
    adapters = 4 * 3 * ADAPTER
    expected = {
        ("full", "ddp"): (4 * WHOLE, 0, 0),
        ("lora", "ddp"): (adapters, 0, 0),
        ("full", "zero1"): (0, 4 * WHOLE, 4 * WHOLE),
        ("lora", "zero2"): (0, adapters, adapters),
        ("full", "fsdp"): (0, 4 * (2 * 3 * 592 + 88), 4 * WHOLE),
        ("lora", "fsdp"): (0, 4 * (2 * 3 * (592 + ADAPTER) + 88), adapters),
        ("qlora", "fsdp"): (0, 2 * 3 * (288 + 4 * 16 + 4 * ADAPTER) + 4 * 88, adapters),
    }
    for (method, strategy), (reduced, gathered, scattered) in expected.items():
        one = communication(HAND, method, 4, strategy, rank=2, dtype="float32")
        assert one.collectives == {"all_reduce": reduced, "all_gather": gathered, "reduce_scatter": scattered}
        assert one.sent_bytes == (2 * reduced + gathered + scattered) * 3 / 4


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
def test_a_ring_sends_what_the_formula_says(processes):
    """Processes that only talk to their right neighbour, each with its own numbers; a piece is a byte."""
    pieces = [[10**owner] * processes for owner in range(processes)]
    sent = 0
    for turn in range(2 * (processes - 1)):
        places = [(owner - turn) % processes for owner in range(processes)]
        letters = [pieces[owner][place] for owner, place in enumerate(places)]
        for owner, (place, letter) in enumerate(zip(places, letters, strict=True)):
            right = pieces[(owner + 1) % processes]
            right[place] = letter + (right[place] if turn < processes - 1 else 0)
        sent += 1
    assert pieces == [[(10**processes - 1) // 9] * processes] * processes  # 11…1: everybody's number once
    everything = {"all_reduce": processes, "all_gather": 0, "reduce_scatter": 0}
    assert Communication(processes, everything).sent_bytes == sent
    halves = {"all_reduce": 0, "all_gather": processes, "reduce_scatter": processes}
    assert Communication(processes, halves).sent_bytes == sent


# ---- laws ----


@every_method
@every_strategy
def test_one_process_holds_what_memory_estimates_and_sends_nothing(method, strategy):
    for settings in ({}, {"gradient_checkpointing": True, "batch_size": 4, "device": "cuda"}):
        alone = estimate("SmolLM2-135M", method, **settings)
        one = sharded("SmolLM2-135M", method, 1, strategy, **settings)
        assert one.parts() == {**alone.parts(), "gathered": 0}
        assert one.total_bytes == alone.total_bytes
    assert communication("SmolLM2-135M", method, 1, strategy).sent_bytes == 0


@every_method
@every_strategy
@pytest.mark.parametrize("name", REAL)
def test_the_parts_add_up_and_none_is_negative(name, method, strategy):
    for checkpointing in (False, True):
        one = sharded(name, method, 8, strategy, gradient_checkpointing=checkpointing, device="cuda")
        assert sum(one.parts().values()) == one.total_bytes
        assert min(one.parts().values()) >= 0


@every_method
@pytest.mark.parametrize("name", REAL)
def test_each_strategy_shares_out_what_its_row_says(name, method):
    alone = estimate(name, method, device="cuda")
    shared = {"ddp": (), "zero1": ("optimizer",), "zero2": ("optimizer", "gradients"),
              "fsdp": ("optimizer", "gradients", "adapter")}  # fmt: skip
    for strategy, parts in shared.items():
        local = sharded(name, method, 8, strategy, device="cuda").local
        for part in ("optimizer", "gradients", "adapter"):
            whole, here = getattr(alone, f"{part}_bytes"), getattr(local, f"{part}_bytes")
            assert here == (-(-whole // 8) if part in parts else whole)
        if strategy != "fsdp":
            assert local.weights_bytes == alone.weights_bytes


@every_method
@every_strategy
def test_more_processes_never_hold_more_each_and_always_send_more(method, strategy):
    held = [sharded("Llama-2-7B", method, 2**n, strategy, device="cuda").total_bytes for n in range(1, 11)]
    sent = [communication("Llama-2-7B", method, 2**n, strategy).sent_bytes for n in range(1, 11)]
    assert held == sorted(held, reverse=True)
    assert sent == sorted(sent) and sent[-1] < 2 * sent[0]


@every_method
@pytest.mark.parametrize("name", REAL)
def test_fsdp_gathers_each_layer_twice_and_the_rest_once(name, method):
    """With two layers more, four layers more are gathered; with one layer, it twice and the rest once."""

    def gathered(layers: int) -> int:
        return communication(replace(ARCHITECTURES[name], n_layers=layers), method, 2, "fsdp").collectives["all_gather"]

    def travels(layers: int) -> int:
        """Weights and adapters without the scales of 4-bit blocks."""
        one = replace(ARCHITECTURES[name], n_layers=layers)
        inner = [m for m in as_record(one)["modules"].values() if m["group"] != "head" and method == "qlora"]
        held = estimate(one, "full").weights_bytes - sum(2 * m["out"] * m["in"] * m["count"] for m in inner)
        packed = sum(m["out"] * m["in"] // 2 * m["count"] for m in inner)
        return held + packed + (0 if method == "full" else estimate(one, method).adapter_bytes)

    assert gathered(3) - gathered(1) == 2 * (travels(3) - travels(1))
    assert gathered(1) == 2 * travels(1) - (travels(1) - (travels(2) - travels(1)))


@pytest.mark.parametrize("name", REAL)
def test_zero_sends_what_ddp_sends_and_fsdp_half_as_much_again_less_what_is_gathered_once(name):
    """Rajbhandari et al. 2019, section 7: 2, 2, 2 and 3 times the model."""
    ddp, zero1, zero2, fsdp = (communication(name, "full", 64, strategy) for strategy in STRATEGIES)
    assert ddp.sent_bytes == zero1.sent_bytes == zero2.sent_bytes
    missing = 3 * estimate(name, "full").weights_bytes - sum(fsdp.collectives.values())
    assert 0 < missing < estimate(name, "full").weights_bytes
    assert fsdp.sent_bytes == pytest.approx(1.5 * ddp.sent_bytes - missing * 63 / 64, abs=2)


def test_with_lora_ddp_sends_the_adapters_file_and_fsdp_the_model():
    """On Llama-2-7B: 337 times less than full fine-tuning under DDP, and not even a half less under FSDP."""
    one = communication("Llama-2-7B", "lora", 2, "ddp", adapter_dtype="bfloat16")
    assert one.sent_bytes == adapter_bytes(ARCHITECTURES["Llama-2-7B"], 8) == communication(
        "Llama-2-7B", "qlora", 2, "ddp", adapter_dtype="bfloat16"
    ).sent_bytes  # fmt: skip
    full, lora, qlora = (communication("Llama-2-7B", method, 2, "fsdp").sent_bytes for method in METHODS)
    assert communication("Llama-2-7B", "full", 2, "ddp").sent_bytes / one.sent_bytes == pytest.approx(337.1, abs=0.1)
    assert 0.65 < lora / full < 0.7  # the gradients stay at home, the weights do not
    assert 3 < lora / qlora < 4  # the layers in 4 bits; embedding, head and adapters as before


# ---- links, errors ----


def test_seconds_are_bytes_by_speed():
    one = Communication(2, {"all_reduce": 10**9, "all_gather": 0, "reduce_scatter": 0})
    assert one.seconds(LINKS["Ethernet, 1 Gb/s"]) == 8
    assert one.seconds(LINKS["InfiniBand NDR, 400 Gb/s"]) == 0.02
    assert list(LINKS.values()) == sorted(LINKS.values())
    assert LINKS["PCIe 5.0, 16 lanes"] == 2 * LINKS["PCIe 4.0, 16 lanes"] == pytest.approx(63.0e9, rel=1e-3)


@pytest.mark.parametrize("function", [sharded, communication])
def test_what_is_unknown_or_out_of_range_is_named(function):
    with pytest.raises(LabError, match=r"Unknown strategy 'zero3'\. Choose one of: ddp, zero1, zero2, fsdp"):
        function("GPT-2", "lora", 2, "zero3")
    for processes in (0, 2.0, True, "2"):
        with pytest.raises(LabError, match=f"processes={processes!r} is out of range"):
            function("GPT-2", "lora", processes, "ddp")
    with pytest.raises(LabError, match="Unknown architecture 'GPT-9'"):
        function("GPT-9", "lora", 2, "fsdp")
    with pytest.raises(LabError, match="Unknown method 'adapter'"):
        function("GPT-2", "adapter", 2, "fsdp")
    with pytest.raises(LabError, match="bytes_per_second=0 is out of range"):
        communication("GPT-2", "lora", 2, "ddp").seconds(0)


@pytest.mark.parametrize("speed", [0, -1, True, "1e9", None, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_named(speed):
    with pytest.raises(LabError, match="bytes_per_second="):
        communication("GPT-2", "lora", 2, "ddp").seconds(speed)


@pytest.mark.parametrize(
    ("processes", "collectives", "named"),
    [(0, {}, "processes=0"), (2, {"all_reduce": -1}, "all_reduce=-1"),
     (2, {"all_reduce": 0, "all_gather": 1.5}, "er=1.5"),
     (2, {}, "all_reduce=None"), (2, None, "collectives=None"), (2, 5, "collectives=5")],
)  # fmt: skip
def test_an_exchange_that_cannot_be_is_named(processes, collectives, named):
    with pytest.raises(LabError, match=named):
        Communication(processes, collectives)


@every_strategy
def test_targets_that_can_be_read_once_and_numpys_numbers_are_taken(strategy):
    plain = sharded("GPT-2", "lora", 4, strategy, target_modules=["c_attn"], batch_size=8)
    once = {"target_modules": iter(["c_attn"]), "batch_size": np.int8(8)}
    assert plain == sharded("GPT-2", "lora", np.int64(4), strategy, **once)
    sent = communication("GPT-2", "lora", 4, strategy, target_modules=["c_attn"])
    assert sent == communication("GPT-2", "lora", np.int64(4), strategy, target_modules=iter(["c_attn"]))
    with pytest.raises(LabError, match="Unknown setting 'batch'"):
        sharded("GPT-2", "lora", 4, strategy, batch=8)
    with pytest.raises(LabError, match="Unknown strategy"):
        sharded("GPT-2", "lora", 4, [strategy])


def test_the_rest_in_float32_is_shared_out_and_travels_as_that():
    """Outside the layers there are 88 numbers, in each 16 of norms: twice the bytes of each."""
    how = {"rank": 2, "device": "cuda"}
    plain, wide = (sharded(HAND, "qlora", 4, "fsdp", **how, rest_dtype=one) for one in (None, "float32"))
    assert wide.local.weights_bytes - plain.local.weights_bytes == 2 * (3 * 16 + 88) / 4
    assert wide.gathered_bytes - plain.gathered_bytes == 2 * (88 + 2 * 16)
    sent = [communication(HAND, "qlora", 4, "fsdp", rank=2, rest_dtype=one) for one in (None, "float32")]
    assert sent[1].collectives["all_gather"] - sent[0].collectives["all_gather"] == 2 * (2 * 3 * 16 + 88)
