"""Reads the pruning dicts from a file: YAML, JSON, or Python, which is parsed and never executed."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hydraprune.errors import UserError, single_line
from hydraprune.utils.files import read_bytes

# Possible names of the list of dicts.
LISTS = ("pruning_configs", "local_configs", "pruners")
_MOST_BYTES = 1 << 24
_CLASS = "WeightPruningConfig"
_LITERALS = (ast.List, ast.Tuple, ast.Dict)


@dataclass(frozen=True)
class Source:
    """The contents of a file, with unchecked keys.

    Args:
        common: the keys that all pruners share.
        own: the keys of each pruner; one empty dict if the file has no list.
        list_name: the name of the list, for errors.
        notes: what the file contains and was left out, with the reason.
    """

    common: dict[str, Any]
    own: Sequence[dict[str, Any]]
    list_name: str = LISTS[0]
    notes: Sequence[str] = field(default_factory=tuple)


def read(path: Path) -> Source:
    """The shared keys and the list of dicts in a file.

    Raises:
        UserError: it cannot be read, or is neither a dict nor a list of dicts.
    """
    try:
        text = read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not text", key=str(path), cure="give a YAML, JSON or Python file") from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", key=str(path)) from None
    return _source(_parsed(path, text), path)


def _parsed(path: Path, text: str) -> Any:
    readers: dict[str, Callable[[str], Any]] = {".json": _json, ".py": _python, ".yaml": _yaml, ".yml": _yaml}
    known = readers.get(path.suffix.lower())
    try:
        # Without a known suffix: YAML last, since nearly any text is YAML.
        return known(text) if known else _first((_json, _python, _yaml), text)
    except (ValueError, SyntaxError, RecursionError, yaml.YAMLError) as error:
        kind = {".json": "JSON", ".py": "Python"}.get(path.suffix.lower(), "YAML")
        raise UserError(f"not readable as {kind} ({single_line(error)})", key=str(path)) from None


def _first(readers: Sequence[Callable[[str], Any]], text: str) -> Any:
    for reader in readers[:-1]:
        try:
            return reader(text)
        except (ValueError, SyntaxError, RecursionError):
            continue
    return readers[-1](text)


def _json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_duplicates([key for key, _ in pairs])
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def _refuse_duplicates(keys: Sequence[str]) -> None:
    if duplicates := [key for index, key in enumerate(keys) if key in keys[:index]]:
        raise ValueError(f"the key {duplicates[0]} is there twice")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML in which 2:4 is a string, 1e-3 a number, and duplicate keys are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        _refuse_duplicates([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        made: dict[Any, Any] = super().construct_mapping(node, deep=True)
        return made


def _tagged(loader: _Loader, _: str, node: yaml.Node) -> dict[Any, Any]:
    # The `!Pruner` of older files is a dict.
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{node.tag}: must be followed by keys and values")
    return loader.construct_mapping(node)


_Loader.add_multi_constructor("!", _tagged)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), None)
for _digit in "0123456789":
    # First, since YAML 1.1 reads 2:4 as a time.
    _Loader.yaml_implicit_resolvers[_digit].insert(0, ("tag:yaml.org,2002:str", re.compile(r"\d+:\d+$")))


def _yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _python(text: str) -> Any:
    """A literal, the only literal that is assigned to a name, or the arguments of one WeightPruningConfig."""
    tree = ast.parse(text)
    names: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            names[node.target.id] = node.value
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) == _CLASS]
    if len(calls) > 1:
        raise ValueError(f"{_CLASS} is called {len(calls)} times; keep one")
    if calls:
        return _arguments(calls[0], names)
    bare = [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, _LITERALS)]
    found = bare or [value for value in names.values() if isinstance(value, _LITERALS)]
    if len(found) != 1:
        raise ValueError(f"contains {len(found)} lists or dicts instead of one, and no {_CLASS}(...)")
    return _value(found[0], names, "a value in it")


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _arguments(call: ast.Call, names: dict[str, ast.expr]) -> dict[str, Any]:
    if len(call.args) > 1 or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(f"line {call.lineno}: only the list may be a positional argument of {_CLASS}(...)")
    given = dict(zip(LISTS, call.args, strict=False))
    given |= {str(keyword.arg): keyword.value for keyword in call.keywords}
    return {key: _value(node, names, key) for key, node in given.items()}


def _value(node: ast.expr, names: dict[str, ast.expr], key: str) -> Any:
    """The value of a literal, which may use names of literals above it. Nothing is executed."""
    try:
        return ast.literal_eval(_with_names_replaced(node, names))
    except (ValueError, TypeError):
        raise ValueError(f"line {node.lineno}: {key} is computed; write its value instead") from None


def _with_names_replaced(node: ast.expr, names: dict[str, ast.expr]) -> ast.expr:
    class Replacer(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.expr:
            if name.id not in names:
                return name
            # Without the name itself: a list that contains itself would never end.
            return _with_names_replaced(names[name.id], {key: value for key, value in names.items() if key != name.id})

    replaced: ast.expr = Replacer().visit(copy.deepcopy(node))
    return replaced


def _source(data: Any, path: Path) -> Source:
    notes: list[str] = []
    if isinstance(data, dict) and isinstance(data.get("pruning"), dict):
        data = _section(data, notes)
    if isinstance(data, (list, tuple)):
        data = {LISTS[0]: list(data)}
    if not isinstance(data, dict) or not data:
        raise UserError(f"contains {_describe(data)}", key=str(path), cure="give a dict or a list of dicts")
    lists = [key for key in LISTS if key in data]
    if len(lists) > 1:
        raise UserError(f"has both {lists[0]} and {lists[1]}", key=str(path), cure="keep one list of dicts")
    name = lists[0] if lists else LISTS[0]
    own = data.get(name)
    own = [own] if isinstance(own, dict) else own
    if own is not None and not isinstance(own, (list, tuple)):
        raise UserError("must be a list of dicts", key=name, value=own)
    for index, item in enumerate(own or []):
        if not isinstance(item, dict):
            raise UserError("must be a dict of keys and values", key=f"{name}[{index}]", value=item)
    common = {str(key): value for key, value in data.items() if key != name}
    return Source(common, [{str(k): v for k, v in item.items()} for item in own or [{}]], name, notes)


def _describe(data: Any) -> str:
    return "nothing" if data is None or data in ({}, []) else f"a single {type(data).__name__}"


def _section(data: dict[str, Any], notes: list[str]) -> Any:
    """The section below pruning, approach and weight_compression of a complete configuration file."""
    _note_dropped(data, "pruning", "", notes)
    section = data["pruning"]
    path = "pruning."
    for step in ("approach", "weight_compression"):
        found = [key for key in section if str(key).startswith(step)]
        if len(found) == 1 and isinstance(section[found[0]], dict):
            _note_dropped(section, found[0], path, notes)
            section, path = section[found[0]], f"{path}{found[0]}."
    return section


def _note_dropped(section: dict[str, Any], taken: str, path: str, notes: list[str]) -> None:
    notes += [
        f"dropped: {path}{key}: not part of the pruning configuration; model=, task= and the keys of training set it"
        for key in section
        if key != taken
    ]
