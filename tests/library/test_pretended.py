"""pretended: a planted fault of each kind is caught, what a card allows is let through, and by default it is off."""

import re
import subprocess
import sys

import pytest
import torch
from pretended_card import answers_of

from lab_utils.errors import LabError
from lab_utils.folders import ROOT
from lab_utils.pretended import CARDS, enable, enabled, overflowing

DEVICES = r"RuntimeError: Expected all tensors to be on the same device.*cpu and cuda:0!"
NUMPY = r"TypeError: can't convert cuda:0 device type tensor to numpy"
GENERATOR = r"RuntimeError: Expected a 'cuda' device type for generator but found 'cpu'"
FAULTS = {
    "two devices": DEVICES + r".*aten.mm.default: \(3, 4\) on cuda:0, \(4, 2\) on cpu",
    "two devices, in place": DEVICES,
    "two devices, in out=": DEVICES + ".*aten.mm.out",
    "two devices, in a list": DEVICES,
    "one number from the CPU, joined": DEVICES,
    "an optimizer's moments": DEVICES,
    "tokens on the CPU": DEVICES,
    "a batch on the CPU": DEVICES,
    "a loss with labels on the CPU": DEVICES,
    "a CPU tensor indexed by the card": DEVICES,
    "values of the CPU written by index": DEVICES,
    "two devices, in a thread": DEVICES,
    "two devices, in a layer's own tensor": DEVICES,
    "a checkpoint loaded to the card it came from": DEVICES,
    "two cards": "cuda:0 and cuda:1",
    "nothing to copy": "NotImplementedError: Cannot copy out of meta tensor",
    "nothing to copy to the card": "NotImplementedError: Cannot copy out of meta tensor",
    "numpy": NUMPY,
    "numpy of a parameter": NUMPY,
    "np.asarray": NUMPY,
    "the CPU's generator": GENERATOR,
    "the CPU's generator, in place": GENERATOR,
    "the card's generator": r"RuntimeError: Expected a 'cpu' device type for generator but found 'cuda'",
    "a product of integers": "NotImplementedError: \"addmm_cuda\" not implemented for 'Long'",
    "a batched product of integers": "NotImplementedError: \"baddbmm_cuda\" not implemented for 'Long'",
    "a histogram": "NotImplementedError: Could not run 'aten::histogram.bin_ct' with arguments from the 'CUDA' backend",
    "a forked process": "RuntimeError: Cannot re-initialize CUDA in forked subprocess|no forks on this system",
    "bfloat16 unscaled": "NotImplementedError: .*_unscale_cuda.* not implemented for 'BFloat16'",
    "more than the card has": "OutOfMemoryError: CUDA out of memory. Tried to allocate 32.00 MiB",
}
MIB = 2**20
ALLOWED = {
    "one number from the CPU": 0.0,
    "indices of the CPU": "cuda:0",
    "a copy from the CPU": "cuda:0",
    "a tensor on its input's device": "cuda:0",
    "a gradient's own tensor": "cuda:0",
    "recomputed": "cuda:0",
    "to and back, with gradients": [[2.0, 2.0, 2.0], "cpu"],
    "numpy after cpu": 3,
    "a deep copy": "cuda:0",
    "saved for backward": ["cuda:0"],
    "fused AdamW": ["cuda:0", "cuda:0", True],
    "a module moved": ["cuda:0"],
    "a number names a card": ["cuda:0", "cuda:0"],
    "integers multiplied as floats": [[2.0, 2.0], [2.0, 2.0]],
    "the card's generator": "cuda:0",
    "float32 unscaled": [True, 8.0],
    "overflow": [[False, 4.0], [False, 4.0], [True, 8.0]],  # twice skipped, at half of the scale of 8
    "float16 sums": [4096.0, 4096.0, 4096.0, "cuda:0"],  # float16 itself counts by ones to 2048
    "float32 results of float16": [[[4096.0, "torch.float32"]] * 3, 4097.0, "torch.float32"],
    "autocast on the card": ["bfloat16", "float32", "float32", "bfloat16"],
    "the CPU's autocast on the card": ["float32"] * 4,
    "the card's autocast on the CPU": ["float32"] * 4,
    "memory": [4 * MIB, 0, 4 * MIB, 4 * MIB, 0],  # used, used and peak after it is gone, kept, kept after empty_cache
    "random numbers": [True] * 4,
    "loaded to the CPU": "cpu",
    "4 bits": ["torch.uint8", "cuda:0", "cuda:0", True, True],
    "int8": ["torch.int8", "cuda:0", "cuda:0", True, True],
    "pages": ["cuda:0", True, True],
    "without triton": True,  # its kernels want a real card; libraries have their own code in torch
    "events": True,
    "facts": ["Tesla T4", [7, 5], 2, False, True],
    "the second card": "cuda:1",
    "from one card to the other": "cuda:1",
    "enabled again": True,
}


@pytest.fixture(scope="module")
def found():
    """Answers of all checks under Kaggle's two T4s, in one process."""
    return answers_of("pretended_rules.py", "2xT4")


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(found, name):
    assert re.search(FAULTS[name], str(found[f"fault: {name}"]))


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_card_allows_is_let_through(found, name):
    assert found[name] == ALLOWED[name]


def test_no_check_is_left_out(found):
    assert {*found} == {*ALLOWED, *(f"fault: {name}" for name in FAULTS), "before", "another card"}


def test_nothing_happens_before_it_is_enabled(found):
    assert found["before"] == [False, False]
    assert not torch.cuda.is_available() and enabled() is None


def test_a_second_card_in_one_process_is_refused(found):
    assert found["another card"].startswith("LabError: This process pretends to have a Tesla T4 already: start another")


def test_a_card_that_torch_was_not_built_for_fails_at_its_first_kernel():
    found = answers_of("pretended_rules.py", "P100", by_command=True)
    for name in ("first kernel", "product"):
        assert re.match(r"\w+Error: CUDA error: no kernel image is available for execution on the device", found[name])
    assert found["copied"] == "cuda:0"  # the driver copies without torch's kernels

    assert re.match(r"cpu .* the GPU Tesla P100.*is not used, because torch .* was built for sm_75", found["chosen"])


def test_cards():
    assert {name: card.supported for name, card in CARDS.items()} == {
        "T4": True, "2xT4": True, "L4": True, "A100": True, "RTX2060": True, "P100": False, "V100": False,
    }  # fmt: skip
    assert {name for name, card in CARDS.items() if card.bfloat16} == {"L4", "A100"}


@pytest.mark.parametrize(
    ("arguments", "text"), [(("T5",), "Unknown card 'T5'. Choose one of: T4"), (("T4", -1), "memory_gib=-1")]
)
def test_what_is_no_card_is_refused_before_anything_happens(arguments, text):
    with pytest.raises(LabError, match=re.escape(text)):
        enable(*arguments)
    assert enabled() is None


def test_overflow_takes_a_number_of_steps():
    with pytest.raises(LabError, match="steps=0"), overflowing(0):
        pass


def test_the_command_wants_a_card_and_a_module():
    done = subprocess.run([sys.executable, "-m", "lab_utils.pretended"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, "name a card" in done.stderr) == (2, True)
