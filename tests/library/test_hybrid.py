"""Hybrid sharding: one machine is FSDP, and what crosses between machines is each process's share of the gradients."""

import pytest

from lab_utils.errors import LabError
from lab_utils.machines.hybrid import group_size, hybrid_communication, hybrid_sharded
from lab_utils.machines.sharding import communication, sharded


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_on_one_machine_it_is_fsdp_and_nothing_crosses(method):
    inside, between = hybrid_communication("SmolLM2-135M", method, 4)
    assert inside == communication("SmolLM2-135M", method, 4, "fsdp") and between.sent_bytes == 0
    assert hybrid_sharded("SmolLM2-135M", method, 4) == sharded("SmolLM2-135M", method, 4, "fsdp")


def test_two_machines_of_four_by_hand():
    """LoRA r = 8 on Llama-2-7B: 19,988,480 numbers in float32; a fourth of them crosses on each of four processes."""
    inside, between = hybrid_communication("Llama-2-7B", "lora", 8, 4)
    assert between.processes == 2 and between.sent_bytes == 4 * 19_988_480 // 4
    assert inside == communication("Llama-2-7B", "lora", 4, "fsdp")
    assert hybrid_sharded("Llama-2-7B", "lora", 8, 4) == sharded("Llama-2-7B", "lora", 4, "fsdp")


def test_more_machines_cost_no_more_memory_and_hardly_more_sending():
    few, many = (hybrid_communication("Llama-2-7B", "full", count)[1].sent_bytes for count in (16, 512))
    assert few < many < 2 * few  # a ring: 2 (M - 1) / M of the share, from 2 machines to 64
    assert hybrid_sharded("Llama-2-7B", "full", 16) == hybrid_sharded("Llama-2-7B", "full", 512)


def test_processes_that_do_not_fill_their_machines_are_refused():
    assert [group_size(count) for count in (1, 7, 8, 24)] == [1, 7, 8, 8]
    with pytest.raises(LabError, match="processes=12 do not fill machines of per_machine=8: take a multiple of 8"):
        hybrid_communication("Llama-2-7B", "lora", 12)
    for wrong in (0, 2.5, "two"):
        with pytest.raises(LabError, match="per_machine"):
            hybrid_sharded("Llama-2-7B", "lora", 8, wrong)
