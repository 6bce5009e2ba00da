"""A linear probe: a classifier on what the frozen base makes of a message. Nothing in the model is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..decoding import batches, kind_of, quick_decoder
from ..errors import LabError, whole
from ..finetune import take_off_adapter, twin
from ..finetune.conversation import pad_left
from ..finetune.fit import check_fit
from ..finetune.supervision import prompt_ids
from ..quiet import quiet
from ..scores.word_counts import check_labels, one_thread
from ..tasks import OwnTask
from ..tasks.data_lines import check_rows

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # inverse of the penalty
DEPTHS = 6  # how many places in the model are tried, evenly spread
POOLINGS = ("last token", "mean of all tokens")


@dataclass(frozen=True)
class Probe:
    """A classifier on the hidden states of a frozen base; call it with rows of {"prompt"} for a label each.

    Attributes
    ----------
    depth : int, the states are those after this block
    pooling : str, one of POOLINGS
    accuracy : float in [0, 1], share of right labels in cross-validation. It is the highest of `tried`, so a little
        too high.
    tried : dict (depth, pooling) -> the best share of that choice
    """

    depth: int
    pooling: str
    accuracy: float
    tried: dict[tuple[int, str], float] = field(repr=False)
    _read: Callable = field(repr=False)
    _classifier: object = field(repr=False)

    def __call__(self, rows: Sequence[Mapping]) -> list[str]:
        if not len(rows):
            return []
        states = self._read(rows, [self.depth])[:, 0, POOLINGS.index(self.pooling)]
        return [str(answer) for answer in self._classifier.predict(states)]

    def __str__(self) -> str:
        return (
            f"probe of the states after block {self.depth}, {self.pooling}: right in {self.accuracy:.1%} of "
            f"cross-validation, the best of {len(self.tried)} choices ({min(self.tried.values()):.1%} the worst)"
        )


def probe(model, tokenizer, own: OwnTask, examples: Sequence[Mapping], batch_size: int = 32) -> Probe:
    """A logistic regression on the base's hidden states, at the depth and pooling that suit the examples best.

    Six depths, each with the last token's state and with the mean over all tokens, and four penalties: what is right
    most often in cross-validation on `examples` is taken, and fitted to all of them. Features are scaled to mean 0 and
    standard deviation 1.

    Parameters
    ----------
    model, tokenizer : as `load_base` or `finetune` return them; adapters are left out
    own : OwnTask whose answers are labels
    examples : rows of {"prompt", "answer"} to learn from, such as `own["train"]`
    batch_size : int, rows read together

    Returns
    -------
    Probe, a function of rows that also says what was chosen

    Raises
    ------
    LabError
        The answers are not labels, a label has fewer than three examples, or a prompt does not fit the model.

    Source: Alain & Bengio 2016, Understanding intermediate layers using linear classifier probes.
    https://arxiv.org/abs/1610.01644
    """
    check_labels(own)
    rows = check_rows(list(examples), "example", blank=True)
    answers = [row["answer"] for row in rows]
    fewest = min((answers.count(label) for label in set(answers)), default=0)
    if fewest < 3 or len(set(answers)) < 2:
        raise LabError(f"{len(rows)} examples are too few for a probe: give three of each label, and two labels.")
    with quiet():  # peft's import loads bitsandbytes
        base = take_off_adapter(twin(model))

    def read(rows: Sequence[Mapping], depths: Sequence[int]):
        return hidden_states(base, tokenizer, own, rows, depths, batch_size)

    depths = depths_to_try(base.config.get_text_config().num_hidden_layers)
    states = read(rows, depths)
    found = {
        (depth, pooling): fitted(states[:, place, way], answers, min(5, fewest))
        for place, depth in enumerate(depths) for way, pooling in enumerate(POOLINGS)
    }  # fmt: skip
    tried = {choice: float(search.best_score_) for choice, search in found.items()}
    best = max(tried, key=tried.get)
    return Probe(*best, tried[best], tried, read, found[best].best_estimator_)


def depths_to_try(blocks: int) -> list[int]:
    """The depths that are tried in a model of so many blocks: six, evenly spread, the last block among them."""
    return sorted({-(-blocks * part // DEPTHS) for part in range(1, DEPTHS + 1)})


def fitted(states, answers: Sequence[str], folds: int):
    """A logistic regression on states (rows, features), its penalty chosen by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with one_thread():
        return GridSearchCV(pipeline, {"logisticregression__C": STRENGTHS}, cv=folds).fit(states, answers)


def hidden_states(
    model, tokenizer, own: OwnTask, rows: Sequence[Mapping], depths: Sequence[int], batch_size: int = 32
):  # fmt: skip
    """What a model makes of each prompt after some of its blocks: the last token's state, and the mean of all tokens'.

    Parameters
    ----------
    depths : of int, 0 to the number of blocks: after so many of them (after the last, also its norm)

    Returns
    -------
    float32 array (rows, depths, 2, hidden size), the two in the order of POOLINGS
    """
    import torch

    batch_size = whole("batch_size", batch_size)
    prompts = [prompt_ids(tokenizer, own, row["prompt"]) for row in rows]
    check_fit(model, prompts)
    was_training, decoder, device = model.training, quick_decoder(model), kind_of(model)
    body = getattr(decoder, decoder.base_model_prefix, decoder)  # without the head
    found = {}
    try:
        for places in batches(decoder, list(map(len, prompts)), batch_size):
            batch = pad_left(tokenizer, [prompts[place] for place in places])
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            batch = {name: one.to(device) for name, one in batch.items()}
            with torch.no_grad():
                states = body(**batch, use_cache=False, output_hidden_states=True).hidden_states
            pooled = torch.stack([_pooled(states[depth], batch["attention_mask"]) for depth in depths], 1)
            found |= dict(zip(places, pooled.cpu(), strict=True))
    finally:
        model.train(was_training)
    return torch.stack([found[place] for place in range(len(prompts))]).numpy()


def _pooled(states, mask):
    """States (rows, length, hidden) of prompts padded on the left to float32 (rows, 2, hidden): last token, mean."""
    import torch

    states, mask = states.float(), mask[..., None]
    return torch.stack([states[:, -1], (states * mask).sum(1) / mask.sum(1)], 1)
