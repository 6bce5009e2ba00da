"""Prompts of very different lengths: in a batch most of them are padded."""

PROMPTS = [
    "two drones for Ann, Monday 9am",
    "hi",
    "Would you be so kind as to reserve the big projector for my seminar next Tuesday at 10:15? Yours, Otto Lindqvist",
    "gong, Friday, noon, Dagny",
    "Ticket 17",
]
