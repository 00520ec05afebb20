"""`hydraprune convert`: the file that it writes, and the command that it prints."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from hydraprune.convert.schema import KEYS

# The published mixed recipe in small: feed-forward and attention output 1x1 local, query, key and value 4x1 global.
THEIRS = r"""
target_sparsity: 0.9
start_step: 5
end_step: 25
pruning_frequency: 4
pruning_configs:
  - op_names: ['intermediate', 'layer\.\d+\.output', 'attention\.output']
    pattern: 1x1
    pruning_scope: local
    pruning_type: magnitude
  - op_names: [query, key, value]
    pattern: tile_pattern_2:4
    target_sparsity: 0.5
    sparsity_decay_type: linear
"""


@pytest.fixture
def theirs(workplace: Path) -> Path:
    file = workplace / "theirs.yaml"
    file.write_text(THEIRS)
    return file


def test_the_command_that_it_prints_trains(
    hydraprune: Callable[..., Any], theirs: Path, small: tuple[str, ...], root: Path
) -> None:
    done = hydraprune("convert", "theirs.yaml", "--steps", "30", "--out", "my configs/experiment/mine.yaml")
    assert done.code == 0, done.err
    first, command = done.out.splitlines()
    assert first.startswith("my configs/experiment/mine.yaml  is written; type it with model=, task= and so on, and ")
    assert command == "python train.py --config-dir 'my configs' experiment=mine"
    words = [sys.executable, str(root / "train.py"), *shlex.split(command)[2:]]
    words += [word for word in small if not word.startswith("scheduler.")]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr

    (folder,) = (path.parent for path in Path().glob("outputs/toy/tiny/mixed/*/report.json"))
    report = json.loads((folder / "report.json").read_text())
    assert (report["steps"], report["pattern_ok"]) == (30, True)
    weights = load_file(folder / "model" / "model.safetensors")
    layers = {name: w for name, w in weights.items() if ".layer." in name and name.endswith("weight") and w.ndim == 2}
    assert len(layers) == 12
    for name, weight in layers.items():
        if ".attention.self." in name:
            groups = (weight.reshape(-1, 4) == 0).sum(1)
            assert set(groups.tolist()) == {2}
        else:  # local: each layer has its own exact count
            assert int((weight == 0).sum()) == weight.numel() * 9 // 10
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    achieved = {line["step"]: line["sparsity/global"] for line in lines if "sparsity/global" in line}
    assert achieved[30] > achieved[10] > 0


def test_the_printed_and_the_written_file_are_the_same(hydraprune: Callable[..., Any], theirs: Path) -> None:
    printed = hydraprune("convert", "theirs.yaml", "--steps", "30")
    assert printed.code == 0
    assert printed.err == "To use it: the same command with --out experiment/theirs.yaml\n"
    assert printed.out.startswith("# @package _global_\n# From theirs.yaml, ")
    written = hydraprune("convert", "theirs.yaml", "--steps", "30", "--out", ".")
    assert (written.code, written.err) == (0, "")
    assert written.out.endswith("\npython train.py --config-dir . experiment=theirs\n")
    assert Path("experiment/theirs.yaml").read_text() == printed.out
    assert [path.name for path in Path("experiment").iterdir()] == ["theirs.yaml"]
    assert yaml.safe_load(printed.out)["pattern"]["parts"].keys() == {"part1", "query_key_value"}


def test_the_documentation_shows_the_output(hydraprune: Callable[..., Any], workplace: Path, root: Path) -> None:
    page = (root / "docs" / "from_neural_compressor.md").read_text(encoding="utf-8")
    theirs, ours = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    Path("pruning.yaml").write_text(theirs)
    done = hydraprune("convert", "pruning.yaml", "--steps", "5000", "--out", ".")
    assert Path("experiment/pruning.yaml").read_text() == ours
    assert f"```\n{done.out}```" in page
    missing = [key for key in KEYS if not re.search(rf"^\|.*`{key}`.*\|", page, flags=re.MULTILINE)]
    assert missing == []


def test_dropped_keys_are_printed(hydraprune: Callable[..., Any], workplace: Path) -> None:
    Path("a b.json").write_text('{"end_step": 1, "start_step": 1, "low_memory_usage": true}')
    done = hydraprune("convert", "a b.json", "--out", "conf")
    assert done.out.splitlines()[0].startswith("dropped: low_memory_usage=true: no counterpart")
    assert done.out.splitlines()[-1] == "python train.py --config-dir conf experiment=a_b"
    assert "dropped: low_memory_usage=true" in Path("conf/experiment/a_b.yaml").read_text()


def test_existing_files_are_not_overwritten(hydraprune: Callable[..., Any], theirs: Path) -> None:
    Path("experiment").mkdir()
    Path("experiment/mine.yaml").write_text("mine")
    for words in (
        ["--out", "experiment/mine.yaml"],
        ["--out", ".", "--name", "mine"],
        ["--out", "experiment", "--name", "mine"],
    ):
        done = hydraprune("convert", "theirs.yaml", "--steps", "30", *words)
        assert done.code == 2
        assert "experiment/mine.yaml exists; remove it, or give another name" in done.err
    assert Path("experiment/mine.yaml").read_text() == "mine"
    assert len(list(Path("experiment").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--steps: needed, since end_step=25"),
        (["--steps", "0"], "--steps 0: must be at least 1"),
        (["--steps", "24"], "--steps 24: the training must have at least end_step=25 steps"),
        (["--steps", "30", "--out", "mine.yaml"], "--out mine.yaml: Hydra would not find it there; give --out exp"),
        (["--steps", "30", "--out", "experiment/mine.yml"], "give --out experiment/mine.yaml"),
        (["--steps", "30", "--out", "experiment/a.yaml", "--name", "b"], "--out experiment/a.yaml calls it a"),
        (["--steps", "30", "--out", ".", "--name", "a b"], "--name a b: 'a b' cannot be typed after experiment="),
        (["--steps", "30", "--out", ".", "--name", "quickstart"], "experiment=quickstart exists already"),
        (["--steps", "30", "--out", "theirs.yaml/experiment"], "cannot be written (Not a directory)"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(
    words: list[str], message: str, hydraprune: Callable[..., Any], theirs: Path
) -> None:
    done = hydraprune("convert", "theirs.yaml", *words)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["theirs.yaml"]
