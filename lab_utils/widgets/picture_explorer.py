"""The picture explorer: what a style adapter does to pictures, at every recorded rank and strength."""

import base64

import traitlets

from .. import plots
from ..errors import choose
from ..recorded.pictures import Samples, load_samples
from .explorer import FOLDER, STYLE, Explorer, script

QUESTION = "Which is the smallest rank that gives all pictures the new style at strength 1? Guess, then look."


class PictureExplorer(Explorer):
    """Sliders for rank and strength; the base's picture and the adapter's for each prompt, and what the adapter costs.

    Parameters
    ----------
    samples : lab_utils.recorded.pictures.Samples, optional
        Default: the recorded ones.
    rank : int, one of its ranks; default the smallest
    strength : float, one of its strengths; default the largest that is not above 1
    choices : sequence of str, default the ranks

    Attributes
    ----------
    rank, strength : as chosen, at every moment

    Raises
    ------
    LabError
        No samples, or a value that was not recorded.
    """

    _esm = script("picture_explorer")
    _css = STYLE + "".join((FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in ("choosing", "pictures"))
    _moved = ("rank", "strength")
    sheet = traitlets.Unicode().tag(sync=True)
    size = traitlets.Int().tag(sync=True)
    prompts, ranks, strengths = (traitlets.List().tag(sync=True) for _ in range(3))
    adapters = traitlets.Dict().tag(sync=True)
    rank = traitlets.Int().tag(sync=True)
    strength = traitlets.Float().tag(sync=True)

    def __init__(
        self, samples: Samples | None = None, rank: int | None = None, strength: float | None = None,
        question: str = QUESTION, choices=None,
    ):  # fmt: skip
        self._samples = samples = samples or load_samples()
        super().__init__(
            sheet=base64.b64encode(samples.png()).decode("ascii"), size=samples.size, prompts=list(samples.prompts),
            ranks=list(samples.ranks), strengths=list(samples.strengths),
            adapters={str(rank): samples.adapters[rank] for rank in samples.ranks},
            rank=samples.ranks[0] if rank is None else rank,
            strength=max(one for one in samples.strengths if one <= 1) if strength is None else strength,
            question=question, choices=[str(one) for one in (samples.ranks if choices is None else choices)],
        )  # fmt: skip

    @traitlets.validate("rank", "strength")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        choose(name, value, getattr(self._samples, f"{name}s"))
        return value

    def summary(self) -> str:
        adapter, change = self.adapters[str(self.rank)], self._samples.change(self.rank, self.strength)
        return (
            f"Picture explorer, rank {self.rank}, strength {self.strength:g}: {adapter['trainable_parameters']:,} "
            f"numbers were trained, {adapter['file_bytes'] / 1000:,.1f} kB in a file, training loss "
            f"{adapter['loss']:.4f}; the {len(self.prompts)} pictures differ from the base's by {100 * change:.1f} %."
        )

    def figure(self):
        now, base = (self._samples.pictures(self.rank, strength) for strength in (self.strength, 0.0))
        title = f"rank {self.rank}, strength {self.strength:g}"
        return plots.picture_rows({"base": base, "adapter": now}, self.prompts, title)
