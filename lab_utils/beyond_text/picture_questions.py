"""Questions about pictures: from picture and words to a model's batch, training on the answers, and asking."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..device import find_device
from ..errors import LabError, at_least
from ..finetune import Encoded, Recipe, build_optimizer, collate, plan_batches
from ..finetune.greedy import greedy
from ..finetune.optimizer import descend, set_rate
from ..scores import Measure, wilson
from .drawings import THINGS, draw
from .vision_language import PictureReader

QUESTION = "What colour is this?"
PROMPT = (  # ChatML, as Qwen2.5-VL's own chat template writes one picture and one question
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@dataclass(frozen=True)
class Example:
    """A picture (PIL, RGB), a question and the answer to learn."""

    picture: object
    question: str
    answer: str


def colour_questions(colours: Sequence[str], seeds: Sequence[int], size: int = 56) -> list[Example]:
    """Every thing in every one of `colours`, drawn with each of `seeds`, and the question for its colour."""
    return [
        Example(draw(thing, colour, size=size, seed=seed), QUESTION, colour)
        for seed in seeds for thing in THINGS for colour in colours
    ]  # fmt: skip


def prepare(
    reader: PictureReader, pictures: Sequence, questions: Sequence[str], answers: Sequence[str] | None = None
) -> dict:
    """One batch as Qwen2.5-VL takes it: one picture and one question a row.

    Parameters
    ----------
    reader : PictureReader
    pictures : PIL pictures
    questions, answers : str; without answers there are no labels. Letters of a control token are text in them.

    Returns
    -------
    dict of Tensors
        input_ids, attention_mask, mm_token_type_ids (1 on image tokens, 0 on text), labels (the token on the answer and
        its end, -100 elsewhere): (rows, longest) int64
        pixel_values: float32 (patches of all pictures, 3 · 2 · 14 · 14), each patch twice, as if it were two frames
        image_grid_thw: int64 (rows, 3), patches in time (1), down and across

    Raises
    ------
    LabError
        The lists are not equally long, or empty; or a picture, question or answer is none: its number is named.
    """
    counts = {"pictures": len(pictures), "questions": len(questions)}
    if answers is not None:
        counts["answers"] = len(answers)
    if len(set(counts.values())) > 1 or not questions:
        given = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise LabError(f"{given}: give as many of each, and one at least.")
    _check_kinds(pictures, questions, answers or [])
    images = reader.image_processor(images=list(pictures), return_tensors="pt")
    tokens = images["image_grid_thw"].prod(dim=1) // reader.image_processor.merge_size**2
    rows = []
    for number, question in enumerate(questions):
        image = "<|image_pad|>" * int(tokens[number])
        write = partial(lambda image, said: PROMPT.format(image=image, question=said[0]), image)
        prompt, answer = reader.control.prompt_ids(reader.tokenizer, [question], write), []
        if answers is not None:
            answer = [*reader.control.text_ids(reader.tokenizer, answers[number]), reader.tokenizer.eos_token_id]
        rows.append(Encoded([*prompt, *answer], len(prompt)))
    batch = collate(rows, reader.tokenizer.pad_token_id)
    if answers is None:
        del batch["labels"]
    shown = (batch["input_ids"] == reader.image_token_id).long()
    return {**batch, "mm_token_type_ids": shown, **images}


def _check_kinds(pictures: Sequence, questions: Sequence[str], answers: Sequence[str]) -> None:
    """Raise a LabError that names the first picture that is none, or text that is none or holds half a character."""
    from PIL import Image

    for number, picture in enumerate(pictures):
        if not isinstance(picture, Image.Image):
            raise LabError(f"Picture {number} is {type(picture).__name__}: open it with PIL.Image.open(file) first.")
    for name, texts in (("Question", questions), ("Answer", answers)):
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise LabError(f"{name} {number} is {text!r}, and a text is expected.")
            if half := next((letter for letter in text if "\ud800" <= letter <= "\udfff"), None):
                raise LabError(f"{name} {number} holds U+{ord(half):04X}, half a character: take it out.")


def training_step(model, optimizer, batch: dict, *, scaler=None, max_grad_norm: float = 1.0) -> float:
    """One step on the answers' tokens: forward, backward, update.

    Parameters
    ----------
    model : peft model of `add_adapters`
    optimizer : of torch, with the adapters' parameters
    batch : of `prepare`, with answers; moved to the model's device
    scaler : torch.amp.GradScaler, for float16
    max_grad_norm : float > 0

    Returns
    -------
    float, the loss before the step, nats a supervised token

    Raises
    ------
    LabError
        The loss is not finite: nothing is changed.
    """
    import torch

    scaler = scaler or torch.amp.GradScaler(enabled=False)
    loss = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss
    value = loss.item()
    if not math.isfinite(value):  # before anything is changed by it
        raise LabError(f"The loss is {value}: training has blown up. Lower the learning rate.")
    descend(loss, optimizer, scaler, max_grad_norm)
    return value


def train(
    model, reader: PictureReader, examples: Sequence[Example], recipe: Recipe,
    on_step: Callable[[list[dict]], None] | None = None,
) -> list[dict]:  # fmt: skip
    """Train a model's adapters on examples, in place, and leave it in eval mode.

    Parameters
    ----------
    model : peft model of `add_adapters`
    reader : PictureReader
    examples : sequence of Example
    recipe : Recipe; learning_rate, warmup, steps, batch_size, max_grad_norm and seed count
    on_step : function of the history so far, optional

    Returns
    -------
    list of dict, one per step: step (from 1), loss (nats per supervised token), learning_rate, seconds

    Raises
    ------
    LabError
        The loss is not finite, or there are no examples.
    """
    import torch

    if not examples:
        raise LabError("There are no examples to train on.")
    device = find_device()
    optimizer = build_optimizer(model, recipe.learning_rate, device)
    scaler = torch.amp.GradScaler(device.kind, enabled=device.mixed_precision == "fp16")
    history: list[dict] = []
    model.train()
    lengths = [len(example.question) for example in examples]
    for step, indices in enumerate(plan_batches(lengths, recipe.batch_size, recipe.steps, recipe.seed)):
        began = time.perf_counter()
        batch = prepare(reader, *zip(*(_parts(examples[index]) for index in indices), strict=True))
        rate = recipe.learning_rate_at(step)
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        loss = training_step(model, optimizer, batch, scaler=scaler, max_grad_norm=recipe.max_grad_norm)
        seconds = time.perf_counter() - began
        history.append({"step": step + 1, "loss": loss, "learning_rate": rate, "seconds": seconds})
        if on_step:
            on_step(history)
    model.eval()
    return history


def _parts(example: Example) -> tuple:
    """An example in the order of `prepare`'s arguments."""
    return example.picture, example.question, example.answer


def ask(model, reader: PictureReader, picture, question: str = QUESTION, *, max_new_tokens: int = 8) -> str:
    """What the model answers, taking the likeliest token each time.

    Parameters
    ----------
    model : with adapters or without
    picture : PIL picture
    question : str
    max_new_tokens : int >= 1

    Raises
    ------
    LabError
        As `prepare`, or `max_new_tokens` is out of range.
    """
    import torch

    at_least(1, max_new_tokens=max_new_tokens)

    batch = {name: tensor.to(model.device) for name, tensor in prepare(reader, [picture], [question]).items()}
    was_training = model.training
    model.eval()
    ends = {"stops": [reader.tokenizer.eos_token_id], "padding": reader.tokenizer.pad_token_id}
    with torch.inference_mode(), greedy(model, room=max_new_tokens, **ends) as settings:
        tokens = model.generate(**batch, **settings)
    model.train(was_training)
    return reader.tokenizer.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def accuracy(model, reader: PictureReader, examples: Sequence[Example]) -> Measure:
    """Share of examples that the model answers exactly, with Wilson's interval. A LabError if there are none."""
    if not examples:
        raise LabError("There are no examples to ask about.")
    right = sum(ask(model, reader, one.picture, one.question) == one.answer for one in examples)
    return wilson(right, len(examples), "right")
