"""Many adapters on one base: any row of a batch answers by its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..decoding import check_fit
from ..decoding import refuse_nonfinite as refuse_nonfinite_logits
from ..errors import LabError, choose
from ..finetune.conversation import decode_answer, pad_left, padding_token, stop_tokens
from ..finetune.greedy import greedy
from ..finetune.supervision import prompt_ids
from ..tasks import TASKS, Task
from ..tasks.registry import find_task
from .loaded_adapters import BASE, LoadedAdapters


class AdapterBank(LoadedAdapters):
    """One base model and as many adapters as fit beside it; any row of a batch may take another one.

    Parameters
    ----------
    model : transformers model, in 4 bits or not; the bank puts its layers into it, and takes adapters off it first
        On a CPU `merging.dequantized_copy(model)` holds the same weights and decodes several times as fast.
    tokenizer : its tokenizer

    Attributes
    ----------
    model : the model, a peft model from the first `load` on
    names : list of str, the adapters
    active : str or None, the adapter in use; None means the base alone
    tasks : dict name -> the task whose system message the adapter was trained with, None if nothing says which one

    Raises
    ------
    LabError
        An adapter is merged into the model's weights, or they hold NaN or infinity.
    """

    def logits(self, batch, adapters: str | Sequence[str | None] | None) -> torch.Tensor:
        """The logits of a batch, without gradients, each row by its own adapter.

        Parameters
        ----------
        batch : int64 Tensor (rows, length) of token ids, or a dict with "input_ids" and "attention_mask"
        adapters : an adapter or None (the base) for all rows, or a list with one per row

        Returns
        -------
        float Tensor (rows, length, vocabulary)
        """
        batch = {"input_ids": batch} if isinstance(batch, torch.Tensor) else dict(batch)
        inputs = {key: batch[key].to(self._base.device) for key in ("input_ids", "attention_mask") if key in batch}
        with torch.no_grad(), self._rows(adapters, len(inputs["input_ids"])) as extra:
            return self.model(**inputs, use_cache=False, **extra).logits

    def answer(self, prompts: Sequence[str], adapters: str | Sequence[str | None] | None,
               tasks: str | Sequence[str] | None = None, *, max_new_tokens: int | None = None) -> list[str]:
        """Greedy answers, in one batch, each row by its own adapter.

        Parameters
        ----------
        prompts : list of str, without any template
        adapters : an adapter or None (the base) for all rows, or a list with one of them a row
        tasks : a name in `TASKS` for all rows, or a list with one per row; it gives the system message. Default, also
            for a None in the list: what the row's adapter was trained on. Rows of the base need it said, and so do
            adapters without a record of their task.
        max_new_tokens : int, default the most that any of the tasks needs

        Returns
        -------
        list of str, in the order of `prompts`, without special tokens

        Raises
        ------
        LabError
            An adapter or task is unknown, a row's task is not known, a prompt is not text or does not fit the model, or
            the model's logits are not finite.
        """
        prompts = list(prompts)
        chosen = self._each(adapters, len(prompts), "adapters")
        if tasks is None and None in chosen:
            raise LabError("Which system message shall rows of the base get? Give `tasks`, as tasks='bookings'.")
        for row, prompt in enumerate(prompts):
            _check_prompt(prompt, row)
        if not prompts:
            return []
        each = zip(chosen, self._each(tasks, len(prompts), "tasks"), strict=True)
        named = [find_task(self._task_for(*row)) for row in each]
        rows = [prompt_ids(self.tokenizer, task, prompt) for task, prompt in zip(named, prompts, strict=True)]
        room = max_new_tokens or max(task.max_new_tokens for task in named)
        check_fit(self._base, rows, room)
        batch = {name: one.to(self._base.device) for name, one in pad_left(self.tokenizer, rows).items()}
        ends = {"stops": stop_tokens(self.tokenizer), "padding": padding_token(self.tokenizer)}
        decoding = greedy(self.model, room=room, **ends)
        with torch.no_grad(), self._rows(chosen, len(prompts)) as extra, decoding as settings:
            tokens = self.model.generate(**batch, **extra, **settings, logits_processor=[refuse_nonfinite_logits])
        return [decode_answer(self.tokenizer, row) for row in tokens[:, batch["input_ids"].shape[1] :].tolist()]

    def _task_for(self, adapter: str | None, task: str | Task | None) -> str | Task:
        """The task of a row: the one that is named, else its adapter's."""
        choose("adapter", adapter, [None, *self.names])
        task = self.tasks.get(adapter) if task is None else task
        if task is None:
            who = f"the adapter {adapter}" if adapter else "the base"
            raise LabError(
                f"Nothing says which task {who} was trained on (an adapter's folder does in record.json), and another "
                "task's system message would give wrong answers. Name it, as tasks='bookings' or, for an adapter, "
                f"load(…, task='bookings'). There are: {', '.join(TASKS)}."
            )
        find_task(task)
        return task

    def _each(self, values, rows: int, what: str) -> list:
        """One value a row."""
        values = [values] * rows if values is None or isinstance(values, (str, Task)) else list(values)
        if len(values) != rows:
            raise LabError(f"{what} has {len(values)} entries for {rows} rows: give one for all, or one per row.")
        return values

    @contextmanager
    def _rows(self, adapters, rows: int) -> Iterator[dict]:
        """Inside, the model answers by these adapters if it gets what is yielded; then the old one is in use again."""
        chosen = self._each(adapters, rows, "adapters")
        for one in chosen:
            choose("adapter", one, [None, *self.names])
        before, mixed = self.active, len(set(chosen)) > 1
        for one in set(chosen) - {None}:
            if mixed and self.model.peft_config[one].use_dora:
                raise LabError(f"{one} is a DoRA adapter, which peft cannot mix: give it its own batches.")
        self.use(next((one for one in chosen if one), None))
        try:
            yield {"adapter_names": [one or BASE for one in chosen]} if mixed else {}
        finally:
            self.use(before)

def _check_prompt(prompt: object, row: int) -> None:
    """Raise a LabError unless a tokenizer can take the prompt."""
    if not isinstance(prompt, str):
        raise LabError(f"prompts[{row}]={prompt!r} is a {type(prompt).__name__}, and a text is needed.")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LabError(
            f"prompts[{row}] has half a character at place {error.start} ({prompt[error.start]!r}): write it again."
        ) from error
