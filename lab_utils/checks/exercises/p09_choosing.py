"""Exercise of page 09: choose a rank from a table."""

import statistics

from hypothesis import strategies as st

from ..exercise import Exercise, Mistake
from .p09_seeds import deviation


def smallest_good_rank_spec(rows: list[dict]) -> int:
    """Find the best mean, allow for one standard error of it, and try the ranks from the smallest up."""
    ranks = sorted({row["rank"] for row in rows})
    means, errors = {}, {}
    for rank in ranks:
        losses = [row["validation_loss"] for row in rows if row["rank"] == rank]
        means[rank] = sum(losses) / len(losses)
        variance = sum((loss - means[rank]) ** 2 for loss in losses) / (len(losses) - 1)
        errors[rank] = (variance / len(losses)) ** 0.5
    best = min(ranks, key=lambda rank: means[rank])
    for rank in ranks:
        if means[rank] <= means[best] + errors[best]:
            return rank


def smallest_good_rank(rows: list[dict]) -> int:
    losses: dict[int, list[float]] = {}
    for row in rows:
        losses.setdefault(row["rank"], []).append(row["validation_loss"])
    means = {rank: statistics.fmean(values) for rank, values in losses.items()}
    best = min(means, key=means.get)
    limit = means[best] + statistics.stdev(losses[best]) / len(losses[best]) ** 0.5
    return min(rank for rank, mean in means.items() if mean <= limit)


def _by_rank(rows: list[dict], column: str = "validation_loss", spread=deviation) -> tuple[dict, dict]:
    """Mean and standard error of each rank's losses, by rank."""
    losses: dict[int, list[float]] = {}
    for row in rows:
        losses.setdefault(row["rank"], []).append(row[column])
    means = {rank: sum(values) / len(values) for rank, values in losses.items()}
    return means, {rank: spread(values) / len(values) ** 0.5 for rank, values in losses.items()}


def _rule(limit=lambda mean, error: mean + error, pick=min, better=min, **how):
    """smallest_good_rank with another limit, another pick below it, another sense of better, or other numbers."""

    def wrong(rows):
        means, errors = _by_rank(rows, **how)
        best = better(means, key=means.get)
        return pick(rank for rank, mean in means.items() if mean <= limit(means[best], errors[best]))

    return wrong


def _own_error(rows):
    means, errors = _by_rank(rows)
    return min(rank for rank, mean in means.items() if mean - errors[rank] <= min(means.values()))


@st.composite
def _table(draw):
    """A tidy table in any order: one rank is best, the others lie some standard errors above it."""
    ranks = draw(st.lists(st.sampled_from([1, 2, 4, 8, 16, 32, 64]), min_size=2, max_size=3, unique=True))
    ranks.sort(reverse=draw(st.integers(0, 3)) > 0)  # most often the largest is the best
    noise = draw(st.lists(st.integers(-6, 6), min_size=2, max_size=2, unique=True))  # few rows, to be read in a report
    best, error, rows = sum(noise) / 2, deviation(noise) / 2**0.5, []
    for number, rank in enumerate(ranks):
        if number:  # the first is the best; where limits differ, means lie between them
            spread, above = draw(st.integers(0, 9)), draw(st.sampled_from([1.3, 0.9, 1.8, 0.5, 4.0]))
            noise = [best + above * error + spread / 2, best + above * error - spread / 2]
        for seed, points in enumerate(noise):
            test_loss = (300 + draw(st.integers(-90, 90))) / 1000
            loss = round(0.3 + points / 100, 3)
            rows.append({"rank": rank, "seed": seed, "validation_loss": loss, "test_loss": test_loss})
    return (draw(st.permutations(rows)),)


def _decided(table) -> bool:
    """Is one rank best by far more than rounding, on either set, and does no mean lie on a limit itself?"""
    for column in ("validation_loss", "test_loss"):
        means, errors = _by_rank(*table, column=column)
        best, second = sorted(means.values())[:2]
        error = errors[min(means, key=means.get)]
        distances = [mean - best - limit for rank, mean in means.items() for limit in (error, errors[rank])]
        if min(second - best, error, *map(abs, distances)) < 1e-6:
            return False
    return True


_LOSSES = {4: (0.33, 0.30), 16: (0.28, 0.32)}  # few enough to be read whole
_ROWS = [
    {"rank": rank, "seed": seed, "validation_loss": loss, "test_loss": round(loss + 0.02 * (seed - 1), 2)}
    for rank, losses in _LOSSES.items()
    for seed, loss in enumerate(losses)
]

EXERCISES = (
    Exercise(
        name="smallest_good_rank", page=9, title="The smallest rank that is good enough",
        spec=smallest_good_rank_spec, solution=smallest_good_rank, inputs=_table().filter(_decided), demo=(_ROWS,),
        mistakes=(
            Mistake(
                "the best, with no allowance for chance",
                "The best of several means is partly lucky. Allow for its standard error, then take the smallest rank.",
                wrong=(_rule(lambda mean, error: mean),),
            ),
            Mistake(
                "the best single run",
                "One run may be lucky. Take the mean of each rank's seeds.",
                wrong=(lambda rows: min(rows, key=lambda row: row["validation_loss"])["rank"],),
            ),
            Mistake(
                "chosen on the test set",
                "Choose by validation_loss. A test set that has helped to choose cannot say any more how good it is.",
                wrong=(_rule(column="test_loss"), _rule(lambda mean, error: mean, column="test_loss")),
            ),
            Mistake(
                "another rank's own error",
                "The allowance is the standard error of the best rank; else the shakiest settings would be let in.",
                wrong=(_own_error,),
            ),
            Mistake(
                "the standard deviation instead of the standard error",
                "The limit concerns a mean of n seeds: divide by √n.",
                wrong=(_rule(spread=lambda losses: deviation(losses) * len(losses) ** 0.5),),
            ),
            Mistake(
                "n instead of n − 1",
                "The squares are divided by n - 1, as in statistics.stdev; pstdev and numpy's std divide by n.",
                wrong=(_rule(spread=lambda losses: deviation(losses, 0)),),
            ),
            Mistake(
                "two standard errors",
                "The rule allows one standard error above the best mean.",
                wrong=(_rule(lambda mean, error: mean + 2 * error), _rule(lambda mean, error: mean + 1.96 * error)),
            ),
            Mistake(
                "the largest instead of the smallest",
                "All ranks below the limit are good enough. Take the smallest: it costs least.",
                wrong=(_rule(pick=max),),
            ),
            Mistake("a high loss taken as good", "A loss is better when it is lower.", wrong=(_rule(better=max),)),
            Mistake(
                "the limit on the wrong side",
                "Nothing lies below the best mean. The limit is one standard error above it.",
                wrong=(_rule(lambda mean, error: mean - error),),
            ),
        ),
        hints=(
            "Group the rows by rank. Which rank has the best mean, and how sure is that mean?",
            "Every rank whose mean is at most the best mean plus the best rank's standard error is good enough.",
            "limit = the lowest mean + its standard error (n - 1, √n); then the smallest rank with a mean up to limit.",
        ),
        reward="This is the one-standard-error rule. It says what to ship when seeds differ more than settings do.",
    ),
)  # fmt: skip
