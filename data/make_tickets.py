"""Make the tickets that page 14 sorts: messages to the web shop of a made-up bicycle workshop, with planted faults.

    python data/make_tickets.py

writes `data/tickets/tickets.csv`, always the same bytes. The faults are there to be found; data/README.md names them
(do not read it before you have done the page). `data/tickets/next_month.csv` was written by hand and is not made here.
"""

import csv
import io
import random
import re
import sys
from pathlib import Path

from lab_utils.errors import command_line
from lab_utils.files import write_text

FOLDER = Path(__file__).parent / "tickets"
SEED = 14
ROWS, COPIES, FLEET, TWICE = 2640, 40, 60, 10  # all; of them copies, one customer's program's, and sorted in two ways
FLEET_CUSTOMER = "C-2071"
COLUMNS = ("ticket", "customer", "message", "category", "sorted_by")
PEOPLE = ("Ana", "Ben")

ITEMS = (
    "helmet", "saddle", "front light", "rear light", "pannier", "child seat", "floor pump", "bottle cage", "lock",
    "rain cape", "chain", "pair of pedals", "bell", "mudguard set", "luggage rack", "handlebar", "inner tube", "tyre",
    "wheel set", "brake lever", "saddlebag", "bike computer", "cargo trailer", "pair of gloves", "jersey", "kickstand",
)  # fmt: skip
PLACES = ("Leeds", "Cork", "Utrecht", "Ghent", "Porto", "Turin", "Graz", "Malmö", "Brno", "Riga", "Bergen", "Lyon")
MONTHS = ("January", "February", "March", "April", "May", "June", "September", "October", "November")
WHEN = ("on Monday", "last week", "ten days ago", "two weeks ago", "on the 3rd", "yesterday", "in spring", "on Friday")
CORES = {
    "delivery": (
        "where is my {item}? I ordered it {when}.", "my {item} has still not arrived.",
        "the tracking page has said \"on its way\" since {day}.", "can you send the {item} to my office instead?",
        "the courier left nothing and no card either.", "how long does shipping to {place} take?",
        "I moved to {place}, please change the address of my order.", "do you ship to {place}?",
        "half of my order came, the {item} is missing.", "the neighbour says nobody rang. Where did the {item} go?",
        "could I collect the {item} at the shop instead of having it sent?", "is my {item} coming before the weekend?",
        "the depot in {place} says it has no parcel of mine.", "you promised two days and it has been nine.",
    ),
    "return": (
        "the {item} does not fit, how do I send it back?", "I'd like to swap the {item} for a larger one.",
        "I changed my mind about the {item}. Can it go back?", "please send a label so that I can return the {item}.",
        "how many days do I have to send back a {item}?", "I got the {item} as a present and already have one.",
        "the {item} is the wrong colour for me, I want another.", "can I bring the {item} back to the shop?",
        "I ordered two by mistake and want to send one {item} back.", "the {item} is too small. Exchange possible?",
        "unopened {item}, no longer needed. What now?", "does sending the {item} back cost anything?",
    ),
    "damage": (
        "the {item} has a crack after one ride.", "one screw of the {item} sheared off.",
        "the {item} stopped working in the rain.", "there is a dent in the {item}, right out of the box.",
        "my {item} makes a grinding noise since {day}.", "the seam of the {item} came apart.",
        "the {item} wobbles and cannot be tightened.", "the box was wet and the {item} has rust on it.",
        "the clip of the {item} snapped when I mounted it.", "your {item} leaks. It is three weeks old.",
        "the {item} holds no charge any more.", "paint is peeling off the {item} already.",
    ),
    "payment": (
        "I was charged twice for the {item}.", "my card is declined at the last step.",
        "the money for the {item} was not paid back yet.", "why was {amount} euros taken from my account?",
        "can I pay for the {item} in three parts?", "your shop will not accept my voucher.",
        "I paid {when} and the order still says unpaid.", "do you take bank transfer?",
        "the discount of last {month} was not taken off.", "I sent {amount} euros too much by mistake.",
        "the page hangs after I enter my card number.", "when will I see the refund on my statement?",
    ),
    "invoice": (
        "I need an invoice with our VAT number on it.", "the invoice has my old company name.",
        "please send the invoice for the {item} again.", "our accountant asks for a receipt from {month}.",
        "can the invoice be made out to my firm in {place}?", "the bill shows the wrong tax rate.",
        "I cannot open the PDF of the bill.", "please put our order reference on the bill.",
        "we need one invoice for all orders of {month}.", "the sum on the invoice is not the sum I saw in the shop.",
        "where can I download a receipt for the {item}?", "my bill has no date, and the tax office wants one.",
    ),
    "account": (
        "I cannot log in any more.", "the link to reset my password never comes.",
        "please delete everything you know about me.", "how do I change the e-mail address I log in with?",
        "somebody else's orders are shown under my name.", "I want to stop the newsletter.",
        "I have two profiles, please make them one.", "the code you text me is always wrong.",
        "my surname changed, where do I enter the new one?", "the app signs me out every hour.",
        "my profile says I live in {place}, I never did.", "how do I close my profile?",
    ),
    "advice": (
        "which {item} fits a 28 inch touring bike?", "does the {item} go with disc brakes?",
        "would you take steel or aluminium for a {item}?", "is the {item} all right for a twelve year old?",
        "how do I mount the {item} myself?", "what is the difference between your two kinds of {item}?",
        "I ride to {place} in {month}. What should I take?", "which tool do I need for the {item}?",
        "will you have the blue {item} again?", "how heavy is the {item}?",
        "can a {item} be used on an e-bike?", "how often should I oil a chain in winter?",
    ),
}  # fmt: skip
# Broken on arrival, and to be sent back: the two people who sort the tickets never agreed on these.
BROKEN_RETURNS = (
    "the {item} arrived broken, I want to send it back.", "broken {item} in the parcel. How do I return it?",
    "the {item} came with a crack, please take it back.", "I return the {item}, it was cracked when it came.",
    "my {item} was bent on arrival. Return label, please.", "sending back a {item} that came in two pieces: how?",
)  # fmt: skip
ASIDES = {  # what is mentioned and is not the matter, by the category that it sounds like
    "delivery": ("The parcel came in two days, thanks.", "Delivery was quick.", "The courier was very kind."),
    "return": ("I do not want to send anything back.", "No return this time!", "Last year's exchange went well."),
    "damage": ("Nothing is broken.", "The scratch from last time is fixed, thank you.", "It all works, by the way."),
    "payment": ("I paid by card {when}.", "The refund arrived, thanks.", "The voucher worked."),
    "invoice": ("The invoice is here, all correct.", "I have the receipt.", "No bill needed."),
    "account": ("I found my password again.", "I wrote from my other account first.", "Logged in fine today."),
    "advice": ("Your advice on the {item} was good.", "The {item} fits well.", "Mounting it was easy."),
}
OPENINGS = (
    "Hello,", "Hi,", "Hi there,", "Good morning,", "hey", "Dear team,", "Hello again,", "Excuse me,", "Quick question:",
    "Sorry to bother you,", "About order {order}:", "Order {order}.", "Re: {order}", "Hi from {place}!", "Me again.",
)  # fmt: skip
CLOSINGS = (
    "Thanks!", "Thank you", "Best, {name}", "Regards, {name}", "{name}", "Cheers, {name}", "Please hurry.", "Any idea?",
    "Order {order}.", "Looking forward to your answer.", "I am not amused.", "No rush.", "Please call me.",
    "Kind regards",
)  # fmt: skip
PATTERNS = tuple(re.escape(core).replace(r"\{item\}", "[a-z ]+") for core in BROKEN_RETURNS)
NAMES = (
    "Ines", "Tomas", "Priya", "Olu", "Marta", "Jonas", "Aiko", "Sven", "Leila", "Pavel", "Rosa", "Emeka", "Nora",
    "Yusuf", "Greta", "Luca", "Hana", "Mateo", "Freya", "Idris",
)  # fmt: skip
AGAIN = ("Still waiting:", "Again:", "Second try:", "No answer yet, so again:", "Reminder:", "As I wrote before:")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


def filled(text: str, rng: random.Random) -> str:
    """A text with its slots filled."""
    return text.format(
        item=rng.choice(ITEMS), place=rng.choice(PLACES), month=rng.choice(MONTHS), when=rng.choice(WHEN),
        day=rng.choice(DAYS), name=rng.choice(NAMES), order=rng.randint(1000, 9999), amount=rng.randint(9, 240),
    )  # fmt: skip


def with_typo(text: str, rng: random.Random) -> str:
    """Two neighbouring letters of a long word change places."""
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if len(word) > 5 and word.isalpha()]
    if not long:
        return text
    place = rng.choice(long)
    word, at = words[place], rng.randrange(1, len(words[place]) - 2)
    words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def message(category: str, core: str, rng: random.Random) -> str:
    """What a customer writes: a core, in half of the cases with an aside about something else."""
    parts = [core[0].upper() + core[1:] if rng.random() < 0.5 else core]
    if rng.random() < 0.5:
        aside = rng.choice(ASIDES[rng.choice([other for other in ASIDES if other != category])])
        parts = [aside, *parts] if rng.random() < 0.6 else [*parts, aside]
    if rng.random() < 0.4:
        parts = [rng.choice(OPENINGS), *parts]
    if rng.random() < 0.35:
        parts = [*parts, rng.choice(CLOSINGS)]
    text = filled(" ".join(parts), rng)
    if rng.random() < 0.2:
        text = with_typo(text, rng)
    return text.lower() if rng.random() < 0.2 else text


def one_ticket(person: str, rng: random.Random) -> tuple[str, str]:
    """(message, category), as `person` sorts it."""
    if rng.random() < 0.05:
        return message("return", rng.choice(BROKEN_RETURNS), rng), "damage" if person == "Ana" else "return"
    category = rng.choice(tuple(CORES))
    return message(category, rng.choice(CORES[category]), rng), category


def customers(rng: random.Random) -> list[dict]:
    """Tickets of people, one to four each; a person who writes again mostly repeats what was written."""
    rows, seen, number = [], set(), 3000
    while len(rows) < ROWS - COPIES - FLEET - TWICE:
        number += rng.randint(1, 4)
        person, last = rng.choice(PEOPLE), None
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
            if last and rng.random() < 0.4:
                text, category = f"{rng.choice(AGAIN)} {last[0]}", last[1]
            else:
                text, category = last = one_ticket(person, rng)
            if (key := " ".join(text.lower().split())) not in seen:
                seen.add(key)
                rows.append({"customer": f"C-{number}", "message": text, "category": category, "sorted_by": person})
    return rows[: ROWS - COPIES - FLEET - TWICE]


def fleet(rng: random.Random) -> list[dict]:
    """What one customer's program sends: the same text each time, with other numbers."""
    text = "Automatic message of Velo Courier: order {order} booked in {month}. Please send the invoice to accounting."
    rows = []
    while len(rows) < FLEET:
        row = {"customer": FLEET_CUSTOMER, "message": filled(text, rng), "category": "invoice", "sorted_by": "Ana"}
        if row not in rows:
            rows.append(row)
    return rows


def twice(rows: list[dict], rng: random.Random) -> list[dict]:
    """What Ana sorted as damage, written by somebody else in the same words, and sorted by Ben as a return."""
    broken = [row for row in rows if row["sorted_by"] == "Ana" and is_broken_return(row["message"])]
    return [row | {"customer": f"C-{2100 + place}", "category": "return", "sorted_by": "Ben"}
            for place, row in enumerate(rng.sample(broken, TWICE))]


def is_broken_return(message: str) -> bool:
    """Is it one of the messages that the two people sort differently?"""
    return any(re.search(core, message, re.IGNORECASE) for core in PATTERNS)


def make() -> list[dict]:
    """All rows, in the order of their ticket numbers."""
    rng = random.Random(SEED)
    rows = customers(rng)
    copies = [dict(row) for row in rng.sample(rows, COPIES)]
    rows += twice(rows, rng) + fleet(rng) + copies
    rng.shuffle(rows)
    return [{"ticket": 50_001 + number} | row for number, row in enumerate(rows)]


def main() -> None:
    rows, text = make(), io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(FOLDER / "tickets.csv", text.getvalue())
    print(f"{len(rows)} tickets of {len({row['customer'] for row in rows})} customers")


if __name__ == "__main__":
    sys.exit(command_line(main)())
