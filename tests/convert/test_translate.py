"""Neural Compressor configurations in our config, key by key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from hydraprune.config import instantiate
from hydraprune.config.composition import conf_dir, resolved
from hydraprune.convert import as_experiment, entries_of
from hydraprune.convert.reader import Source
from hydraprune.convert.schema import KEYS, PRUNING_TYPES
from hydraprune.convert.yaml_writer import Converted
from hydraprune.errors import UserError
from hydraprune.runs.experiment import build_experiment

# With a window, other keys can have their defaults.
WINDOW = {"start_step": 100, "end_step": 900}
STEPS = 1000


def converted(*own: dict[str, Any], steps: int | None = STEPS, **common: Any) -> Converted:
    return as_experiment(entries_of(Source(common, own or [{}])), steps, "theirs.yaml")


def output(*own: dict[str, Any], **common: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """(group -> its override, the keys below) of an output."""
    data = yaml.safe_load(converted(*own, **common).text)
    words = {key: word for item in data.pop("defaults") if isinstance(item, dict) for key, word in item.items()}
    return {key.removeprefix("override /"): str(word) for key, word in words.items()}, data


def asked(tmp_path: Path, made: Converted) -> DictConfig:
    """The config that Hydra composes from the output."""
    (tmp_path / "experiment").mkdir(exist_ok=True)
    (tmp_path / "experiment" / "theirs.yaml").write_text(made.text)
    return typed(f"hydra.searchpath=[{tmp_path}]", "experiment=theirs")


def typed(*words: str) -> DictConfig:
    return resolved(compose("config", ["model=tiny", "task=toy", *words]))


DIRECT = ("scheduler.warmup=100", "scheduler.cooldown=100", "scheduler.frequency=1")


# Keys in addition to WINDOW, and the overrides for the same run.
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"target_sparsity": None}, ["pattern=4x1"]),
        ({"pattern": "tile_pattern_4x1", "target_sparsity": 0.8}, ["pattern.target_sparsity=0.8"]),
        ({"pattern": "1x1", "pruning_type": "magnitude"}, ["pattern=1x1", "pruner=magnitude"]),
        ({"pattern": "8x2"}, ["pattern=block", "pattern.rows=8", "pattern.cols=2"]),
        ({"pattern": "1xchannel", "pruning_type": "gradient"}, ["pattern=1xchannel", "pruner=gradient"]),
        ({"pattern": "channelx1", "pruning_type": "snip"}, ["pattern=channelx1", "pruner=snip"]),
        ({"pattern": "2xchannel"}, ["pattern=block", "pattern.rows=2", "pattern.cols=channel"]),
        ({"pattern": "2:4", "target_sparsity": 0.5}, ["pattern=2:4"]),
        ({"pattern": "1:4", "target_sparsity": 0.25}, ["pattern=nm", "pattern.keep=3", "pattern.target_sparsity=0.25"]),
        (
            {"pattern": "6:8", "target_sparsity": 0.3, "max_sparsity_ratio_per_op": 0.6},
            ["pattern=nm", "pattern.keep=2", "pattern.of=8", "pattern.target_sparsity=0.3", "pattern.cap=0.6"],
        ),
        (
            {"sparsity_decay_type": "linear", "pruning_frequency": 50, "start_step": 0, "end_step": 600},
            ["scheduler=linear", "scheduler.frequency=50", "scheduler.warmup=0", "scheduler.cooldown=400"],
        ),
        *(({"sparsity_decay_type": word}, [f"scheduler={word}"]) for word in ("cos", "cube")),
        ({"end_step": 100}, ["scheduler=oneshot", "scheduler.cooldown=0", "scheduler.frequency=auto"]),
        (
            {"pruning_scope": "local", "min_sparsity_ratio_per_op": 0.5, "max_sparsity_ratio_per_op": 0.95},
            ["pattern.scope=local", "pattern.floor=0.5", "pattern.cap=0.95"],
        ),
        (
            {"target_sparsity": 0.99, "criterion_reduce_type": "max", "excluded_op_names": "output"},
            ["pattern.target_sparsity=0.98", "pattern.reduce=max", "pattern.layers.exclude=[output]"],
        ),
        (
            {"op_names": ["query", r"layer\.[01]\."], "pruning_op_types": "Linear"},
            [r"pattern.layers.include=[query,'layer\.[01]\.']", "pattern.layers.types=[Linear]"],
        ),
        ({"pruning_op_types": ["Conv"]}, ["pattern.layers.types=[Conv1d,Conv2d,Conv1D]"]),
        ({"pruning_op_types": ["Linear", "Conv1d"]}, ["pattern.layers.types=[Linear,Conv1d]"]),
    ],
    ids=str,
)
def test_a_key_gives_the_same_config_as_our_overrides(keys: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    config = asked(tmp_path, converted({**WINDOW, **keys}))
    assert config == typed(*DIRECT, *words)
    instantiate.plans(config)


def test_the_run_has_the_same_hash(tmp_path: Path) -> None:
    """A converted run is found finished if the same run was trained with our overrides."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "theirs.yaml").write_text(converted(WINDOW).text)
    base = ("model=tiny", "task=toy")
    one = compose("config", [*base, f"hydra.searchpath=[{tmp_path}]", "experiment=theirs"], return_hydra_config=True)
    two = compose("config", [*base, *DIRECT], return_hydra_config=True)
    assert build_experiment(one).spec.hash == build_experiment(two).spec.hash


@pytest.mark.parametrize("word", ["block_mask", "retrain_free", "sparse_gpt"])
def test_other_criteria_keep_their_names(word: str) -> None:
    words, body = output({**WINDOW, "pruning_type": word, "pattern": "channelx1"})
    schedule = "exp" if word == "block_mask" else "at_start"
    assert words == {"pattern": "channelx1", "pruner": word, "scheduler": schedule}
    assert body["pattern"] == {"target_sparsity": 0.9}


@pytest.mark.parametrize("criterion", ["magnitude", "gradient", "snip", "snip_momentum"])
def test_progressive_is_scores(criterion: str) -> None:
    words, _ = output({**WINDOW, "pruning_type": f"{criterion}_progressive", "pruning_frequency": 8})
    assert (words["pruner"], words["progressive"]) == (criterion, "scores")


@pytest.mark.parametrize("keys", [{"pruning_frequency": 1}, {"pruning_frequency": 8, "end_step": 104}])
def test_progressive_without_an_effect_is_dropped(keys: dict[str, Any]) -> None:
    made = converted({**WINDOW, "pruning_type": "snip_progressive", **keys})
    assert "progressive" not in yaml.safe_load(made.text)
    assert "override /progressive" not in made.text
    assert any("snip_progressive: in Neural Compressor _progressive does nothing" in note for note in made.notes)


def test_heads_are_scored_by_criterion_type() -> None:
    keys = {**WINDOW, "pattern": "mha", "criterion_type": "snip", "pruning_type": "magnitude_progressive"}
    words, body = output({**keys, "target_sparsity": 0.5, "pruning_scope": "local", "max_sparsity_ratio_per_op": 0.6})
    assert words == {"pattern": "heads", "pruner": "snip", "scheduler": "exp"}
    assert body["pattern"] == {"target_sparsity": 0.5, "scope": "local"}
    notes = converted(keys, max_sparsity_ratio_per_op=0.6).notes
    assert [re.findall(r"dropped: (\S+)=", note)[0].split(".")[-1] for note in notes] == [
        "max_sparsity_ratio_per_op",
        "pruning_type",
    ]


def test_a_lock_has_layers_only() -> None:
    keys = {"pruning_type": "pattern_lock", "pattern": "4x1", "target_sparsity": 0.8, "start_step": 3, "end_step": 3}
    words, body = output({**keys, "op_names": ["query"]}, steps=None)
    assert words == {"pattern": "lock"}
    assert body == {"pattern": {"layers": {"include": ["query"]}}}
    assert {"target_sparsity=0.8", "pattern=4x1", "start_step=3"} <= {
        re.findall(r"\.(\S+):", note)[0] for note in converted(keys, steps=None).notes
    }


@pytest.mark.parametrize(
    ("keys", "strength", "remark"),
    [
        ({"parameters": {"reg_coeff": 0.1}}, 0.1, None),
        ({"reg_coeff": 0.2}, 0.2, "Neural Compressor uses only parameters.reg_coeff"),
        ({"reg_coeff": 0.2, "parameters": {"reg_coeff": 0.1}}, 0.1, "parameters.reg_coeff takes precedence"),
        ({}, 0.0, None),
    ],
)
def test_group_lasso(keys: dict[str, Any], strength: float, remark: str | None) -> None:
    words, body = output({**WINDOW, "reg_type": "group_lasso", **keys})
    assert words["regularizer"] == "group_lasso"
    assert body["regularizer"] == {"strength": strength}
    notes = converted({**WINDOW, "reg_type": "group_lasso", **keys}).notes
    assert any("true proximal step" in note for note in notes)
    assert [note for note in notes if "proximal" not in note] == [n for n in notes if remark and remark in n]
    assert len(notes) == (2 if remark else 1)


EVERY: dict[str, Any] = {
    **WINDOW, "target_sparsity": 0.8, "pruning_type": "snip", "pattern": "8x1", "pruning_scope": "local",
    "op_names": ["query"], "excluded_op_names": ["key"], "pruning_op_types": ["Linear"], "pruning_frequency": 8,
    "min_sparsity_ratio_per_op": 0.1, "max_sparsity_ratio_per_op": 0.9, "sparsity_decay_type": "cos",
    "criterion_type": "snip", "criterion_reduce_type": "sum", "reg_type": "group_lasso", "reg_coeff": 0.3,
    "parameters": {"reg_coeff": 0.2}, "low_memory_usage": True, "resume_from_pruned_checkpoint": False,
    "lock_init_sparsity": True, "backend": "ipex",
}  # fmt: skip
DROPPED = {
    "criterion_type", "reg_coeff", "low_memory_usage", "resume_from_pruned_checkpoint", "lock_init_sparsity", "backend",
}  # fmt: skip


def test_every_key_is_accounted_for() -> None:
    assert set(EVERY) == set(KEYS)
    for given in (converted(EVERY), converted(**EVERY)):
        comments = [line for line in given.text.splitlines() if line.startswith("# dropped: ")]
        assert {re.findall(r"(\w+)=", line)[0] for line in comments} == DROPPED
        assert all(line.split(": ", 2)[2] for line in comments)
        assert [line.removeprefix("# ") for line in given.text.splitlines() if line[2:] in given.notes] == given.notes
    words, body = output(EVERY)
    assert words == {"pattern": "block", "pruner": "snip", "scheduler": "cos", "regularizer": "group_lasso"}
    assert body == {
        "pattern": {
            "rows": 8, "cols": 1, "target_sparsity": 0.8, "floor": 0.1, "cap": 0.9, "scope": "local", "reduce": "sum",
            "layers": {"include": ["query"], "exclude": ["key"], "types": ["Linear"]},
        },
        "scheduler": {"warmup": 100, "cooldown": 100, "frequency": 8},
        "regularizer": {"strength": 0.2},
    }  # fmt: skip


def test_each_key_changes_the_output_or_is_named_in_it() -> None:
    """No key is ignored."""
    base = {**WINDOW, "pruning_frequency": 8, "reg_type": "group_lasso"}
    before = converted(base).text
    for key, value in EVERY.items():
        changed = {**base, key: value if key not in base else {"end_step": 800, "start_step": 10}.get(key, 4)}
        if key != "reg_type":
            assert converted(changed).text != before, key
    assert converted({k: v for k, v in base.items() if k != "reg_type"}).text != before


def test_own_values_take_precedence_null_inherits_and_lists_are_replaced() -> None:
    common = {**WINDOW, "pruning_frequency": 2, "target_sparsity": 0.8, "op_names": ["query", "key"]}
    own = [{"target_sparsity": 0.6, "pattern": "channelx1", "op_names": ["value"]}, {"target_sparsity": None}]
    _, body = output(*own, **common)
    assert body["pattern"]["parts"] == {
        "value": {"target_sparsity": 0.6, "layers": {"include": ["value"]}},
        "query_key": {"target_sparsity": 0.8, "layers": {"include": ["query", "key"]}},
    }
    assert body["scheduler"] == {"warmup": 100, "cooldown": 100, "frequency": 2}
    # The arguments are not modified.
    assert common["op_names"] == ["query", "key"]
    assert KEYS["op_names"].default == []


def test_an_empty_list_is_one_pruner_of_the_shared_keys() -> None:
    assert converted(**WINDOW).text == converted({}, **WINDOW).text
    assert output(**WINDOW)[0]["pattern"] == "4x1"


FFN = {"op_names": ["intermediate", r"layer\.\d+\.output"], "pattern": "1x1", "pruning_scope": "local"}
ATTENTION = {"op_names": ["query", "key", "value"], "min_sparsity_ratio_per_op": 0.5}


def test_several_pruners_compose_to_a_mixed_pattern(tmp_path: Path) -> None:
    once = {"op_names": [r"attention\.output"], "end_step": 100, "pruning_type": "magnitude", "pattern": "2:4"}
    output = {**once, "target_sparsity": 0.5}
    made = instantiate.Components(asked(tmp_path, converted(FFN, ATTENTION, output, **WINDOW, pruning_frequency=9)))
    plans = made.plans.parts
    assert list(plans) == ["intermediate_layer_output", "query_key_value", "attention_output"]
    ffn, attention, once_only = plans.values()
    assert [plan.pattern.name for plan in plans.values()] == ["1x1", "4x1", "2:4"]
    assert [plan.selection.scope for plan in plans.values()] == ["local", "global", "global"]
    assert [plan.selection.floor for plan in plans.values()] == [0.0, 0.5, 0.0]
    assert [type(plan.criterion).__name__ for plan in plans.values()] == ["SnipMomentum", "SnipMomentum", "Magnitude"]
    assert ffn.schedule == attention.schedule
    assert [(u.start, u.last, u.frequency) for u in (ffn.schedule.over(STEPS), once_only.schedule.over(STEPS))] == [
        (100, 892, 9), (100, 100, 1),
    ]  # fmt: skip
    pruners = instantiate.pruners(made.plans, made.model.blueprint(), STEPS, 100)
    assert [len(pruner.weights) for pruner in pruners] == [4, 6, 2]


def test_what_all_parts_have_in_common_is_written_once(tmp_path: Path) -> None:
    made = converted(FFN, ATTENTION, **WINDOW, pruning_type="snip", sparsity_decay_type="cube")
    assert made.text.count("snip") == made.text.count("cube") == 1
    plans = instantiate.plans(asked(tmp_path, made)).parts
    assert {type(plan.criterion).__name__ for plan in plans.values()} == {"Snip"}
    assert {type(plan.schedule).__name__ for plan in plans.values()} == {"Cube"}


def test_a_part_can_have_its_own_progressive_and_regularizer() -> None:
    own = {"pruning_type": "snip_progressive", "reg_type": "group_lasso", "parameters": {"reg_coeff": 0.1}}
    words, body = output(FFN, {**ATTENTION, **own}, **WINDOW, pruning_frequency=8)
    at = "@pattern.parts.query_key_value"
    assert {key: word for key, word in words.items() if at in key} == {
        f"/pattern{at}": "4x1",
        f"/pruner{at}.pruner": "snip",
        f"/progressive{at}.progressive": "scores",
        f"/regularizer{at}.regularizer": "group_lasso",
    }
    assert body["pattern"]["parts"]["query_key_value"]["regularizer"] == {"strength": 0.1}
    assert words["scheduler"] == "exp"
    assert not {"progressive", "regularizer", "pruner"} & set(words)


def test_parts_of_equal_names_are_numbered() -> None:
    _, body = output({"op_names": ["query"]}, {"op_names": [".*query"]}, {}, **WINDOW)
    assert list(body["pattern"]["parts"]) == ["part1", "part2", "part3"]


def test_a_note_names_its_part() -> None:
    notes = converted(FFN, {**ATTENTION, "end_step": 100}, **WINDOW, pruning_frequency=8, low_memory_usage=True).notes
    frequency = next(note for note in notes if note.startswith("dropped: pruning_frequency=8"))
    assert frequency.endswith("(part query_key_value)")
    assert "(part" not in next(note for note in notes if "low_memory_usage" in note)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target_sparsitty": 0.5}, "target_sparsitty=0.5: no such key; did you mean "),
        ({"names": ["a"]}, "names=['a']: in Neural Compressor 2.x this key is op_names"),
        ({"target_sparsity": "0.5"}, "target_sparsity=0.5: must be a number of at least 0 and below 1"),
        ({"target_sparsity": 1.0}, "target_sparsity=1.0: must be a number of at least 0 and below 1"),
        ({"target_sparsity": True}, "target_sparsity=true: must be a number"),
        ({"target_sparsity": float("nan")}, "target_sparsity=nan: must be a number"),
        ({"target_sparsity": 0.6, "pattern": "2:4"}, "=0.6: 2:4 removes at most 0.5 of the weights; set it to 0.5"),
        ({"pattern": "2:4"}, "target_sparsity=0.9: 2:4 removes at most 0.5 of the weights, and 0.9 is their default"),
        ({"pruning_type": "snip_momentun"}, "did you mean snip_momentum?"),
        ({"pruning_type": ["snip"]}, "pruning_type=['snip']: must be magnitude, gradient"),
        ({"pattern": 124}, "pattern=124: must be text such as 4x1"),
        ({"pattern": "4by1"}, "pattern=4by1: must be a block such as 4x1"),
        ({"pattern": "0x1"}, "pattern=0x1: a block's sides must be above 0"),
        ({"pattern": "4:4"}, "pattern=4:4: N of N:M, the weights removed"),
        ({"pattern": "channelxchannel"}, "pattern=channelxchannel: this is the whole layer"),
        ({"op_names": 3}, "op_names=3: must be a list of text"),
        ({"op_names": ["("]}, "op_names=(: not a regular expression"),
        ({"excluded_op_names": ["["]}, "excluded_op_names=[: not a regular expression"),
        ({"pruning_op_types": "LayerNorm"}, "pruning_op_types=LayerNorm: no such layer can be pruned"),
        ({"start_step": -1}, "start_step=-1: must be a whole number of steps"),
        ({"start_step": 901}, "end_step=900: must be at least start_step=901"),
        ({"end_step": 900.0}, "end_step=900.0: must be a whole number"),
        ({"pruning_frequency": 0}, "pruning_frequency=0: must be a whole number of steps, at least 1"),
        ({"pruning_scope": "globl"}, "pruning_scope=globl: must be global or local; did you mean global?"),
        ({"sparsity_decay_type": "cubic"}, "sparsity_decay_type=cubic: must be exp, linear, cos or cube"),
        ({"criterion_reduce_type": "min"}, "criterion_reduce_type=min: must be mean, sum or max"),
        ({"max_sparsity_ratio_per_op": 0}, "max_sparsity_ratio_per_op=0: must be a number above 0 and below 1"),
        ({"min_sparsity_ratio_per_op": 0.99}, "=0.99: must be at most max_sparsity_ratio_per_op=0.98"),
        ({"reg_type": "lasso"}, "reg_type=lasso: must be group_lasso or null; did you mean group_lasso?"),
        ({"reg_coeff": -1}, "reg_coeff=-1: must be a number of at least 0"),
        ({"parameters": {"coeff": 1}}, "parameters.coeff=1: no such key; did you mean"),
        ({"reg_type": "group_lasso", "pattern": "2:4", "target_sparsity": 0.5}, "reg_type=group_lasso: goes with"),
        ({"low_memory_usage": "yes"}, "low_memory_usage=yes: must be true or false"),
        ({"pruning_type": "block_mask", "pattern": "2:4"}, "pruning_type=block_mask: goes with blocks and channels"),
        ({"pruning_type": "retrain_free"}, "pruning_type=retrain_free: goes with channels"),
        ({"pruning_type": "pattern_lock"}, "end_step=900: pattern_lock happens once; must be start_step=100"),
        ({"start_step": 0, "end_step": 0}, "end_step=0: must be at least 1 with pruning_type=snip_momentum"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_one_line(keys: dict[str, Any], message: str) -> None:
    for own, common, where in (({**WINDOW, **keys}, {}, "pruning_configs[0]."), ({}, {**WINDOW, **keys}, "")):
        with pytest.raises(UserError) as caught:
            converted(own, **common)
        text = str(caught.value)
        assert "\n" not in text
        assert message in text
        assert text.startswith((where, "target_sparsity=0.9: 2:4"))


def test_the_steps_are_needed_for_a_window_only() -> None:
    with pytest.raises(
        UserError, match=r"^--steps: needed, since .*end_step=900 .*; give the number of steps of the whole training"
    ):
        converted(WINDOW, steps=None)
    with pytest.raises(UserError, match=r"^--steps 899: the training must have at least .*end_step=900 steps$"):
        converted(WINDOW, steps=899)
    assert "for a training of 1000 steps" in converted(WINDOW).text
    once = converted({"start_step": 5, "end_step": 5}, steps=None).text
    assert "for a training" not in once


def test_every_pruning_type_is_translated() -> None:
    for kind in PRUNING_TYPES:
        step = {"start_step": 100, "end_step": 100 if kind == "pattern_lock" else 900}
        words, _ = output({**step, "pruning_type": kind, "pattern": "channelx1", "pruning_frequency": 8})
        assert words["pattern"] == ("lock" if kind == "pattern_lock" else "channelx1")


def test_parts_need_at_least_one_part() -> None:
    with pytest.raises(UserError, match="a mixed pattern needs at least one part"):
        instantiate.plans(typed("pattern=parts"))


@pytest.mark.parametrize(
    ("types", "kinds"),
    [
        (["retrain_free"], ["Calibrated"]),
        (["pattern_lock"], ["Lock"]),
        (["sparse_gpt", "sparse_gpt"], ["Calibrated", "Calibrated"]),
        (
            ["pattern_lock", "snip_momentum_progressive", "retrain_free", "block_mask"],
            ["Lock", "Gradual", "Calibrated", "Gradual"],
        ),
    ],
)
def test_the_output_makes_pruners(types: list[str], kinds: list[str], tmp_path: Path) -> None:
    """The pruning types, composed and applied to a model."""
    roles = ["query", "key", "value", "intermediate"]
    entries = [
        {
            "pruning_type": kind,
            "pattern": "channelx1",
            "op_names": [role],
            "start_step": 100,
            "end_step": 100 if kind == "pattern_lock" else 900,
            "pruning_frequency": 8,
        }
        for kind, role in zip(types, roles, strict=False)
    ]
    place = tmp_path / "experiment" / "theirs.yaml"
    place.parent.mkdir()
    place.write_text(converted(*entries).text)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = ["experiment=theirs", "model=tiny", "task=toy", f"hydra.searchpath=[file://{tmp_path}]"]
        made = instantiate.Components(build_experiment(compose("config", words, return_hydra_config=True)).config)
    pruners = instantiate.pruners(made.plans, made.model.blueprint(), 1000, 100)
    assert sorted(type(pruner).__name__ for pruner in pruners) == sorted(kinds)
