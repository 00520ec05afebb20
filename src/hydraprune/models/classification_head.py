"""The classification head of a Hugging Face model: its modules, and the order of its outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hydraprune.data.examples import Labels
from hydraprune.errors import UserError

# A pooler belongs to the base model in some families (BERT) and to the head in others (DeBERTa).
POOLER = "pool"


def base_model(model: nn.Module) -> tuple[str, nn.Module | None]:
    """The name and the module of a model's encoder, which `base_model_prefix` names in every Hugging Face model.

    The module is None for a model that has no base model apart from itself.
    """
    prefix = str(getattr(model, "base_model_prefix", ""))
    base = getattr(model, prefix, None) if prefix else None
    return prefix, base if isinstance(base, nn.Module) and base is not model else None


def head_modules(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that make up the head: those beside the base model, and the base model's pooler.

    Empty for a model that has no base model apart from itself. A layer whose only weight is that of the embedding is
    none of the head's.
    """
    prefix, base = base_model(model)
    if base is None:
        return ()
    inside = {id(weight) for weight in base.parameters()}
    beside = [
        name
        for name, child in model.named_children()
        if name != prefix and any(id(weight) not in inside for weight in child.parameters())
    ]
    poolers = [f"{prefix}.{n}" for n, child in base.named_children() if POOLER in n.lower() and _has_weights(child)]
    return (*poolers, *beside)


def is_below(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter belongs to one of some modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def copy_head(teacher: nn.Module, student: nn.Module) -> None:
    """Copy the weights of the teacher's head into the student's, which has the same modules."""
    for name in head_modules(student):
        student.get_submodule(name).load_state_dict(teacher.get_submodule(name).state_dict())


def set_labels(config: Any, labels: Labels) -> None:
    """Write the number, names and kind of a task's labels into a Hugging Face config, where outputs have names."""
    if not labels.names_outputs:
        return
    config.num_labels = labels.count
    config.id2label = dict(enumerate(labels.names))
    config.label2id = {name: index for index, name in enumerate(labels.names)}
    config.problem_type = labels.problem_type


def label_names(config: Any) -> tuple[str, ...]:
    """The names of a model's outputs in their order; `LABEL_n` for one without a name."""
    return tuple(str(config.id2label.get(place, f"LABEL_{place}")) for place in range(config.num_labels))


def label_order(config: Any, labels: Labels) -> list[int] | None:
    """For each of the task's labels, the output of the model that has its name; upper and lower case are the same.

    Returns:
        None if the names of the model are others, or not known (`LABEL_0`).
    """
    theirs = [name.lower() for name in label_names(config)]
    ours = [name.lower() for name in labels.names]
    if labels.regression or len(set(ours)) < len(ours) or sorted(theirs) != sorted(ours):
        return None
    return [theirs.index(name) for name in ours]


@torch.no_grad()
def take_labels(model: nn.Module, labels: Labels) -> bool:
    """Make the outputs of a fine-tuned model those of a task: same order, same names.

    Returns:
        Whether outputs were reordered.

    Raises:
        UserError: the outputs are in another order, and no layer of the head has one row for each.
    """
    config: Any = model.config
    if not labels.names_outputs:
        return False
    order = label_order(config, labels)
    reordered = order is not None and order != sorted(order)
    if reordered:
        last = _output_layer(model, labels.count)
        if last is None:
            cure = f"give one whose labels are in this order: {', '.join(labels.names)}"
            raise UserError("the outputs of its head cannot be reordered", cure=cure)
        for parameter in last.parameters():
            parameter.copy_(parameter[order].clone())
    set_labels(config, labels)
    return reordered


def _output_layer(model: nn.Module, outputs: int) -> nn.Linear | None:
    head = head_modules(model)
    layers = [
        module
        for name, module in model.named_modules()
        if is_below(f"{name}.", head) and isinstance(module, nn.Linear) and module.out_features == outputs
    ]
    return layers[-1] if layers else None


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
