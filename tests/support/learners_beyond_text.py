"""Usual mistakes in page 12's exercise on two towers, as learners make them: exercise -> (mistake, function)."""

import re

import torch

SEVEN = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def fitting(pattern):
    return lambda names: torch.tensor([re.fullmatch(pattern, name) is not None for name in names])


def last_parts(*allowed):
    def wrong(names):
        chosen = torch.zeros(len(names), dtype=torch.bool)
        for n, name in enumerate(names):
            chosen[n] = name.split(".")[-1] in allowed
        return chosen

    return wrong


def not_visual(names):
    return torch.tensor(["visual" not in name.split(".") for name in names])


LEARNERS = {
    "language_only": [
        ("the last part of the name alone", last_parts(*SEVEN)),
        ("the last part of the name alone", fitting(r".*(gate|up|down)_proj")),
        ("everything that ends with proj", fitting(".*proj")),
        ("every linear layer", fitting(r".*(_proj|qkv|attn\.proj|mlp\.[02])")),
        ("everything outside the vision tower", not_visual),
        ("everything inside the language model", fitting(r"model\.language_model\..*")),
        ("attention alone", last_parts("q_proj", "k_proj", "v_proj", "o_proj")),
        ("attention alone", fitting(r".*\.[qv]_proj")),
        ("the MLPs alone", fitting(r".*language_model.*mlp.*_proj")),
        ("the merger, too", fitting(r".*language_model.*_proj|.*merger\.mlp\.[02]")),
        ("the head, too", fitting(r".*language_model.*_proj|lm_head")),
        ("the other tower", fitting(r".*visual.*")),
    ],
}
