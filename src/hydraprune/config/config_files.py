"""Config files as Hydra reads them, checked first: a mistake is one line that names the file and the place in it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydrasFiles
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse

from hydraprune.errors import UserError, single_line

# Groups whose files set keys of the whole config, not of a node of the group's name.
WHOLE_CONFIG_GROUPS = ("experiment", "matrix", "demo_matrix", "method")
_HEADER = "# @package _global_"
_MOST_BYTES, _MOST_VALUES = 1 << 20, 100_000


class FileConfigSource(HydrasFiles):  # type: ignore[misc]
    """A folder of config files, each checked when it is read.

    It has the name of Hydra's own class: Hydra accepts one class per scheme, and compares their names when it loads its
    plugins again, as in the worker of a launcher.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        # File -> the files that its defaults list names, of those read so far.
        self._defaults: dict[str, list[str]] = {}

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            UserError: naming the file, and the line or key.
        """
        name = self._normalize_file_name(config_path)
        file = Path(self.path) / name
        text = _text(file)
        values = _parsed(file, text)
        _check_values(file, values, "")
        group = name.partition("/")[0]
        if group in WHOLE_CONFIG_GROUPS and "package" not in _header(file, text):
            raise UserError(
                f"without the first line {_HEADER} its keys would be keys of {group}", key=str(file), cure="add it"
            )
        self._check_defaults(file, name.removesuffix(".yaml"), values.get("defaults", []))
        return ConfigResult(
            config=OmegaConf.load(io.StringIO(text)),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header={"package": None, **_header(file, text)},
        )

    def _check_defaults(self, file: Path, name: str, entries: Any) -> None:
        """Refuse a defaults list of another form, and one that leads back to its own file."""
        if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
            raise UserError(
                "must be a list of files and groups, each with one name", key=f"{file}: defaults", cure="see conf/"
            )
        self._defaults[name] = [target for entry in entries if (target := _target(name, entry)) is not None]
        if (way := self._way_back(name, name, ())) is not None:
            raise UserError(
                f"its defaults name the file itself ({' -> '.join((name, *way))})", key=str(file), cure="remove that"
            )

    def _way_back(self, place: str, goal: str, before: tuple[str, ...]) -> tuple[str, ...] | None:
        """The files by which the defaults of `place` lead to `goal`."""
        for target in self._defaults.get(place, []):
            if target == goal:
                return (*before, target)
            if target not in before and (way := self._way_back(target, goal, (*before, target))) is not None:
                return way
        return None


def check_config_files() -> None:
    """Have Hydra read config files by `FileConfigSource`, in this process. Safe to call again."""
    Plugins.instance()  # registers Hydra's own
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def _text(file: Path) -> str:
    try:
        if not file.is_file():
            raise UserError("is no file", key=str(file))
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"has more than {_MOST_BYTES} bytes", key=str(file), cure="a config file is short")
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start} is not UTF-8", key=str(file), cure="save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", key=str(file)) from None
    if not text.strip():
        raise UserError("is empty", key=str(file))
    return text


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML in which a key that is there twice is an error, as in OmegaConf's loader."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"found duplicate key {key.value}", problem_mark=key.start_mark)
                seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


def _parsed(file: Path, text: str) -> dict[Any, Any]:
    """The keys and values of a file.

    Raises:
        UserError: it is no YAML, or holds something else.
    """
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f" line {mark.line + 1}, column {mark.column + 1}:"
        why = single_line(error.problem or error.context or "no YAML")
        raise UserError(f"cannot be read as YAML:{line} {why}", key=str(file), cure=_cure(why)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"cannot be read as YAML: {single_line(error)[:200]}", key=str(file)) from None
    except RecursionError:
        raise UserError("is nested too deep, or contains itself", key=str(file)) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"holds {_kind(values)}", key=str(file), cure="write keys and values, as key: value")
    return values


def _cure(why: str) -> str | None:
    cures = {
        r"'\\t'": "indent by spaces, not by tabs",
        "mapping values are not allowed": "check the indentation, and quote a text with a colon",
        "duplicate key": "keep one of them",
        "tag": "plain values need no tag; quote a text that begins with !",
        "cannot start any token": "quote the text",
        "expected ',' or": "close the bracket or brace",
        "another document": "remove the line ---",
    }
    return next((cure for part, cure in cures.items() if re.search(part, why)), None)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"a single value, {single_line(value)[:40]}"


def _check_values(file: Path, value: Any, key: str) -> None:
    """Refuse keys that are no text, values that contain themselves, and interpolations that are not closed."""
    for number, (name, item, place) in enumerate(_walk(file, value, key, ())):
        if number > _MOST_VALUES:  # a file whose aliases multiply
            raise UserError(f"holds more than {_MOST_VALUES} values", key=str(file))
        if not isinstance(name, str):
            raise UserError(f"the key {name} is no text", key=_place(file, place), cure=f'write "{name}": ...')
        if isinstance(item, str) and "${" in item:
            try:
                parse(item)
            except GrammarParseError as error:
                why = single_line(error)[:120] or "not closed"
                raise UserError(
                    f"{item} cannot be read ({why})", key=_place(file, place), cure="as in ${key}"
                ) from None


def _walk(file: Path, value: Any, key: str, above: tuple[int, ...]) -> Iterator[tuple[Any, Any, str]]:
    """(key, value, where) of everything in nested mappings and lists; items of a list have an empty key."""
    if id(value) in above or len(above) > 100:
        raise UserError("contains itself, or is nested too deep", key=_place(file, key[:60]))
    pairs = value.items() if isinstance(value, dict) else (("", item) for item in value)
    for name, item in pairs:
        place = key if name == "" else f"{key}.{name}" if key else str(name)
        yield name, item, place
        if isinstance(item, (dict, list)):
            yield from _walk(file, item, place, (*above, id(value)))


def _place(file: Path, key: str) -> str:
    return f"{file}: {key}" if key else str(file)


def _header(file: Path, text: str) -> dict[str, str]:
    """The `# @key value` lines above a file's first key."""
    try:
        found: dict[str, Any] = ConfigSource._get_header_dict(text[:512])
    except ValueError as error:
        raise UserError(single_line(error), key=str(file), cure=f"as in {_HEADER}") from None
    return {key: value for key, value in found.items() if value is not None}


def _is_entry(entry: Any) -> bool:
    if isinstance(entry, dict):
        ((_, choice),) = entry.items() if len(entry) == 1 else ((None, 0),)
        names = choice if isinstance(choice, list) else [choice]
        return all(name is None or isinstance(name, str) for name in names)
    return isinstance(entry, str)


def _target(name: str, entry: Any) -> str | None:
    """The file that an entry of a defaults list names; None for overrides, no choice, and computed names."""
    group = name.rpartition("/")[0]
    word, choice = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
    if "override" in str(word).split() or not isinstance(choice, str) or "${" in choice or choice == "_self_":
        return None
    folder = str(word).removeprefix("optional").strip().partition("@")[0]
    target = f"{folder}/{choice}" if folder else choice.partition("@")[0]
    if target.startswith("/"):
        return target[1:]
    return f"{group}/{target}" if group else target
