"""Mistakes in a config file of one's own: one line that names the file, whatever Hydra and YAML would say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydrasFiles
from hydra._internal.sources_registry import SourcesRegistry
from hypothesis import given, settings
from hypothesis import strategies as st

from hydraprune.config.config_files import FileConfigSource, check_config_files
from hydraprune.errors import UserError

HEADER = "# @package _global_\n"
# name -> (content, parts of the message)
CASES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "open brace": ("training: {epochs: 2\n", ("line 3", "close the bracket")),
    "tab": ("training:\n\tepochs: 2\n", ("line 3", "by spaces")),
    "indentation": ("training:\n  epochs: 2\n   batch_size: 3\n", ("line 4", "indentation")),
    "colon in a text": ("run:\n  root: a: b\n", ("line 3", "quote a text with a colon")),
    "key twice": ("seed: 1\nseed: 2\n", ("line 3", "duplicate key seed", "keep one")),
    "unknown tag": ("seed: !mine 3\n", ("line 2", "!mine", "no tag")),
    "tag of Python": ("seed: !!python/name:os.system 3\n", ("line 2", "no tag")),
    "unknown alias": ("seed: *nope\n", ("line 2", "nope")),
    "open quote": ("run:\n  root: 'abc\n", ("line",)),
    "two documents": ("seed: 1\n---\nseed: 2\n", ("line 3", "remove the line ---")),
    "number as a key": ("training:\n  5: 2\n", ("training.5", "no text", '"5"')),
    "true as a key": ("true: 2\n", ("no text",)),
    "nothing as a key": ("? \n: 2\n", ("no text",)),
    "list as a key": ("? [a, b]\n: 2\n", ("line 2",)),
    "open interpolation": ("seed: ${nope\n", ("seed", "${nope", "as in ${key}")),
    "open interpolation in a list": ("task:\n  metrics: [a, '${x']\n", ("task.metrics", "${x")),
    "a list": ("- seed\n", ("a list", "key: value")),
    "a word": ("seed\n", ("a single value, seed",)),
    "a number": ("5\n", ("a single value, 5",)),
    "itself": ("training: &a\n  more: *a\n", ("contains itself",)),
    "nested": (f"seed: {'[' * 3000}{']' * 3000}\n", ("nested too deep",)),
    "a huge number": (f"seed: {'9' * 5000}\n", ("cannot be read",)),
    "control character": ("seed: \x00 1\n", ("cannot be read",)),
    "defaults of a number": ("defaults: 5\n", ("defaults", "must be a list")),
    "defaults of numbers": ("defaults:\n  - override /pattern: 1\n", ("defaults", "must be a list")),
    "defaults of itself": ("defaults:\n  - mine\n", ("name the file itself",)),
    "defaults of itself, absolute": ("defaults:\n  - /experiment: mine\n", ("name the file itself",)),
    "latin-1": (b"# @package _global_\nrun: {root: caf\xe9}\n", ("byte 35", "UTF-8")),
    "utf-16": ("seed: 1\n".encode("utf-16"), ("byte 0", "UTF-8")),
    "empty": (b"", ("is empty",)),
    "white space": (b" \n\n", ("is empty",)),
    "no package": (b"seed: 1\n", ("without the first line # @package _global_", "add it")),
    "half a package": (b"# @package\nseed: 1\n", ("@package", "as in # @package _global_")),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line_with_the_file(
    name: str, train: Callable[..., Any], workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content, parts = CASES[name]
    confs = tmp_path_factory.mktemp("conf")
    (confs / "experiment").mkdir()
    file = confs / "experiment" / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else (HEADER + content).encode())
    finished = train(f"--config-dir={confs}", "model=tiny", "task=toy", "experiment=mine")
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    for part in (str(file), *parts):
        assert part in finished.err
    assert list(workplace.iterdir()) == []


def test_defaults_in_a_circle(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    confs = tmp_path_factory.mktemp("conf")
    (confs / "experiment").mkdir()
    for name, other in (("one", "two"), ("two", "three"), ("three", "one")):
        (confs / "experiment" / f"{name}.yaml").write_text(f"{HEADER}defaults:\n  - {other}\n")
    finished = train(f"--config-dir={confs}", "model=tiny", "task=toy", "experiment=one")
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    assert "experiment/three -> experiment/one -> experiment/two -> experiment/three" in finished.err


def test_a_byte_order_mark_is_no_mistake(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    confs = tmp_path_factory.mktemp("conf")
    (confs / "experiment").mkdir()
    (confs / "experiment" / "mine.yaml").write_bytes(b"\xef\xbb\xbf" + f"{HEADER}seed: 7\n".encode())
    finished = train(f"--config-dir={confs}", "model=tiny", "task=toy", "experiment=mine", "plan=true")
    assert finished.code == 0, finished.err
    assert "seed 7" in finished.out


SIGNS = [*"{}[]\t\"'&*!%@`:#,-?|>\\ \n\x00é", "${", "<<: ", "- "]
GOOD = f"{HEADER}training:\n  epochs: 2\n  batch_size: 8\npattern:\n  layers: {{roles: [ffn]}}\nseed: 3 # three\n"


@settings(max_examples=200, derandomize=True, database=None)
@given(st.integers(0, len(GOOD)), st.sampled_from(SIGNS))
def test_any_letter_anywhere_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, place: int, letter: str
) -> None:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(GOOD[:place] + letter + GOOD[place:], encoding="utf-8")
    source = FileConfigSource("test", f"file://{folder}")
    try:
        source.load_config("experiment/mine")
        line = ""
    except UserError as error:
        line = str(error)
    assert "\n" not in line
    assert not line or line.startswith(str(folder / "experiment" / "mine.yaml"))


def test_hydra_may_load_its_plugins_again() -> None:
    """As in the worker of a launcher, which gets the registry of its parent."""
    check_config_files()
    SourcesRegistry.instance().register(HydrasFiles)
    assert SourcesRegistry.instance().resolve("file") is FileConfigSource
