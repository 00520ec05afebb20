"""Names of modules and parameters behind wrappers: `layer.0.query` for `_orig_mod.layer.0.query`.

`torch.compile`, data parallelism and checkpointing wrap a module in another one and so put a word into the names of all
that is inside. The core knows modules by the names that they have without these words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

# Attributes under which a wrapper holds its module, and that nothing else is called.
WRAPPER_ATTRIBUTES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
# Classes that hold their module as `module`, which is a usual name otherwise. By name: some are not torch's.
_HOLD_MODULE = (
    "DataParallel",
    "DistributedDataParallel",
    "FullyShardedDataParallel",
    "AveragedModel",
    "DeepSpeedEngine",
)


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of `model` with their names, as `nn.Module.named_modules`, but without the words of wrappers.

    A wrapper and what it wraps have the same name; the wrapper comes first.
    """
    yield from _named(model, "", set())


def _named(module: nn.Module, name: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    yield name, module
    for attribute, child in module.named_children():
        yield from _named(child, name if _wraps(module, attribute) else _joined(name, attribute), seen)


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """The parameters of `model` and the modules that hold them, under all names, without the words of wrappers.

    A tied parameter comes more than once.
    """
    for name, parameter in model.named_parameters(remove_duplicate=False):
        *path, last = name.split(".")
        plain, module = "", model
        for attribute in path:
            plain = plain if _wraps(module, attribute) else _joined(plain, attribute)
            module = module.get_submodule(attribute)
        yield _joined(plain, last), parameter, module


def unwrapped_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer inside the wrappers of accelerate or Lightning, which hold it as `optimizer`."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer


def by_plain_names(tensors: Mapping[str, Tensor], names: Iterable[str]) -> Mapping[str, Tensor]:
    """Tensors under their parameters' names without the words of wrappers, unless they already go by `names`.

    Here nothing but names is known: `module` counts as a wrapper's word where every name begins with it.
    """
    wanted = list(names)
    while any(name not in tensors for name in wanted):
        plain = {
            ".".join(part for part in name.split(".") if part not in WRAPPER_ATTRIBUTES): t
            for name, t in tensors.items()
        }
        if plain.keys() == tensors.keys():
            if not plain or not all(name.startswith("module.") for name in plain):
                break
            plain = {name.removeprefix("module."): tensor for name, tensor in plain.items()}
        tensors = plain
    return tensors


def is_instance_of(value: object, kind: str) -> bool:
    """Whether a module or tensor is an instance of a class of that name, subclasses included."""
    return any(ancestor.__name__ == kind for ancestor in type(value).__mro__)


def _wraps(module: nn.Module, attribute: str) -> bool:
    return attribute in WRAPPER_ATTRIBUTES or (
        attribute == "module" and any(is_instance_of(module, kind) for kind in _HOLD_MODULE)
    )


def _joined(name: str, attribute: str) -> str:
    return f"{name}.{attribute}" if name else attribute
