"""traffic: two real processes hold and send what `sharding` computes, and learn what one process learns.

All six measurements share one start of torchrun: about 11 s on idle cores, 20 s on busy ones. Of the failures, one
starts torchrun too.
"""

import psutil
import pytest
import torch

from lab_utils.errors import LabError
from lab_utils.machines import traffic, traffic_process
from lab_utils.machines.sharding import Communication, communication, sharded
from lab_utils.machines.traffic import CASES, SETTLING, SMALL, gloo_bytes, losses_alone, measure_all, measure_traffic

FRAMES = 0.05  # headers of TCP, acknowledgements, and what else this machine says to itself meanwhile
each_case = pytest.mark.parametrize(("method", "strategy"), CASES)


@pytest.fixture(scope="module")
def found():
    """Every method and strategy, measured."""
    return measure_all()


def ours() -> list[str]:
    """Command lines of this process's descendants that train or launch."""
    lines = []
    for process in psutil.Process().children(recursive=True):
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:  # gone, or a zombie
            continue
    return [line for line in lines if "traffic_process" in line]


# ---- two processes ----


@pytest.mark.training
@each_case
def test_the_collectives_carry_what_is_computed_to_the_byte(found, method, strategy):
    computed = communication(SMALL, method, 2, strategy, dtype="float32")
    assert found[method, strategy].collectives == computed.collectives


@pytest.mark.training
@each_case
def test_through_the_loopback_interface_goes_what_is_computed(found, method, strategy):
    measured = found[method, strategy].sent_bytes
    if measured is None:
        pytest.skip("this system does not count what goes through its loopback interface")
    computed = gloo_bytes(communication(SMALL, method, 2, strategy, dtype="float32"))
    for _ in range(3):  # other programs talk through this interface too, and what they say is counted
        if measured < (1 + FRAMES) * computed:
            break
        measured = min(measured, measure_traffic(method, strategy).sent_bytes)
    assert computed < measured < (1 + FRAMES) * computed


@pytest.mark.training
@each_case
def test_each_process_holds_what_is_computed_to_the_byte(found, method, strategy):
    """No padding: every tensor of the small Llama has an even number of rows."""
    local = sharded(SMALL, method, 2, strategy, dtype="float32", device="cuda").local  # cuda: bitsandbytes' own layers
    for part in ("weights_bytes", "adapter_bytes", "gradients_bytes", "optimizer_bytes"):
        assert getattr(found[method, strategy], part) == getattr(local, part), part


@pytest.mark.training
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_two_processes_learn_what_one_learns_from_the_whole_batch(found, method):
    ddp, fsdp, alone = found[method, "ddp"].losses, found[method, "fsdp"].losses, losses_alone(method)
    assert len(alone) == 6 and len(set(alone)) == 6
    assert ddp == pytest.approx(alone, abs=2e-5)
    assert fsdp == pytest.approx(alone, abs=2e-5)


@pytest.mark.training
def test_the_losses_are_those_of_training(found):
    """B = 0: LoRA begins where full fine-tuning begins. Then they part; a base in 4 bits begins elsewhere."""
    full, lora, qlora = (found[method, "ddp"].losses for method in ("full", "lora", "qlora"))
    assert full[0] == pytest.approx(lora[0], abs=1e-6)
    assert abs(full[1] - lora[1]) > 1e-3
    assert abs(qlora[0] - lora[0]) > 1e-3


@pytest.mark.training
def test_a_measurement_says_what_it_is_and_leaves_no_process(found):
    for (method, strategy), one in found.items():
        assert (one.method, one.strategy, one.processes) == (method, strategy, 2)
        assert one.sent_bytes == (None if None in one.sent_each_step else min(one.sent_each_step[SETTLING:]))
        assert 0 < one.seconds < 60
    assert ours() == []


# ---- the model ----


def test_the_small_llama_has_the_shape_that_is_computed_with():
    model = traffic_process.small_llama(SMALL)
    assert sum(parameter.numel() for parameter in model.parameters()) == SMALL.total_parameters()
    for name, module in model.model.layers[0].named_modules():
        if isinstance(module, torch.nn.Linear):
            assert tuple(module.weight.shape) == SMALL.linear_shapes()[name.rpartition(".")[2]]


# ---- gloo, errors, failures ----


def test_gloo_sends_an_all_reduce_for_a_reduce_scatter():
    for processes, reduced, gathered, scattered, sent in ((2, 100, 0, 0, 100), (2, 0, 100, 0, 50), (2, 0, 0, 100, 100),
                                                          (4, 0, 100, 100, 75 + 150)):  # fmt: skip
        one = Communication(processes, {"all_reduce": reduced, "all_gather": gathered, "reduce_scatter": scattered})
        assert gloo_bytes(one) == sent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "adapter"}, "Unknown method 'adapter'"),
        ({"strategy": "zero1"}, "Unknown strategy 'zero1'. Choose one of: ddp, fsdp"),
        ({"processes": 1}, "processes=1 is out of range: a whole number of 2 or more"),
        ({"steps": 2}, "steps=2 is out of range: a whole number of 3 or more"),
        ({"batch_size": 0.5}, "batch_size=0.5 is out of range"),
        ({"tokens": 1}, "tokens=1 is out of range"),
        ({"rank": 0}, "rank=0 is out of range"),
        ({"timeout_seconds": 0}, "timeout_seconds=0 is out of range"),
    ],
)
def test_a_value_out_of_range_starts_nothing(monkeypatch, arguments, message):
    monkeypatch.setattr(traffic, "_torchrun", None)  # calling it would fail
    with pytest.raises(LabError) as raised:
        measure_traffic(**{"method": "lora", "strategy": "ddp"} | arguments)
    assert message in str(raised.value)


@pytest.mark.training
def test_what_the_processes_died_of_is_said_once():
    with pytest.raises(LabError) as raised:
        measure_traffic("lora", "ddp", rank=257)
    message = str(raised.value)
    assert message.startswith("2 processes failed. They said last: ")
    assert message.count("rank=257 is larger than layer model.layers.0.self_attn.q_proj (256×256) allows") == 1
    assert ours() == []


def test_processes_that_take_too_long_are_stopped(monkeypatch, tmp_path):
    """A launcher that starts another process, says a line and waits for ever."""
    program = tmp_path / "sitecustomize.py"
    program.write_text(
        "import subprocess, sys, time\n"
        "if 'traffic_process' in ' '.join(sys.orig_argv):\n"
        "    subprocess.Popen(['sleep', '600'])\n"
        "    print('waiting for the others', file=sys.stderr, flush=True)\n"
        "    time.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = psutil.Process().children(recursive=True)
    with pytest.raises(LabError, match=r"2 processes took longer than 5 s\. .*They said last: waiting for the others"):
        measure_traffic("lora", "ddp", timeout_seconds=5)
    left = [one for one in psutil.Process().children(recursive=True) if one not in before]
    assert left == []


def test_the_folder_of_the_processes_may_have_any_name(monkeypatch, tmp_path):
    """torchrun's logs and the result lie in the temporary folder: brackets, blanks and letters in its path."""
    folder = tmp_path / "Kurs [2026] *? #1 50%41 ä {rank}"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    found = measure_traffic("lora", "ddp", steps=3)
    assert found.processes == 2 and len(found.losses) == 3
    assert list(folder.iterdir()) == []


def test_what_died_is_said_in_a_folder_of_any_name(tmp_path):
    for name in ("0", "1"):
        (tmp_path / "a [b]" / name).mkdir(parents=True)
        (tmp_path / "a [b]" / name / "stderr.log").write_bytes(b"[rank0]: \xe4 no memory\n")
    (tmp_path / "a [b]" / "torchrun.log").write_text("its own")
    assert traffic._last_lines(tmp_path / "a [b]") == "\ufffd no memory"


def test_no_case_is_measured_by_nothing(monkeypatch):
    monkeypatch.setattr(traffic, "_torchrun", None)
    with pytest.raises(LabError, match="cases=0"):
        traffic.measure_all([])


def test_a_result_that_was_cut_short_is_told(monkeypatch):
    def writes_half(settings, folder):
        (folder / "result.json").write_text('[[{"losses"')

    monkeypatch.setattr(traffic, "_torchrun", writes_half)
    with pytest.raises(LabError, match=r"result\.json.*not JSON"):
        measure_traffic("lora", "ddp")
