"""A layer drawn to scale: which matrices of which model get an adapter, and how much of each it is."""

from collections.abc import Iterable

import traitlets

from .. import plots
from ..counts import ARCHITECTURES, lora_parameters
from ..counts.architectures import Architecture
from ..counts.parameters import as_records
from ..errors import LabError, choose
from .explorer import FOLDER, STYLE, Explorer, script
from .values import Count

QUESTION = (
    "Rank 64 on every matrix of Llama-3-8B. Whose B and A are largest beside their own matrix: q_proj's, v_proj's or "
    "down_proj's?"
)


class _Model(traitlets.Unicode):
    """The name of a model that the explorer has."""

    def validate(self, obj, value) -> str:
        return choose(self.name, value, obj._known_models)


class ParameterExplorer(Explorer):
    """A choice of models, a slider for the rank, and a tick for every matrix of a layer.

    Parameters
    ----------
    model : str, the name of one of `others` or of `lab_utils.counts.ARCHITECTURES`
    rank : int >= 1
    targets : list of str, matrices of the model, or the groups "attention", "mlp" and so on
    others : more Architectures to choose from, such as `lab_utils.counts.from_config` makes

    Attributes
    ----------
    model, rank, targets : as above, at every moment

    Raises
    ------
    LabError
        Unknown model or target, a rank that is not a whole number of 1 or more, or one of `others` is no Architecture.
    """

    _esm = script("parameter_explorer")
    _css = STYLE + (FOLDER / "parameters.css").read_text(encoding="utf-8")
    _moved = ("model", "rank", "targets")
    _known_models = ARCHITECTURES
    architectures = traitlets.List().tag(sync=True)
    model = _Model("Llama-2-7B").tag(sync=True)
    rank = Count(8).tag(sync=True)
    targets = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(
        self, model: str = "Llama-2-7B", rank: int = 8, targets=("attention", "mlp"), question: str = QUESTION,
        choices=("q_proj", "v_proj", "down_proj"), others: Iterable[Architecture] = (),
    ):  # fmt: skip
        others = list(others)
        for one in others:
            if not isinstance(one, Architecture):
                raise LabError(f"others: {one!r} is no Architecture. counts.from_config makes one of a config.json.")
        self._known_models = {**ARCHITECTURES, **{one.name: one for one in others}}
        super().__init__(
            architectures=as_records(others), model=model, rank=rank,
            targets=list(targets), question=question, choices=list(choices),
        )  # fmt: skip
        self.observe(self._suit_the_model, ("model", "targets"))
        self._suit_the_model()

    @traitlets.validate("targets")
    def _known(self, proposal):
        known = {module[key] for one in self.architectures for module in one["modules"] for key in ("group", "name")}
        for target in proposal["value"]:
            choose("target", target, sorted(known))
        return proposal["value"]

    def _suit_the_model(self, _change=None) -> None:
        """As in the browser: targets of another model alone give way to all of this one's matrices."""
        if self.targets and not self._chosen():
            self.targets = ["attention", "mlp"]

    def _modules(self) -> list[dict]:
        """The matrices of this model."""
        return next(one for one in self.architectures if one["name"] == self.model)["modules"]

    def _chosen(self) -> list[dict]:
        """The matrices of this model that have a tick."""
        return [one for one in self._modules() if one["name"] in self.targets or one["group"] in self.targets]

    @property
    def trained(self) -> int:
        """How many numbers the adapters have together."""
        names = [one["name"] for one in self._chosen()]
        return lora_parameters(self._known_models[self.model], self.rank, names) if names else 0

    def summary(self) -> str:
        total, chosen = self._known_models[self.model].total_parameters(), self._chosen()
        names = ", ".join(one["name"] for one in chosen) or "nothing"
        text = (
            f"A layer, drawn to scale: {self.model}, rank {self.rank} on {names}: "
            f"{self.trained:,} of {total:,} numbers trained ({self.trained / total:.3%})."
        )
        if chosen:
            beside = {one["name"]: one["ranks"] * (one["out"] + one["in"]) / (one["out"] * one["in"]) for one in chosen}
            largest = max(beside, key=beside.get)
            share = f"{self.rank * beside[largest]:.3%}"
            text += f" Beside its own matrix {largest} has the largest B and A: {share} of it."
        return text

    def figure(self):
        shapes = {one["name"]: (one["out"], one["in"]) for one in self._modules()}
        ranks = dict.fromkeys(shapes, 0) | {one["name"]: self.rank * one["ranks"] for one in self._chosen()}
        return plots.layer_to_scale(shapes, ranks, f"{self.model}, rank {self.rank}: {self.trained:,} numbers trained")
