"""The rank and alpha trainer: every move of a slider trains a small LoRA again, in the browser."""

import base64
import math

import numpy as np
import traitlets

from .. import plots
from ..errors import LabError, choose
from ..lora import digits
from .explorer import Explorer, script

QUESTION = (
    "Turned digits, rank 4, learning rate 0.005: after 100 steps 44 % of new images are read correctly. "
    "Is the rank too low, or the training too short?"
)
RULES = {"alpha / rank": False, "alpha / √rank": True}
STEPS = (50, 100, 200, 400)
KEPT_RUNS = 16
LOWEST, HIGHEST = 1e-4, 1e3  # losses outside are shown at the edge; nan too


class RankAlphaTrainer(Explorer):
    """Sliders for rank, alpha, learning rate, steps and seed, a choice of scaling rule and of task.

    The browser trains: the same network on the same images with the same first values as `lab_utils.lora.digits`, so
    that Python finds the same losses and accuracies at the same settings. `train` trains here.

    Parameters
    ----------
    rank : int, 1 to 64
    alpha : float > 0
    learning_rate : float > 0
    task : "mirrored" or "turned"
    steps : 50, 100, 200 or 400
    seed : int, 0 to 2**32 - 1, of the first values of A

    Attributes
    ----------
    rank, alpha, learning_rate, task, steps, seed : as above, at every moment
    rule : "alpha / rank" or "alpha / √rank"
    locked : bool, whether alpha stays at twice the rank; a move of alpha opens the lock
    log : list of dict, the latest finished runs, those of the browser too

    Raises
    ------
    LabError
        A value is out of its range.
    """

    _esm = script("digit_reader", "rank_alpha_trainer")
    _moved = ("task", "rank", "alpha", "locked", "learning_rate", "rule", "steps", "seed")
    _settings = tuple(name for name in _moved if name != "locked")
    network = traitlets.Unicode().tag(sync=True)
    pixels = traitlets.Unicode().tag(sync=True)
    labels = traitlets.Unicode().tag(sync=True)
    task = traitlets.Unicode("turned").tag(sync=True)
    rank = traitlets.Int(4).tag(sync=True)
    alpha = traitlets.Float(8.0).tag(sync=True)
    locked = traitlets.Bool().tag(sync=True)
    learning_rate = traitlets.Float(5e-3).tag(sync=True)
    rule = traitlets.Unicode("alpha / rank").tag(sync=True)
    steps = traitlets.Int(100).tag(sync=True)
    seed = traitlets.Int(1).tag(sync=True)
    log = traitlets.List().tag(sync=True)

    def __init__(
        self, rank: int = 4, alpha: float = 8.0, learning_rate: float = 5e-3, task: str = "turned", *,
        steps: int = 100, seed: int = 1, question: str = QUESTION,
        choices=("rank too low", "training too short"),
    ):  # fmt: skip
        super().__init__(
            rank=rank, alpha=float(alpha), learning_rate=learning_rate, task=task, steps=steps, seed=seed,
            locked=alpha == 2 * rank, question=question, choices=list(choices), **_packed(),
        )  # fmt: skip
        self.start = {**self.start, "log": []}
        self.observe(self._follow, ("rank", "locked"))
        self.observe(self._open, "alpha")

    @traitlets.validate("rank", "alpha", "learning_rate", "task", "rule", "steps", "seed")
    def _possible(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        known = {"task": ("mirrored", "turned"), "rule": RULES, "steps": STEPS}
        if name in known:
            choose(name, value, known[name])
        elif name == "rank" and not 1 <= value <= 64:
            raise LabError(f"rank={value} is out of range: 1 to 64, because the layers are 64 × 64.")
        elif name == "seed" and not 0 <= value < 2**32:
            raise LabError(f"seed={value} is out of range: 0 to 2**32 - 1.")
        elif name in ("alpha", "learning_rate") and not 0 < value < math.inf:
            raise LabError(f"{name}={value} is out of range: above 0.")
        return value

    def _follow(self, _change) -> None:
        """A locked alpha goes where the rank goes."""
        if self.locked:
            self.alpha = 2.0 * self.rank

    def _open(self, change) -> None:
        """An alpha that is not twice the rank opens the lock."""
        if change["new"] != 2 * self.rank:
            self.locked = False

    def train(self, **settings) -> dict:
        """Set task, rank, alpha, locked, learning_rate, rule, steps or seed; train in Python; return the run.

        Returns
        -------
        dict of the settings and "scaling", "trained" (numbers), "losses" (one per step, nats per image), "accuracy" and
        "before" (shares of the new images); it is the last of `log` too
        """
        for name, value in settings.items():
            choose("setting", name, self._moved)
            setattr(self, name, value)
        run = self.run
        self.log = [*(old for old in self.log if not self._is_now(old)), run][-KEPT_RUNS:]
        return run

    @property
    def run(self) -> dict:
        """The run at the present settings: the log's, or trained now."""
        known = [run for run in self.log if self._is_now(run)]
        return known[-1] if known else self._trained()

    def _is_now(self, run: dict) -> bool:
        return all(run[name] == getattr(self, name) for name in self._settings)

    def _trained(self) -> dict:
        """One training at the present settings."""
        train_x, train_y, test_x, test_y = digits.split(self.task)
        model = digits.adapted(self.rank, self.alpha, use_rslora=RULES[self.rule], seed=self.seed)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        before = digits.accuracy(model, test_x, test_y)
        losses = digits.fit(model, trained, train_x, train_y, steps=self.steps, learning_rate=self.learning_rate)
        return {name: getattr(self, name) for name in self._settings} | {
            "scaling": model.first.scaling, "trained": sum(parameter.numel() for parameter in trained),
            "losses": [min(max(loss, LOWEST), HIGHEST) if math.isfinite(loss) else HIGHEST for loss in losses],
            "accuracy": digits.accuracy(model, test_x, test_y), "before": before,
        }  # fmt: skip

    def summary(self) -> str:
        run = self.run
        return (
            f"Rank and alpha trainer, {run['task']} digits. Rank {run['rank']}, scaling {run['scaling']:.3g}, learning "
            f"rate {run['learning_rate']:g}: {run['trained']:,} numbers trained, loss {run['losses'][-1]:.3g} after "
            f"{run['steps']} steps, accuracy on new images {run['accuracy']:.1%} ({run['before']:.1%} before)."
        )

    def figure(self):
        run = self.run
        return plots.fits([*(old for old in self.log if old["task"] == run["task"] and old is not run), run])


def _packed() -> dict[str, str]:
    """What the browser trains with, as base64: the network's weights (float32), the images and their labels (bytes)."""
    data, network = digits.load_digits(), digits.pretrained()
    weights = np.concatenate([weight.detach().numpy().ravel() for weight in network.parameters()])
    parts = {
        "network": weights.astype("<f4"), "pixels": (data.images * 16).round().numpy().astype(np.uint8),
        "labels": data.labels.numpy().astype(np.uint8),
    }  # fmt: skip
    return {name: base64.b64encode(values.tobytes()).decode("ascii") for name, values in parts.items()}
