"""What the tests of LoRA share: tiny models, the targets they are tried with, and what is done to them."""

import pytest
import torch

from lab_utils.lora.whole_model import adapted_layers

pefts_known_warnings = [  # what peft and transformers say about Conv1D and tied embeddings
    pytest.mark.filterwarnings(f"ignore:.*{text}")
    for text in ("fan_in_fan_out", "is_gradient_checkpointing", "tie_word_embeddings", "save_embedding_layers")
]


def assert_same_bits(one, other) -> None:
    """The same dtype and the same values, to the last bit."""
    assert one.dtype == other.dtype and torch.equal(one, other)


class _Later:
    """peft, imported when a test first needs it: that takes seconds, and collecting tests should not."""

    def __getattr__(self, name):
        import peft

        return getattr(peft, name)


peft = _Later()


def build_gpt2():
    """A random float32 GPT-2 of two layers, the same one every time."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=4, attn_implementation="eager", bos_token_id=1,
        eos_token_id=2, initializer_range=0.2,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def builder(request, family: str):
    """The function that builds the tiny model of `family`."""
    return build_gpt2 if family == "gpt2" else request.getfixturevalue("tiny_llama")


TOKENS = torch.arange(20).reshape(2, 10)


@torch.no_grad()
def logits(model):
    """In eval mode, for the same tokens always."""
    return model.eval()(TOKENS).logits


def randomise_adapters(model):
    """Random A and B everywhere, the same ones every time. Returns the model."""
    torch.manual_seed(5)
    for layer in adapted_layers(model).values():
        layer.lora_A.data.normal_(), layer.lora_B.data.normal_(std=0.3)
    return model


def peft_random(model, **config):
    """A peft model with random A and B."""
    model = peft.get_peft_model(model, peft.LoraConfig(**config))
    torch.manual_seed(6)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.5)
    return model


CASES = {
    "llama, all linear": ("llama", "all-linear"),
    "llama, q and v": ("llama", ["q_proj", "v_proj"]),
    "llama, one whole name": ("llama", ["model.layers.1.mlp.down_proj"]),
    "llama, a pattern": ("llama", r".*layers\.0\..*(q|o)_proj"),
    "llama, embedding": ("llama", ["embed_tokens", "k_proj"]),
    "llama, head": ("llama", ["lm_head", "q_proj"]),
    "gpt2, all linear": ("gpt2", "all-linear"),
    "gpt2, c_attn and embeddings": ("gpt2", ["c_attn", "wte", "wpe"]),
}
