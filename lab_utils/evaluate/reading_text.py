"""What a fixed text costs a model, token by token, and its perplexity."""

import math

from ..decoding import check_fit
from ..errors import LabError, whole
from ..finetune.control_tokens import ControlTokens
from ..tasks.data_lines import check_text


def perplexity(model, tokenizer, text: str, window: int = 512, stride: int = 256) -> float:
    """exp of the mean cross entropy of a fixed text, by sliding window: exp of the mean of `token_losses`.

    Parameters
        As of `token_losses`.

    Returns
    -------
    float, at least 1

    Raises
    ------
    LabError
        As `token_losses`, or the result is beyond a float's range.
    """
    mean = float(token_losses(model, tokenizer, text, window, stride).double().mean())
    try:
        return math.exp(mean)
    except OverflowError as error:
        raise LabError(
            f"The mean loss is {mean:,.0f} nats per token, and exp of that is beyond a float's range: this model is "
            "broken. Load it again; if you quantized it, take more bits."
        ) from error


def token_losses(model, tokenizer, text: str, window: int = 512, stride: int = 256):
    """What each token of a fixed text costs the model, by sliding window.

    Every token but the first is scored exactly once, with at least `window - stride` tokens before it wherever the
    text has that many. Two models are compared best token by token: what is hard for one is mostly hard for both.

    Parameters
    ----------
    text : str, of two tokens or more; letters of a control token in it are text
    window : int, tokens the model reads at once
    stride : int, 1 to window - 1, tokens by which the window moves

    Returns
    -------
    float32 Tensor, shape (tokens - 1,): cross entropy in nats, of the second token first

    Raises
    ------
    LabError
        `text` is not a text or too short, window or stride is out of range, the text does not fit the model, or a loss
        is not finite: its token is named.
    """
    import torch

    check_text("text", text)
    window = whole("window", window, 2)  # at stride = window a piece's first token would have nothing before it
    stride = whole("stride", stride, 1, window - 1, f"less than window={window}")
    control = ControlTokens(tokenizer)
    if control.pattern.search(text):
        ids = torch.tensor(control.text_ids(tokenizer, text))
    else:
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    if len(ids) < 2:
        raise LabError(f"The text has {len(ids)} token(s); perplexity needs two at least.")
    check_fit(model, [ids[:window].tolist(), [int(ids.max())]])
    was_training = model.training
    model.eval()
    losses, scored = [], 1  # tokens before `scored` have been predicted (the first never is)
    try:
        while scored < len(ids):
            end = min(len(ids), window if scored == 1 else scored + stride)
            start = max(0, end - window)
            piece = ids[start:end].to(next(model.parameters()).device)
            with torch.no_grad():
                logits = model(input_ids=piece[None], use_cache=False).logits[0].float()
            fresh = end - scored
            losses.append(torch.nn.functional.cross_entropy(logits[-fresh - 1 : -1], piece[-fresh:], reduction="none"))
            scored = end
    finally:
        model.train(was_training)
    losses = torch.cat(losses).cpu()
    if not losses.isfinite().all():
        place = int((~losses.isfinite()).nonzero()[0]) + 1
        raise LabError(
            f"The loss of token {place + 1} of {len(ids)} is {float(losses[place - 1])}. A weight or an adapter holds "
            "NaN or infinity, or float16 overflows. Load the base and the adapter again."
        )
    return losses
