"""Exercises of page 02: how many numbers an adapter has."""

from hypothesis import strategies as st

from ..exercise import Exercise, Mistake

SIDE = st.integers(1, 64)


def adapter_parameters_spec(out_features: int, in_features: int, rank: int) -> int:
    """Count the numbers of A (rank, in) and B (out, rank) one by one."""
    count = 0
    for _row in range(rank):  # A
        for _column in range(in_features):
            count += 1
    for _row in range(out_features):  # B
        for _column in range(rank):
            count += 1
    return count


def adapter_parameters(out_features: int, in_features: int, rank: int) -> int:
    return rank * (out_features + in_features)


def break_even_rank_spec(out_features: int, in_features: int) -> int:
    """Raise the rank as long as A and B together are smaller than the matrix."""
    rank = 0
    while (rank + 1) * (out_features + in_features) < out_features * in_features:
        rank += 1
    return rank


def break_even_rank(out_features: int, in_features: int) -> int:
    return (out_features * in_features - 1) // (out_features + in_features)


def model_adapter_parameters_spec(
    shapes: dict[str, tuple[int, int]], n_layers: int, rank: int, targets: list[str]
) -> int:
    """Walk through the model layer by layer and count both factors of each adapted matrix."""
    count = 0
    for _layer in range(n_layers):
        for module, (out_features, in_features) in shapes.items():
            if module in targets:
                count += rank * in_features  # A
                count += out_features * rank  # B
    return count


def model_adapter_parameters(shapes: dict[str, tuple[int, int]], n_layers: int, rank: int, targets: list[str]) -> int:
    return n_layers * rank * sum(sum(shapes[module]) for module in targets)


@st.composite
def _sides(draw):
    """(out, in), about half of them equal: there break-even is at half the side, exactly."""
    out_features = draw(SIDE)
    return out_features, out_features if draw(st.booleans()) else draw(SIDE)


@st.composite
def _model(draw):
    """A model's shapes with grouped k and v, its layers, a rank and targets."""
    heads, head = draw(st.integers(1, 4)), 2 * draw(st.integers(1, 4))
    hidden, grouped = heads * head, head * draw(st.integers(1, heads))
    inner = draw(st.sampled_from([2, 3, 4])) * hidden
    shapes = {
        "q_proj": (hidden, hidden), "k_proj": (grouped, hidden), "v_proj": (grouped, hidden),
        "o_proj": (hidden, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner),
    }
    chosen = draw(st.sets(st.sampled_from(list(shapes)), min_size=1))
    return shapes, draw(st.integers(1, 32)), draw(st.integers(1, 8)), [name for name in shapes if name in chosen]


def _hidden(shapes) -> int:
    return shapes["q_proj"][1]


EXERCISES = (
    Exercise(
        name="adapter_parameters", page=2, title="How many numbers has one adapter?",
        spec=adapter_parameters_spec, solution=adapter_parameters, demo=(4, 6, 2),
        inputs=st.tuples(SIDE, SIDE, st.integers(1, 8)),
        mistakes=(
            Mistake(
                "out · in · rank",
                "The two factors are stored side by side, so their numbers add up; only the product B·A is (out, in).",
                wrong=(lambda out, n, r: out * n * r,),
            ),
            Mistake("only A counted", "B (out, rank) is trained too.", wrong=(lambda out, n, r: r * n,)),
            Mistake("only B counted", "A (rank, in) is trained too.", wrong=(lambda out, n, r: r * out,)),
            Mistake(
                "the rank squared",
                "Each factor has the rank on one side only: rank · in and out · rank.",
                wrong=(
                    lambda out, n, r: r * r * (out + n), lambda out, n, r: r * r,
                    lambda out, n, r: out * n * r * r, lambda out, n, r: r * n * r * out,
                ),
            ),
            Mistake(
                "the rank on one factor only",
                "Both factors have it: A has rank rows of in numbers, and B has out rows of rank numbers.",
                wrong=(lambda out, n, r: r * out + n, lambda out, n, r: out + r * n),
            ),
            Mistake(
                "the weight taken as square",
                "out and in may differ: A is as wide as in, B as high as out.",
                wrong=(
                    lambda out, n, r: 2 * r * out, lambda out, n, r: 2 * r * n, lambda out, n, r: 2 * r * max(out, n),
                ),
            ),
            Mistake(
                "the frozen matrix counted",
                "The weight itself is not part of the adapter: it stays as it is.",
                wrong=(lambda out, n, r: out * n, lambda out, n, r: out * n + r * (out + n)),
            ),
            Mistake(
                "the rank forgotten",
                "Each of the `rank` directions needs a row of A and a column of B.",
                wrong=(lambda out, n, r: out + n,),
            ),
        ),
        hints=(
            "Write down the shapes of A and B. How many numbers has a matrix of each shape?",
            "A is (rank, in), B is (out, rank). They are stored side by side: add, do not multiply.",
            "rank · in numbers for A, and out · rank for B: take the rank out of the sum.",
        ),
        reward="You can now size any adapter in your head: rank times the sum of the two sides. Twice the rank doubles "
        "it, and so do twice the sides; the weight would be four times as large.",
    ),
    Exercise(
        name="break_even_rank", page=2, title="Up to which rank does an adapter save anything?",
        spec=break_even_rank_spec, solution=break_even_rank, inputs=_sides(), demo=(12, 6),
        mistakes=(
            Mistake(
                "the smaller side",
                "min(out, in) is the largest rank there is. The adapter outgrows the matrix well before.",
                wrong=(lambda out, n: min(out, n), lambda out, n: min(out, n) - 1),
            ),
            Mistake(
                "half a side",
                "Half the side is where a square matrix breaks even. Here out and in may differ.",
                wrong=(
                    lambda out, n: (min(out, n) - 1) // 2, lambda out, n: min(out, n) // 2,
                    lambda out, n: (max(out, n) - 1) // 2, lambda out, n: max(out, n) // 2,
                    lambda out, n: (out + n) // 4,
                ),
            ),
            Mistake(
                "not strict",
                "At equality nothing is saved: out · in must be larger than rank · (out + in), not equal to it.",
                wrong=(lambda out, n: out * n // (out + n),),
            ),
            Mistake(
                "rounded up",
                "The next whole number above the break-even point is already too large. Round down.",
                wrong=(
                    lambda out, n: -(-out * n // (out + n)), lambda out, n: round(out * n / (out + n)),
                    lambda out, n: out * n // (out + n) + 1,
                ),
            ),
            Mistake(
                "always one less",
                "Take one off only where the division comes out even: elsewhere the rounded number is already below.",
                wrong=(lambda out, n: out * n // (out + n) - 1, lambda out, n: max(0, out * n // (out + n) - 1)),
            ),
            Mistake(
                "never 0",
                "Where even rank 1 saves nothing, as on a weight of 1 × 5, the answer is 0.",
                wrong=(lambda out, n: max(1, (out * n - 1) // (out + n)),),
            ),
            Mistake(
                "a fraction",
                "A rank is a whole number: divide with // instead of /.",
                wrong=(lambda out, n: out * n / (out + n),),
            ),
        ),
        hints=(
            "Hold the two counts side by side: rank · (out + in) and out · in. When does the first reach the second?",
            "Break-even lies at out · in / (out + in). You want the largest whole rank strictly below it.",
            "Floor division gives the largest whole number not above. To stay strictly below, divide one number less: "
            "out · in − 1.",
        ),
        reward="For a square matrix break-even is at half its side: 2,048 for 4,096. At rank 8 there is a lot of room.",
    ),
    Exercise(
        name="model_adapter_parameters", page=2, title="How many numbers has a whole model's adapter?",
        spec=model_adapter_parameters_spec, solution=model_adapter_parameters, inputs=_model(),
        demo=({"q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576)}, 30, 8, ["q_proj", "v_proj"]),
        mistakes=(
            Mistake(
                "layers forgotten",
                "`shapes` is one layer. Every layer has its own adapters: times n_layers.",
                wrong=(lambda shapes, n, r, targets: r * sum(sum(shapes[t]) for t in targets),),
            ),
            Mistake(
                "targets ignored",
                "Only the modules in `targets` get an adapter; the others stay frozen and add nothing.",
                wrong=(lambda shapes, n, r, targets: n * r * sum(map(sum, shapes.values())),),
            ),
            Mistake(
                "one factor only",
                "Every adapted matrix has an A (rank, in) and a B (out, rank): count both.",
                wrong=(
                    lambda shapes, n, r, targets: n * r * sum(shapes[t][1] for t in targets),
                    lambda shapes, n, r, targets: n * r * sum(shapes[t][0] for t in targets),
                ),
            ),
            Mistake(
                "the rank forgotten",
                "Each of the `rank` directions needs a row of A and a column of B.",
                wrong=(lambda shapes, n, r, targets: n * sum(sum(shapes[t]) for t in targets),),
            ),
            Mistake(
                "the first target counted for all",
                "Each target has its own shape: sum over them, do not multiply one of them by how many there are.",
                wrong=(lambda shapes, n, r, targets: n * r * len(targets) * sum(shapes[targets[0]]),),
            ),
            Mistake(
                "every matrix taken as hidden × hidden",
                "With grouped-query attention k and v are smaller, and the MLP is larger. Use shapes[module].",
                wrong=(
                    lambda shapes, n, r, targets: n * r * 2 * _hidden(shapes) * len(targets),
                    lambda shapes, n, r, targets: n * r * sum(2 * shapes[t][1] for t in targets),
                    lambda shapes, n, r, targets: n * r * sum(2 * shapes[t][0] for t in targets),
                ),
            ),
            Mistake(
                "the full matrices counted",
                "out · in is what full fine-tuning trains. An adapter has rank · (out + in).",
                wrong=(
                    lambda shapes, n, r, targets: n * sum(shapes[t][0] * shapes[t][1] for t in targets),
                    lambda shapes, n, r, targets: n * r * sum(shapes[t][0] * shapes[t][1] for t in targets),
                ),
            ),
        ),
        hints=(
            "One adapter you can count already. Which matrices get one, and how often does each occur?",
            "Sum over the targets, each with its own shape. All layers are alike.",
            "For each target take rank · (out + in) with out, in = shapes[target]; sum; times n_layers.",
        ),
        reward="This is the count that papers print: GPT-3 at rank 4 on q and v gives 18,874,368 by your function. "
        "And k_proj, 192 × 576, is a third of q_proj, but its adapter is two thirds as large: 768 to 1,152 per rank.",
    ),
)  # fmt: skip
