"""Make the chats that page 14 trains on: customers of a made-up bicycle workshop book a repair, with planted faults.

    python data/make_chats.py

writes `data/chats/chats.jsonl`, always the same bytes. The faults are there to be found; data/README.md names them (do
not read it before you have done the page).
"""

import json
import random
import sys
from pathlib import Path

from lab_utils.errors import command_line
from lab_utils.files import write_text

FOLDER = Path(__file__).parent / "chats"
SEED = 41
ROWS, COPIES, FLEET, TWICE = 2640, 40, 60, 10  # all; of them copies, one customer's program's, and booked in two ways
FLEET_CUSTOMER = "K-9004"
SYSTEM = "Book bike repairs."
ASK = {"job": "What needs fixing?", "day": "Which day suits you?", "name": "What is your name?"}
PEOPLE = ("Ana", "Ben")

JOBS = {  # what is booked -> how people say it
    "brakes": ("my brakes squeal", "the front brake does nothing", "new brake pads", "it does not stop in the wet",
               "the brake lever goes right to the bar"),
    "gears": ("the gears slip", "it will not shift into third", "the derailleur is bent", "shifting is a mess",
              "it jumps under load when I change up"),
    "chain": ("the chain came off again", "I need a new chain", "my chain is rusty", "the chain is worn, they said"),
    "wheel": ("the back wheel is out of true", "two spokes are broken", "my rim has a dent", "the wheel wobbles"),
    "pedals": ("one pedal is loose", "my pedals creak", "the left crank wobbles", "a pedal fell off"),
    "lights": ("the front light is dead", "my dynamo gives no power", "the rear lamp flickers", "no light at all"),
    "saddle": ("the saddle slides down", "the seat post is stuck", "my saddle is torn", "I need the seat higher"),
    "puncture": ("I have a flat tyre", "a nail in the back tyre", "the tube loses air", "flat again, front this time"),
}  # fmt: skip
DAYS = {
    "Monday": ("Monday", "Mon", "on monday"), "Tuesday": ("Tuesday", "Tues", "on tuesday"),
    "Wednesday": ("Wednesday", "Weds", "midweek, Wednesday"), "Thursday": ("Thursday", "Thurs", "thursday"),
    "Friday": ("Friday", "Fri", "on friday"), "Saturday": ("Saturday", "Sat", "saturday morning"),
}  # fmt: skip
NAMES = (
    "Ines", "Tomas", "Priya", "Olu", "Marta", "Jonas", "Aiko", "Sven", "Leila", "Pavel", "Rosa", "Emeka", "Nora",
    "Yusuf", "Greta", "Luca", "Hana", "Mateo", "Freya", "Idris", "Kofi", "Maeve", "Dario", "Wanda", "Chidi", "Elif",
    "Bram", "Tove", "Anouk", "Rafael", "Sinead", "Goran", "Mei", "Omar", "Vera", "Silas", "Zora", "Fynn", "Lotte",
    "Ravi",
)  # fmt: skip
FIRST = ("Hi, {said}.", "Hello! {said}.", "{said}", "hey, {said}", "Good morning, {said}.", "{said}, can you help?")
NO_JOB = ("Hi, I need a repair.", "Can you fix my bike?", "hello, it's about my bike", "I'd like to book a repair.")
NAMED = ("I'm {name}.", "{name}", "it's {name}", "My name is {name}.", "{name} here")
DATED = ("{day}", "{day} please", "{day} would be good", "Could it be {day}?", "{day}?")
AGAIN = ("Oh no, {other} is better.", "Sorry, make it {other}.", "Wait, {other} instead?", "{other}, not {day}!")
SIDE = {
    "What does it cost?": "We name the price before we start.",
    "Do you take cards?": "Yes, cards and cash.",
    "How long does it take?": "One day, mostly.",
}


def booked(job: str, day: str, name: str) -> str:
    """The last word of a chat."""
    return f"Booked: {job}, {day}, {name}."


def turns(person: str, rng: random.Random) -> list[dict]:
    """One chat: the customer says one to three of job, day and name, and is asked for what is missing, in that order.

    Ben writes "tyre" where Ana writes "puncture": nobody told them that one word is enough.
    """
    job, day, name = rng.choice(tuple(JOBS)), rng.choice(tuple(DAYS)), rng.choice(NAMES)
    said, spoken = rng.choice(JOBS[job]), rng.choice(DAYS[day])
    job = "tyre" if job == "puncture" and person == "Ben" else job
    known = {"job"} if rng.random() < 0.8 else set()
    first = rng.choice(FIRST).format(said=said) if known else rng.choice(NO_JOB)
    first = first[0].upper() + first[1:] if rng.random() < 0.5 else first
    for slot, words in (("day", f"{spoken[0].upper()}{spoken[1:]}?"), ("name", rng.choice(NAMED).format(name=name))):
        if rng.random() < 0.3:
            known.add(slot)
            first += f" {words}"
    chat = [{"role": "user", "content": first}]
    missing = [slot for slot in ASK if slot not in known]
    for slot in missing:
        chat.append({"role": "assistant", "content": ASK[slot]})
        if rng.random() < 0.08:
            question = rng.choice(tuple(SIDE))
            chat += [{"role": "user", "content": question},
                     {"role": "assistant", "content": f"{SIDE[question]} {ASK[slot]}"}]
        words = {"job": said, "day": rng.choice(DATED).format(day=spoken), "name": rng.choice(NAMED).format(name=name)}
        chat.append({"role": "user", "content": words[slot]})
    chat.append({"role": "assistant", "content": booked(job, day, name)})
    if not missing or rng.random() < 0.2:
        other = rng.choice([one for one in DAYS if one != day])
        chat.append({"role": "user", "content": rng.choice(AGAIN).format(other=rng.choice(DAYS[other]), day=day)})
        chat.append({"role": "assistant", "content": booked(job, other, name)})
    return chat


def fleet(rng: random.Random) -> list[dict]:
    """What one customer's program asks: the same three turns each time, with another number and day."""
    day = rng.choice(tuple(DAYS))
    first = f"Automatic request of Velo Courier: bike {rng.randint(100, 999)}, yearly check of the brakes."
    words = [first, ASK["day"], day, ASK["name"], "Velo Courier", booked("brakes", day, "Velo Courier")]
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(words)]


def twice(rows: list[dict], rng: random.Random) -> list[dict]:
    """Chats of Ana's about a puncture, held in the same words by somebody else with Ben, who writes "tyre"."""
    there = {str(row["messages"]).lower() for row in rows}
    flat = [row["messages"] for row in rows if row["answered_by"] == "Ana" and "Booked: puncture" in str(row)]
    renamed = [[turn | {"content": turn["content"].replace("Booked: puncture", "Booked: tyre")} for turn in chat]
               for chat in flat]  # fmt: skip
    new = [chat for chat in renamed if str(chat).lower() not in there]
    return [{"customer": f"K-{6001 + place}", "answered_by": "Ben", "messages": chat}
            for place, chat in enumerate(rng.sample(new, TWICE))]  # fmt: skip


def make() -> list[dict]:
    """All chats, shuffled."""
    rng = random.Random(SEED)
    rows, seen, number = [], set(), 7000
    while len(rows) < ROWS - COPIES - FLEET - TWICE:
        number += rng.randint(1, 4)
        person = rng.choice(PEOPLE)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
            chat = turns(person, rng)
            if (key := str(chat).lower()) not in seen:
                seen.add(key)
                rows.append({"customer": f"K-{number}", "answered_by": person, "messages": chat})
    rows = rows[: ROWS - COPIES - FLEET - TWICE]
    copies = rng.sample(rows, COPIES)
    rows += twice(rows, rng)
    while len(rows) < ROWS - COPIES:
        row = {"customer": FLEET_CUSTOMER, "answered_by": "Ana", "messages": fleet(rng)}
        if row not in rows:
            rows.append(row)
    rows += copies
    rng.shuffle(rows)
    system = {"role": "system", "content": SYSTEM}
    return [row | {"messages": [system, *row["messages"]]} for row in rows]


def main() -> None:
    rows = make()
    write_text(FOLDER / "chats.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows)} chats of {len({row['customer'] for row in rows})} customers")


if __name__ == "__main__":
    sys.exit(command_line(main)())
