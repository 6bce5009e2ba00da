"""Record page 14's probes: each of the twelve choices of states, and how many messages a classifier on them gets right.

    python data/record_probes.py     # about two minutes on one idle core

writes `data/tickets/probes.json`; `lab_utils.recorded.load_probes` reads it, data/README.md says what it holds. The
training messages are those of page 14: its corrected tickets, split by customer, the first 640 of them.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import pandas as pd

from lab_utils.device import use_threads
from lab_utils.errors import command_line
from lab_utils.files import replacing_file, user_path
from lab_utils.folders import DATA
from lab_utils.models import load_base
from lab_utils.recorded.probes import EXAMPLES, FILE, MESSAGES
from lab_utils.recorded.provenance import machine
from lab_utils.report_card.probing import POOLINGS, depths_to_try, fitted, hidden_states
from lab_utils.tasks import OwnTask, own

MODEL = "smollm2-135m"
BROKEN, NOT = "broken|cracked|a crack,|bent on arrival|two pieces", "is broken"


def tickets() -> OwnTask:
    """Page 14's corrected tickets: broken goods that go back are damage, no message is there twice."""
    table = pd.read_csv(DATA / "tickets" / "tickets.csv")
    says = table["message"].str.contains
    broken = says(BROKEN, case=False) & ~says(NOT, case=False) & table["category"].isin(["damage", "return"])
    table.loc[broken, "category"] = "damage"
    return own(
        table.drop_duplicates("message"), prompt="message", answer="category", system="Sort the ticket.",
        name="tickets", group="customer",
    )  # fmt: skip


def record() -> dict:
    """Read all messages once, and fit a classifier to each choice of states."""
    began, task = time.process_time(), tickets()
    model, tokenizer = load_base(MODEL, verbose=False)
    month = pd.read_csv(DATA / "tickets" / "next_month.csv")
    later = [{"prompt": row.message, "answer": row.category} for row in month.itertuples()]
    learned, asked = list(task["train"])[:EXAMPLES], list(task["test"])[: MESSAGES["test"]]
    rows = {"train": learned, "test": asked, "next_month": later}
    depths = depths_to_try(model.config.num_hidden_layers)
    states = {split: hidden_states(model, tokenizer, task, some, depths) for split, some in rows.items()}
    answers = {split: [row["answer"] for row in some] for split, some in rows.items()}
    probes = []
    for place, depth in enumerate(depths):
        for way, pooling in enumerate(POOLINGS):
            search = fitted(states["train"][:, place, way], answers["train"], 5)
            one = {"depth": depth, "pooling": pooling, "cross_validation": round(float(search.best_score_), 4)}
            for split in MESSAGES:
                said = search.predict(states[split][:, place, way])
                one[split] = "".join(str(int(a == b)) for a, b in zip(said, answers[split], strict=True))
            probes.append(one)
            print({name: value.count("1") if name in MESSAGES else value for name, value in one.items()}, flush=True)
    about = {"model": MODEL, "examples": EXAMPLES, "data_digest": task.data_digest}
    spent = {"cpu_seconds": round(time.process_time() - began)}
    where = machine("torch", "transformers", "scikit-learn", "datasets")
    return about | {"probes": probes, "provenance": {"command": "python data/record_probes.py"} | where | spent}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, record, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=user_path, default=FILE, help="default: data/tickets/probes.json")
    output: Path = parser.parse_args(arguments).output
    use_threads()
    text = json.dumps(record(), indent=1, ensure_ascii=False) + "\n"
    with replacing_file(output) as new:
        new.write_text(text, encoding="utf-8")
    print(f"written to {output}")


if __name__ == "__main__":
    sys.exit(command_line(main)())
