"""`hydraprune bench`: its options, and what it prints and writes. Light to import."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydraprune.bench.options import BATCHES, LENGTHS, PRECISIONS, BenchOptions, numbers_of, words_of
from hydraprune.errors import UserError
from hydraprune.utils import signals
from hydraprune.utils.files import check_place, write_text
from hydraprune.utils.hub_access import exists
from hydraprune.utils.terminal import is_interactive

if TYPE_CHECKING:
    from hydraprune.bench.workloads import BenchTask
    from hydraprune.results.bench_report import BenchReport

HELP = "measure saved models in torch, ONNX Runtime, OpenVINO and hydraprune: hydraprune bench MODEL task=sst2"
FILES = ("bench.md", "bench.json")
_OVERRIDE = re.compile(r"[+~]*[\w./@]+=")
# Columns of a table where the output is no terminal: none is folded.
_WIDE = 240


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    defaults = BenchOptions()
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a folder, that of a run too, or a hub id")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="task=..., task.path=...: texts and a metric")
    parser.add_argument("--engines", default=",".join(PRECISIONS), help="some of %(default)s (default: all)")
    parser.add_argument("--precisions", default=",".join(defaults.precisions), help="(default: %(default)s)")
    parser.add_argument(
        "--batch", default=_shown(BATCHES), metavar="N,N", help="texts of a call (default: %(default)s)"
    )
    parser.add_argument(
        "--length", metavar="N,N", help=f"tokens of each text (default: {_shown(LENGTHS)}, as far as the models go)"
    )
    parser.add_argument("--threads", default="1", metavar="N", help="of each engine (default: 1)")
    parser.add_argument(
        "--rounds", default=str(defaults.rounds), metavar="N", help="turns of each (default: %(default)s)"
    )
    parser.add_argument(
        "--examples", default=str(defaults.examples), metavar="N", help="for the metric, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help=f"write {' and '.join(FILES)} there; report and dashboard find it"
    )


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(models, overrides): a word with `=` is an override, unless there is a folder of that name."""
    overrides = [word for word in words if _OVERRIDE.match(word) and not exists(Path(word))]
    return [word for word in words if word not in overrides], overrides


def options_of(arguments: argparse.Namespace) -> BenchOptions:
    """The options of a command line.

    Raises:
        UserError: one is out of range, or `--out` cannot be written, or holds a bench.
    """
    options = BenchOptions(
        engines=words_of(arguments.engines),
        precisions=words_of(arguments.precisions),
        batches=numbers_of(arguments.batch, "--batch"),
        lengths=None if arguments.length is None else numbers_of(arguments.length, "--length"),
        threads=_number(arguments.threads, "--threads"),
        rounds=_number(arguments.rounds, "--rounds"),
        examples=_number(arguments.examples, "--examples"),
        out=None if arguments.out is None else Path(arguments.out),
    )
    if options.out is not None:
        _check_out(options.out)
    return options


def measure(models: Sequence[str], options: BenchOptions, task: BenchTask | None) -> int:
    """Measure some models, print the tables, and write them if `options` say where.

    Returns:
        The exit code.

    Raises:
        UserError: nothing could be measured.
    """
    from rich.console import Console

    from hydraprune.bench.race import bench
    from hydraprune.bench.tables import terminal

    with signals.listening(), _progress() as progress:  # a signal ends the workers, and removes what was converted
        report = bench(models, options, task, progress)
    console = Console(highlight=False, width=None if is_interactive(sys.stdout) else _WIDE)
    console.print(terminal(report))
    if options.out is not None:
        for file in write_bench(report, options.out):
            print(file)
    return 0


def write_bench(report: BenchReport, folder: Path) -> list[Path]:
    """Write bench.md and bench.json into a folder; returns their paths.

    Raises:
        UserError: they are there already, or cannot be written.
    """
    from hydraprune.bench.tables import markdown

    _check_out(folder)
    files = [folder / name for name in FILES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in zip(files, (markdown(report), report.as_json()), strict=True):
            write_text(file, text)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", key=f"--out {folder}") from None
    return files


def _check_out(folder: Path) -> None:
    if folder.is_file():
        raise UserError("is a file", key=f"--out {folder}", cure="give a folder")
    if there := [name for name in FILES if exists(folder / name)]:
        raise UserError(f"holds {there[0]} already", key=f"--out {folder}", cure="give another folder")
    check_place(folder, "--out")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line in a terminal that says what is done."""
    if not is_interactive(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("importing libraries") as status:
        yield lambda text: status.update(text)


def _number(text: str, key: str) -> int:
    numbers = numbers_of(text, key)
    if len(numbers) != 1:
        raise UserError("must be one number", key=f"{key} {text}")
    return numbers[0]


def _shown(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
