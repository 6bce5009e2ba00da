"""Which of its labels a model holds most likely for a message: a classifier made of a prompt, nothing is generated."""

import copy
from collections.abc import Mapping, Sequence

from ..decoding import batches, kind_of, quick_decoder
from ..errors import LabError, flag, whole
from ..finetune.conversation import answer_tokens, end_of_turn, pad_left
from ..finetune.fit import check_fit
from ..finetune.supervision import prompt_ids
from ..tasks import OwnTask
from ..tasks.data_lines import check_rows


def label_likelihoods(
    model, tokenizer, own: OwnTask, rows: Sequence[Mapping], shots: Sequence[Mapping] = (), batch_size: int = 20,
    end: bool = False,
):  # fmt: skip
    """The log-likelihood of each label as the beginning of the answer to each row.

    What all prompts begin with, the system message and the shots, is read once.

    Parameters
    ----------
    model, tokenizer : as `load_base` or `finetune` return them
    own : OwnTask whose answers are labels; its system message should name them
    rows : rows of {"prompt", "answer"}, such as `own["test"]`; the answers are not read
    shots : rows of {"prompt", "answer"}, put before every prompt as turns of the conversation
    batch_size : int, rows read together
    end : bool, as the whole answer, its end of turn included: for labels of which one begins with another. Left out by
        default, since a base that would explain its label afterwards has still chosen it.

    Returns
    -------
    float32 Tensor (rows, labels), in nats, labels in the order of `own.labels`: its `argmax(1)` is the answer

    Raises
    ------
    LabError
        The answers are not labels, there are no rows, or a prompt does not fit the model.
    """
    import torch

    rows = check_rows(list(rows), "example", blank=True)
    if not getattr(own, "labels", ()):
        raise LabError(f"The answers of {own.name!r} are not labels: there is nothing to choose from. Let it write.")
    if not rows:
        raise LabError("There are no examples to read: the split is empty. Choose another split or a larger slice.")
    batch_size = whole("batch_size", batch_size)
    prompts = [prompt_ids(tokenizer, own, row["prompt"], shots) for row in rows]
    last = [end_of_turn(tokenizer)] if flag("end", end) else []
    choices = [[*answer_tokens(tokenizer, label), *last] for label in own.labels]
    check_fit(model, prompts, max(map(len, choices)))
    found = torch.zeros(len(rows), len(choices))
    was_training, decoder = model.training, quick_decoder(model)
    try:
        with torch.no_grad():
            reader = _Reader(decoder, tokenizer, prompts)
            for places in batches(decoder, list(map(len, prompts)), batch_size):
                found[places] = reader.read([prompts[place] for place in places], choices)
    finally:
        model.train(was_training)
    return found


class _Reader:
    """A model that has read what some prompts have in common; `read` scores choices after the rest of each."""

    def __init__(self, model, tokenizer, prompts: Sequence[Sequence[int]]):
        import torch

        self.model, self.tokenizer, self.device = model, tokenizer, kind_of(model)
        self.shared = _common(prompts)
        start = torch.tensor([prompts[0][: self.shared]], device=self.device)
        self.cache = model(input_ids=start, use_cache=True).past_key_values if self.shared else None

    def read(self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]]):
        """float32 Tensor (prompts, choices), the log-likelihood of each choice after each prompt."""
        import torch

        batch = pad_left(self.tokenizer, [prompt[self.shared :] for prompt in prompts])
        mask = torch.cat([torch.ones(len(prompts), self.shared, dtype=torch.long), batch["attention_mask"]], 1)
        cache = copy.deepcopy(self.cache)
        if cache is not None:
            cache.batch_repeat_interleave(len(prompts))
        out = self._forward(batch["input_ids"], mask, cache)
        first, cache = out.logits[:, -1:].float().log_softmax(-1), out.past_key_values
        columns = []
        for choice in choices:
            tokens, logits = torch.tensor([choice] * len(prompts)), first
            if len(choice) > 1:  # of one token, all is known
                read = tokens[:, :-1]
                after = self._forward(read, torch.cat([mask, torch.ones_like(read)], 1), copy.deepcopy(cache))
                logits = torch.cat([first, after.logits.float().log_softmax(-1)], 1)
            columns.append(logits.gather(2, tokens.to(logits.device)[..., None])[..., 0].sum(1).cpu())
        return torch.stack(columns, 1)

    def _forward(self, tokens, mask, cache):
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        given = {"input_ids": tokens, "attention_mask": mask, "position_ids": places}
        return self.model(
            **{name: one.to(self.device) for name, one in given.items()}, past_key_values=cache, use_cache=True
        )


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; of each at least one is left."""
    low, high = min(prompts), max(prompts)  # in the order of a dictionary: those in between begin alike
    room = min(map(len, prompts)) - 1
    return next((place for place in range(room) if low[place] != high[place]), room)
