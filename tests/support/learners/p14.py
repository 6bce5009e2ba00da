"""Common mistakes on page 14, as a learner would write them: exercise -> (mistake's name, function)."""

import math
from collections import Counter

import torch


def spans(ids, roles, headers, contents):
    """(role, header's start, text's start, stop) of each turn."""
    start, found = 0, []
    for role, header, content in zip(roles, headers, contents, strict=True):
        found.append((role, start, start + header, start + header + content))
        start += header + content
    return found


def labelled(ids, parts):
    labels = [-100] * len(ids)
    for start, stop in parts:
        labels[start:stop] = ids.tolist()[start:stop]
    return torch.tensor(labels)


def last_answer(ids, *turns):
    *_, (_, _, start, stop) = (turn for turn in spans(ids, *turns) if turn[0] == "assistant")
    return labelled(ids, [(start, stop)])


def whole_turn(ids, *turns):
    return labelled(ids, [(head, stop) for role, head, _, stop in spans(ids, *turns) if role == "assistant"])


def without_end(ids, *turns):
    return labelled(ids, [(start, stop - 1) for role, _, start, stop in spans(ids, *turns) if role == "assistant"])


def both_speakers(ids, *turns):
    return labelled(ids, [(start, stop) for role, _, start, stop in spans(ids, *turns) if role != "system"])


def next_token(ids, *turns):
    labels = labelled(ids, [(start, stop) for role, _, start, stop in spans(ids, *turns) if role == "assistant"])
    return labels.roll(-1)


def zeros(ids, *turns):
    mask = torch.zeros_like(ids)
    for role, _, start, stop in spans(ids, *turns):
        if role == "assistant":
            mask[start:stop] = 1
    return ids * mask


def words(text):
    return {word.lower() for word in text.split()}


def duplicates(train, test, threshold):
    return torch.tensor([any(text.lower() == one.lower() for one in train) for text in test])


def of_the_test_text(train, test, threshold):
    return torch.tensor([max(len(words(a) & words(b)) / len(words(a)) for b in train) >= threshold for a in test])


def dice(train, test, threshold):
    ratio = lambda a, b: 2 * len(a & b) / (len(a) + len(b))  # noqa: E731
    return torch.tensor([max(ratio(words(a), words(b)) for b in train) >= threshold for a in test])


def above(train, test, threshold):
    ratio = lambda a, b: len(a & b) / len(a | b)  # noqa: E731
    return torch.tensor([max(ratio(words(a), words(b)) for b in train) > threshold for a in test])


def case_kept(train, test, threshold):
    ratio = lambda a, b: len(a & b) / len(a | b)  # noqa: E731
    return torch.tensor([any(ratio(set(a.split()), set(b.split())) >= threshold for b in train) for a in test])


def first_rows(groups, wanted):
    taken = torch.zeros(len(groups), dtype=torch.bool)
    taken[:wanted] = True
    return taken


def sorted_groups(groups, wanted):
    taken, rows = set(), 0
    for group, count in sorted(Counter(groups.tolist()).items()):
        if rows < wanted:
            taken.add(group)
            rows += count
    return torch.tensor([group in taken for group in groups.tolist()])


def never_over(groups, wanted):
    counts, taken, rows = Counter(groups.tolist()), [], 0
    for group in counts:  # in the order in which they occur
        if rows + counts[group] > wanted:
            break
        taken.append(group)
        rows += counts[group]
    return torch.tensor([group in taken for group in groups.tolist()])


def lead(label, right, answers, half):
    base = (answers == label).float()
    difference = right.float().mean() - base.mean()
    width = half(right.float(), base)
    return difference.item(), (difference - width).item(), (difference + width).item()


def paired(right, base):
    return 1.96 * (right - base).std() / math.sqrt(len(right))


def majority(labels):
    return Counter(labels.tolist()).most_common(1)[0][0]


def lowest_of_all(losses, patience):
    return losses.tolist().index(min(losses.tolist())), len(losses) - 1


def downhill(losses, patience):
    best = waited = 0
    for place in range(1, len(losses)):
        waited = waited + 1 if losses[place] >= losses[place - 1] else 0
        best = place if losses[place] < losses[best] else best
        if waited == patience:
            return best, place
    return best, len(losses) - 1


def last_kept(losses, patience):
    best = waited = 0
    for place in range(1, len(losses)):
        best, waited = (place, 0) if losses[place] < losses[best] else (best, waited + 1)
        if waited == patience:
            return place, place
    return len(losses) - 1, len(losses) - 1


def fitted(x, y):
    x, y = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(y, dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return float(slope), float(y.mean() - slope * x.mean())


def plain_line(examples, errors, target):
    slope, start = fitted(examples, errors)
    return (target - start) / slope


def half_log(examples, errors, target):
    slope, start = fitted(examples.double().log(), errors)
    return math.exp((target - start) / slope)


def forgot_exp(examples, errors, target):
    slope, start = fitted(examples.double().log(), errors.double().log())
    return (math.log(target) - start) / slope


LEARNERS = {
    "turn_labels": [
        ("only the last answer", last_answer),
        ("the header learned too", whole_turn),
        ("the end of turn left out", without_end),
        ("the customer learned too", both_speakers),
        ("the customer learned too", lambda ids, roles, headers, contents: 1 * ids),
        ("shifted by one", next_token),
        ("0 instead of −100", zeros),
    ],
    "leaked": [
        ("exact copies only", duplicates),
        ("divided by one text's words", of_the_test_text),
        ("divided by the sum of both", dice),
        ("just as similar left out", above),
        ("upper case taken for another word", case_kept),
    ],
    "test_rows": [
        ("rows instead of groups", first_rows),
        ("groups in order of their number", sorted_groups),
        ("stops a group too early", never_over),
    ],
    "lead_over_majority": [
        ("the majority of the test answers",
         lambda right, answers, train: lead(majority(answers), right, answers, paired)),
        ("not paired", lambda right, answers, train: lead(
            majority(train), right, answers,
            lambda hits, base: 1.96 * torch.sqrt((hits.var() + base.var()) / len(hits)))),
        ("n instead of n − 1", lambda right, answers, train: lead(
            majority(train), right, answers,
            lambda hits, base: 1.96 * (hits - base).std(unbiased=False) / len(hits) ** 0.5)),
        ("the spread of one example", lambda right, answers, train: lead(
            majority(train), right, answers, lambda hits, base: 1.96 * (hits - base).std())),
        ("majority minus model", lambda right, answers, train: lead(
            True, answers == majority(train), right, lambda hits, base: paired(hits, base))),
    ],
    "keep_and_stop": [
        ("looked into the future", lowest_of_all),
        ("compared with the one before", downhill),
        ("the last one kept", last_kept),
    ],
    "examples_needed": [
        ("a straight line", plain_line),
        ("one logarithm of two", half_log),
        ("the logarithm returned", forgot_exp),
        ("two points only", lambda examples, errors, target: float(examples[0]) * (target / float(errors[0])) ** (
            math.log(float(examples[-1]) / float(examples[0])) / math.log(float(errors[-1]) / float(errors[0])))),
    ],
}  # fmt: skip
