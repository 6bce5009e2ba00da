"""Make the generated splits of the `bookings` task, the same bytes every time.

    python data/make_bookings.py

writes `data/bookings/{train,validation,test}.jsonl`. A message is a template with a name, some
equipment, a weekday and a time put in. Training, validation and test share no template; validation
and test use names, equipment and clock times that never occur in training.
`data/bookings/handwritten.jsonl` is written by hand and not touched here.
"""

import json
import random
import re
import sys
from pathlib import Path

from lab_utils.errors import command_line
from lab_utils.files import write_text

SEED = 20261122
INVENTED = 0.2  # share of training names, and of training items, that hold an invented word
COUNTS = {"train": 3000, "validation": 100, "test": 200}
FOLDER = Path(__file__).parent / "bookings"

DAYS = {
    "Monday": ("Monday", "monday", "Mon", "mon"),
    "Tuesday": ("Tuesday", "tuesday", "Tue", "tues", "Tues"),
    "Wednesday": ("Wednesday", "wednesday", "Wed", "weds", "Wednsday"),
    "Thursday": ("Thursday", "thursday", "Thu", "thurs", "Thurs"),
    "Friday": ("Friday", "friday", "Fri", "fri"),
    "Saturday": ("Saturday", "saturday", "Sat", "sat"),
    "Sunday": ("Sunday", "sunday", "Sun", "sun"),
}
NUMBER_WORDS = dict(enumerate((
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split(), 1)) | {24: "twenty-four", 25: "twenty-five", 30: "thirty"}

NAMES = {
    "train": (
        "Anna Ben Carla David Emma Felix Grace Hassan Irene Jack Karim Laura Miguel Nina Oscar Paula "
        "Quentin Rosa Samir Tina Umar Vera Walter Xenia Yusuf Zoe Alice Bruno Chloe Daniel Elena Frank "
        "Giulia Henry Isabel Jonas Kate Leo Maria Noah Olivia Peter Ravi Sofia Thomas Ursula Victor "
        "Wendy Yara Adam Bella Cyrus Diana Erik Fatima George Hannah Ivan Julia Kevin Linda Marco Nadia "
        "Omar Priya Robert Sara Tom Lucy Mark Mei Kofi Aisha Pedro Lena Max Amir Ruth Simon Clara James "
        "Mary John Susan Paul Aaron Abigail Adele Agnes Ahmed Alberto Aleksander Alina Amara Anders "
        "Andrzej Anjali Annika Antonio Ariadne Arjun Arturo Aurelia Barbara Bartosz Beatrice Benedikt "
        "Bernadette Bianca Birgit Bonnie Branko Brigitte Caitlin Camille Carlos Caspar Catalina "
        "Cecilia Chandra Charlotte Chiara Christoph Claudia Constance Cornelia Cristina Damian Deborah "
        "Dieter Dolores Dominic Dorothea Duncan Ebba Edmund Eduardo Eileen Ekaterina Elif Eloise Emre "
        "Enrique Erasmus Ernesto Estelle Eugenia Evangelos Farah Ferdinand Fernanda Fiona Franziska "
        "Gabriel Galina Genevieve Gerard Gertrud Gonzalo Graziella Gregor Guadalupe Gunnar Gustav Hamish "
        "Harriet Hedwig Heloise Henrietta Hermann Hortense Howard Hugo Ignacio Imani "
        "Ines Ioana Isaac Ismail Iveta Jacinta Jadwiga Janusz Jarmila Javier Jelena Jeremy Joaquin "
        "Johanna Josephine Juliette Justine Kamala Karoline Kazimir Kerstin Khalid "
        "Kristof Lakshmi Lamar Larissa Lazlo Leandro Leticia Liesel Linnea Lorraine Lucinda Ludmila "
        "Luther Magdalena Mahmoud Malcolm Manuela Marcel Margarita Marit Matilda Matteo Maureen "
        "Maximilian Melchior Mercedes Mihail Milena Mohammed Monique Naomi Natalia Neville "
        "Nicolas Noelle Norbert Octavia Olga Ophelia Orlando Ottilie Pamela Parveen Patricia "
        "Petronella Philippa Raphael Rasmus Rebecca Reinhard Renata Ricardo Rodrigo "
        "Roland Rosalind Rupert Sabine Sandeep Santiago Saskia Sebastian Selma Serena Shirin Siddharth "
        "Silvia Solange Stanislav Stefania Suleiman Sunniva Svetlana Tabitha Tamara Teresa Theodore "
        "Thierry Timothy Tomasz Torsten Vanessa Veronica Vincent Violeta Vladimir "
        "Wanda Wilhelm Wilfred Xavier Yasmin Yevgeny Yvonne Zara Zeno Zofia Zuzana"
    ).split(),
    "held out": (
        "Astrid Bogdan Celeste Dmitri Esperanza Fabio Gwen Hiroshi Ingrid Jamal Keiko Lorenzo Mireille "
        "Nikolai Oksana Pascal Ramona Stellan Tatiana Viggo Winston Yolanda Zbigniew Bronwyn Cosmo "
        "Delphine Eamon Florian Gideon Hilda Isolde Jasper Klara Leopold Marguerite Nigel Odette Percy "
        "Roxana Sigrid"
    ).split(),
}
SURNAMES = {
    "train": (
        "Weber Rossi Khan Silva Novak Lee Moore Costa Meyer Ali Brown Sato Park Diaz Young Nakamura Petrov Olsen "
        "Jankowski Fernandes Adeyemi Castillo Bergman Rahman Nguyen Schneider Marchetti Dubois Horvath Eriksen Mbeki "
        "Ivanova Sullivan Takahashi Romero"
    ).split(),
    "held out": "Lindqvist Okafor Pereira Tanaka Kowalski Haddad Fournier Sorensen".split(),
}
# Training items are these words and every joined pair of KINDS and PARTS.
KINDS = (
    "bike camera guitar laptop phone tablet desk kitchen garden lab stage studio photo video sound wall "
    "travel safety water oil fire paper book map tool test field power air snow sand rope wood steel "
    "glass copper rubber plastic digital mini pocket wireless bluetooth"
).split()
PARTS = (
    "stand rack case bag kit mount holder cart lamp clock meter sensor timer cutter roller "
    "mixer filter sprayer drill printer scanner monitor speaker display recorder counter cover ramp "
    "board frame hook ladder tray"
).split()
ITEMS = {
    "train": (
        "projector, laptop, camera, tripod, microphone, speaker, whiteboard, monitor, keyboard, router, "
        "headset, scanner, printer, tablet, microscope, oscilloscope, multimeter, soldering iron, drill, "
        "ladder, folding table, chair, stool, trolley, extension lead, power bank, cable, webcam, "
        "ring light, green screen, boom pole, mixing desk, guitar amp, drum kit, music stand, "
        "label printer, card reader, telescope, centrifuge, pipette, hot plate, thermometer, charger, "
        "bicycle, helmet, tent, sleeping bag, kayak, paddle, life jacket, sewing machine, heat gun, "
        "laser cutter, easel, adapter, flipchart, coffee urn, amplifier, gazebo, megaphone, wheelchair, "
        "hand cart, sound bar, desk lamp, air pump, battery pack, hammer, saw, vacuum cleaner, fan heater, "
        "bike pump, football, tennis racket, chess clock, violin, trumpet, cello, piano, magnifier, "
        "balance, beaker, tarp, camp stove, rucksack, backdrop, lantern, blender, kettle, banner, name badge, "
        "screwdriver, spanner, shovel, rake, bucket, broom, mop, anvil, crowbar, chisel, clamp, goniometer, "
        "barometer, hygrometer, voltmeter, galvanometer, potentiometer, transformer, inductor, oscillator, "
        "synthesizer, saxophone, xylophone, bassoon, trombone, "
        "mandolin, bagpipe, viola, harp, tuba, flute, snowboard, surfboard, sled, toboggan, "
        "scooter, trampoline, dartboard, hammock, umbrella, blanket, pillow, duvet, "
        "cushion, curtain, carpet, mannequin, costume, helium tank, fog light, strobe, spotlight, reflector, "
        "teapot, saucepan, skillet, colander, grater, freezer, fridge, oven, grill, "
        "barbecue, cauldron, ladle, tureen, platter, goblet, candelabra, chandelier, periscope, "
        "sextant, binocular, pendulum, gyroscope, magnet, prism, autoclave, "
        "incinerator, fermenter, evaporator, condenser, distiller, manometer, calorimeter, dynamometer"
    ).split(", "),
    "held out": (
        "drone, glue gun, radio mic, smoke machine, bean bag, yoga mat, stage light, sandbag, patch panel, "
        "document camera, clothes rail, climbing rope, crash pad, label maker, water bath, rice cooker, "
        "wind machine, vacuum pump, signal generator, trestle table, picnic basket, floor lamp, garden hose, "
        "bread maker, party tent, fish tank, hair dryer, coffee machine, cheese board, alarm clock, car jack, "
        "gas heater, door bell, shoe rack, swimming ring, rain cover, rain coat, snow shovel, "
        "pizza stone, ice bucket, baby seat, dog crate, lunch tray, video wall, pool table, ping pong table, "
        "picture frame, candle holder, fire extinguisher, sewing kit, hiking pole, rowing boat, golf club"
    ).split(", "),
}
MINUTES = {
    "train": ("00", "15", "30", "45"),
    "held out": ("05", "10", "20", "25", "35", "40", "50", "55"),
}

# {name} {what} {day} {time}; {n} is a number that means nothing, {where} a room, {other} a day that is not meant.
TEMPLATES = {
    "train": (
        "Hi, could I book {what} for {day} at {time}? Thanks, {name}",
        "Hello, {name} here. I need {what} on {day} at {time} please.",
        "{name} would like {what}, {day} {time}.",
        "Please reserve {what} for {name}: {day}, {time}.",
        "{what} please, {day} at {time}. Name: {name}",
        "Can you put {what} aside for {name} on {day}? Pick-up at {time}.",
        "Booking request from {name}. {day} {time}. {what}.",
        "{day} {time} {what} {name}",
        "{name}, {what}, {day}, {time}",
        "{what} for {day} {time} - {name}",
        "For {day} at {time} we need {what}. It goes under {name}.",
        "Hey! Any chance of {what} on {day}? I'd come by at {time}. Cheers, {name}",
        "My name is {name} and I want to borrow {what} on {day} from {time}.",
        "At {time} on {day} {name} will collect {what}.",
        "I'm {name} from the media course, room {where}. {what} on {day} at {time} would be great.",
        "Ticket {n}: {name} asks for {what} on {day}, {time}.",
        "Good morning, we have a workshop in {where} on {day} at {time} and need {what}. Regards, {name}",
        "Need {what} for {n} hours on {day}, starting {time}. {name}",
        "Is it possible to get {what}? {day}, {time}, for {name}. My extension is {n}.",
        "{name} again :) this time {what}, {day} at {time} please",
        "Sorry for the short notice, but could {name} have {what} by {day} {time}?",
        "Could you hold {what} until {day} {time}? {name} will pick it up.",
        "This is for {name}, who needs {what} on {day} around {time}.",
        "Dear team, I am writing to reserve {what}. I will come on {day} at {time}. Best wishes, {name}",
        "We're filming on {day}. Call time is {time}. Please prepare {what} for {name}.",
        "pls book {what} {day} {time} thx {name}",
        "I was told to write here. I need {what} next {day} at {time}. {name}, student no. {n}",
        "From: {name}. What: {what}. When: {day}, {time}. Where: {where}.",
        "When: {day} {time}\nWho: {name}\nWhat: {what}",
        "{name} wants to pick up {what} at {time} this {day}.",
        "We'd love to have {what} for our club night in {where}, {day} at {time}. Ask for {name}.",
        "On {day} my group of {n} meets at {time}. Can we get {what}? Yours, {name}",
        "It's {name}. {day}, {time}, {what}, same as last week.",
        "Quick one: {what}, {time} {day}, under the name {name}.",
        "Put me down for {what} on {day}, {time}. I'm {name}.",
        "hi its {name}, can i have {what} {day} {time} for room {where}",
        "Would {what} be free on {day}? {name} needs it at {time} sharp.",
        "Reservation: {what}. {time} on {day}. {name}, tel {n}.",
        "Today I broke mine, so I need {what} for {day} at {time}. Sorry! {name}",
        "Our lecturer {name} has asked for {what} to be ready on {day} at {time}.",
        "You can expect {name} on {day} at {time}, coming for {what}.",
        "Just checking that {what} can be had on {day} at {time}. If so, book it for {name}.",
        "{name} and {n} friends: {what} on {day}, {time}!",
        "If nobody else has it, {name} would take {what} at {time} on {day}.",
        "Bonjour, {name} speaking. I'd like {what}, please, for {day}, {time}.",
        "urgent!! {what} needed {day} {time} in {where}, contact {name}",
        "Could somebody bring {what} to {where} on {day} at {time}? It's for {name}.",
        "I'll need to borrow {what} from you guys {day} at {time}, back the same evening. {name}",
        "Thanks for last time! Now {name} needs {what}. {day}? {time}?",
        "{day} works for me, say {time}. I only need {what}. Signed, {name}",
        "As agreed on the phone: {what}, collected {day} {time} by {name}.",
        "Do you lend out {what}? I'd need it on {day} at {time}. Greetings from {name}",
        "The {n} of us in {where} need {what} by {time} on {day}, ask {name} if unclear.",
        "{name} ({where}): {what} / {day} / {time}",
        "subject: loan. {what} for {name}, {time}, {day}. invoice {n}",
        "Hope you are well. {name} needs {what} at {time} on {day} for an exam.",
        "Let me have {what} on {day}. I finish class before {time} so that's when I'd come. {name}",
        "{time} {day} please: {what}. -{name}",
        "Set aside {what} please! Collecting {day} {time}. Love, {name}",
        "To whom it may concern: {name} requests {what} for use in {where} on {day} from {time} on.",
        "yo, {name} here, got {what} for me on {day}? {time} would be perfect",
        "Mum says I should book early, so: {what}, {day}, {time}, {name}.",
        "No rush. {what}, whenever you open on {day}, maybe {time}. For {name}",
        "Change to booking {n}: now it's {what} on {day} at {time}. {name}",
        "{name} is after {what}. {day} {time} if you can.",
        "Is {what} still around? I'd take it {day} {time}. The name is {name}",
        "can we get {what}? it's on {day}, we'd come at {time}, put it under {name}",
        "{name}'s the name, {what} the game. {day}, {time}.",
        "My flatmate {name} asked me to get {what} for {day}, {time}.",
        "Book it for {name} please: {what}. We start {day} at {time}",
        "We are rehearsing {day} from {time} and {name} will sign for {what}.",
        "{what}!! {day}!! {time}!! yours, {name}",
        "Would you have {what} lying about? {name} could come {day} around {time}.",
        "{day} is the big day, {time} to be exact. {what}, for {name}.",
        "I'm writing for {name}, who cannot write just now: {what}, {day}, {time}.",
        "At {time}, on {day}, I shall come for {what}. {name} ({where})",
        "Not {other}, {day}! {time}, {what}, {name}. Sorry for the mix-up.",
        "I said {other} before but {day} at {time} is better. {what} for {name} as planned.",
        "{what} from {day} {time} until the evening. Regards {name}",
        "So {name} here wants {what}, and it has to be {day}, {time}, no later.",
        "Contact: {name}. Requesting {what}, {day}, {time}, hall {where}.",
        "Booking: {name} / {what} / {day} / {time} / workshop",
        "{name} will be in on {day}, {time}. Please have {what} charged and ready.",
        "for our stall on {day} we want {what}, picking up {time}. talk to {name}",
        "Who do I ask about {what}? I need it {day}, {time}. I'm called {name}.",
        "i think {what} would do. {day} {time}? name {name}",
        "It's for {name}'s birthday: {what}, {day} at {time}.",
        "{name} again. {what}. {day} at {time}. Same card, number {n}.",
        "Professor {name} needs {what} for the lecture on {day}, {time}, in {where}.",
        "Can my colleague {name} collect {what} on {day}? {time} would suit.",
        "{what} if poss, {day} {time}, cheers {name}",
        "could i pretty please have {what} {day}, id be there {time}. its {name} from the dorm",
        "{name} from year {n} wants to know if {what} can be lent on {day} at {time}",
        "We have {what} on our list for {day}. Pick-up {time}, my boss {name} pays.",
        "Just me, {name}. Same as always: {day} {time}, {what}.",
        "Long day, sorry for the late mail. {what}, {day}, {time}. {name}",
        "Does {day} {time} work? {name} would need {what} for about {n} hours.",
        "My daughter {name} has a recital on {day} and needs {what}, we'd fetch it at {time}.",
        "{what} for the {day} market, {time}, under the name of {name}, stall {n}.",
        "tell {name} that {what} will be there {day} {time}, thats all i ask",
        "Anything left on {day}? We want {what}, {time}. {name}",
        "Honestly {what} would save us. {day} at {time}. Thank you!! {name}",
        "The usual for {name}? No! This time {what}, on {day}, {time}.",
        "{day}, please. {time}, please. {what}, please. {name}, thanks.",
        "{name} here (student card {n}), hoping for {what}, {day}, {time} at your desk",
        "If it isn't too much trouble: {what}. We'd use it {day} from {time}. Signed {name}",
        "My supervisor is {n} minutes late as always so I'm writing: {name} needs {what} {day} {time}",
        "Our society is doing a thing on {day}!! need {what} by {time}!! ask for {name}!!",
        "{name} is my name and {what} is what I need, {day} {time}, ok?",
        "I'd be grateful for {what} on {day}; I could be there by {time}. {name}, floor {n}",
        "do u have {what} free {day}?? {name} needs it like {time}",
        "booking {what}, {time} on {day}, name's {name}, and no I won't break it",
        "Kindly lend {what} to {name}, who will call on {day} at {time}.",
        "ordered {what} last week but nobody answered. {day} {time} please. {name}",
        "{name} and I are back! {what} on {day} please, {time} as usual.",
        "For once I'm early: {day} {time}, {what}. Yours truly, {name}",
        "We're {n} and hungry, so {what} for {day} {time} please - {name}",
        "{what} needed. {name}. {time}. {day}.",
        "Forgot to say who I am: {name}. I wanted {what} {day} {time}.",
        "{name}: please give me {what} on {day}, I'm free after {time}",
        "To the loans desk. Item: {what}. For: {name}. {day}, {time}.",
        "I need to film a lecture {day} at {time}, that takes {what}. -- {name}",
        "{day} is my last chance! {what}, {time}, {name}, phone {n}",
        "The bus gets in before {time} on {day}, then {name} can come for {what}.",
        "With {what} we'd be happy. {day} from {time}. It's all under {name}.",
        "please could you leave {what} at the front desk {day} {time} for {name} to grab",
        "Hey, it's {name} with the broken arm, so only {what} this week. {day}, {time}.",
        "{what}, only that. I come {day} {time}. My name: {name}.",
        "Hold {what} for us, will you? {name} picks it up {day} {time}.",
    ),
    "validation": (
        "Hi there, {name} here, hoping to get {what} on {day} at {time}.",
        "Please keep {what} for me, I'll drop in at {time} on {day}. Many thanks, {name}",
        "{day} at {time}: {what} for {name}",
        "The film society needs {what} this {day}, {time}. Contact person: {name}",
        "I teach in {where} and want {what} by {time} on {day}. {name}",
        "{name} needs {what}. {time}, {day}. Ref {n}.",
        "Can {name} come round on {day} at {time} to fetch {what}?",
        "Morning! {what} for {day}, please, at {time}. It's {name} by the way.",
        "order {n}, {name}: {what}, {day} {time}",
        "We are {n} people and would need {what} on {day} at {time}. Write back to {name}.",
    ),
    "test": (
        "Good afternoon, may I have {what} on {day}? {time} suits me best. Kind regards, {name}",
        "{name} is asking whether {what} could be lent out on {day} at {time}.",
        "Would you mind saving {what} for {day}, {time}? Sincerely, {name}",
        "It's about {day}: at {time} we start, and {name} still lacks {what}.",
        "{name} - {day} - {time} - {what}",
        "Loan desk please note: {what}, out on {day} at {time}, borrower {name}.",
        "hey its {name}! need {what} {day} {time} ok?",
        "I wonder if you could spare {what} on {day} at {time}. My name's {name}, desk {n}.",
        "{what}. {day}. {time}. {name}. Thanks a lot!",
        "We will be {n} in {where} on {day}, so {name} wants {what} there at {time}.",
        "Hiya, can u get {what} ready for {time} {day}? ta, {name}",
        "On behalf of {name}: {what}, to be collected {day} at {time}.",
        "Request no. {n}. Borrower: {name}. Equipment: {what}. Day: {day}. Time: {time}.",
        "The choir rehearses on {day} and {name} must have {what} by {time}.",
        "Got a shoot on {day}, leaving at {time}, so I want {what} with me. {name}",
        "{time} on {day} is when {name} will stop by for {what}.",
        "Greetings! I should like {what}, if available, {day} {time}. Faithfully, {name}",
        "Hi, me again ({name}). Same room {where}, but {what} this time, {day} at {time}.",
        "for {name} pls: {what}, {day}, {time}, cheers",
        "Do me a favour and book {what} for {time} on {day}, will you? {name}",
        "Next {day} there's a fair. {name} runs a stand from {time} and needs {what}.",
        "May {name} pick up {what} on {day} at about {time}? It takes {n} minutes at most.",
        "{what} wanted by {name}, {day} {time}, building {where}",
        "Hello from the physics lab! Could we use {what} on {day} from {time}? Thank you, {name}",
        "Please enter it in the calendar: {day}, {time}, {what}, {name}.",
    ),
}
# What people say around a booking; put before and after training messages only.
BEFORE = (
    "Hi!", "Hiya,", "hey hey", "Hello again.", "Good evening.", "Morning all,", "Dear all,", "Hi team 👋",
    "ok so", "Right,", "sorry to bother you again!", "Not sure if this is the right address.", "Me again...",
    "Long time no see!", "Last term this went really well.", "I lost my card, sorry.", "The form is broken btw.",
    "Your phone ({n}) just rings.", "Quick question.", "We have a deadline coming up.", "I'm in room {where}.",
    "Exam season, you know how it is.", "My group has {n} people.", "It's raining, so plan B:", "re: ticket {n}",
    "Finally got the money together.", "As discussed with your colleague,", "URGENT", "no stress but",
    "Happy new year!", "First time writing here.", "The last one was broken, but never mind.", "lol hi,",
    "Our club turns {n} this year!", "Thanks for the help last month.", "About the open day:", "For the workshop:",
)
AFTER = (
    "Cheers!", "Thanks a million", "ta", "thx!!", "Ta very much", "Many thanks in advance.", "Best", "Regards", "xx",
    "see you", "Have a nice day!", "😊", "🙏", "lol", "Sorry!", "Hope that works.", "Let me know.", "Call me on {n}.",
    "It won't take longer than {n} minutes.", "We need it for {n} hours.",
    "It's for about {n} hours.", "There are {n} of us.", "Building {where}.",
    "I promise to bring everything back in one piece.", "Tell me if that's a problem.", "Last time it was late.",
    "That's all!", "Nothing else.", "I'll bring my card ({n}).", "PS: room {where} was freezing.", "Please confirm.",
    "I can pay the deposit, {n} right?", "It's for a short film.", "It's for my thesis.", "Long story.",
    "Wish us luck!",
    "If not, tough luck.", "bye", "You're the best.", "My friend will carry it.", "No idea how it works, haha.",
)
POOLS = {"train": "train", "validation": "held out", "test": "held out"}


def invented_word(rng: random.Random) -> str:
    """A word that is none, two or three syllables long: it can only be copied, never guessed."""
    onsets = "b br c ch d f g gr h j k l l m m n n p r r s s st t t th tr v v w y z".split()
    syllables = [rng.choice(onsets) + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3)))]
    return rng.choice(("", "", "", "n", "r", "l")).join(syllables) + rng.choice("n r l m t nd ck".split())


def pick_name(pool: str, rng: random.Random) -> str:
    """A first name, now and then with a surname (in training more often); one in five training names is invented."""
    invented = pool == "train" and rng.random() < INVENTED
    name = invented_word(rng).capitalize() if invented else rng.choice(NAMES[pool])
    if rng.random() < (0.3 if pool == "train" else 0.15):
        name += " " + rng.choice(SURNAMES[pool])
    return name


def pick_item(pool: str, rng: random.Random) -> str:
    """A kind of equipment; in training also joined pairs and pairs with an invented word."""
    if pool == "train" and rng.random() < INVENTED:
        return f"{invented_word(rng)} {rng.choice(PARTS)}" if rng.random() < 0.6 else invented_word(rng) + "er"
    if pool == "train" and rng.random() < 0.4:
        return f"{rng.choice(KINDS)} {rng.choice(PARTS)}"
    return rng.choice(ITEMS[pool])


def equipment(item: str, quantity: int, rng: random.Random) -> str:
    """Say `quantity` of `item` in one of the ways that people do."""
    plural = item + "s"
    if quantity == 1:
        article = "an" if item[0] in "aeiou" else "a"
        return rng.choice((
            *[f"{article} {item}"] * 4, f"one {item}", f"1 {item}", f"1x {item}", f"the {item}", f"your {item}",
            f"the {item} (just one)", f"a single {item}", f"just the one {item}", f"{item} x1", f"{item}, one,",
            f"{item}, only 1",
        ))
    forms = [f"{quantity} {plural}", f"{quantity} {plural}", f"{quantity} x {item}", f"{quantity}x {item}",
             f"{plural} ({quantity})", f"{item} x{quantity}", f"{plural}, {quantity} of them",
             f"{quantity} of your {plural}", f"{plural}, {quantity}"]
    if quantity in NUMBER_WORDS:
        word = NUMBER_WORDS[quantity]
        forms += [f"{word} {plural}"] * 4 + [f"{word.capitalize()} {plural}", f"{plural}, {word} of them"]
    if quantity == 2:
        forms += [f"a couple of {plural}", f"a pair of {plural}"] * 2
    if quantity in (6, 12):
        forms += [f"{'half ' if quantity == 6 else ''}a dozen {plural}"] * 5
    return rng.choice(forms)


def clock(pool: str, rng: random.Random) -> str:
    """A clock time as somebody writes it."""
    minutes = rng.choice(MINUTES[pool])
    half = rng.choice(("am", "pm"))
    hour = rng.randint(8, 11) if half == "am" else rng.randint(1, 9)
    if minutes == "00" and rng.random() < 0.8:
        half = half.upper() if rng.random() < 0.1 else half
        return rng.choice((f"{hour}{half}",) * 4 + (f"{hour} {half}",) * 2 + ("noon", f"{hour} o'clock"))
    if rng.random() < 0.3:
        return f"{hour + 12 * (half == 'pm'):02d}:{minutes}"
    gap, upper = rng.random() < 0.3, rng.random() < 0.2
    return f"{hour}{rng.choice('::.')}{minutes}{' ' * gap}{half.upper() if upper else half}"


def with_typo(text: str, keep: list[str], rng: random.Random) -> str:
    """Swap two neighbouring letters in one word that carries no value."""
    kept = {word for value in keep for word in re.findall(r"\w+", value)}
    words = [m for m in re.finditer(r"\b[a-z]{4,}\b", text) if m.group() not in kept]
    if not words:
        return text
    word = rng.choice(words)
    i = rng.randrange(word.start() + 1, word.end() - 1)
    return text[:i] + text[i + 1] + text[i] + text[i + 2:]


def as_written(value: str, message: str) -> str:
    """`value` as it is in `message`: in its case there, and in the plural if it is plural there."""
    return re.search(rf"\b{re.escape(value)}s?\b", message, re.IGNORECASE).group()


def booking(split: str, template: str, rng: random.Random) -> dict:
    """One message and its answer."""
    pool = POOLS[split]
    name, item = pick_name(pool, rng), pick_item(pool, rng)
    quantity = rng.choice((1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6, 6, *range(7, 21), 12, 24, 25, 30))
    what = equipment(item, quantity, rng)
    day = rng.choice(tuple(DAYS))
    day_shown = rng.choice(DAYS[day])
    other = rng.choice([name for name in DAYS if name != day])
    time = clock(pool, rng)
    if split == "train":
        template = f"{rng.choice(BEFORE)} {template}" if rng.random() < 0.3 else template
        template = f"{template} {rng.choice(AFTER)}" if rng.random() < 0.3 else template
    title = rng.choice(("Dr ", "Prof ", "Ms ", "Mr ")) if split == "train" and rng.random() < 0.05 else ""
    message = template.format(
        name=title + name, what=what, day=day_shown, time=time, other=other,
        n=rng.choice((rng.randint(2, 9), rng.randint(13, 60), rng.randint(1000, 9999))),
        where=f"{rng.choice('ABCDEFG')}{rng.choice(('', '.', '-'))}{rng.randint(1, 399)}",
    )
    if rng.random() < 0.25:
        message = with_typo(message, [name, what, day_shown, time], rng)
    if rng.random() < 0.15:
        message = message.lower()
    elif rng.random() < 0.5:
        message = message[0].upper() + message[1:]
    name, item, time = (as_written(value, message) for value in (name, item, time))
    answer = {"name": name, "qty": quantity, "item": item, "day": day, "time": time}
    return {"message": message, "answer": answer}


def make(split: str) -> list[dict]:
    """All examples of `split`: every template about equally often, no message twice."""
    rng = random.Random(f"{SEED} {split}")
    examples, seen = [], set()
    while len(examples) < COUNTS[split]:
        template = TEMPLATES[split][len(examples) % len(TEMPLATES[split])]
        example = booking(split, template, rng)
        if example["message"] not in seen:
            seen.add(example["message"])
            examples.append(example)
    rng.shuffle(examples)
    return examples


def main() -> None:
    for split in COUNTS:
        lines = [json.dumps(example, ensure_ascii=False) for example in make(split)]
        write_text(FOLDER / f"{split}.jsonl", "\n".join(lines) + "\n")
        print(f"{split}: {len(lines)} messages, {len(TEMPLATES[split])} templates")


if __name__ == "__main__":
    sys.exit(command_line(main)())
