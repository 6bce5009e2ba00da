"""The parameter explorer: which matrices of which model get an adapter, and what that saves."""

import traitlets

from .. import plots
from ..counts import ARCHITECTURES, lora_parameters, lora_parameters_by_module
from ..counts.parameters import as_records
from ..errors import choose
from .explorer import Explorer, script
from .values import Count, Word

QUESTION = (
    "The LoRA paper trained GPT-3 (175 billion numbers) with rank 4 on the query and value matrices. "
    "How many numbers did it train?"
)
TARGETS = sorted({module[key] for one in as_records() for module in one["modules"] for key in ("group", "name")})


class ParameterExplorer(Explorer):
    """A choice of models, a slider for the rank, and a tick for every matrix of a layer.

    Parameters
    ----------
    model : str, a name in `lab_utils.counts.ARCHITECTURES`
    rank : int >= 1
    targets : list of str, matrices of the model, or the groups "attention" and "mlp"

    Attributes
    ----------
    model, rank, targets : as above, at every moment

    Raises
    ------
    LabError
        Unknown model or target, or a rank that is not a whole number of 1 or more.
    """

    _esm = script("parameter_explorer")
    _moved = ("model", "rank", "targets")
    architectures = traitlets.List().tag(sync=True)
    model = Word("Llama-2-7B", allowed=ARCHITECTURES).tag(sync=True)
    rank = Count(8).tag(sync=True)
    targets = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(
        self, model: str = "Llama-2-7B", rank: int = 8, targets=("attention", "mlp"), question: str = QUESTION,
        choices=("300 thousand", "19 million", "1.9 billion"),
    ):  # fmt: skip
        super().__init__(
            architectures=as_records(), model=model, rank=rank, targets=list(targets),
            question=question, choices=list(choices),
        )  # fmt: skip
        self.observe(self._suit_the_model, ("model", "targets"))
        self._suit_the_model()

    @traitlets.validate("targets")
    def _known(self, proposal):
        for target in proposal["value"]:
            choose("target", target, TARGETS)
        return proposal["value"]

    def _suit_the_model(self, _change=None) -> None:
        """As in the browser: targets of another model alone give way to all of this one's matrices."""
        if self.targets and not self._chosen():
            self.targets = ["attention", "mlp"]

    def _chosen(self) -> list[str]:
        """The matrices of this model that have a tick."""
        modules = next(one for one in self.architectures if one["name"] == self.model)["modules"]
        return [one["name"] for one in modules if one["name"] in self.targets or one["group"] in self.targets]

    @property
    def trained(self) -> int:
        """How many numbers the adapters have together."""
        return lora_parameters(ARCHITECTURES[self.model], self.rank, self._chosen()) if self._chosen() else 0

    def summary(self) -> str:
        total = ARCHITECTURES[self.model].total_parameters()
        return (
            f"Parameter explorer, {self.model}, rank {self.rank} on {', '.join(self._chosen()) or 'nothing'}: "
            f"{self.trained:,} of {total:,} numbers trained ({self.trained / total:.3%})."
        )

    def figure(self):
        architecture = ARCHITECTURES[self.model]
        numbers = lora_parameters_by_module(architecture, self.rank, self._chosen()) if self._chosen() else {}
        return plots.parameter_bars(numbers, f"{self.model}, rank {self.rank}: {self.trained:,} numbers trained")
