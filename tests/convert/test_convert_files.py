"""The formats of Neural Compressor configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hydraprune.convert.reader import Source, read
from hydraprune.errors import UserError

COMMON = {"target_sparsity": 0.8, "end_step": 10}
OWN = [{"op_names": ["query"], "pattern": "2:4", "reg_type": None}, {"pattern": "1x1"}]
LOCAL_YAML = """
  - op_names: [query]
    pattern: 2:4
    reg_type: null
  - {pattern: 1x1}
"""
PYTHON = "[{'op_names': ['query'], 'pattern': '2:4', 'reg_type': None}, {'pattern': '1x1'}]"
JSON = '[{"op_names": ["query"], "pattern": "2:4", "reg_type": null}, {"pattern": "1x1"}]'
CLASS = """
from neural_compressor.training import WeightPruningConfig, prepare_compression
query = ["query"]
first = {"op_names": query, "pattern": "2:4", "reg_type": None}
local_configs = [first, {"pattern": "1x1"}]
epochs = int(input())
config = WeightPruningConfig(THE_LIST, target_sparsity=0.8, end_step=10)
manager = prepare_compression(model, config)
"""


def source(folder: Path, name: str, text: str) -> Source:
    (folder / name).write_text(text)
    return read(folder / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", f"target_sparsity: 0.8\nend_step: 10\npruning_configs:{LOCAL_YAML}"),
        ("a.yml", f"target_sparsity: 8e-1\nend_step: 10\nlocal_configs:{LOCAL_YAML}"),
        ("a.yaml", f"target_sparsity: 0.8\nend_step: 10\npruners:{LOCAL_YAML.replace('- {pat', '- !Pruner {pat')}"),
        ("a.json", f'{{"target_sparsity": 0.8, "end_step": 10, "pruning_configs": {JSON}}}'),
        ("a.txt", f'{{"target_sparsity": 0.8, "end_step": 10, "pruning_configs": {JSON}}}'),
        ("a.py", f"{{'target_sparsity': 0.8, 'end_step': 10, 'pruning_configs': {PYTHON}}}"),
        ("a", f"# theirs\n{{'target_sparsity': 0.8, 'end_step': 10, 'pruning_configs': {PYTHON}}}"),
        ("a.cfg", f"target_sparsity: 0.8\nend_step: 10\npruning_configs:{LOCAL_YAML}"),
        ("a.py", CLASS.replace("THE_LIST", "local_configs")),
        ("a.py", CLASS.replace("THE_LIST", "pruning_configs=local_configs")),
    ],
)  # fmt: skip
def test_shared_keys_and_a_list(name: str, text: str, tmp_path: Path) -> None:
    found = source(tmp_path, name, text)
    assert (found.common, found.own) == (COMMON, OWN)
    assert found.list_name in text or name == "a.py"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", LOCAL_YAML),
        ("a.json", JSON),
        ("a.py", PYTHON),
        ("a.txt", PYTHON),
        ("a.py", f"'''What it is.'''\nconfigs: list = {PYTHON}\n"),
    ],
)
def test_a_bare_list(name: str, text: str, tmp_path: Path) -> None:
    found = source(tmp_path, name, text)
    assert (found.common, found.own) == ({}, OWN)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "target_sparsity: 0.8\nend_step: 10"),
        ("a.yaml", "target_sparsity: 0.8\nend_step: 10\npruning_configs:"),
        ("a.yaml", "target_sparsity: 0.8\nend_step: 10\npruning_configs: []"),
        ("a.json", '{"target_sparsity": 0.8, "end_step": 10}'),
        ("a.py", "config = dict\nc = {'target_sparsity': 0.8, 'end_step': 10}"),
        ("a.py", "nc.WeightPruningConfig(target_sparsity=0.8, end_step=10)"),
    ],
)
def test_no_list_is_one_pruner(name: str, text: str, tmp_path: Path) -> None:
    found = source(tmp_path, name, text)
    assert (found.common, found.own) == (COMMON, [{}])


def test_a_complete_configuration_file(tmp_path: Path) -> None:
    text = f"""
version: 1.0
model: {{name: bert-mini, framework: pytorch}}
pruning:
  train: {{epoch: 3}}
  approach:
    weight_compression_v2:
      target_sparsity: 0.8
      end_step: 10
      pruners:{LOCAL_YAML.replace(chr(10), chr(10) + "        ")}
"""
    found = source(tmp_path, "a.yaml", text)
    assert (found.common, found.own, found.list_name) == (COMMON, OWN, "pruners")
    assert [note.split(": ")[1] for note in found.notes] == ["version", "model", "pruning.train"]


def test_python_is_not_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    assert source(tmp_path, "a.py", f"open({str(trap)!r}, 'w')\nconfigs = [{{'end_step': 10}}]").own == [
        {"end_step": 10}
    ]
    with pytest.raises(UserError, match="computed; write its value instead"):
        source(tmp_path, "a.py", f"configs = [{{'end_step': open({str(trap)!r}, 'w')}}]")
    with pytest.raises(UserError):
        source(tmp_path, "a.yaml", f"!!python/object/apply:builtins.open [{trap}, w]")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "", "a.yaml: contains nothing; give a dict or a list of dicts"),
        ("a.yaml", "just words", "a.yaml: contains a single str"),
        ("a.yaml", "a: [", "a.yaml: not readable as YAML ("),
        ("a.yaml", "end_step: 1\nend_step: 2", "the key end_step is there twice"),
        ("a.json", '{"end_step": 1, "end_step": 2}', "the key end_step is there twice"),
        ("a.json", "{", "a.json: not readable as JSON ("),
        ("a.py", "configs = [", "a.py: not readable as Python ("),
        ("a.py", "x = 1", "contains 0 lists or dicts instead of one, and no WeightPruningConfig(...)"),
        ("a.py", "a = [{}]\nb = [{}]", "contains 2 lists or dicts instead of one"),
        ("a.py", "a = [a]", "a.py: not readable as Python ("),
        ("a.py", "WeightPruningConfig(end_step=1)\nWeightPruningConfig(end_step=2)", "is called 2 times; keep one"),
        ("a.py", "WeightPruningConfig([], 0.5)", "only the list may be a positional argument of"),
        ("a.py", "WeightPruningConfig(**keys)", "only the list may be a positional argument"),
        ("a.py", "WeightPruningConfig(end_step=3 * n)", "line 1: end_step is computed; write its value instead"),
        ("a.yaml", "pruning_configs: 3", "pruning_configs=3: must be a list of dicts"),
        ("a.yaml", "pruning_configs: [4x1]", "pruning_configs[0]=4x1: must be a dict of keys and values"),
        ("a.yaml", "pruners: [{}]\nlocal_configs: [{}]", "a.yaml: has both local_configs and pruners"),
        ("a.yaml", "a: !Pruner 3", "!Pruner: must be followed by keys and values"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        source(tmp_path, name, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    messages: dict[str, Any] = {
        "a.yaml": "is not text",
        "none.yaml": "cannot be read (No such file",
        ".": "cannot be read (Is a",
    }
    for name, message in messages.items():
        with pytest.raises(UserError, match=message.replace("(", r"\(")):
            read(tmp_path / name)
