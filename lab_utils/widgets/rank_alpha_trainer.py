"""The rank and alpha trainer: every move of a slider really trains a small LoRA again, in a fraction of a second."""

import asyncio
import math
from collections.abc import Iterator

import traitlets

from .. import plots
from ..errors import LabError, choose
from ..lora import digits
from .explorer import Explorer, script

QUESTION = (
    "A model that reads upright digits must learn to read them in a mirror. Keep alpha / rank at 2. "
    "Rank 1 gets about three of four right. From which rank on does more rank bring less than 2 points?"
)
RULES = {"alpha / rank": False, "alpha / √rank": True}
STEPS, SHOW_EVERY, KEPT_RUNS = 100, 10, 24
LOWEST, HIGHEST = 1e-4, 1e3  # losses outside are shown at the edge; nan too


class RankAlphaTrainer(Explorer):
    """Sliders for rank, alpha and learning rate, a choice of scaling rule and of task.

    Where an event loop runs (in a notebook), a move starts the training beside it and ends one that is not finished:
    the last position wins and nothing queues up. Elsewhere a move returns when the training is done.

    Parameters
    ----------
    rank : int, 1 to 64
    alpha : float > 0
    learning_rate : float > 0
    task : "mirrored" or "turned"

    Attributes
    ----------
    rank, alpha, learning_rate, task : as above, at every moment
    rule : "alpha / rank" or "alpha / √rank"
    run : dict, the run on screen: number, losses, accuracy (None until it is done), before, scaling, trained, …
    log : list of dict, the latest finished runs

    Raises
    ------
    LabError
        A value is out of its range.
    """

    _esm = script("rank_alpha_trainer")
    _moved = ("task", "rank", "alpha", "learning_rate", "rule")
    task = traitlets.Unicode("mirrored").tag(sync=True)
    rank = traitlets.Int(1).tag(sync=True)
    alpha = traitlets.Float(2.0).tag(sync=True)
    learning_rate = traitlets.Float(5e-3).tag(sync=True)
    rule = traitlets.Unicode("alpha / rank").tag(sync=True)
    steps = traitlets.Int(STEPS).tag(sync=True)
    run = traitlets.Dict().tag(sync=True)
    log = traitlets.List().tag(sync=True)

    def __init__(
        self, rank: int = 1, alpha: float = 2.0, learning_rate: float = 5e-3, task: str = "mirrored",
        question: str = QUESTION, choices=("2", "8", "32"),
    ):  # fmt: skip
        self._task, self._number = None, 0
        super().__init__(
            rank=rank, alpha=float(alpha), learning_rate=learning_rate, task=task,
            question=question, choices=list(choices),
        )  # fmt: skip
        self.start = {**self.start, "log": []}
        self._finish()
        self.observe(self._move, self._moved)

    @traitlets.validate("rank", "alpha", "learning_rate", "task", "rule")
    def _possible(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name in ("task", "rule"):
            choose(name, value, ("mirrored", "turned") if name == "task" else RULES)
        elif name == "rank" and not 1 <= value <= 64:
            raise LabError(f"rank={value} is out of range: 1 to 64, because the layers are 64 × 64.")
        elif name != "rank" and not 0 < value < math.inf:
            raise LabError(f"{name}={value} is out of range: above 0.")
        return value

    def train(self, **settings) -> dict:
        """Set rank, alpha, learning_rate, task or rule, train to the end, and return the run."""
        self._stop()
        self.unobserve(self._move, self._moved)
        try:
            for name, value in settings.items():
                choose("setting", name, self._moved)
                setattr(self, name, value)
        finally:
            self.observe(self._move, self._moved)
        self._finish()
        return self.run

    def _stop(self) -> None:
        """End a training that is not finished."""
        if self._task:
            self._task.cancel()

    def _move(self, _change) -> None:
        self._stop()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._finish()
        else:
            self._task = loop.create_task(self._train_beside())

    def _finish(self) -> None:
        """Train to the end, here and now."""
        for _ in self._train():
            pass

    async def _train_beside(self) -> None:
        """Train, and let the notebook answer other messages in between."""
        try:
            for _ in self._train():
                await asyncio.sleep(0)
        except Exception as error:
            self.run = {"error": f"The training failed: {error}. Reset, or run the cell again."}
            raise

    def _train(self) -> Iterator[None]:
        """One training at the present settings; yields now and then."""
        self._number += 1
        rslora = RULES[self.rule]
        train_x, train_y, test_x, test_y = digits.split(self.task)
        model = digits.adapted(self.rank, self.alpha, use_rslora=rslora)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        run = {
            "number": self._number, "task": self.task, "rank": self.rank, "alpha": self.alpha,
            "learning_rate": self.learning_rate, "losses": [], "accuracy": None, "scaling": model.first.scaling,
            "trained": sum(parameter.numel() for parameter in trained),
            "before": digits.accuracy(model, test_x, test_y),
        }  # fmt: skip
        losses = digits.training(model, trained, train_x, train_y, steps=STEPS, learning_rate=self.learning_rate)
        for step, loss in enumerate(losses, 1):
            run["losses"].append(round(min(max(loss, LOWEST), HIGHEST), 5) if math.isfinite(loss) else HIGHEST)
            if step % SHOW_EVERY == 0:
                self.run = {**run, "losses": list(run["losses"])}
                yield
        self.run = {**run, "accuracy": round(digits.accuracy(model, test_x, test_y), 4)}
        self.log = [*self.log, self.run][-KEPT_RUNS:]

    def summary(self) -> str:
        run = self.run
        return (
            f"Rank and alpha trainer, {run['task']} digits, rank {run['rank']}, scaling {run['scaling']:.3g}: "
            f"{run['trained']:,} numbers trained, accuracy {run['before']:.1%}, then {run['accuracy'] or 0:.1%}."
        )

    def figure(self):
        return plots.fits([*self.log, self.run] if self.run["accuracy"] is None else self.log)
