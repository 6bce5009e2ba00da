"""How well a painter guesses pictures that it is not trained on: a number to compare adapters by."""

from collections.abc import Sequence

from ..errors import LabError
from .painter import Painter, encode_pictures, read
from .painter_training import style_pictures

MOMENTS = range(50, 1000, 100)  # of the thousand, from little noise to nearly nothing else


def guess_errors(
    painter: Painter, things: Sequence[str], style: str = "neon", copies: int = 2, moments: Sequence[int] = MOMENTS
) -> dict[str, list[float]]:
    """Mean square error of the tiny painter's guessed pictures, one number per drawing.

    The noise is the same in every call, so what differs between two calls is the painter.

    Parameters
    ----------
    painter : Painter, one that guesses the clean picture, as the tiny one does
    things, style, copies : see `style_pictures`
    moments : of int, times at which noise is added; the errors are averaged over them

    Returns
    -------
    dict thing -> list of float, one per drawing: `copies` of each color

    Raises
    ------
    LabError
        The painter guesses something other than the clean picture, as Stable Diffusion does.
    """
    import torch

    kind = painter.scheduler.config.prediction_type
    if kind != "sample":
        raise LabError(f"The painter {painter.name} guesses {kind}, not the clean picture: take load_painter('tiny').")
    found = {}
    painter.unet.eval()
    for thing in things:
        pictures, captions = style_pictures([thing], style, copies, painter.size)
        clean = encode_pictures(painter, pictures)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean.device)
        total = torch.zeros(len(clean))
        with torch.no_grad():
            words = read(painter, captions)
            for moment in moments:
                times = torch.full((len(clean),), moment, device=clean.device)
                guess = painter.unet(painter.scheduler.add_noise(clean, noise, times), times, words).sample
                total += (guess - clean).square().mean((1, 2, 3)).cpu()
        found[thing] = (total / len(moments)).tolist()
    return found
