"""Common mistakes on page 08, as a learner would write them: exercise -> (mistake's name, function)."""

import json
import math
import re

import torch
from torch.nn.functional import cross_entropy, log_softmax


def joined(label):
    """Ids as they should be, and labels by `label(place, ids, prompt_length, end_id)`."""

    def wrong(prompt, answer, end_id):
        ids = prompt.tolist() + answer.tolist() + [end_id]
        labels = [label(place, ids, len(prompt), end_id) for place in range(len(ids))]
        return torch.tensor(ids), torch.tensor(labels)

    return wrong


def without_end(prompt, answer, end_id):
    ids = torch.hstack((prompt, answer))
    labels = torch.hstack((torch.full_like(prompt, -100), answer))
    return ids, labels


def one_tensor(prompt, answer, end_id):
    ids = labels = torch.tensor(prompt.tolist() + answer.tolist() + [end_id])
    labels[: prompt.numel()] = -100
    return ids, labels


def learned(place, ids, start, end_id):
    return ids[place] if place >= start else -100


def next_one(place, ids, start, end_id):
    return ids[place + 1] if start <= place + 1 < len(ids) else -100


def padded(pad_label=lambda pad_id: -100, mask=None, labels_of=None, side="right"):
    """A batch by lists."""

    def wrong(rows, labels, pad_id):
        longest = max(len(row) for row in rows)
        made = [], [], []
        for row, label in zip(rows, labels, strict=True):
            missing = longest - len(row)
            parts = (
                (row.tolist(), pad_id), ([1] * len(row), 0),
                (row.tolist() if labels_of == "ids" else label.tolist(), pad_label(pad_id)),
            )  # fmt: skip
            for values, (tokens, fill) in zip(made, parts, strict=True):
                values.append([fill] * missing + tokens if side == "left" else tokens + [fill] * missing)
        ids, read, targets = map(torch.tensor, made)
        if mask == "ids":
            read = (ids != pad_id).to(torch.int64)
        elif mask == "all":
            read = torch.ones_like(ids)
        elif mask == "last pads":
            read = (ids != pad_id).flip(1).cumsum(1).flip(1).clamp(max=1)
        if labels_of == "no pad":
            targets[ids == pad_id] = -100
        return ids, read, targets

    return wrong


def gathered(logits, labels, combine, shift=1):
    """Costs of all learned places by hand, one tensor per row."""
    chances = log_softmax(logits, dim=-1)
    costs = []
    for row, targets in zip(chances, labels, strict=True):
        places = [t for t in range(max(shift, 0), len(targets)) if targets[t] != -100]
        costs.append(torch.stack([-row[t - shift, targets[t]] for t in places]))
    return combine(costs)


def over_all_places(logits, labels):
    total = cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), reduction="sum")
    return total / labels[:, 1:].numel()


def twice(logits, labels):
    return cross_entropy(torch.softmax(logits[:, :-1], 2).transpose(1, 2), labels[:, 1:])


def backwards(logits, labels):
    return cross_entropy(logits[:, 1:].transpose(1, 2), labels[:, :-1])


def schedule(first=1, share=True, last=0, zero=0, least=1, over=0, half_turn=math.pi):
    def wrong(step, steps, peak, warmup):
        rising = max(least, round(warmup * steps)) if share else warmup
        if step < rising:
            return peak / (rising + over) * (step + first)
        done = (step - (0 if zero else rising)) / (steps - last - (0 if zero else rising))
        return peak / 2 + peak / 2 * math.cos(done * half_turn)

    return wrong


def judged(same, only_objects=False, every=False, read=json.loads):
    def wrong(outputs, answers, fields):
        counts, rows = dict.fromkeys(fields, 0), 0
        for output, answer in zip(outputs, answers, strict=True):
            try:
                found = read(output)
                assert isinstance(found, dict)
            except (ValueError, AssertionError, TypeError):
                if only_objects:
                    continue
                found = {}
            rows += 1
            wanted = json.loads(answer)
            for field in fields:
                fits = [same(found, wanted, one) for one in wanted] if every else [same(found, wanted, field)]
                counts[field] += all(fits)
        return torch.tensor(list(counts.values())) / max(rows, 1)

    return wrong


def strict(found, wanted, name):
    return name in found and name in wanted and repr(found[name]) == repr(wanted[name])


def no_net(outputs, answers, fields):
    hits = [[json.loads(a)[f] == json.loads(o)[f] for f in fields] for o, a in zip(outputs, answers, strict=True)]
    return torch.tensor(hits).float().mean(0)


def wald(right, n, clip=False):
    p = right / n
    error = (p * (1 - p) / n) ** 0.5
    ends = p - 1.96 * error, p + 1.96 * error
    return tuple(min(max(end, 0.0), 1.0) for end in ends) if clip else ends


def wilson(z, scale=1):
    def wrong(right, n):
        root = z * math.sqrt(z * z / 4 + right * (n - right) / n)
        return scale * (right + z * z / 2 - root) / (n + z * z), scale * (right + z * z / 2 + root) / (n + z * z)

    return wrong


def by_parts(moved, added, root=math.sqrt):
    """Wilson's formula as the page writes it, with other terms."""

    def wrong(right, n):
        p, z = right / n, 1.96
        middle = (p + moved(z, n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * root(p * (1 - p) / n + added(z, n))
        return middle - half, middle + half

    return wrong


LEARNERS = {
    "build_labels": [
        ("the prompt scored", joined(lambda place, ids, start, end_id: ids[place])),
        ("the end missing", without_end),
        ("the end not scored", joined(lambda p, ids, start, e: ids[p] if start <= p < len(ids) - 1 else -100)),
        ("every end id ignored", joined(lambda p, ids, start, e: -100 if p < start or ids[p] == e else ids[p])),
        ("shifted", joined(next_one)),
        ("another number than -100 on the prompt", joined(lambda p, ids, start, e: ids[p] if p >= start else 0)),
        ("another number than -100 on the prompt", joined(lambda p, ids, start, e: ids[p] if p >= start else e)),
        ("one token off", joined(lambda p, ids, start, e: learned(p, ids, start + 1, e))),
        ("the answer searched for", joined(lambda p, ids, start, e: ids[p] if p > ids.index(e) else -100)),
        ("the user's end learned too", joined(lambda p, ids, start, e: ids[p] if p >= start or ids[p] == e else -100)),
        ("the ids overwritten too", one_tensor),
    ],
    "collate": [
        ("padding that is learned", padded(lambda pad_id: pad_id)),
        ("the mask made from the ids", padded(mask="ids")),
        ("padded on the left", padded(side="left")),
        ("labels copied from the ids", padded(labels_of="ids")),
        ("the end of turn ignored with the padding", padded(labels_of="no pad")),
        ("padding that is read", padded(mask="all")),
        ("the padding found by its id", padded(mask="last pads")),
        ("columns for rows", lambda *given: tuple(one.T for one in padded()(*given))),
        ("another order", lambda *given: tuple(padded()(*given)[part] for part in (0, 2, 1))),
    ],
    "answer_loss": [
        ("no shift", lambda logits, labels: cross_entropy(logits.transpose(1, 2), labels)),
        ("shifted the other way", backwards),
        ("the mean over all places", over_all_places),
        (
            "the mean of each row's mean",
            lambda logits, labels: gathered(logits, labels, lambda costs: sum(c.mean() for c in costs) / len(costs)),
        ),
        ("softmax twice", twice),
        ("the sum", lambda logits, labels: gathered(logits, labels, lambda costs: torch.cat(costs).sum())),
        (
            "the rows run together",
            lambda logits, labels: cross_entropy(logits.view(-1, logits.shape[2])[:-1], labels.view(-1)[1:]),
        ),
        (
            "the first label at the end of its row",
            lambda logits, labels: cross_entropy(logits.mT, torch.hstack((labels[:, 1:], labels[:, :1]))),
        ),
        ("in bits", lambda logits, labels: gathered(logits, labels, lambda c: torch.cat(c).mean() * math.log2(math.e))),
        (
            "the logarithm of the mean",
            lambda logits, labels: gathered(logits, labels, lambda c: -torch.log(torch.exp(-torch.cat(c)).mean())),
        ),
        (
            "no logarithm",
            lambda logits, labels: gathered(logits, labels, lambda c: (1 - torch.exp(-torch.cat(c))).mean()),
        ),
        ("one number for each place", lambda logits, labels: gathered(logits, labels, torch.cat)),
        ("the sign", lambda logits, labels: gathered(logits, labels, lambda costs: -torch.cat(costs).mean())),
    ],
    "learning_rate_at": [
        ("starts at 0", schedule(first=0)),
        ("the share taken for steps", schedule(share=False)),
        ("ends one early", schedule(last=1)),
        ("the cosine counted from the first step", schedule(zero=1)),
        ("no warm-up step where the share is tiny", schedule(least=0)),
        ("stairs that end below the peak", schedule(over=1)),
        ("degrees", schedule(half_turn=180)),
    ],
    "field_scores": [
        ("missing taken for the same as missing", judged(lambda f, w, name: repr(f.get(name)) == repr(w.get(name)))),
        ("what is not JSON left out", judged(strict, only_objects=True)),
        ("stops at what is not JSON", no_net),
        ('"2" taken for 2', judged(lambda f, w, name: name in f and name in w and f"{f[name]}" == f"{w[name]}")),
        ("2.0 or True taken for a whole number", judged(lambda f, w, n: n in f and n in w and f[n] == w[n])),
        (
            "2.0 or True taken for a whole number",
            judged(lambda f, w, n: n in f and n in w and isinstance(f[n], type(w[n])) and f[n] == w[n]),
        ),
        (
            "upper and lower case taken for the same",
            judged(lambda f, w, n: n in f and n in w and repr(f[n]).casefold() == repr(w[n]).casefold()),
        ),
        (
            "a part taken for the whole",
            judged(lambda f, w, n: n in f and n in w and type(f[n]) is type(w[n]) and str(w[n]) in str(f[n])),
        ),
        ("JSON cut out of other words", judged(strict, read=lambda text: json.loads(re.search(r"{.*}", text)[0]))),
        ("JSON cut out of other words", judged(strict, read=lambda text: json.JSONDecoder().raw_decode(text)[0])),
        ("an extra key spoils the rest", judged(lambda f, w, n: strict(f, w, n) and set(f) == set(w))),
        ("whole answers instead of fields", judged(strict, every=True)),
    ],
    "share_interval": [
        ("below 0 or above 1", wald),
        ("no width at 0 of n", lambda right, n: wald(right, n, clip=True)),
        ("another z than 1.96", wilson(1)),
        ("another z than 1.96", wilson(1.645)),
        ("in per cent", wilson(1.96, 100)),
        ("parentheses missing", by_parts(lambda z, n: z**2 / 2 * n, lambda z, n: z**2 / 4 * n**2)),
        ("4n where 4n² is asked for", by_parts(lambda z, n: z**2 / (2 * n), lambda z, n: z**2 / (4 * n))),
        ("no root", by_parts(lambda z, n: z**2 / (2 * n), lambda z, n: z**2 / (4 * n**2), root=lambda inside: inside)),
        ("the ends swapped", lambda right, n: tuple(reversed(wilson(1.96)(right, n)))),
    ],
}  # fmt: skip
