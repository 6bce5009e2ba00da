"""Do model and tokens belong together: has it weights, an embedding for each token, and positions for as many?"""

from collections.abc import Iterable, Sequence

from ..errors import LabError


def check_fit(
    model, rows: Iterable[Sequence[int]], more: int = 0, *,
    way_out: str = "Shorten the text, the shots or the room for an answer.",
) -> None:  # fmt: skip
    """Raise a LabError for tokens that the model has no embedding for, or more of them than it has positions.

    Parameters
    ----------
    model : causal language model of transformers, with or without adapters
    rows : token ids
    more : int, tokens that come after them
    way_out : str, what to do about too many tokens

    Positions count only where they are learned, as in GPT-2: a rotary model reads on, if less well.

    Raises
    ------
    LabError
        The highest token and the embedding's rows are named, or the tokens and the positions.
    """
    import torch

    rows = [row for row in rows if len(row)]
    embedding = model.get_input_embeddings()
    known = getattr(embedding, "num_embeddings", None)
    highest, longest = max(map(max, rows), default=0), max(map(len, rows), default=0) + more
    if known is not None and highest >= known:
        raise LabError(
            f"The tokenizer gives token {highest}, and the model's embedding has {known} rows: they do not belong "
            "together. Load tokenizer and model from the same place."
        )
    limit = getattr(model.config, "max_position_embeddings", None)
    learned = any(
        isinstance(module, torch.nn.Embedding) and module is not embedding and "relative" not in name
        and ("position" in name or name.endswith("wpe"))
        for name, module in model.named_modules()
    )  # fmt: skip
    if learned and limit is not None and longest > limit:
        raise LabError(f"{longest} tokens are more than the {limit} positions that this model has learned. {way_out}")


def check_values(model) -> None:
    """Raise a LabError that names the first weight of a model that is on the device "meta", without values."""
    for name, one in model.named_parameters():
        if one.is_meta:
            raise LabError(
                f"{name} of this base has no values: it is on the device 'meta', where only shapes are kept. Load the "
                "base with its weights, as load_base does."
            )
