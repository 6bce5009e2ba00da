"""memory: beside what others measured and published. Each row names its source and the ratio estimate / measured.

Where and why the estimate is off:

- QLoRA's figure 6, weights. With the rest (embedding, head, norms) in 16 bits 0.77 at 7B to 0.93 at 65B. In float32, as
  peft's `prepare_model_for_kbit_training` has it, 0.87 to 0.96; and with adapters of rank 64 on every linear layer in
  16 bits, 0.93 to 1.00. No cause is claimed. The paper's section 2 calls 5,048 MB the 4-bit base model's alone, and its
  authors' script casts embedding and head back to bfloat16 when told to compute in it; and with the rest in 16 bits and
  adapters, 0.8 to 1.0 GB are missing at every size, which a constant would fit as well.
- peft's comparison of methods, one L40S. What is called memory there is what torch's allocator has *reserved*, with
  gaps, evaluation included. The longest batch is not published; its limit of 768 tokens is taken for it. 0.95 to 0.98.
- The same runs between two steps, *allocated*, to the optimizer's last byte: 0.95 to 0.99. What is missing is about
  what a batch leaves behind there, its logits and its keys and values in 16 bits: with them 0.99 to 1.
- LitGPT's resource tables, allocated. Its layers are its own and keep more than is counted: one example more in the
  batch takes 7.77 GB, and 6.01 are estimated, so the total is 0.88 to 0.92. In 4 bits it is 0.72 to 0.73: bitsandbytes
  0.41.1, with which they were measured, kept the input of each 4-bit layer for a backward pass that does not use it
  (until its commit 9e75374, July 2024); with these inputs it is 0.86. What double quantization saves is met to 0.01 GB.
"""

from dataclasses import dataclass, field

import pytest

from lab_utils.counts.architectures import ARCHITECTURES, Architecture
from lab_utils.memory.step import MemoryEstimate, estimate

GB, MB = 10**9, 10**6
LLAMA_3B = Architecture(  # meta-llama/Llama-3.2-3B, config.json
    name="Llama-3.2-3B", family="llama", hidden=3072, n_layers=28, heads=24, kv_heads=8, head_size=128,
    intermediate=8192, vocabulary=128256, tied=True,
)  # fmt: skip
WITHIN = 0.006  # of the ratios below, which have two digits


@dataclass(frozen=True)
class Published:
    """A measurement, and what `estimate` is asked about it."""

    source: str
    measured_bytes: float
    ratio: float
    model: str | Architecture
    method: str
    settings: dict = field(default_factory=dict)

    def __str__(self) -> str:
        name = getattr(self.model, "name", self.model)
        return f"{self.source}: {name}, {self.method}, {self.measured_bytes / GB:.2f}"

    def estimated(self, **more) -> MemoryEstimate:
        return estimate(self.model, self.method, **{"device": "cuda", **self.settings, **more})


# ---- Dettmers et al. 2023 (QLoRA), https://arxiv.org/abs/2305.14314, figure 6: weights in MB. Its section 2 says 5,048
# for 7B. LLaMA's 7B and 13B have the shapes of Llama 2. ----
PREPARED = {"rank": 64, "adapter_dtype": "bfloat16", "rest_dtype": "float32"}
QLORA = [
    Published("QLoRA, figure 6", megabytes * MB, ratio, name, "qlora", PREPARED)
    for name, megabytes, ratio in (
        ("Llama-2-7B", 5046, 0.870), ("Llama-2-13B", 8476, 0.927),
        ("LLaMA-33B", 19302, 0.946), ("LLaMA-65B", 37074, 0.958),
    )
]  # fmt: skip

# ---- peft, method_comparison/MetaMathQA/results, "accelerator_memory_max" of lora--llama-3.2-3B-rank32.json …,
# runs of June 2025 (peft's commit f650b08), that of the MLP of January 2026 (a999426). bfloat16, batch 4, at most 768
# tokens, torch's AdamW, adapters in float32, an NVIDIA L40S. ----
STEP = {"batch_size": 4, "sequence_length": 768}
QV32, QV64 = {**STEP, "rank": 32, "target_modules": "qv"}, {**STEP, "rank": 64, "target_modules": "qv"}
MLP10, FULL = {**STEP, "rank": 10, "target_modules": "mlp"}, {**STEP, "moments": "bfloat16"}
PEFT = [
    Published("peft, reserved", 22_273_851_392, 0.959, LLAMA_3B, "lora", QV32),
    Published("peft, reserved", 22_540_189_696, 0.954, LLAMA_3B, "lora", QV64),
    Published("peft, reserved", 24_693_964_800, 0.979, LLAMA_3B, "lora", MLP10),
    Published("peft, reserved", 37_241_225_216, 0.968, LLAMA_3B, "full", FULL),
]
# The same files, "mem allocated avg" of the last 250 steps; 4,198,051 tokens in 5,000 steps.
BETWEEN = [
    Published("peft, allocated", 6_918_408_684, 0.950, LLAMA_3B, "lora", QV32),
    Published("peft, allocated", 7_065_262_428, 0.951, LLAMA_3B, "lora", QV64),
    Published("peft, allocated", 6_926_067_278, 0.950, LLAMA_3B, "lora", MLP10),
    Published("peft, allocated", 26_062_803_286, 0.986, LLAMA_3B, "full", FULL),
]
TOKENS = 4_198_051 / 5_000

# ---- LitGPT, tutorials/resource-tables.md (its commit 8641822), "Finetuning with LoRA on 1 GPU": bf16-true, rank 8 on
# query and value, Alpaca's longest example of 1,304 tokens, max_memory_allocated in GB, an NVIDIA A100. ----
HERE = {
    "rank": 8, "target_modules": "qv", "sequence_length": 1304, "adapter_dtype": "bfloat16", "moments": "bfloat16"
}  # fmt: skip
LITGPT = [
    Published("LitGPT", gigabytes * GB, ratio, model, method, {**HERE, **more})
    for gigabytes, ratio, model, method, more in (
        (21.30, 0.916, "Llama-2-7B", "lora", {}),
        (29.07, 0.878, "Llama-2-7B", "lora", {"batch_size": 2}),
        (14.14, 0.722, "Llama-2-7B", "qlora", {"double_quant": False}),
        (13.84, 0.716, "Llama-2-7B", "qlora", {}),
        (38.12, 0.923, "Llama-2-13B", "lora", {}),
        (23.14, 0.733, "Llama-2-13B", "qlora", {"double_quant": False}),
        (22.55, 0.726, "Llama-2-13B", "qlora", {}),
    )
]


@pytest.mark.parametrize("row", [*PEFT, *LITGPT], ids=str)
def test_a_published_peak_is_met_to_the_ratio_that_is_written_beside_it(row):
    assert row.estimated().total_bytes / row.measured_bytes == pytest.approx(row.ratio, abs=WITHIN)


@pytest.mark.parametrize("row", QLORA, ids=str)
def test_published_4_bit_weights_are_met_with_the_rest_in_float32(row):
    prepared, plain = row.estimated(), row.estimated(rest_dtype=None)
    assert prepared.weights_bytes / row.measured_bytes == pytest.approx(row.ratio, abs=WITHIN)
    with_adapters = (prepared.weights_bytes + prepared.adapter_bytes) / row.measured_bytes
    assert 0.93 < with_adapters < 1.002
    assert plain.weights_bytes < prepared.weights_bytes and 0.76 < plain.weights_bytes / row.measured_bytes < 0.94


@pytest.mark.parametrize("row", BETWEEN, ids=str)
def test_published_tensors_between_two_steps_are_met(row):
    """Weights, adapter, gradients and moments; and with what the last batch left."""
    one = row.estimated()
    held = one.resident_bytes + one.gradients_bytes
    assert held / row.measured_bytes == pytest.approx(row.ratio, abs=WITHIN)
    logits = 2 * TOKENS * row.model.vocabulary
    keys_and_values = 2 * TOKENS * row.model.n_layers * 2 * row.model.kv_heads * row.model.head_size
    assert held + logits + keys_and_values == pytest.approx(row.measured_bytes, rel=0.01)


def test_more_than_ten_measurements_are_compared():
    assert len([*QLORA, *PEFT, *LITGPT]) == 15


def test_what_double_quantization_saves_is_what_was_measured():
    for name, saved in (("Llama-2-7B", 14.14 - 13.84), ("Llama-2-13B", 23.14 - 22.55)):
        sizes = [estimate(name, "qlora", double_quant=on).weights_bytes for on in (False, True)]
        assert (sizes[0] - sizes[1]) / GB == pytest.approx(saved, abs=0.01)


def test_an_example_more_takes_more_than_estimated():
    one, two = LITGPT[0].estimated(), LITGPT[1].estimated()
    assert (two.total_bytes - one.total_bytes) / GB == pytest.approx(6.01, abs=0.01)
    assert 29.07 - 21.30 == pytest.approx(7.77)


@pytest.mark.parametrize("row", [row for row in LITGPT if row.method == "qlora"], ids=str)
def test_the_inputs_that_old_bitsandbytes_kept_explain_much_of_what_is_missing_in_4_bits(row):
    """One input for query, key and value, one for gate and up, one each for the other two."""
    shape = ARCHITECTURES[row.model]
    inputs = 2 * 1304 * shape.n_layers * (3 * shape.hidden + shape.intermediate)
    assert (row.estimated().total_bytes + inputs) / row.measured_bytes == pytest.approx(0.86, abs=0.01)
