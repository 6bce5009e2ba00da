"""Many adapters on one base: load, switch, mix in one batch, combine, swap."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from .adapter import base_model, take_off_adapter
from .errors import LabError, choose
from .lora_files import CONFIG, WEIGHTS
from .quiet import quiet
from .supervision import prompt_text
from .tasks import DATA, TASKS

BASE = "__base__"  # peft's word for a row without adapter
COMBINATIONS = ("cat", "svd", "linear")
PREFIX = "base_model.model."
SAME = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")  # shape and scale an update


def recorded_adapter(name: str) -> Path:
    """The folder of an adapter that comes with the course: "bookings" or "style", trained on the embedded base in NF4.

    Raises
    ------
    LabError
        There is none of that name, or a file is missing.
    """
    found = sorted(path.name for path in (DATA / "adapters").glob("*") if path.is_dir())
    choose("recorded adapter", name, found)
    folder = DATA / "adapters" / name
    missing = [file for file in (CONFIG, WEIGHTS, "record.json") if not (folder / file).is_file()]
    if missing:
        raise LabError(
            f"{folder} has no {', '.join(missing)}. Restore it with `git checkout -- data/adapters`, or train it anew "
            f"with `python data/record_adapters.py --only {name}`."
        )
    return folder


class AdapterBank:
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
    tasks : dict name -> the task whose system message the adapter was trained with
    """

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = take_off_adapter(model).eval(), tokenizer
        self.active: str | None = None
        self.tasks: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The adapters that are loaded, in the order they came."""
        return list(self.tasks)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that carry an adapter."""
        return [name for name, module in self._base.named_modules() if hasattr(module, "lora_A")]

    @property
    def _base(self):
        return base_model(self.model)

    def load(self, name: str, folder: str | Path, task: str | None = None) -> None:
        """Put an adapter in peft's layout beside the others, and use it.

        Parameters
        ----------
        name : str, what to call it; letters, digits, "_" and "-"
        folder : path, holds adapter_config.json and adapter_model.safetensors
        task : str, a name in `TASKS`; default what record.json in the folder says, else "bookings"

        Raises
        ------
        LabError
            The name is taken or cannot be one, the folder is no adapter or damaged, or it does not fit this base. The
            bank is as before then.
        """
        from peft import PeftModel

        self._check_name(name)
        folder = Path(folder)
        self._check_fits(folder)
        task = task or _task_of(folder)
        choose("task", task, TASKS)
        try:
            with quiet():
                if self.names:
                    self.model.load_adapter(str(folder), adapter_name=name)
                else:
                    self.model = PeftModel.from_pretrained(self.model, str(folder), adapter_name=name)
        except (RuntimeError, TypeError, ValueError) as error:
            self._clear_away(name)
            raise LabError(f"peft cannot load {folder} on this base: {str(error).splitlines()[0]}") from error
        self.model.eval()
        self.tasks[name] = task
        self.use(name)

    def use(self, name: str | None) -> None:
        """Answer with this adapter from now on; None for the base alone."""
        if name is None:
            if self.names:
                self.model.base_model.disable_adapter_layers()
        else:
            choose("adapter", name, self.names)
            self.model.base_model.enable_adapter_layers()
            self.model.set_adapter(name)
            self.model.requires_grad_(False)  # peft wakes gradients up
        self.active = name

    def unload(self, name: str) -> None:
        """Take an adapter off and free its memory. If it was in use, the base alone is from now on."""
        choose("adapter", name, self.names)
        if len(self.names) == 1:
            self.model = take_off_adapter(self.model)
            self.tasks.clear()
            self.active = None
            return
        active = None if self.active == name else self.active
        self.use(next(other for other in self.names if other != name))
        self.model.delete_adapter(name)
        del self.tasks[name]
        self.use(active)

    def swap(self, name: str, folder: str | Path) -> None:
        """Hot swap: overwrite an adapter's numbers by another's, in the same tensors, while the model stays in service.

        peft's own `hotswap_adapter` sets every tensor with the old name anywhere in its key to zero first, other
        adapters' too ("style" is in "style2"); here keys are compared whole.

        Raises
        ------
        LabError
            The new adapter has other layers, ranks or scalings: `unload` the old one and `load` it then.
        """
        from peft import PeftConfig, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

        choose("adapter", name, self.names)
        folder = Path(folder)
        self._check_fits(folder)
        old, new = self.model.peft_config[name], PeftConfig.from_pretrained(str(folder))
        state = load_peft_weights(str(folder), device="cpu")
        shapes = {key: tuple(one.shape) for key, one in state.items()}
        before = get_peft_model_state_dict(self.model, adapter_name=name)
        differing = [field for field in SAME if getattr(old, field) != getattr(new, field)]
        if differing or shapes != {key: tuple(one.shape) for key, one in before.items()}:
            what = ", ".join(differing) or "the layers"
            raise LabError(f"{folder} cannot take {name}'s place, {what} differ: unload {name}, then load the new one.")
        set_peft_model_state_dict(self.model, state, adapter_name=name)
        self.tasks[name] = _task_of(folder)

    def combine(self, name: str, weights: Mapping[str, float], how: str = "cat") -> None:
        """Make a new adapter of several: ΔW = Σ weight · ΔW_i.

        "cat" is exact: the A's are stacked and the B's set side by side, so ranks add up. "svd" cuts that sum back to
        the largest rank. "linear" adds A's and B's on their own, each scaled by √weight, and is no such sum: in
        (√u B₁ + √v B₂)(√u A₁ + √v A₂) there are cross terms √uv (B₁A₂ + B₂A₁), which belong to nobody.

        Parameters
        ----------
        weights : dict adapter -> float
        how : "cat", "svd" or "linear" (equal ranks only)

        Raises
        ------
        LabError
            An adapter is unknown, is DoRA (whose update is no plain product), or peft cannot combine them that way.
        """
        self._check_name(name)
        choose("way to combine", how, COMBINATIONS)
        if not weights:
            raise LabError("`weights` is empty: name at least one adapter, as {'bookings': 0.5, 'style': 0.5}.")
        for one in weights:
            choose("adapter", one, self.names)
            if self.model.peft_config[one].use_dora:
                raise LabError(f"{one} is a DoRA adapter: its update is no product B·A, and cannot be added up.")
        active = self.active
        try:
            with quiet():
                self.model.add_weighted_adapter(list(weights), list(map(float, weights.values())), name, how)
        except (TypeError, ValueError) as error:
            raise LabError(f"peft cannot combine {', '.join(weights)} by {how!r}: {error}") from error
        except KeyboardInterrupt:
            self._clear_away(name)  # else peft would take the half-made one for finished next time
            raise
        for layer in self.layers:
            module = self._base.get_submodule(layer)
            if name in module.lora_A:
                module.scaling[name] = 1.0  # the weights hold it; peft would scale a combination of rsLoRAs by √rank
                if how == "cat":
                    self._write_sum(module, name, weights)
        self.tasks[name] = self.tasks[max(weights, key=weights.get)]
        self.model.eval()
        self.use(active)

    def _write_sum(self, module, name: str, weights: Mapping[str, float]) -> None:
        """Put the stacked A's and B's into a layer in float32; peft writes them in the base's dtype."""
        parts = [one for one in weights if one in module.lora_A]
        A = torch.cat([weights[one] * module.scaling[one] * module.lora_A[one].weight.float() for one in parts])
        B = torch.cat([module.lora_B[one].weight.float() for one in parts], dim=1)
        unused = module.lora_A[name].weight.shape[0] - len(A)  # ranks of adapters that have none here
        module.lora_A[name].weight.data = torch.nn.functional.pad(A, (0, 0, 0, unused))
        module.lora_B[name].weight.data = torch.nn.functional.pad(B, (0, unused))

    def delta(self, name: str, layer: str) -> torch.Tensor:
        """ΔW = scaling · B·A of an adapter in one of `layers`: float32 Tensor (out, in); zeros where it has none."""
        choose("adapter", name, self.names)
        choose("layer", layer, self.layers)
        module = self._base.get_submodule(layer)
        if name not in module.lora_A:
            return torch.zeros(module.out_features, module.in_features)
        delta = module.scaling[name] * module.lora_B[name].weight.float() @ module.lora_A[name].weight.float()
        return (delta.T if module.fan_in_fan_out else delta).detach()

    def logits(self, batch, adapters: str | Sequence[str | None] | None) -> torch.Tensor:
        """The logits of a batch, without gradients, each row by its own adapter.

        Parameters
        ----------
        batch : int64 Tensor (rows, length) of token ids, or a dict with "input_ids" and "attention_mask"
        adapters : an adapter or None (the base) for all rows, or a list with one of them a row

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
        tasks : a name in `TASKS` for all rows, or a list with one a row; it gives the system message. Default: what
            each row's adapter was trained on; rows of the base need it said.
        max_new_tokens : int, default the most that any of the tasks needs

        Returns
        -------
        list of str, in the order of `prompts`, without special tokens
        """
        prompts = list(prompts)
        chosen = self._each(adapters, len(prompts), "adapters")
        if tasks is None and None in chosen:
            raise LabError("Which system message shall rows of the base get? Give `tasks`, as tasks='bookings'.")
        if not prompts:
            return []
        named = [self.tasks[one] for one in chosen] if tasks is None else self._each(tasks, len(prompts), "tasks")
        for one in named:
            choose("task", one, TASKS)
        texts = [prompt_text(self.tokenizer, TASKS[task], prompt) for task, prompt in zip(named, prompts, strict=True)]
        batch = self.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        ).to(self._base.device)
        with torch.no_grad(), self._rows(chosen, len(prompts)) as extra:
            tokens = self.model.generate(
                **batch, **extra, do_sample=False,
                max_new_tokens=max_new_tokens or max(TASKS[one].max_new_tokens for one in named),
                eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id,
            )  # fmt: skip
        return self.tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    def _each(self, values, rows: int, what: str) -> list:
        """One value a row."""
        values = [values] * rows if values is None or isinstance(values, str) else list(values)
        if len(values) != rows:
            raise LabError(f"{what} has {len(values)} entries for {rows} rows: give one for all, or one a row.")
        return values

    @contextmanager
    def _rows(self, adapters, rows: int) -> Iterator[dict]:
        """Inside, the model answers by these adapters if it gets what is yielded; then the old one is in use again."""
        chosen = self._each(adapters, rows, "adapters")
        for one in chosen:
            choose("adapter", one, [None, *self.names])
        before, mixed = self.active, len(set(chosen)) > 1
        for one in set(chosen) - {None} if mixed else ():
            if self.model.peft_config[one].use_dora:
                raise LabError(f"{one} is a DoRA adapter, which peft cannot mix: give it batches of its own.")
        self.use(next((one for one in chosen if one), None))
        try:
            yield {"adapter_names": [one or BASE for one in chosen]} if mixed else {}
        finally:
            self.use(before)

    def _clear_away(self, name: str) -> None:
        """Take off what a failed load left behind."""
        if self.names:
            if name in self.model.peft_config:
                self.model.delete_adapter(name)
            self.use(self.active)
        else:
            self.model = take_off_adapter(self.model)

    def _check_name(self, name: str) -> None:
        """Raise a LabError unless `name` can be a new adapter's."""
        if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum() or name == BASE:
            raise LabError(f"{name!r} cannot be an adapter's name: take letters, digits, '_' and '-'.")
        if any(hasattr(one, name) for one in (torch.nn.ModuleDict(), torch.nn.ParameterDict())) or "lora_" in name:
            raise LabError(
                f"{name!r} cannot be an adapter's name: peft keeps adapters by name in torch modules, which use that "
                f"word themselves. Call it '{name.replace('lora_', '') or 'my'}_adapter', say."
            )
        if name in self.names:
            raise LabError(f"There is an adapter {name!r} already: unload or swap it, or take another name.")

    def _check_fits(self, folder: Path) -> None:
        """Raise a LabError unless the folder holds a LoRA adapter for layers and shapes that this base has."""
        from safetensors import SafetensorError, safe_open

        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                raise LabError(f"There is no {file} in {folder}. An adapter is a folder with {CONFIG} and {WEIGHTS}.")
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            with safe_open(folder / WEIGHTS, "pt") as file:
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        except (OSError, ValueError, SafetensorError) as error:
            raise LabError(f"The adapter in {folder} is damaged: {error}. Save or copy it again.") from error
        if not isinstance(config, dict) or config.get("peft_type") != "LORA" or not shapes:
            raise LabError(f"{folder} holds no LoRA adapter: the bank serves that kind only.")
        for key in shapes:
            other = key.replace(".lora_A.", ".lora_B.") if ".lora_A." in key else key.replace(".lora_B.", ".lora_A.")
            if other not in shapes:  # peft would put a random A, or a B of zeros, in its place
                raise LabError(f"The adapter in {folder} is damaged: it has {key} but not {other}. Copy it again.")
        modules = dict(self._base.named_modules())
        for key, shape in shapes.items():
            layer, _, part = key.removeprefix(PREFIX).partition(".lora_")
            module = modules.get(layer)
            if module is None:
                raise LabError(f"{folder} does not fit this base, which has no layer {layer}: take another base model.")
            wide = {"A.weight": ("in_features", 1), "B.weight": ("out_features", 0)}.get(part)
            if wide and hasattr(module, wide[0]) and getattr(module, wide[0]) != shape[wide[1]]:
                raise LabError(
                    f"{folder} does not fit this base: lora_{part[0]} of {layer} is {shape[0]}×{shape[1]}, and the "
                    f"layer is {module.out_features}×{module.in_features}. It was trained on another model."
                )


def _task_of(folder: Path) -> str:
    """The task that an adapter's record.json names, "bookings" without one."""
    try:
        return json.loads((folder / "record.json").read_text(encoding="utf-8"))["recipe"]["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return "bookings"
