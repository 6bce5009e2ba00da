"""Putting LoRA adapters on a base model, and taking them off again."""

from ..errors import LabError
from ..models.registry import base_model
from ..quiet import quiet
from .recipe import Recipe


def attach_adapter(model, recipe: Recipe):
    """Put fresh LoRA adapters on a base model; an adapter that is on it already is taken off first.

    Parameters
    ----------
    model : transformers model, or a peft model (its base is used)
    recipe : Recipe; rank, alpha, dropout, use_rslora, target_modules and seed count

    Returns
    -------
    peft model in training mode: A from Kaiming-uniform, B zero, both float32, everything else frozen

    Raises
    ------
    LabError
        A target module is not in the model or is not a linear layer, the rank is larger than a layer, or peft refuses
        it.
    """
    import torch
    from peft import LoraConfig

    model = take_off_adapter(model)
    targets = _targets(model, recipe)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.use_rslora,
        target_modules=recipe.peft_targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in targets.values()),
    )
    torch.manual_seed(recipe.seed)
    return put_on(model, config)


def put_on(model, config):
    """A base model with the adapters of peft's `config`: float32, in training mode, everything else frozen.

    Raises
    ------
    LabError
        peft refuses model or config.
    """
    from peft import get_peft_model

    try:
        with quiet():
            model = get_peft_model(model, config)
    except Exception as error:  # ValueError, KeyError, RuntimeError ...: it depends on the layer
        take_off_adapter(model)  # what it has put on already
        raise LabError(
            f"peft cannot put these adapters on a {type(model).__name__} ({type(error).__name__}: {error}). "
            "Choose other target_modules, or another base."
        ) from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.train()


def take_off_adapter(model):
    """The base model without any peft layers, in place; peft puts its layers into the base itself.

    Parameters
    ----------
    model : peft model, or a base model that peft was applied to, or a plain one (returned as it is)
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    base, inside = base_model(model), None
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer) and not (inside and name.startswith(inside)):
            base.set_submodule(name, module.get_base_layer())
            inside = f"{name}."  # around a mixture's experts there are two, one in the other
    for note in ("peft_config", "_hf_peft_config_loaded"):
        base.__dict__.pop(note, None)
    return base


def twin(model):
    """The same weights in new modules: an adapter that is put on the one is not on the other.

    Parameters
    ----------
    model : transformers model, in 4 bits or not, or a peft model
    """
    import copy

    shared = list(model.parameters())
    shared += [weight.quant_state for weight in shared if getattr(weight, "quant_state", None) is not None]
    return copy.deepcopy(model, {id(one): one for one in shared})


def sides_of(module) -> tuple[int, int] | None:
    """(in, out) of a linear layer: torch's, bitsandbytes', or transformers' Conv1D, which GPT-2 has; None of others."""
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":
        return tuple(module.weight.shape)
    return None


def _targets(model, recipe: Recipe) -> dict:
    """The layers that get an adapter, by name; a LabError for a target that is none, or one smaller than the rank."""
    linears = {
        name: module for name, module in model.named_modules()
        if sides_of(module) and module is not model.get_output_embeddings()
    }
    wanted = recipe.peft_targets
    if wanted != "all-linear":
        for target in wanted:
            if not any(_is(name, target) for name in linears):
                raise LabError(f"target_modules: {_no_target(model, target)}. It has: {_ends(linears)}.")
        linears = {name: module for name, module in linears.items() if any(_is(name, target) for target in wanted)}
    if not linears:
        raise LabError(f"target_modules: {type(model).__name__} has no linear layer but its head. Take another base.")
    name, smallest = min(linears.items(), key=lambda item: min(sides_of(item[1])))
    (into, out), limit = sides_of(smallest), min(sides_of(smallest))
    if recipe.rank > limit:
        raise LabError(
            f"rank={recipe.rank} is larger than layer {name} ({out}×{into}) allows: "
            f"a product B·A of that shape has rank {limit} at most. Choose rank 1 to {limit}, or name target_modules "
            "without it."
        )
    return linears


def _is(name: str, target: str) -> bool:
    """Does peft take a module for a target?"""
    return name == target or name.endswith(f".{target}")


def _ends(linears: dict) -> str:
    """The last parts of the linear layers' names."""
    return ", ".join(sorted({name.rpartition(".")[2] for name in linears}))


def _no_target(model, target: str) -> str:
    """Why a module cannot be a target, in words."""
    found = next((module for name, module in model.named_modules() if _is(name, target)), None)
    if found is None:
        return f"the model has no linear layer {target!r}"
    if found is model.get_output_embeddings():
        return f"{target!r} is the model's head, which is not adapted here"
    return f"{target!r} is a {type(found).__name__} and no linear layer"
