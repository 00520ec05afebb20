"""What other pruning libraries assert of the layers that they prune and leave out, restated for ours.

A comment above each test names the library, the commit of its test that was read, with its date except for PyTorch, and
the test. Where ours differs on purpose, the comment says how.
"""

from __future__ import annotations

import pytest
import torch
from sparsity_helpers import PLAIN, plan_of, prune_now, pruner_of
from torch import nn

from hydraprune.sparsity import (
    Cubic,
    Exp,
    Family,
    Layers,
    Linear,
    Magnitude,
    OneShot,
    Pruner,
    SnipMomentum,
    SparsityError,
    attach,
    block,
    coverage,
    layer_sparsity,
    lock,
    mixed,
    n_of_m,
)


class Small(nn.Module):
    """Five linear layers, three of them in a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 12)


class Encoder(nn.Module):
    """Layers named as in BERT, with a pooler and a classifier."""

    def __init__(self, layers: int, cross: int = 0) -> None:
        super().__init__()
        own = ("query", "key", "value", "output", "ffn_in", "ffn_out")
        more = ("cross_query", "cross_key", "cross_value", "cross_output")
        self.layer = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(8, 8) for name in own + (more if index < cross else ())})
            for index in range(layers)
        )
        self.pre_classifier = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 2)


ENCODER = Family(
    "encoder",
    {
        "query": [r"layer\.\d+\.(cross_)?query"],
        "key": [r"layer\.\d+\.(cross_)?key"],
        "value": [r"layer\.\d+\.(cross_)?value"],
        "attention_output": [r"layer\.\d+\.(cross_)?output"],
        "ffn_in": [r"layer\.\d+\.ffn_in"],
        "ffn_out": [r"layer\.\d+\.ffn_out"],
    },
    outside=("pre_classifier", "classifier"),
)


def names(pruner: Pruner) -> list[str]:
    """The layers that it prunes."""
    return [weight.layer for weight in pruner.weights]


def pruner_on(model: nn.Module, layers: Layers, family: Family = PLAIN) -> Pruner:
    """Half of the weights of the layers chosen."""
    return pruner_of(model, block(1, 1, 0.5, layers=layers), Magnitude(), OneShot(), family=family)


# torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: BaseSparsifier.test_constructor (all five layers without a
# config, and the one that a config names).
def test_all_layers_or_those_that_are_named() -> None:
    assert names(pruner_on(Small(), Layers())) == ["seq.0", "seq.1", "seq.2", "first", "second"]
    assert names(pruner_on(Small(), Layers(include="^first$"))) == ["first"]


# torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: BaseSparsifier.test_prepare_config (two layers with settings of
# their own, and a third that is not touched).
def test_a_layer_that_no_plan_names_is_not_touched() -> None:
    model = Small()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    plans = {
        "one": plan_of(block(1, 1, 0.25, layers=Layers(include=r"^seq\.0$")), Magnitude(), OneShot()),
        "two": plan_of(block(4, 1, 0.5, layers=Layers(include="^second$")), Magnitude(), OneShot()),
    }
    pruners = attach(model, plans, PLAIN, 1)
    for pruner in pruners:
        pruner.project(0)
    assert [(pruner.name, names(pruner), pruner.zeros) for pruner in pruners] == [
        ("one", ["seq.0"], 16),
        ("two", ["second"], 48),
    ]
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"seq.0.weight", "second.weight"}


# torch.ao.pruning, pytorch 02ab03f: a weight belongs to one group of a sparsifier. Ours says who else has it.
def test_a_weight_in_two_plans_is_refused() -> None:
    plan = plan_of(block(1, 1, 0.5, layers=Layers(include="first|second")), Magnitude(), OneShot())
    other = plan_of(n_of_m(2, 4, layers=Layers(include="second")), Magnitude(), OneShot())
    with pytest.raises(SparsityError, match=r"second\.weight is claimed by pruner one and by pruner two"):
        attach(Small(), {"one": plan, "two": other}, PLAIN, 1)


# Intel Neural Compressor 2408f7a of 2024-07-15, pruning_2.x/test_auto_excluding_classifier.py: the last layer, found by
# tracing, is left out. Ours is named by the model family, and a name that is part of another leaves only itself out.
@pytest.mark.parametrize(
    ("outside", "pruned"),
    [(["classifier"], 7), (["pre_classifier"], 7), (["classifier", "pre_classifier"], 6), ([], 8), (["layer"], 2)],
)
def test_the_head_is_left_out_by_its_exact_name(outside: list[str], pruned: int) -> None:
    model = Encoder(1)
    found = names(pruner_on(model, Layers(), Family("mine", outside=outside)))
    assert len(found) == pruned
    assert not any(name.split(".")[0] in outside for name in found)


def test_a_name_leaves_out_neither_longer_nor_shorter_ones() -> None:
    model = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("head", "head_2", "pre_head", "body")})
    assert names(pruner_on(model, Layers(), Family("mine", outside="head"))) == ["head_2", "pre_head", "body"]


# Intel Neural Compressor 18173d6 of 2023-08-22, pruning_2.x/test_pruning_patterns.py and test_pruning_config.py:
# op_names and excluded_op_names are regular expressions; a pruner's own settings win over the shared ones, which fill
# the rest.
def test_settings_of_a_part_win_over_shared_ones() -> None:
    own = block(
        "channel", 1, 0.5, "local", layers=Layers(include="seq", exclude=r"seq\.1"), scheduler=Linear(frequency=2)
    )
    locked = lock(Layers(include="first"))
    plans = mixed({"a": own, "b": locked})
    schedule = Exp(warmup=1, cooldown=2, frequency=3)
    first, second = (plan.completed(SnipMomentum(), schedule) for plan in plans.parts.values())
    assert (first.schedule, first.criterion) == (Linear(frequency=2), SnipMomentum())
    assert (first.selection.target_sparsity, first.selection.scope, first.pattern.name) == (0.5, "local", "channelx1")
    assert second.criterion is not None
    assert second.criterion.needs_zeros
    model = Small()
    model.first.weight.data[0] = 0.0
    third = own.parts["channelx1"].completed(Magnitude(), schedule)
    pruners = attach(model, {"a": third, "b": second}, PLAIN, 12)
    assert [names(pruner) for pruner in pruners] == [["seq.0", "seq.2"], ["first"]]


# tensorflow_model_optimization, 126b855 of 2024-09-24, pruning_wrapper_test.py: testPruneModel (two convolutions and
# two dense layers have masks; pooling, flattening and dropout have none), testDense, testConv2D.
def test_layers_with_weights_have_masks() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16, 12),
        nn.Dropout(0.4), nn.LayerNorm(12), nn.Linear(12, 4),
    )  # fmt: skip
    assert list(prune_now(model, block(1, 1, 0.5)).masks) == ["0.weight", "2.weight", "5.weight", "8.weight"]


# tensorflow_model_optimization, 126b855 of 2024-09-24, pruning_wrapper_test.py: testEmbedding (pruned there),
# testCustomLayerNonPrunable (an error), testConv3DWeightNotPrunedWithSparsityMbyN (left dense). Ours leaves all three
# dense and says why.
def test_what_is_not_pruned_is_said() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(16, 32))

    model = nn.ModuleDict(
        {"tokens": nn.Embedding(10, 8), "own": Own(), "video": nn.Conv3d(4, 4, 3), "linear": nn.Linear(8, 8)}
    )
    found = coverage(model, [prune_now(model, n_of_m(2, 4))], PLAIN)
    assert [weight.name for weight in found.pruned] == ["linear.weight"]
    assert {weight.name: weight.reason for weight in found.dense} == {
        "tokens.weight": "embedding",
        "own.weight": "unsupported",
        "video.weight": "unsupported",
    }
    with pytest.raises(SparsityError, match="no layer is left to prune"):
        prune_now(nn.ModuleDict({"own": Own(), "video": nn.Conv3d(4, 4, 3)}), n_of_m(2, 4))


# nn_pruning 259f962 of 2021-11-09, test_patch2.py: test_base (72 layers of a BERT of 12, 144 of one of 24; 96 of a BART
# of 6 and 6, whose decoder has a second attention).
@pytest.mark.parametrize(("layers", "cross", "patched"), [(12, 0, 72), (24, 0, 144), (12, 6, 96)])
def test_how_many_layers_an_encoder_has(layers: int, cross: int, patched: int) -> None:
    model = Encoder(layers, cross)
    assert len(pruner_on(model, Layers(), ENCODER).weights) == patched
    assert len(pruner_on(model, Layers(roles=list(ENCODER.roles)), ENCODER).weights) == patched


# nn_pruning 259f962 of 2021-11-09, test_patch2.py: test_context_module (blocks on the attention's layers and single
# dimensions on those of the feed-forward network: 48 of one and 24, in pairs 12, of the other).
def test_blocks_on_the_attention_and_channels_on_the_feed_forward_network() -> None:
    model = Encoder(12)
    attention = Layers(roles=("attention", "attention_output"))
    plans = {
        "blocks": plan_of(block(4, 4, 0.5, layers=attention), Magnitude(), Cubic()),
        "rows": plan_of(block(1, "channel", 0.5, layers=Layers(roles="ffn_in")), Magnitude(), Cubic()),
        "columns": plan_of(block("channel", 1, 0.5, layers=Layers(roles="ffn_out")), Magnitude(), Cubic()),
    }
    pruners = attach(model, plans, ENCODER, 10)
    assert [len(pruner.weights) for pruner in pruners] == [48, 12, 12]
    assert coverage(model, pruners, ENCODER).by_reason == {"outside": 80}


# Torch-Pruning f5c7d8e of 2024-02-24, test_ignored_layers.py: the classifier and one layer that is named are not
# pruned. llm-compressor afcc3e0 of 2025-11-18, transformers/sparsegpt/test_sparsegpt_lm_head.py: the head is pruned
# only where it is a target.
@pytest.mark.parametrize("exclude", [[], [r"^layer\.1\.key$"], ["query", "key"]])
def test_layers_that_are_ignored_stay_dense(exclude: list[str]) -> None:
    torch.manual_seed(0)
    model = Encoder(3)
    pruner = pruner_on(model, Layers(exclude=exclude), ENCODER)
    pruner.project(0)
    sparse = {layer.name for layer in layer_sparsity(model) if layer.zeros}
    assert sparse == set(names(pruner))
    assert not {"classifier", "pre_classifier", *(["layer.1.key"] if exclude else [])} & sparse
    assert len(sparse) == 18 - {0: 0, 1: 1, 2: 6}[len(exclude)]


# llm-compressor 09ff1d8 of 2025-09-24, pytorch/modifiers/pruning/sparsegpt/test_pytorch.py:
# test_invalid_layerwise_recipes_raise_exceptions (sparsities and layers that do not match). Ours has one target for
# each plan; a list in its place, and a layer that there is not, are refused.
@pytest.mark.parametrize("target", [[0.5, 0.2], [0.5], (0.1, 0.2, 0.3), {"first": 0.5}])
def test_a_list_of_sparsities_is_refused(target: object) -> None:
    with pytest.raises(SparsityError, match="target_sparsity"):
        block(1, 1, target)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["third", "re:.*first", r"seq\.3", "First"])
def test_a_layer_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(SparsityError, match="matches no prunable layer"):
        pruner_on(Small(), Layers(include=name))


# NNI da87bcd of 2022-06-21, compression/v1/test_pruners.py and 6ea069c of 2023-05-23,
# compression/pruning/test_pruner.py: op_types chooses by the type of a layer, and the sparsity holds for each of them.
@pytest.mark.parametrize(
    ("types", "chosen"), [(["Conv2d"], ["0", "2"]), (["Linear"], ["3"]), (["Conv2d", "Linear"], ["0", "2", "3"])]
)
def test_layers_by_their_type(types: list[str], chosen: list[str]) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Linear(8, 4))
    pruner = prune_now(model, block(1, 1, 0.5, "local", layers=Layers(types=types)))
    assert names(pruner) == chosen
    assert all(int(mask.sum()) * 2 == mask.numel() for mask in pruner.masks.values())


# NNI 6ea069c of 2023-05-23, compression/pruning/test_pruner.py: create_model leaves fc2 out by its name; its masks have
# no entry for it.
def test_a_layer_left_out_has_no_mask() -> None:
    model = Small()
    pruner = prune_now(model, block(1, 1, 0.75, layers=Layers(exclude="^second$")))
    assert "second.weight" not in pruner.masks
    assert bool((model.second.weight != 0).all())
