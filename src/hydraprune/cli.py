"""`hydraprune ...`: train, check, watch, report, dashboard, eval, predict, verify, slim, export, bench, and so on."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

from hydraprune import __version__
from hydraprune.bench import command as bench_command
from hydraprune.deploy import export_command
from hydraprune.deploy.slim_command import add_slim
from hydraprune.errors import INTERRUPTED, UserError
from hydraprune.runs.evaluation_commands import add_eval, add_predict
from hydraprune.utils.command_line import OneLineParser
from hydraprune.utils.hub_access import go_offline_if_unreachable
from hydraprune.utils.redaction import guarded_terminal
from hydraprune.utils.system import let_threads_sleep
from hydraprune.utils.terminal import lasting_terminal, output_problem

# At import, since it must come before torch is loaded.
let_threads_sleep()

_TRAIN = "train, prune or sweep; the same as `python train.py`: hydraprune train pattern=4x1 task=sst2"
_STUDY = "search hyperparameters by Optuna: hydraprune study 'optimizer.lr=tag(log,interval(1e-5,1e-3))'"
# Flags of Hydra beside which a study adds no -m: they only show something, or are that flag.
_WITHOUT_M = ("--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--multirun", "-m")
_DOCTOR = "check versions, devices, network, disk and compiler for a run; takes the overrides of train, and --json"


@lasting_terminal()
@guarded_terminal()
def main() -> None:
    """The console script."""
    if sys.argv[1:2] == ["doctor"]:
        from hydraprune.doctor.command import doctor  # works where other packages are missing or broken

        try:
            raise SystemExit(_written(doctor(sys.argv[2:])))
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
    from hydraprune.config.messages import launched, leave

    if sys.argv[1:2] in (["train"], ["study"]):
        # Hydra reads the rest of the command line itself.
        words = sys.argv[2:]
        if sys.argv[1] == "study":
            multirun = [] if any(word.partition("=")[0] in _WITHOUT_M for word in words) else ["-m"]
            words = [*multirun, "study=optuna", *words]
        sys.argv = [sys.argv[0], *words]
        launched(_train)
        return
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(2)
    try:
        raise SystemExit(_written(arguments.call(arguments)))
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        leave(error)


def _written(code: int) -> int:
    """The exit code of a command; 1 where its output was lost, after one line."""
    why = output_problem()
    if why is None:
        return code
    print(f"hydraprune: error: standard output: cannot be written ({why})", file=sys.stderr)
    return code or 1


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="hydraprune", description="Sparse transformers that are still accurate.")
    parser.add_argument("--version", action="version", version=f"hydraprune {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("train", help=_TRAIN, add_help=False)
    commands.add_parser("study", help=_STUDY, add_help=False)
    check = commands.add_parser("check", help="check a run and show its data, weights and layers; nothing is trained")
    check.add_argument("overrides", nargs="*", metavar="key=value", help="the words of a run: pattern=4x1 task=sst2")
    check.set_defaults(call=_check)
    watch = commands.add_parser("watch", help="show the progress of a running sweep, from any terminal; it only reads")
    watch.add_argument("folder", metavar="DIR", help="the folder of a sweep, or any other that holds runs")
    watch.add_argument("--once", action="store_true", help="print the progress once; exit 1 if a job failed")
    watch.add_argument(
        "--period", type=float, default=2.0, metavar="SECONDS", help="time between two updates (default: 2)"
    )
    watch.set_defaults(call=_watch)
    report = commands.add_parser("report", help="print and write the results matrix of all runs below some folders")
    report.add_argument("folders", nargs="+", metavar="DIR", help="the folder of a sweep, or any other that holds runs")
    report.add_argument(
        "--out", metavar="FOLDER", help="where matrix.md, .csv and .json are written (default: the first DIR)"
    )
    report.set_defaults(call=_report)
    page = commands.add_parser("dashboard", help="write one HTML page of all runs below some folders; or --wandb")
    page.add_argument("folders", nargs="*", metavar="DIR", help="the folder of a sweep, or any other that holds runs")
    page.add_argument("--out", metavar="FILE", help="default: dashboard.html in the first DIR")
    page.add_argument("--title", help="title of the page (default: the name of the first DIR)")
    page.add_argument("--figures", metavar="FOLDER", help="also write every figure there, as SVG and PNG")
    page.add_argument("--wandb", action="store_true", help="make a W&B workspace instead; --out FILE writes it as JSON")
    page.add_argument("--entity", help="W&B user or team (default: WANDB_ENTITY, or the account's own)")
    page.add_argument("--project", help="W&B project (default: WANDB_PROJECT, or hydraprune)")
    page.add_argument("--name", default="hydraprune", help="name of the workspace (default: hydraprune)")
    _add_modules(page)
    page.set_defaults(call=_dashboard)
    add_eval(commands)
    add_predict(commands)
    verify = commands.add_parser(
        "verify", help="count the zeros of a saved model of any kind and show which pattern each layer obeys"
    )
    verify.add_argument("model", help="a folder, that of a run too, or a hub id")
    verify.add_argument(
        "--pattern", help="check that every layer with zeros obeys it, such as 4x1 or 2:4; exit 1 if not"
    )
    _add_modules(verify)
    verify.set_defaults(call=_verify)
    layers = commands.add_parser("layers", help="show a model's layers by role: which are pruned, which stay dense")
    layers.add_argument("model", metavar="MODEL", help="a folder, that of a run too, or a hub id")
    layers.add_argument("overrides", nargs="*", metavar="key=value", help="pattern=..., model.family...")
    layers.set_defaults(call=_layers)
    add_slim(commands)
    export = commands.add_parser("export", help=export_command.HELP)
    export_command.add_arguments(export)
    export.set_defaults(call=_export)
    bench = commands.add_parser("bench", help=bench_command.HELP)
    bench_command.add_arguments(bench)
    bench.set_defaults(call=_bench)
    convert = commands.add_parser(
        "convert", help="convert a Neural Compressor 2.x pruning configuration to a config of hydraprune"
    )
    convert.add_argument("file", metavar="FILE", help="YAML, JSON, or Python, which is read and never run")
    convert.add_argument("--steps", type=int, metavar="N", help="optimizer steps of the whole training")
    convert.add_argument(
        "--out", metavar="FILE", help="experiment/NAME.yaml, or the folder of experiment/ (default: print it)"
    )
    convert.add_argument("--name", help="the name to type after experiment= (default: the name of the file)")
    convert.set_defaults(call=_convert)
    cache = commands.add_parser("cache", help="show the cache of tokens, teacher outputs and compiled code")
    cache.add_argument("overrides", nargs="*", metavar="cache.dir=...", help="a folder other than the default")
    cache.add_argument("--clean", action="store_true", help="empty it; everything is made again when needed")
    cache.set_defaults(call=_cache)
    commands.add_parser("doctor", help=_DOCTOR, add_help=False)
    return parser


def _add_modules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--modules", nargs="+", default=[], metavar="MODULE", help="modules of your own, for patterns defined there"
    )


def _train() -> None:
    import hydra

    from hydraprune.config.composition import conf_dir
    from hydraprune.launch import job

    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()


def _check(arguments: argparse.Namespace) -> int:
    from hydraprune.runs.commands import check

    return check(arguments.overrides)


def _watch(arguments: argparse.Namespace) -> int:
    from hydraprune.sweeps.watch import watch

    if not 0 < arguments.period < threading.TIMEOUT_MAX:
        raise UserError("must be seconds above 0", key=f"--period {arguments.period:g}", cure="as in --period 2")
    return watch(Path(arguments.folder), arguments.once, arguments.period)


def _report(arguments: argparse.Namespace) -> int:
    from hydraprune.results.collect import gather, write_matrix

    found = gather([Path(folder) for folder in arguments.folders])
    print(found.markdown(), end="")
    write_matrix(found, Path(arguments.out or arguments.folders[0]))
    return 0


def _dashboard(arguments: argparse.Namespace) -> int:
    if arguments.wandb:
        return _workspace(arguments)
    if not arguments.folders:
        raise UserError(
            "a folder is needed",
            key="dashboard",
            cure="as in hydraprune dashboard multirun_sweeps/default; or hydraprune dashboard --wandb",
        )
    from hydraprune.config.allowlist import import_modules
    from hydraprune.dashboard import write_figures, write_page

    import_modules(arguments.modules)
    folders = [Path(folder) for folder in arguments.folders]
    page = write_page(folders, Path(arguments.out) if arguments.out else None, arguments.title)
    print(f"{page}  {page.stat().st_size / 1e6:.1f} MB, one self-contained file")
    if arguments.figures:
        print(f"{len(write_figures(folders, Path(arguments.figures)))} figures in {arguments.figures}")
    return 0


def _workspace(arguments: argparse.Namespace) -> int:
    from hydraprune.tracking import wandb_workspace as workspace
    from hydraprune.utils.files import write_text

    if arguments.folders:
        raise UserError(
            "takes no folders, since it shows the runs of the W&B project",
            key=f"dashboard --wandb {' '.join(arguments.folders)}",
        )
    entity = arguments.entity or os.environ.get("WANDB_ENTITY") or None
    project = arguments.project or os.environ.get("WANDB_PROJECT") or "hydraprune"
    if arguments.out is None:
        print(workspace.save(entity, project, arguments.name))
        return 0
    text = workspace.as_json(workspace.build(entity or "", project, arguments.name))
    try:
        write_text(Path(arguments.out), text)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", key=f"--out {arguments.out}") from None
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    go_offline_if_unreachable([arguments.model])
    from hydraprune.config.allowlist import import_modules
    from hydraprune.deploy.verify import checked_model, table, violations
    from hydraprune.sparsity import SparsityError, parse
    from hydraprune.utils.hub_access import quiet_libraries

    quiet_libraries()
    import_modules(arguments.modules)
    try:
        pattern = None if arguments.pattern is None else parse(arguments.pattern)
    except SparsityError as error:
        raise UserError(error.reason, key=f"--pattern {arguments.pattern}", cure=error.cure) from None
    model = checked_model(arguments.model, "MODEL")
    print(table(model))
    if pattern is None:
        return 0
    broken = violations(model, pattern)
    print("\n".join(broken) if broken else f"{arguments.pattern} holds in every layer that has zeros")
    return 1 if broken else 0


def _layers(arguments: argparse.Namespace) -> int:
    from hydraprune.runs.commands import layers

    return layers(arguments.model, arguments.overrides)


def _export(arguments: argparse.Namespace) -> int:
    from hydraprune.runs.commands import export

    return export(arguments.model, arguments.overrides, export_command.options_of(arguments))


def _bench(arguments: argparse.Namespace) -> int:
    from hydraprune.runs.commands import bench

    return bench([*arguments.models, *arguments.overrides], bench_command.options_of(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    from hydraprune import convert
    from hydraprune.config.composition import conf_dir

    steps, file = arguments.steps, Path(arguments.file)
    if steps is not None and steps < 1:
        raise UserError("must be at least 1", key=f"--steps {steps}")
    source = convert.read(file)
    made = convert.as_experiment(convert.entries_of(source), steps, file.name, source.notes)
    if arguments.out is None:
        print(made.text, end="")
        name = arguments.name or convert.experiment_name(file)
        print(f"To use it: the same command with --out experiment/{name}.yaml", file=sys.stderr)
        return 0
    taken = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    place = convert.experiment_path(arguments.out, arguments.name, file, taken)
    convert.save(made.text, place)
    length = "" if steps is None else f", and training.epochs= so that there are {steps} steps"
    print("\n".join([*made.notes, f"{place}  is written; type it with model=, task= and so on{length}:"]))
    print(convert.train_command(place))
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    from hydra import compose, initialize_config_dir

    from hydraprune.config.composition import conf_dir
    from hydraprune.utils.cache import KINDS, cache_of
    from hydraprune.utils.sizes import GB

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cache = cache_of(compose("config", arguments.overrides).get("cache"))
    for kind in KINDS:
        files = [file for file in cache.files() if file.parent.name == kind]
        print(f"{kind:8} {len(files):5} files  {sum(file.stat().st_size for file in files) / GB:8.3f} GB")
    print(f"in {cache.folder}, at most {cache.max_gb:g} GB")
    if arguments.clean:
        print(f"removed {cache.clean() / GB:.3f} GB")
    return 0


if __name__ == "__main__":
    main()
