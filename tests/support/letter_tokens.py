"""A tokenizer for tiny models of 61 tokens, and a text for them."""

import torch


def letters(text: str, return_tensors: str = "pt", add_special_tokens: bool = False) -> dict:
    """A tokenizer of one token a letter, below 61."""
    return {"input_ids": torch.tensor([[ord(letter) % 61 for letter in text]])}


TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom."
