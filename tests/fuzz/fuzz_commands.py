"""Random command lines from the groups and keys of conf/, with valid, borderline and invalid values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fuzz_conf import GROUPS, default_words, keys_of, own_keys
from hypothesis import strategies as st

Command = tuple[str, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# A run takes half a second.
TINY = (
    "model=tiny",
    "task=toy",
    "model.hidden_size=16",
    "model.layers=1",
    "model.heads=2",
    "model.ffn_size=32",
    "model.max_positions=32",
    "task.train_examples=24",
    "task.evaluation_examples=8",
    "task.max_length=16",
    "training.batch_size=8",
    "recipe.epochs=2",
)
# For six steps; as many updates as `parts` needs.
PRUNED = (
    "recipe.warmup=2",
    "recipe.cooldown=0",
    "recipe.frequency=2",
    "dense.overrides=['training.epochs=1','training.batch_size=8']",
)
# Models that commands start from, and the commands that make them.
STARTS: dict[str, Command] = {
    "start/dense": (*TINY, "pattern=dense", "hydra.run.dir=start/dense"),
    "start/sparse": (
        *(*TINY, *PRUNED, "pattern=1x1", "pattern.target_sparsity=0.4"),
        *("dense.source=start/dense/model", "hydra.run.dir=start/sparse"),
    ),
}

# Valid values for so small a model; other keys take values near the one in their file.
RIGHT: dict[str, tuple[str, ...]] = {
    "rows": ("1", "2", "4", "8", "channel"),
    "cols": ("1", "2", "4", "channel"),
    "keep": ("1", "2", "3"),
    "of": ("2", "4", "8"),
    "target_sparsity": ("0.5", "0.9", "0.25", "0", "0.98", "0.999"),
    "cap": ("0.98", "0.6", "1", "1.0"),
    "floor": ("0", "0.2", "0.5"),
    "initial_sparsity": ("null", "0", "0.2", "0.5"),
    "scope": ("global", "local", "erk"),
    "reduce": ("mean", "sum", "max"),
    "roles": ("[]", "[ffn]", "[query,key]", "attention", "[attention,ffn_out]", "[attention_output]"),
    "include": ("[]", "['layer\\.0']", "[query,ffn_in]", "['output']", "encoder"),
    "exclude": ("[]", "['query$']", "['intermediate']", "[pooler]"),
    "types": ("[Linear]", "[Linear,Conv1d]", "Linear", "[Conv1D]"),
    "precision": ("fp32", "bf16"),
    "device": ("auto", "cpu"),
    "epochs": ("2", "1", "0"),
    "batch_size": ("8", "5", "24", "100"),
    "eval_batch_size": ("8", "1", "3"),
    "accumulation": ("1", "2", "5"),
    "max_grad_norm": ("null", "1.0", "0.01", "1"),
    "log_every": ("1", "2", "100"),
    "checkpoint_every": ("1", "1ep", "0.5ep", "null"),
    "length_grouping": ("1", "2", "50"),
    "warmup": ("2", "0", "1", "0.5ep"),
    "lr_warmup": ("0", "1", "0.5ep"),
    "cooldown": ("0", "1", "0.5ep"),
    "frequency": ("2", "1", "auto", "0.5ep"),
    "progressive.parts": ("2", "1", "4", "3"),
    "order": ("linear", "scores"),
    "lr": ("1e-3", "1e-4", "1e-1"),
    "weight_decay": ("0", "0.1"),
    "betas": ("[0.9,0.9]", "[0,0]"),
    "threads": ("1", "2", "null"),
    "hidden_size": ("16", "12", "30", "24"),
    "model.layers": ("1", "2"),
    "heads": ("2", "1", "4", "3"),
    "ffn_size": ("32", "20", "7"),
    "max_positions": ("32", "16", "128"),
    "max_length": ("16", "3", "5", "32"),
    "train_examples": ("24", "7", "9", "1"),
    "evaluation_examples": ("8", "1", "3"),
    "max_train_examples": ("null", "10", "1", "100"),
    "batches": ("8", "1", "2", "100"),
    "source": ("start/dense/model", "start/sparse/model", "auto"),
    "teacher": ("null", "start/dense/model", "start/sparse/model"),
    "overrides": ("['training.epochs=1','training.batch_size=8']", "[]", "['training.epochs=1','optimizer=sgd']"),
    "metrics": ("[accuracy]",),
    "mode": ("disabled",),
}
# Values for any key.
ODD = (
    *(
        "0",
        "-1",
        "1",
        "1.0",
        "0.5",
        "3",
        "1000000000000",
        "9223372036854775808",
        "nan",
        "inf",
        "-inf",
        "1e30",
        "-1e-30",
    ),
    *("null", "true", "''", "word", "[]", "[1]", "[a,b]", "[[]]", "[null]", "{}", "{a:1}", "{_target_:os.system}"),
    *("1ep", "-1ep", "0.5ep", "1e9ep", "auto", "os.system", "hydraprune.sparsity.block", "torch.optim.Adam", "???"),
    *("${seed}", "${pattern}", "${nothing}", "${oc.env:NOTHING}", "ü漢字🎉", "'a b'", "'a\nb'", "../up", "/dev/null/x"),
    *("x" * 300, "a=b", "a:b", "'['", "(", "1,2", "%", "\\", "'*'", "1_000", "0x10"),
)
# Huge values of these keys are valid and make training longer.
_LONGER = ("epochs",)
_HUGE = ("1000000000000", "9223372036854775808", "1e9ep", "1e30")


def _near(value: Any) -> tuple[str, ...]:
    """Values near the one in a file."""
    if isinstance(value, bool) or value is None:
        return ("null",) if value is None else ("true", "false")
    if isinstance(value, int):
        return tuple(dict.fromkeys(map(str, (value, value + 1, max(1, value // 2), 1))))
    if isinstance(value, float):
        return tuple(dict.fromkeys(map(str, (value, value / 2, min(2 * value, (1 + value) / 2)))))
    if isinstance(value, Mapping):
        return ("{}",)
    if "${" in str(value):
        return ("word",)
    return (str(value).replace("'", ""),) if value != "" else ("''",)


def right(key: str, value: Any) -> tuple[str, ...]:
    """Valid values of `key`, which has `value` in its file."""
    return (
        RIGHT.get(key)
        or (RIGHT.get(key.rsplit(".", 1)[-1]) if not isinstance(value, Mapping) else None)
        or _near(value)
    )


def odd(key: str) -> tuple[str, ...]:
    """Odd values of `key`."""
    return tuple(value for value in ODD if not (key.endswith(_LONGER) and value in _HUGE))


# Groups by how often they are drawn; other models and tasks are not on this machine.
_OFTEN = ("pruner", "scheduler", "progressive", "regularizer", "distill", "optimizer", "lr_scheduler", "method")
_SELDOM = tuple(group for group in GROUPS if group not in (*_OFTEN, "pattern", "recipe"))


@st.composite
def commands(draw: Draw) -> Command:
    """A command line of `hydraprune train`, beginning with overrides that make it small."""
    chosen = {"pattern": draw(st.sampled_from(GROUPS["pattern"]))}
    groups = draw(st.lists(st.sampled_from(_OFTEN), max_size=3, unique=True))
    groups += draw(st.lists(st.sampled_from(_SELDOM), max_size=1)) if draw(_one_in(6)) else []
    chosen |= {group: draw(st.sampled_from(GROUPS[group])) for group in groups}
    words = [f"{group}={word}" for group, word in chosen.items()]
    keys = dict(own_keys())
    for group, word in {**default_words(), "model": "tiny", "task": "toy", **chosen}.items():
        keys |= keys_of(group, word)
    if chosen.get("tracker") == "wandb":
        words.append("tracker.mode=disabled")
    if chosen.get("progressive", "none") != "none":
        words.append("progressive.parts=2")
    if chosen["pattern"] in ("mixed", "parts"):
        words += draw(_parts(chosen["pattern"], keys))
    words += [draw(_edit(keys)) for _ in range(draw(st.sampled_from((0, 1, 1, 2, 2, 3, 4))))]
    return (*_small(draw, chosen), *words)


def _small(draw: Draw, chosen: Mapping[str, str]) -> Command:
    taken = {f"{group}=" for group in chosen}
    base = tuple(word for word in TINY if not word.startswith(tuple(taken)))
    if chosen["pattern"] == "dense" or chosen.get("phase") == "dense":
        return base
    start = "start/sparse/model" if chosen["pattern"] == "lock" else "start/dense/model"
    source = draw(st.sampled_from((start, start, "auto", "start/sparse/model")))
    return (*base, *PRUNED, f"dense.source={source}")


def _one_in(count: int) -> st.SearchStrategy[bool]:
    return st.integers(0, count - 1).map(lambda number: number == count - 1)


@st.composite
def _parts(draw: Draw, pattern: str, keys: dict[str, Any]) -> list[str]:
    """Overrides that add parts, and nodes to a part."""
    words = []
    if pattern == "parts":
        for name, roles in (("a", "[ffn]"), ("b", "[attention]"))[: draw(st.sampled_from((1, 2)))]:
            word = draw(
                st.sampled_from([word for word in GROUPS["pattern"] if "pattern.layers" in keys_of("pattern", word)])
            )
            keys |= {f"pattern.parts.{name}{k.removeprefix('pattern')}": v for k, v in keys_of("pattern", word).items()}
            words += [f"+pattern@pattern.parts.{name}={word}", f"pattern.parts.{name}.layers.roles={roles}"]
    for group in draw(
        st.lists(st.sampled_from(("pruner", "scheduler", "progressive", "regularizer")), max_size=2, unique=True)
    ):
        part = "ffn" if pattern == "mixed" else "a"
        words.append(f"+{group}@pattern.parts.{part}.{group}={draw(st.sampled_from(GROUPS[group]))}")
    return words


@st.composite
def _edit(draw: Draw, keys: Mapping[str, Any]) -> str:
    """One override: a key with a value, a removed key, or an unknown key."""
    key = draw(st.sampled_from(sorted(keys)))
    kind = draw(st.sampled_from(("right",) * 6 + ("odd",) * 3 + ("without", "misspelt", "added")))
    if kind == "right":
        return f"{key}={draw(st.sampled_from(right(key, keys[key])))}"
    if kind == "without":
        return f"~{key}"
    value = draw(st.sampled_from(odd(key)))
    if kind == "odd":
        return f"{draw(st.sampled_from(('', '', '', '++')))}{key}={value}"
    return f"{key}x={value}" if kind == "misspelt" else f"+{key}.more={value}"
