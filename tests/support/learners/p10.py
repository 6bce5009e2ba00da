"""Common mistakes on page 10, as a learner would write them: exercise -> (mistake's name, function)."""

import torch
import torch.nn.functional as F


def sums_of_factors(weight, A1, B1, A2, B2, alpha, shares):
    lora_A = shares[0] * A1 + shares[1] * A2
    lora_B = shares[0] * B1 + shares[1] * B2
    return weight + alpha / A1.shape[0] * lora_B @ lora_A


def merged_twice(weight, A1, B1, A2, B2, alpha, shares):
    first = weight + shares[0] * (alpha / A1.shape[0]) * B1 @ A1
    return first + weight + shares[1] * (alpha / A2.shape[0]) * B2 @ A2


def merged(scale):
    def wrong(weight, A1, B1, A2, B2, alpha, shares):
        result = weight.clone()
        for A, B, share in ((A1, B1, shares[0]), (A2, B2, shares[1])):
            result += scale(alpha, A.shape[0], share) * B @ A
        return result

    return wrong


def first_rank_for_both(weight, A1, B1, A2, B2, alpha, shares):
    scaling = alpha / A1.shape[0]
    return weight + scaling * (shares[0] * B1 @ A1 + shares[1] * B2 @ A2)


def by_row(adapter_of, base=True):
    def wrong(x, weight, A1, B1, A2, B2, which):
        rows = []
        for row, number in zip(x, which.tolist(), strict=True):
            y = weight @ row if base or number == 0 else torch.zeros(len(weight), dtype=x.dtype)
            for A, B in adapter_of(number, (A1, B1), (A2, B2)):
                y = y + B @ (A @ row)
            rows.append(y)
        return torch.stack(rows)

    return wrong


def right(number, first, second):
    return [] if number == 0 else [first] if number == 1 else [second]


def codes(blocks, code, absmax=None):
    absmax = blocks.abs().max(dim=1).values if absmax is None else absmax
    return torch.argmin(torch.abs((blocks / absmax[:, None]).unsqueeze(-1) - code), dim=-1)


def old_absmax(weight, delta, code):
    absmax = weight.abs().max(dim=1).values
    return (codes(weight, code, absmax) != codes(weight + delta, code, absmax)).sum().item()


def changed_values(weight, delta, code):
    def there_and_back(blocks):
        return code[codes(blocks, code)] * blocks.abs().max(dim=1).values[:, None]

    return torch.ne(there_and_back(weight), there_and_back(weight + delta)).sum().item()


def changed_blocks(weight, delta, code):
    pairs = zip(codes(weight, code), codes(weight + delta, code), strict=True)
    return sum(not torch.equal(old, new) for old, new in pairs)


def rounded_alone(weight, delta):
    return float(torch.dist(delta.bfloat16().to(delta.dtype), delta) / delta.norm())


def relative_to_weight(weight, delta):
    merged = weight + delta
    return float((merged.bfloat16().to(merged.dtype) - merged).norm() / merged.norm())


def added(weight, delta):
    return (weight + delta).bfloat16().to(weight.dtype) - weight


def kept(weight, delta):
    return float(added(weight, delta).norm() / delta.norm())


def regrouped(x, weight, A1, B1, A2, B2, which):
    merged = weight, weight + B1 @ A1, weight + B2 @ A2
    return torch.cat([x[which == number] @ one.T for number, one in enumerate(merged)])


def one_more_for_two(x, weight, A1, B1, A2, B2, which):
    y = x @ weight.T
    y[which >= 1] += x[which >= 1] @ A1.T @ B1.T
    y[which >= 2] += x[which >= 2] @ A2.T @ B2.T
    return y


def root_of_share(weight, A1, B1, A2, B2, alpha, shares):
    result = weight.clone()
    for A, B, share in ((A1, B1, shares[0]), (A2, B2, shares[1])):
        root = abs(share) ** 0.5
        result = result + alpha / A.size(0) * (root * B) @ (root * A)
    return result


def along_columns(weight, delta, code):
    def nearest(blocks):
        return (blocks / blocks.abs().max(0).values).unsqueeze(-1).sub(code).abs().argmin(-1)

    return nearest(weight).ne(nearest(weight + delta)).sum().item()


LEARNERS = {
    "merge_two": [
        ("As and Bs added", sums_of_factors),
        ("one rank for both", first_rank_for_both),
        ("raw alpha instead of alpha / rank", merged(lambda alpha, rank, share: share * alpha)),
        ("the scaling left out", merged(lambda alpha, rank, share: share)),
        ("the shares left out", merged(lambda alpha, rank, share: alpha / rank)),
        ("the base added more than once, or scaled", merged_twice),
        ("the sign of a share lost", root_of_share),
        ("rank / alpha", merged(lambda alpha, rank, share: share * rank / alpha)),
        ("the mean instead of the sum", merged(lambda alpha, rank, share: share * alpha / rank / 2)),
    ],
    "stack_two": [
        ("As and Bs added", lambda A1, B1, A2, B2, f: (A1.add(A2), (f[0] * B1).add(f[1] * B2))),
        (
            "the factor in A and in B",
            lambda A1, B1, A2, B2, f: (torch.vstack([f[0] * A1, f[1] * A2]), torch.hstack([f[0] * B1, f[1] * B2])),
        ),
        ("the factors forgotten", lambda A1, B1, A2, B2, f: (torch.vstack([A1, A2]), torch.hstack([B1, B2]))),
        (
            "another order in B than in A",
            lambda A1, B1, A2, B2, f: (torch.vstack([A1, A2]), torch.hstack([f[1] * B2, f[0] * B1])),
        ),
        (
            "two blocks on a diagonal",
            lambda A1, B1, A2, B2, f: (torch.block_diag(A1, A2), torch.block_diag(B1 * f[0], B2 * f[1])),
        ),
        ("updates instead of factors", lambda A1, B1, A2, B2, f: (B1 @ A1 * f[0], B2 @ A2 * f[1])),
        ("one factor for both", lambda A1, B1, A2, B2, f: (torch.vstack([A1, A2]), f[0] * torch.hstack([B1, B2]))),
        (
            "divided by the factor",
            lambda A1, B1, A2, B2, f: (torch.vstack([A1 / f[0], A2 / f[1]]), torch.hstack([B1, B2])),
        ),
        (
            "put together along the wrong axis",
            lambda A1, B1, A2, B2, f: (torch.cat((A1, A2), 1), torch.cat((f[0] * B1, f[1] * B2), 0)),
        ),
    ],
    "mixed_batch": [
        ("both adapters for every row", by_row(lambda number, first, second: [first, second])),
        ("one adapter for all", by_row(lambda number, first, second: [second])),
        ("counted from 0", by_row(lambda number, first, second: [[first], [second], []][number])),
        (
            "an adapter for the rows that want the base",
            by_row(lambda number, first, second: [first] if number == 1 else [second]),
        ),
        ("the two adapters swapped", by_row(lambda number, first, second: right(number, second, first))),
        ("the base forgotten where there is an adapter", by_row(right, base=False)),
        ("rows in another order", regrouped),
        ("the first adapter for the second's rows too", one_more_for_two),
    ],
    "changed_codes": [
        ("the old absmax for the new weights", old_absmax),
        ("values instead of codes", changed_values),
        ("the absmax of a column", along_columns),
        (
            "the new absmax for the old weights",
            lambda w, d, code: int(codes(w, code, (w + d).abs().amax(1)).ne(codes(w + d, code)).sum()),
        ),
        (
            "the update not scaled",
            lambda w, d, code: int(
                codes(w, code).ne(((w / w.abs().amax(1, True) + d)[..., None] - code).abs().argmin(-1)).sum()
            ),
        ),
        (
            "distances with their sign",
            lambda w, d, code: int(
                (w / w.abs().amax(1, True))[..., None].sub(code).argmin(-1).ne(
                    ((w + d) / (w + d).abs().amax(1, True))[..., None].sub(code).argmin(-1)
                ).sum()
            ),
        ),
        ("the update quantized by itself", lambda w, d, code: int((codes(w, code) != codes(d, code)).sum())),
        ("the unchanged ones", lambda w, d, code: w.numel() - int((codes(w, code) != codes(w + d, code)).sum())),
        ("blocks counted instead of codes", changed_blocks),
        (
            "a share instead of a count",
            lambda w, d, code: (codes(w, code) != codes(w + d, code)).sum().item() / w.numel(),
        ),
    ],
    "lost_in_rounding": [
        ("the update rounded by itself", rounded_alone),
        ("compared with the weight", relative_to_weight),
        ("what is left instead of what is lost", kept),
        ("means of sizes instead of norms", lambda w, d: float((added(w, d) - d).abs().sum() / d.abs().sum())),
        ("compared with what is stored", lambda w, d: float((added(w, d) - d).norm() / added(w, d).norm())),
        ("what is missing along the update", lambda w, d: 1 - float(torch.sum(added(w, d) * d) / torch.sum(d * d))),
        (
            "the norm squared",
            lambda w, d: float(F.mse_loss((w + d).bfloat16().to(w.dtype), w + d, reduction="sum") / d.square().sum()),
        ),
    ],
}  # fmt: skip
