"""A linear probe: a classifier on what the frozen base makes of a message. Nothing in the model is trained."""

from collections.abc import Callable, Mapping, Sequence

from ..decoding import kind_of, quick_decoder
from ..errors import LabError, whole
from ..finetune import take_off_adapter, twin
from ..finetune.conversation import pad_left
from ..finetune.fit import check_fit
from ..finetune.supervision import prompt_ids
from ..quiet import quiet
from ..scores.word_counts import check_labels
from ..tasks import OwnTask
from ..tasks.data_lines import check_rows

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # inverse of the penalty, of which cross-validation takes one


def probe(
    model, tokenizer, own: OwnTask, examples: Sequence[Mapping], batch_size: int = 32
) -> Callable[[Sequence[Mapping]], list[str]]:
    """A function of rows: to each the label that a logistic regression on the base's hidden states gives it.

    Parameters
    ----------
    model, tokenizer : as `load_base` or `finetune` return them; adapters are left out
    own : OwnTask whose answers are labels
    examples : rows of {"prompt", "answer"} to learn from, such as `own["train"]`
    batch_size : int, rows read together

    Returns
    -------
    function, rows of {"prompt"} -> list of str. Features are scaled to mean 0 and standard deviation 1; the penalty is
    chosen by cross-validation on `examples`.

    Raises
    ------
    LabError
        The answers are not labels, a label has fewer than three examples, or a prompt does not fit the model.

    Source: Alain & Bengio 2016, Understanding intermediate layers using linear classifier probes.
    https://arxiv.org/abs/1610.01644
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_labels(own)
    rows = check_rows(list(examples), "example", blank=True)
    answers = [row["answer"] for row in rows]
    fewest = min((answers.count(label) for label in set(answers)), default=0)
    if fewest < 3 or len(set(answers)) < 2:
        raise LabError(f"{len(rows)} examples are too few for a probe: give three of each label, and two labels.")
    with quiet():  # peft's import loads bitsandbytes
        base = take_off_adapter(twin(model))

    def read(rows: Sequence[Mapping]):
        return hidden_states(base, tokenizer, own, rows, batch_size)

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipeline, {"logisticregression__C": STRENGTHS}, cv=min(5, fewest))
    search.fit(read(rows), answers)
    return lambda rows: [str(answer) for answer in search.predict(read(rows))] if len(rows) else []


def hidden_states(model, tokenizer, own: OwnTask, rows: Sequence[Mapping], batch_size: int = 32):
    """The last hidden state at the end of each prompt: what the head makes an answer's first token of.

    Returns
    -------
    float32 array (rows, hidden size)
    """
    import torch

    batch_size = whole("batch_size", batch_size)
    prompts = [prompt_ids(tokenizer, own, row["prompt"]) for row in rows]
    check_fit(model, prompts)
    was_training, decoder, device = model.training, quick_decoder(model), kind_of(model)
    body = getattr(decoder, decoder.base_model_prefix, decoder)  # without the head
    order, found = sorted(range(len(prompts)), key=lambda place: len(prompts[place])), {}
    try:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = pad_left(tokenizer, [prompts[place] for place in places])
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            with torch.no_grad():
                states = body(**{name: one.to(device) for name, one in batch.items()}, use_cache=False)[0]
            found |= dict(zip(places, states[:, -1].float().cpu(), strict=True))
    finally:
        model.train(was_training)
    return torch.stack([found[place] for place in range(len(prompts))]).numpy()
