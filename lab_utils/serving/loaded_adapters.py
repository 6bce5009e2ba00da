"""Adapters side by side on one base: loaded, used, swapped, combined, taken off."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import LabError, choose, shown
from ..finetune import take_off_adapter
from ..finetune.peft_adapters import adapter_tensors, attach, facts_for, load_tensors
from ..lora.facts import Facts
from ..lora.folders import AdapterFiles, read_files
from ..merging.finite_weights import refuse_nonfinite
from ..models.registry import base_model
from ..quiet import quiet
from ..tasks import Task
from ..tasks.registry import find_task
from .adapter_records import task_of
from .sums import delta, finish_sum

BASE = "__base__"  # peft's word for a row without adapter
COMBINATIONS = ("cat", "svd", "linear")
LEFT_BY_PEFT = (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


class LoadedAdapters:
    """One base model and the adapters beside it; `bank.AdapterBank` says what it is given and keeps."""

    def __init__(self, model, tokenizer):
        if any(getattr(layer, "merged", False) for layer in model.modules()):
            raise LabError("An adapter is merged into this model's weights. Call `model.unmerge_adapter()` first.")
        self.model, self.tokenizer = take_off_adapter(model).eval(), tokenizer
        refuse_nonfinite(self.model)
        self.active: str | None = None
        self.tasks: dict[str, str | Task | None] = {}

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
        folder : path, holds adapter_config.json and adapter_model.safetensors; `~` allowed
        task : str, a name in `TASKS`, or a Task; default what record.json says (`task_of`). Where nothing says it, the
            adapter has no task, and `answer` needs it named

        Raises
        ------
        LabError
            The name is taken or cannot be one; the folder is not an adapter, damaged, not finite, or uses what a bank
            cannot serve; or it does not fit this base. The bank is as before then.
        """
        self._check_name(name)
        found, facts = self._check_fits(folder)
        task = self._task(task, found)
        try:
            self.model = attach(self.model, name, facts)
        except LEFT_BY_PEFT as error:
            self._clear_away(name)
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise LabError(f"peft cannot load {found.folder} on this base: {text}") from error
        except BaseException:
            self._clear_away(name)
            raise
        self.model.eval()
        self.tasks[name] = task
        self.use(name)

    def _check_fits(self, folder: str | Path) -> tuple[AdapterFiles, Facts]:
        """What a folder holds; a LabError unless that is an adapter for this base."""
        found = read_files(folder)
        return found, facts_for(self._base, found)

    def _task(self, task: str | Task | None, found: AdapterFiles) -> str | Task | None:
        """The task that was named, or that the adapter's folder names."""
        task = task_of(found.folder) if task is None else task
        if task is not None:
            find_task(task)
        return task

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

    def swap(self, name: str, folder: str | Path, task: str | None = None) -> None:
        """Hot swap: overwrite an adapter's numbers by another's, in the same tensors, while the model stays in service.

        peft's own `hotswap_adapter` sets every tensor with the old name anywhere in its key to zero first, other
        adapters' too ("style" is in "style2"); here keys are compared whole.

        Parameters
        ----------
        name, folder, task : as for `load`

        Raises
        ------
        LabError
            The new adapter has other layers, ranks or scalings: `unload` the old one and `load` it then. Or as `load`.
        """
        choose("adapter", name, self.names)
        found, facts = self._check_fits(folder)
        task = self._task(task, found)
        mine = {key: tuple(one.shape) for key, one in adapter_tensors(self.model, name).items()}
        modules = {layer: self._base.get_submodule(layer) for layer in facts.layers}
        differing = "the layers" if mine != {key: tuple(one.shape) for key, one in facts.state.items()} else ""
        if not differing and any(
            not math.isclose(module.scaling[name], facts.scaling(layer)) for layer, module in modules.items()
        ):
            differing = "the scalings"
        if differing:
            raise LabError(
                f"{found.folder} cannot take {name}'s place, {differing} differ: unload {name}, then load the new one."
            )
        load_tensors(self.model, facts.state, name, str(found.folder))
        self.tasks[name] = task

    def combine(self, name: str, weights: Mapping[str, float], how: str = "cat") -> None:
        """Make a new adapter of several: ΔW = Σ weight · ΔW_i.

        "cat" is exact: the A's are stacked and the B's set side by side, so ranks add up. "svd" cuts that sum back to
        the largest rank. "linear" adds A's and B's on their own, each scaled by √weight, and is not such a sum: in
        (√u B₁ + √v B₂)(√u A₁ + √v A₂) there are cross terms √uv (B₁A₂ + B₂A₁), which belong to nobody.

        Parameters
        ----------
        weights : dict adapter -> float
        how : "cat", "svd" or "linear" (equal ranks only)

        Raises
        ------
        LabError
            An adapter is unknown, or is more than a product B·A (DoRA, a bias of B); a weight is not a finite number;
            peft cannot combine them that way; or the result is not finite. The bank is as before then.
        """
        self._check_name(name)
        choose("way to combine", how, COMBINATIONS)
        self._check_weights(weights)
        active = self.active
        try:
            with quiet():
                self.model.add_weighted_adapter(list(weights), list(map(float, weights.values())), name, how)
            finish_sum(self._base, name, weights, exact=how == "cat")
        except LEFT_BY_PEFT as error:
            self._clear_away(name)
            raise LabError(f"peft cannot combine {', '.join(weights)} by {how!r}: {error}") from error
        except BaseException:
            self._clear_away(name)  # else peft would take the half-made one for finished next time
            raise
        self.tasks[name] = self.tasks[max(weights, key=weights.get)]
        self.model.eval()
        self.use(active)

    def _check_weights(self, weights: Mapping[str, float]) -> None:
        """Raise a LabError unless each is a finite number for an adapter that can be added up."""
        if not isinstance(weights, Mapping) or not weights:
            raise LabError("`weights` is empty: name at least one adapter, as {'bookings': 0.5, 'style': 0.5}.")
        for one, weight in weights.items():
            choose("adapter", one, self.names)
            if not _is_finite(weight):
                raise LabError(f"weights[{one!r}]={shown(weight)} is out of range: a finite number.")
            if self.model.peft_config[one].use_dora:
                raise LabError(f"{one} is a DoRA adapter: its update is not a product B·A, and cannot be added up.")
            if self.model.peft_config[one].lora_bias:
                raise LabError(f"{one} has biases beside B: its update is not a product B·A, and cannot be added up.")

    def delta(self, name: str, layer: str) -> torch.Tensor:
        """ΔW = scaling · B·A of an adapter in one of `layers`, in the shape of its weight; zeros where it has none.

        Returns
        -------
        float32 Tensor, (out, in); of an embedding (entries, dimension)

        Raises
        ------
        LabError
            There is no such adapter or layer, or the adapter is DoRA, whose update is not such a product.
        """
        choose("adapter", name, self.names)
        choose("layer", layer, self.layers)
        if self.model.peft_config[name].use_dora:
            raise LabError(f"{name} is a DoRA adapter: its update is not a product B·A.")
        return delta(self._base.get_submodule(layer), name)

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


def _is_finite(weight: object) -> bool:
    """Is it a number that a float can hold?"""
    try:
        return isinstance(weight, (int, float)) and not isinstance(weight, bool) and math.isfinite(weight)
    except OverflowError:  # a whole number beyond the largest float
        return False
