"""No source file unpickles, executes text, loads YAML as objects, trusts remote code or calls a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), ROOT / "train.py"])

MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "runpy"}
MODULES |= {"torch.utils.model_zoo", "torch.hub", "pandas.io.pickle"}
# Of these modules, what reads no file.
ALLOWED = {"joblib.Parallel", "joblib.delayed"}
CALLS = {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "builtins.compile"}
CALLS |= {"torch.load", "torch.jit.load", "torch.package.PackageImporter", "numpy.load", "pandas.read_pickle"}
CALLS |= {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput"}
CALLS |= {"os.execv", "os.execvp", "os.execl", "os.execlp", "os.spawnv", "os.spawnl", "pty.spawn"}
CALLS |= {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all"}
SAFE = {"SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader"}
# Without `trust_remote_code=False`, transformers asks at the terminal whether to run the code.
AUTO = {"AutoConfig", "AutoTokenizer", "AutoModelForSequenceClassification"}


def names_of(tree: ast.Module) -> dict[str, str]:
    """Name in this file -> the dotted path that was imported as it."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ClassDef) and len(node.bases) == 1:
            # A loader class is as safe as its base.
            names[node.name] = dotted(node.bases[0], names)
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def dangers(text: str) -> Iterator[str]:
    """`line: what` of everything dangerous in a source file."""
    tree = ast.parse(text)
    names = names_of(tree)
    for node in ast.walk(tree):
        imported: list[str] = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names_imported = {f"{node.module}.{alias.name}" for alias in node.names}
            imported = [] if names_imported <= ALLOWED else [str(node.module), *sorted(names_imported)]
        for name in imported:
            if name in MODULES or name.split(".")[0] in MODULES:
                yield f"{node.lineno}: import {name}"  # type: ignore[attr-defined]
        # References without a call, too.
        if isinstance(node, (ast.Name, ast.Attribute)) and dotted(node, names) in CALLS:
            yield f"{node.lineno}: {dotted(node, names)}"
        if isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {why}" for why in calls(node, dotted(node.func, names), names))
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not is_false(value):
                    yield f"{node.lineno}: trust_remote_code"


def calls(node: ast.Call, name: str, names: dict[str, str]) -> Iterator[str]:
    given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    if "trust_remote_code" in given and not is_false(given["trust_remote_code"]):
        yield "trust_remote_code"
    if name.split(".")[-1] == "from_pretrained" and name.split(".")[-2] in AUTO and "trust_remote_code" not in given:
        yield "from_pretrained without trust_remote_code=False"
    if "shell" in given and not is_false(given["shell"]):
        yield "shell=True"
    if name.split(".")[-2:] == ["yaml", "load"]:
        loader = given.get("Loader", node.args[1] if len(node.args) > 1 else None)
        if loader is None or dotted(loader, names).split(".")[-1] not in SAFE:
            yield "yaml.load"
    if "allow_pickle" in given and not is_false(given["allow_pickle"]):
        yield "allow_pickle"
    if "weights_only" in given and not (isinstance(only := given["weights_only"], ast.Constant) and only.value is True):
        yield "weights_only"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_file_does_anything_dangerous(path: Path) -> None:
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


def test_the_scanner_has_files() -> None:
    assert len(SOURCES) > 100


MADE_UP = """
import pickle
from marshal import loads
import shelve as kept
import dill.session
import torch as t
from torch import load as read
from os import system
import subprocess, yaml, os, numpy
from yaml import load
from torch.utils import model_zoo
t.load("x")
read("x")
x = eval("1")
exec("1")
compile("1", "f", "exec")
run = eval
__import__("os")
yaml.load(file)
yaml.load(file, Loader=yaml.Loader)
class Mine(yaml.FullLoader): pass
yaml.load(file, Mine)
load(file, yaml.UnsafeLoader)
yaml.unsafe_load(file)
AutoConfig.from_pretrained("x", trust_remote_code=True)
AutoConfig.from_pretrained("x", trust_remote_code=maybe)
options = {"trust_remote_code": True}
subprocess.run("ls", shell=True)
subprocess.Popen("ls", shell=maybe)
os.system("ls")
system("ls")
os.popen("ls")
numpy.load("x", allow_pickle=True)
t.anything("x", weights_only=False)
AutoTokenizer.from_pretrained("x")
"""
HARMLESS = """
import re, subprocess, yaml
from yaml import CSafeLoader, load
re.compile("x")
yaml.safe_load(file)
yaml.load(file, Loader=yaml.SafeLoader)
load(file, CSafeLoader)
class Mine(yaml.SafeLoader): pass
yaml.load(file, Mine)
subprocess.run(["ls"])
subprocess.run(["ls"], shell=False)
AutoConfig.from_pretrained("x", trust_remote_code=False)
model.eval()
"""


def test_the_scanner_finds_every_danger() -> None:
    found = {int(danger.split(":")[0]) for danger in dangers(MADE_UP)}
    lines = MADE_UP.splitlines()
    # These imports are not dangerous by themselves.
    assert found == {number for number, line in enumerate(lines, 1) if line} - {6, 7, 8, 9, 10, 21}


def test_the_scanner_accepts_harmless_code() -> None:
    assert list(dangers(HARMLESS)) == []
