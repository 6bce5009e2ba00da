"""A small tokenizer, and what a GGUF file holds, for the tests of export and of its parts."""

TEXT = "Put nomvula down for 12 pressure washers, thurs 7:30 am — merci!"


def build_tokenizer():
    """A byte-level BPE tokenizer like the embedded model's, of 300 tokens: reading 49,152 takes seconds a time."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT] * 50, trainer)
    found = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=special[0], bos_token=special[1], eos_token=special[2],
        pad_token=special[2],
    )  # fmt: skip
    found.chat_template = "{% for turn in messages %}<|im_start|>{{ turn.content }}<|im_end|>{% endfor %}"
    return found


def read_gguf(file) -> dict:
    """name -> float32 array, of all tensors of a GGUF file, as the package gguf reads them."""
    from gguf import GGUFReader, dequantize

    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(file).tensors}


def fields_of(file) -> dict:
    """name -> value, of all that a GGUF file holds beside its tensors."""
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}
