"""Models inside wrappers: the names are those of the model itself, and weights that no mask reaches are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from sparsity_helpers import pruner_of
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from hydraprune.sparsity import (
    Exp,
    Family,
    GroupLasso,
    Layers,
    Magnitude,
    Method,
    NofM,
    OneShot,
    Plans,
    Progressive,
    Rigl,
    SnipMomentum,
    SparsityError,
    SrSte,
    Wanda,
    block,
    coverage,
    custom,
    holds_pattern,
    layer_sparsity,
    zeros_of,
)
from hydraprune.sparsity.wrappers import by_plain_names, named_modules, named_parameters

FAMILY = Family("mine", {"query": [r"layers\.\d+\.query"]}, outside=["head"])


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(torch.tanh(self.query(inputs)))
        return result


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(Block(), Block())
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.layers(inputs))
        return result


def inside(model: nn.Module, wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """`model` with its second block in a wrapper."""
    model.layers[1] = wrap(model.layers[1])  # type: ignore[index, operator]
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": torch.compile,  # type: ignore[dict-item]
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "checkpoint": checkpoint_wrapper,
    "compile a part": lambda model: inside(model, torch.compile),  # type: ignore[arg-type]
    "checkpoint a part": lambda model: inside(model, checkpoint_wrapper),
    "compile in DataParallel": lambda model: nn.DataParallel(torch.compile(model)),  # type: ignore[arg-type]
    "all": lambda model: torch.compile(AveragedModel(nn.DataParallel(inside(model, checkpoint_wrapper)))),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    "layers",
    [Layers(), Layers(roles=["query"]), Layers(include=[r"^layers\.0\."]), Layers(exclude=[r"^layers\.1\.out$"])],
    ids=["all", "roles", "include", "exclude"],
)
def test_names_are_those_of_the_model_itself(wrapper: str, layers: Layers) -> None:
    plans = block(4, 1, 0.5, layers=layers)
    plain, wrapped = Model(), WRAPPERS[wrapper](Model())
    one, other = (pruner_of(model, plans, Magnitude(), OneShot(), family=FAMILY) for model in (plain, wrapped))
    for pruner in (one, other):
        pruner.project(0)
    assert one.masks.keys() == other.masks.keys()
    assert all(torch.equal(other.masks[name], mask) for name, mask in one.masks.items())
    assert holds_pattern(other, dict(wrapped.named_parameters())) == holds_pattern(one, dict(plain.named_parameters()))
    assert [(s.name, s.zeros) for s in layer_sparsity(wrapped)] == [(s.name, s.zeros) for s in layer_sparsity(plain)]
    assert coverage(wrapped, [other], FAMILY) == coverage(plain, [one], FAMILY)
    # The head stays dense, and a state goes from one to the other.
    assert all(zeros_of(weight) == 0 for name, weight, _ in named_parameters(wrapped) if name.startswith("head"))
    other.load_state_dict(one.state_dict())


def test_a_module_of_that_name_is_no_wrapper() -> None:
    for more in ({"fc": nn.Linear(8, 8)}, {}):
        model = nn.ModuleDict({"module": nn.ModuleDict({"module": nn.Linear(8, 8)}), **more})
        pruner = pruner_of(model, block(4, 1, 0.5), Magnitude(), OneShot(), family=Family("mine", outside=[*more]))
        assert [weight.name for weight in pruner.weights] == ["module.module.weight"]
        pruner.project(0)
        assert holds_pattern(pruner, dict(model.named_parameters()))[0]
        assert holds_pattern(pruner, dict(nn.DataParallel(model).named_parameters()))[0]


def test_tied_weights_behind_a_wrapper_are_found() -> None:
    model = Model()
    model.layers[1].query.weight = model.layers[0].query.weight  # type: ignore[union-attr]
    with pytest.raises(SparsityError, match=r"layers\.1\.query\.weight is tied to layers\.0\.query\.weight"):
        pruner_of(nn.DataParallel(model), block(4, 1, 0.5), Magnitude(), OneShot(), family=FAMILY)


def test_plain_names_of_tensors() -> None:
    tensors = {"module._orig_mod.a.weight": torch.ones(1), "module._orig_mod.module.bias": torch.ones(1)}
    assert list(by_plain_names(tensors, ["a.weight"])) == ["a.weight", "module.bias"]
    assert by_plain_names(tensors, list(tensors)) is tensors
    assert list(by_plain_names(tensors, ["another"])) == ["a.weight", "module.bias"]
    assert by_plain_names({}, ["a"]) == {}
    assert [name for name, _ in named_modules(nn.DataParallel(nn.Sequential(nn.ReLU())))] == ["", "", "0"]


# Names outside the encoder ------------------------------------------------------------------------


@pytest.mark.parametrize("typo", ["haed", "head.2", "classifier", "layer", "module.head"])
def test_a_name_outside_that_no_module_has_is_refused(typo: str) -> None:
    for model in (Model(), torch.compile(Model())):
        with pytest.raises(
            SparsityError, match=rf"^family\.outside={typo}: no module has this name.*names look like .*(head|layers)"
        ):
            pruner_of(model, block(4, 1, 0.5), Magnitude(), OneShot(), family=Family("mine", outside=["head", typo]))


def test_a_family_of_many_heads_may_lack_some() -> None:
    family = Family("mine", outside=["head", "pooler"], may_lack_outside=True)
    pruner = pruner_of(Model(), block(4, 1, 0.5), Magnitude(), OneShot(), family=family)
    # All inside of a module that is outside stays out, too.
    assert not any("head" in weight.name for weight in pruner.weights)


# Weights that no mask reaches ---------------------------------------------------------------------


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def fsdp(flat: bool) -> Callable[[nn.Module], nn.Module]:
    def wrap(model: nn.Module) -> nn.Module:
        from torch.distributed.fsdp import FullyShardedDataParallel as Fsdp

        return Fsdp(model, use_orig_params=not flat, device_id=torch.device("cpu"))

    return wrap


def fully_shard(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    return fully_shard(model, mesh=mesh)  # type: ignore[return-value]


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("method", [Magnitude(), Wanda()], ids=["magnitude", "wanda"])
def test_weights_that_fsdp_flattens_are_refused_by_name(flat: bool, method: Magnitude | Wanda) -> None:
    with pytest.raises(SparsityError, match=r"^layers\.0\.query: .*flattened.*shard by fully_shard"):
        pruner_of(fsdp(flat)(Model()), block(4, 1, 0.5), method, OneShot(), family=FAMILY)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("plans", "method", "options", "said"),
    [
        (block(4, 1, 0.5), Wanda(), {}, "criterion=wanda: this method chooses by more than"),
        (block(4, 1, 0.5), Rigl(), {}, "criterion=rigl: this method chooses by more than"),
        (custom(NofM(2, 4)), SrSte(), {}, "criterion=sr_ste: this method chooses by more than"),
        (block(4, 1, 0.5), SnipMomentum(), {"transition": Progressive(2)}, "progressive: the parts of blocks"),
        (block(4, 1, 0.5), SnipMomentum(), {"regularizer": GroupLasso(1.0)}, "regularizer=group_lasso: a regularizer"),
    ],
    ids=["wanda", "rigl", "sr_ste", "progressive", "group lasso"],
)
def test_what_needs_whole_weights_is_refused_where_they_are_sharded(
    plans: Plans, method: Method, options: dict[str, Any], said: str
) -> None:
    schedule = OneShot() if isinstance(method, Wanda) else Exp(warmup=2, frequency=3)
    with pytest.raises(SparsityError, match=f"{said}.*is sharded"):
        pruner_of(fully_shard(Model()), plans, method, schedule, family=FAMILY, **options)


@pytest.mark.usefixtures("one_process")
def test_tensor_parallel_weights_are_refused_by_name() -> None:
    from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    model = parallelize_module(Model(), mesh, {"layers.0.query": RowwiseParallel()})
    said = r"^layers\.0\.query: its weight is sharded along dimension 1, as by tensor parallel; .*exclude it"
    with pytest.raises(SparsityError, match=said):
        pruner_of(model, block(4, 1, 0.5), Magnitude(), OneShot(), family=FAMILY)


@pytest.mark.usefixtures("one_process")
def test_whole_and_sharded_weights_need_pruners_of_their_own() -> None:
    model = Model()
    from torch.distributed.fsdp import fully_shard

    fully_shard(model.layers[0], mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))  # type: ignore[arg-type]
    with pytest.raises(SparsityError, match="is whole in each process, and layers"):
        pruner_of(model, block(4, 1, 0.5), Magnitude(), OneShot(), family=FAMILY)


@pytest.mark.usefixtures("one_process")
def test_names_in_distributed_data_parallel_are_those_of_the_model_itself() -> None:
    wrapped = nn.parallel.DistributedDataParallel(Model())
    pruner = pruner_of(wrapped, block(4, 1, 0.5, layers=Layers(roles=["query"])), Magnitude(), OneShot(), family=FAMILY)
    assert [weight.name for weight in pruner.weights] == ["layers.0.query.weight", "layers.1.query.weight"]
    pruner.project(0)
    assert holds_pattern(pruner, dict(wrapped.named_parameters())) == (True, 16)


class Linear(nn.Module):
    """Called like a layer that has a weight."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        if inner is not None:
            self.linear = inner


class Conv2d(Linear):
    pass


def with_weight(weight: torch.Tensor) -> nn.Module:
    module = Linear()
    module.weight = nn.Parameter(weight, requires_grad=False)
    return module


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (Linear(), "has no weight"),
        (Conv2d(), "has no weight"),
        (nn.LazyLinear(8), "lazy"),
        (nn.LazyConv2d(8, 3), "lazy"),
        (with_weight(torch.ones(8)), r"shape \(8,\)"),
        (with_weight(torch.ones(2, 4, 4)), r"shape \(2, 4, 4\)"),
        (with_weight(torch.ones(8, 8, dtype=torch.int8)), "int8"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), "parametrized"),
    ],
)
def test_layers_without_a_weight_to_mask_are_refused_by_name(layer: nn.Module, word: str) -> None:
    with pytest.raises(SparsityError, match=rf"^1: .*{word}"):
        pruner_of(nn.Sequential(nn.Linear(8, 8), layer), block(4, 1, 0.5), Magnitude(), OneShot())


def test_a_module_called_like_a_layer_that_holds_one_is_seen_through() -> None:
    model = nn.Sequential(Linear(nn.Linear(8, 8)), Conv2d(nn.Sequential(nn.Conv2d(4, 8, 3))))
    pruner = pruner_of(model, block(4, 1, 0.5), Magnitude(), OneShot())
    pruner.project(0)
    assert [weight.name for weight in pruner.weights] == ["0.linear.weight", "1.linear.0.weight"]
    assert [layer.name for layer in layer_sparsity(model)] == ["0.linear", "1.linear.0"]
