"""The sweep explorer: recorded fine-tunes, what they cost and how good they became, setting by setting."""

import traitlets

from .. import plots
from ..errors import LabError, choose
from . import sweep_points as sweep
from .explorer import FOLDER, STYLE, Explorer, script
from .sweep_points import AXES, CENTRE, COLOURS, QUALITIES

QUESTION = (
    "Which costs more quality: rank 1 instead of 8 on all layers, or rank 8 on q and v alone instead of on all layers?"
)


class SweepExplorer(Explorer):
    """Choices of the axes and of what is held fixed, and a slider that walks through the points.

    Parameters
    ----------
    rows : list of dict, a sweep's table as `lab_utils.sweep.read_rows` returns it; rows with a `problem` are left out
    x : str, a name in `AXES`
    y : str, a name in `QUALITIES`
    colour : str, of `COLOURS`; a colour that is on the x axis already does nothing

    Attributes
    ----------
    x, y, colour, held, references : as chosen, at every moment; `held` has what differs from `CENTRE`
    at : int, 1 to the number of points, from left to right

    Raises
    ------
    LabError
        As `sweep_points.runs_of`, or a value that is not there.
    """

    _esm = script("sweep_explorer")
    _css = STYLE + (FOLDER / "choosing.css").read_text(encoding="utf-8")
    _moved = ("x", "y", "colour", "held", "references", "at")
    runs, others = (traitlets.List().tag(sync=True) for _ in range(2))
    axes, qualities, centre, values = (traitlets.Dict().tag(sync=True) for _ in range(4))
    colours = traitlets.List(list(COLOURS)).tag(sync=True)
    x, y, colour = (traitlets.Unicode().tag(sync=True) for _ in range(3))
    held = traitlets.Dict().tag(sync=True)
    references = traitlets.Bool(True).tag(sync=True)
    at = traitlets.Int(1).tag(sync=True)

    def __init__(
        self, rows, x: str = "trained numbers", y: str = "validation loss", colour: str = "layers",
        question: str = QUESTION, choices=("rank 1", "q and v alone", "much the same"),
    ):  # fmt: skip
        runs, others = sweep.runs_of(rows)
        found = {name: {value for run in runs for value in sweep.as_list(run[name])} for name in CENTRE}
        self._values = {name: sorted(values | {CENTRE[name]}, key=sweep.order) for name, values in found.items()}
        super().__init__(
            runs=runs, others=sweep.references(others), values=self._values, centre=CENTRE,
            axes={name: [column, list(free), log] for name, (column, free, log) in AXES.items()}, qualities=QUALITIES,
            x=x, y=y, colour=colour, question=question, choices=list(choices),
        )  # fmt: skip

    @traitlets.validate("x", "y", "colour", "held", "at")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name == "held":
            for setting, chosen in value.items():
                choose("setting", setting, CENTRE)
                choose(setting, chosen, self._values[setting])
        elif name == "at":
            if not 1 <= value <= max(1, len(self.runs)):
                raise LabError(f"at={value} is out of range: 1 to the number of points.")
        else:
            choose(name, value, {"x": AXES, "y": QUALITIES, "colour": COLOURS}[name])
        return value

    def points(self) -> list[dict]:
        """The points on screen, of `sweep_points.group`, with "mean", "error" and "n" of what is on the y axis."""
        points = sweep.group(self.runs, self.x, self.colour, self.held)
        return [point | self._quality(point["runs"]) for point in points]

    def _quality(self, runs: list[dict]) -> dict:
        mean, error = sweep.mean_and_error([run[QUALITIES[self.y]] for run in runs])
        return {"mean": mean, "error": error, "n": len(runs)}

    def summary(self) -> str:
        points = self.points()
        if not points:
            fixed = {name: value for name, value in (CENTRE | self.held).items() if name not in self._free}
            held = ", ".join(f"{name} {value}" for name, value in fixed.items())
            return f"Sweep, {self.y} against {self.x}: 0 runs with {held}."
        at = min(self.at, len(points))
        point = points[at - 1]
        return (
            f"Sweep, {self.y} against {self.x}, point {at} of {len(points)}: {sweep.named(point['settings'])}: "
            f"{sweep.quality(self.y, point)}."
        )

    @property
    def _free(self) -> tuple[str, ...]:
        return sweep.free_settings(self.x, self.colour)

    def figure(self):
        apart = self.colour in self._free and self.colour != self.x
        series: dict = {}
        for point in self.points():
            x, mean, error = series.setdefault(point["settings"][self.colour] if apart else self.y, ([], [], []))
            x.append(point["x"])
            mean.append(point["mean"])
            error.append(point["error"] or 0)
        series = {f"{self.colour} {name}" if apart else name: series[name] for name in sorted(series, key=sweep.order)}
        levels = {one["name"]: self._quality(one["runs"])["mean"] for one in self.others} if self.references else {}
        return plots.sweep_points(
            series, levels, self.x, self.y, log=AXES[self.x][2], joined=len(self._free) - apart == 1
        )
