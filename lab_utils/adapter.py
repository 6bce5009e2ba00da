"""Putting LoRA adapters on a base model, and taking them off again."""

from .errors import LabError
from .quiet import quiet
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
        A target module is not in the model, or the rank is larger than a layer.
    """
    import torch
    from peft import LoraConfig

    model = take_off_adapter(model)
    _check_targets(model, recipe)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.use_rslora,
        target_modules=recipe.peft_targets,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    return put_on(model, config)


def put_on(model, config):
    """A base model with the adapters of peft's `config`: float32, in training mode, everything else frozen."""
    from peft import get_peft_model

    with quiet():
        model = get_peft_model(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.train()


def base_model(model):
    """The transformers model itself, with or without peft around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def take_off_adapter(model):
    """The base model without any peft layers, in place; peft puts its layers into the base itself.

    Parameters
    ----------
    model : peft model, or a base model that peft was applied to, or a plain one (returned as it is)
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = base_model(model)
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.set_submodule(name, module.get_base_layer())
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


def _check_targets(model, recipe: Recipe) -> None:
    """Raise a LabError for a target that no module has, or a layer smaller than the rank."""
    linears = {
        name: module for name, module in model.named_modules()
        if hasattr(module, "in_features") and module is not model.get_output_embeddings()
    }
    wanted = recipe.peft_targets
    if wanted != "all-linear":
        ends = sorted({name.rpartition(".")[2] for name in linears})
        for target in wanted:
            if not any(name == target or name.endswith(f".{target}") for name in linears):
                raise LabError(f"target_modules: the model has no linear layer {target!r}. It has: {', '.join(ends)}.")
        linears = {name: m for name, m in linears.items() if any(name.endswith(target) for target in wanted)}
    name, smallest = min(linears.items(), key=lambda item: min(item[1].in_features, item[1].out_features))
    limit = min(smallest.in_features, smallest.out_features)
    if recipe.rank > limit:
        raise LabError(
            f"rank={recipe.rank} is larger than layer {name} ({smallest.out_features}×{smallest.in_features}) allows: "
            f"a product B·A of that shape has rank {limit} at most. Choose rank 1 to {limit}."
        )
