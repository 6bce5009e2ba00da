"""The museum's test: a symptom, measurements to choose from, and an accident to name; scored, in the browser."""

import textwrap

import traitlets

from .. import plots
from ..errors import LabError, choose, whole
from ..recorded.museum import CASES, MEASUREMENTS, SERVED_RIGHTLY, SERVING, MuseumCase, load_cases
from .explorer import FOLDER, STYLE, Explorer, script
from .values import Count

NOTHING = "nothing is wrong"
ACCIDENTS = (
    NOTHING, "1. the model that never stops", "2. the prompt in the loss", "3. the adapter that does nothing",
    "4. the adapter applied twice", "5. the half-counted parameters", "6. the gradient that is zero",
    "7. the merge that forgets", "8. the learning rate that explodes", "9. out of memory",
    "10. the wrong chat template", "11. the packing that leaks", "12. the frozen experts",
    "13. the token that nobody trained",
)  # fmt: skip
MOST, LEAST = 10, 4  # points for the right name after one measurement, and after many

# case: (its accident's number, the symptom, what tells it). {first} and {last} are the losses of that run.
TEXTS = {
    "nothing": (0, "A training of 12 steps: the loss went from {first:.1f} to {last:.1f}. \"That was quick,\" says a "
        "colleague. \"Something must be wrong.\"", "Every number is as it should be. That is a finding, too."),
    "never stops": (1, "The loss went from {first:.1f} to {last:.1f} in 12 steps. In use, every answer runs to the "
        "limit of new tokens.", "No end of turn is among the labels. The loss cannot show what is not in it."),
    "prompt in the loss": (2, "The loss went from {first:.1f} to {last:.1f} in 12 steps, on the usual data with the "
        "usual rate. Is anything wrong?", "All tokens are in the loss, the messages, too."),
    "does nothing": (3, "The loss went from {first:.1f} to {last:.1f} in 12 steps, each with other examples. No "
        "error, no warning.", "B is zero after 12 steps: the optimizer was made before the adapter."),
    "twice": (4, "A colleague serves \"the same model and adapter\", and gets other probabilities than you.",
        "The ids are the same, the logits are not, and ΔW is in the weight twice."),
    "half-counted": (5, "A report says that the adapter is more than one and a half times the share of the model "
        "that page 02 gives.", "Only the count is wrong: it counts bytes, and each holds two 4-bit numbers."),
    "merge": (7, "The adapter was good. The merged model, in 4 bits, answers quite differently.",
        "The ids are the same. Of ΔW hardly anything arrived in the 4-bit weight."),
    "learning rate": (8, "The loss went from {first:.1f} to {last:.1f} in 12 steps, and was above its start on the "
        "way.", "The highest gradient norm is many times the usual one, and B is large."),
    "template": (10, "The server has \"the same weights and adapter\", and gives other probabilities than the laptop.",
        "The weights are innocent: on the same ids the logits agree up to rounding. The server writes another prompt."),
    "packing": (11, "Packed training, two examples to a row: the loss went from {first:.1f} to {last:.1f} in 12 steps, "
        "as it did without packing.", "The second example's loss depends on the first: it reads its neighbour."),
}  # fmt: skip


def points(measured: int, right: bool) -> int:
    """What naming is worth: 10 after one measurement, one less for each further one, at least 4; 0 if wrong."""
    return max(MOST + 1 - measured, LEAST) if right else 0


class MuseumQuiz(Explorer):
    """Cases with a symptom: measure, compare with a run without a fault, and name the accident, once.

    Parameters
    ----------
    cases : dict name -> MuseumCase, as `load_cases` returns it; default the recorded ones
    case : int, 1 to their number, the case that is shown

    Attributes
    ----------
    case : int, at every moment
    taken : dict, number of a case as text -> places in `MEASUREMENTS` that were measured there
    named : dict, number of a case as text -> place in `ACCIDENTS` that was named there

    Raises
    ------
    LabError
        A run without a fault to compare with is missing, a case is unknown, or a number is out of range.
    """

    _esm = script("museum_quiz")
    _css = STYLE + (FOLDER / "museum.css").read_text(encoding="utf-8")
    _moved = ("case", "taken", "named")
    records = traitlets.List().tag(sync=True)
    measurements, accidents = (traitlets.List().tag(sync=True) for _ in range(2))
    scale = traitlets.Dict().tag(sync=True)
    case = Count(1).tag(sync=True)
    taken, named = traitlets.Dict().tag(sync=True), traitlets.Dict().tag(sync=True)

    def __init__(self, cases: dict[str, MuseumCase] | None = None, case: int = 1):
        cases = load_cases() if cases is None else dict(cases)
        for name in ("nothing", SERVED_RIGHTLY):
            if name not in cases:
                raise LabError(f"There is no case {name!r}: others are compared with this run without a fault.")
        for name in cases:
            choose("case", name, (*CASES, SERVED_RIGHTLY))
        super().__init__(
            records=[_record(one, cases) for one in cases.values() if one.name != SERVED_RIGHTLY],
            measurements=list(MEASUREMENTS), accidents=list(ACCIDENTS), scale={"most": MOST, "least": LEAST}, case=case,
        )  # fmt: skip

    @traitlets.validate("case")
    def _in_range(self, proposal):
        return whole("case", proposal["value"], 1, len(self.records) or None)

    def score(self) -> int:
        """Points so far."""
        return sum(
            points(len(self.taken.get(number, ())), choice == self.records[int(number) - 1]["answer"])
            for number, choice in self.named.items()
        )

    def summary(self) -> str:
        number, record = str(self.case), self.records[self.case - 1]
        measured = len(self.taken.get(number, ()))
        text = f"Case {self.case} of {len(self.records)}: {measured} of {len(self.measurements)} measurements made"
        if number in self.named:
            right = self.named[number] == record["answer"]
            verdict = "right" if right else f"not this one; it is {self.accidents[record['answer']]}"
            text += f"; you named {self.accidents[self.named[number]]}: {verdict}. {record['why']}"
        else:
            text += ", nothing named yet."
        return f"{text} {self.score()} of {MOST * len(self.named)} points."

    def figure(self):
        """The symptoms and what can be measured, as text: a picture for places where nothing can be clicked."""
        figure, axes = plots.new_figure(10, 6.7)
        axes.set_axis_off()
        axes.set_title("Ten symptoms: what would you measure first?", loc="left", fontsize=16)
        lines = [f"{number}. {record['symptom']}" for number, record in enumerate(self.records, 1)]
        lines += ["", "Nine measurements, each beside that of a run without a fault:"]
        lines += [f"•  {name}" for name in self.measurements]
        text = "\n".join(textwrap.fill(line, 96, subsequent_indent="    ") for line in lines)
        axes.text(0, 1, text, va="top", fontsize=14, transform=axes.transAxes)
        return figure


def _record(case: MuseumCase, cases: dict[str, MuseumCase]) -> dict:
    """What the browser needs of a case."""
    answer, symptom, why = TEXTS[case.name]
    if "{" in symptom:
        symptom = symptom.format(first=case.first_loss, last=case.last_loss)
    healthy = cases[SERVED_RIGHTLY if case.name in SERVING else "nothing"]
    both = {"readings": list(case.readings.values()), "healthy": list(healthy.readings.values())}
    return {"symptom": symptom, "answer": answer, "why": why} | both
