"""Exercises of page 09: what must change together so that a comparison is fair."""

from hypothesis import strategies as st

from ..exercise import ALPHA, Exercise, Mistake


def rank_for_budget_spec(shapes: dict[str, tuple[int, int]], n_layers: int, budget: int) -> int:
    """Raise the rank by one as long as all adapters together stay within the budget, and no matrix is too small."""
    rank = 0
    while True:
        parameters = 0
        for out_features, in_features in shapes.values():
            parameters += n_layers * (rank + 1) * (out_features + in_features)
            if rank + 1 > min(out_features, in_features):
                return rank
        if parameters > budget:
            return rank
        rank += 1


def rank_for_budget(shapes: dict[str, tuple[int, int]], n_layers: int, budget: int) -> int:
    of_rank_one = n_layers * sum(out_features + in_features for out_features, in_features in shapes.values())
    return min(budget // of_rank_one, min(min(shape) for shape in shapes.values()))


def traded_learning_rates_spec(alpha: float, learning_rate: float, new_alpha: float) -> tuple[float, float]:
    """Adam's step is as long as its learning rate, whatever the gradient's size. Ask how far A and alpha · B go."""
    step_of_A = learning_rate  # A enters the product as it is, so its steps must stay what they were
    step_of_alpha_B = alpha * learning_rate  # B enters as alpha · B: these steps must stay, too
    return step_of_A, step_of_alpha_B / new_alpha


def traded_learning_rates(alpha: float, learning_rate: float, new_alpha: float) -> tuple[float, float]:
    return learning_rate, learning_rate * alpha / new_alpha


def _ranks(divide=lambda budget, each: budget // each, each=lambda o, i: o + i, layers=True, side=min):
    """rank_for_budget with another division, another count of a matrix, without the layers; capped by other sides."""

    def wrong(shapes, n_layers, budget):
        of_rank_one = sum(each(*shape) for shape in shapes.values()) * (n_layers if layers else 1)
        rank = divide(budget, of_rank_one)
        return rank if side is None else min(rank, side(side(shape) for shape in shapes.values()))

    return wrong


def _capped(cap, keep=min):
    """rank_for_budget with its own cap, from (out, in) of all matrices."""

    def wrong(shapes, n_layers, budget):
        return keep(budget // (n_layers * sum(map(sum, shapes.values()))), cap(list(shapes.values())))

    return wrong


def _one_matrix(choose):
    """The budget spent on one of the matrices only."""

    def wrong(shapes, n_layers, budget):
        shape = choose(shapes.values())
        return min(budget // (n_layers * sum(shape)), min(shape))

    return wrong


def _traded(for_A, for_B):
    """traded_learning_rates with other factors, from alpha / new_alpha."""
    return lambda alpha, rate, new: (rate * for_A(alpha / new), rate * for_B(alpha / new))


@st.composite
def _model(draw):
    """A few matrices, so many layers, and a budget somewhere between less than rank 1 and more than the full rank."""
    names = draw(st.lists(st.sampled_from(["q_proj", "v_proj", "up_proj", "down_proj"]), min_size=1, unique=True))
    shapes = {name: (draw(st.integers(2, 9)), draw(st.integers(2, 9))) for name in names}
    n_layers = draw(st.integers(1, 4))
    of_rank_one = n_layers * sum(map(sum, shapes.values()))
    rank, rest = draw(st.integers(0, 7)), draw(st.sampled_from([0.0, 0.3, 0.7, 0.95]))
    return shapes, n_layers, max(1, int((rank + rest) * of_rank_one))


def _plain(ratio):
    return 1


_SMALL = {  # a layer of the embedded model
    "q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576),
    "gate_proj": (1536, 576), "up_proj": (1536, 576), "down_proj": (576, 1536),
}  # fmt: skip

EXERCISES = (
    Exercise(
        name="rank_for_budget", page=9, title="As many parameters for everyone",
        spec=rank_for_budget_spec, solution=rank_for_budget, inputs=_model(),
        demo=({name: _SMALL[name] for name in ("k_proj", "o_proj")}, 30, 1_000_000),
        mistakes=(
            Mistake(
                "layers forgotten",
                "Each of the n_layers has these matrices, and an adapter for each of them.",
                wrong=(_ranks(layers=False),),
            ),
            Mistake(
                "out · in instead of out + in",
                "An adapter of rank 1 is a column and a row: out + in numbers, not a whole matrix.",
                wrong=(_ranks(each=lambda o, i: o * i),),
            ),
            Mistake(
                "one of the two factors only",
                "Each rank adds a row of A, with `in` numbers, and a column of B, with `out`.",
                wrong=(
                    _ranks(each=lambda o, i: i), _ranks(each=lambda o, i: o), _ranks(each=lambda o, i: 2 * i),
                    _ranks(each=lambda o, i: 2 * o),
                ),
            ),
            Mistake(
                "rounded up",
                "One more would break the budget. Round down.",
                wrong=(
                    _ranks(lambda budget, each: -(-budget // each)), _ranks(lambda budget, each: round(budget / each)),
                    _ranks(lambda budget, each: budget // each + 1),
                ),
            ),
            Mistake(
                "a rank of at least 1",
                "If even rank 1 is beyond the budget, the answer is 0.",
                wrong=(_ranks(lambda budget, each: max(1, budget // each)),),
            ),
            Mistake(
                "a rank larger than a matrix has",
                "No matrix has more directions than its shorter side. The shortest side of all is the limit.",
                wrong=(_ranks(side=None),),
            ),
            Mistake(
                "a longer side as the cap",
                "B has as many rows as `out`, A as many columns as `in`, and the smaller of the two is the most "
                "directions that matrix has. The least of these over all matrices is the cap: min twice, no max.",
                wrong=(
                    _ranks(side=max), _capped(lambda all: max(map(min, all))), _capped(lambda all: min(map(max, all))),
                ),
            ),
            Mistake(
                "one side, or one matrix, as the cap",
                "Both sides of every matrix are limits: the shortest of all sides is the cap.",
                wrong=(
                    _capped(lambda all: min(o for o, _ in all)), _capped(lambda all: min(i for _, i in all)),
                    _capped(lambda all: min(all[0])), _capped(lambda all: min(all[-1])),
                ),
            ),
            Mistake(
                "the larger of budget and cap",
                "Both must hold, what the budget pays for and what the matrices can have: take the smaller.",
                wrong=(_capped(lambda all: min(map(min, all)), keep=max),),
            ),
            Mistake(
                "a fraction",
                "A rank is a whole number: divide with // instead of /.",
                wrong=(_ranks(lambda budget, each: budget / each),),
            ),
            Mistake(
                "one matrix instead of all",
                "All matrices share the budget, and all get the same rank: add up out + in first.",
                wrong=(_one_matrix(lambda s: next(iter(s))), _one_matrix(lambda s: max(s, key=sum))),
            ),
        ),
        hints=(
            "What does one more rank cost in the whole model? How many times can you pay for it?",
            "Rank 1 costs out + in a matrix, for all matrices of all layers. Round down, and think of small matrices.",
            "budget // (n_layers · the sum of out + in), but at most the shortest side of any matrix.",
        ),
        reward="Rank 8 everywhere costs as much as rank 42 on q and v. Now compare where the parameters do more good.",
    ),
    Exercise(
        name="traded_learning_rates", page=9, title="What alpha and the learning rate have in common",
        spec=traded_learning_rates_spec, solution=traded_learning_rates, demo=(16, 2e-3, 4),
        inputs=st.tuples(ALPHA, st.sampled_from([1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 1e-2]), ALPHA),
        mistakes=(
            Mistake(
                "both learning rates traded",
                "That makes the first step the same, in which A does not move. After it A would move at another pace: "
                "A is not multiplied by alpha on its own, so its learning rate stays.",
                wrong=(_traded(lambda ratio: ratio, lambda ratio: ratio),),
            ),
            Mistake(
                "A traded instead of B",
                "B starts at zero and can be smaller or larger by any factor. A starts from its random numbers, which "
                "stay what they are: leave A's learning rate alone.",
                wrong=(_traded(lambda ratio: ratio, _plain),),
            ),
            Mistake(
                "the ratio upside down",
                "With a larger alpha B need not go so far: its learning rate shrinks.",
                wrong=(
                    _traded(_plain, lambda ratio: 1 / ratio), _traded(lambda ratio: 1 / ratio, _plain),
                    _traded(lambda ratio: 1 / ratio, lambda ratio: 1 / ratio),
                ),
            ),
            Mistake(
                "nothing traded",
                "Adam undoes a larger gradient, but the update is still alpha / rank times B·A.",
                wrong=(_traded(_plain, _plain),),
            ),
            Mistake(
                "shared between A and B",
                "A's part of the ratio would change how A turns. All of it belongs to B.",
                wrong=(_traded(lambda ratio: ratio**0.5, lambda ratio: ratio**0.5),),
            ),
            Mistake(
                "the ratio squared",
                "That is for plain gradient descent, where alpha makes the gradient larger as well. Adam divides the "
                "gradient by its size.",
                wrong=(
                    _traded(_plain, lambda ratio: ratio**2), _traded(lambda ratio: ratio**2, lambda ratio: ratio**2),
                ),
            ),
        ),
        hints=(
            "alpha multiplies B·A. Which of the two could be half as large all the time, and nobody would notice?",
            "If alpha doubles and B is half as large at every step, the product is the same. How far does Adam step?",
            "A's learning rate stays. B's is multiplied by alpha / new_alpha.",
        ),
        reward="Exact at every step: alpha is a learning rate for B alone. LoRA+, on page 11, turns the same screw.",
    ),
)  # fmt: skip
