"""`hydraprune ...`: train, watch, report, dashboard, eval, verify, convert, cache, doctor."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

from hydraprune import __version__
from hydraprune.errors import INTERRUPTED, UserError
from hydraprune.utils.hub_access import go_offline_if_unreachable
from hydraprune.utils.redaction import guarded_terminal
from hydraprune.utils.system import let_threads_sleep

# Here, since it must come before torch.
let_threads_sleep()

_TRAIN = "all that `python train.py` takes: hydraprune train pattern=4x1 task=sst2"
_DOCTOR = "is all well for a run here? versions, devices, network, disk, compiler; takes the words of train, and --json"


@guarded_terminal()
def main() -> None:
    """The console script."""
    if sys.argv[1:2] == ["doctor"]:
        from hydraprune.doctor.command import doctor  # needs nothing that may be missing or broken

        try:
            raise SystemExit(doctor(sys.argv[2:]))
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
    from hydraprune.config.messages import launched, leave

    if sys.argv[1:2] == ["train"]:
        # Hydra reads the rest of the command line itself.
        sys.argv = [sys.argv[0], *sys.argv[2:]]
        launched(_train)
        return
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(2)
    try:
        raise SystemExit(arguments.call(arguments))
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        leave(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hydraprune", description="Sparse transformers that are still accurate.")
    parser.add_argument("--version", action="version", version=f"hydraprune {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("train", help=_TRAIN, add_help=False)
    watch = commands.add_parser("watch", help="how far a running sweep is, from any terminal; it only reads")
    watch.add_argument("folder", metavar="DIR", help="a sweep's folder, or any other that holds runs")
    watch.add_argument("--once", action="store_true", help="one picture, and no more; exit 1 if a job failed")
    watch.add_argument("--period", type=float, default=2.0, metavar="SECONDS", help="between two looks; 2 if not said")
    watch.set_defaults(call=_watch)
    report = commands.add_parser("report", help="the results matrix of all runs below some folders, at any time")
    report.add_argument("folders", nargs="+", metavar="DIR", help="a sweep's folder, or any other that holds runs")
    report.add_argument("--out", metavar="FOLDER", help="where matrix.md, .csv and .json go; the first DIR if not said")
    report.set_defaults(call=_report)
    page = commands.add_parser("dashboard", help="one HTML file that shows all runs below some folders; or --wandb")
    page.add_argument("folders", nargs="*", metavar="DIR", help="a sweep's folder, or any other that holds runs")
    page.add_argument("--out", metavar="FILE", help="dashboard.html in the first DIR if not said")
    page.add_argument("--title", help="of the page; the first DIR's name if not said")
    page.add_argument("--figures", metavar="FOLDER", help="write every figure there too, as SVG and PNG")
    page.add_argument("--wandb", action="store_true", help="a W&B workspace instead; --out FILE writes it as JSON")
    page.add_argument("--entity", help="W&B user or team; WANDB_ENTITY, or the account's own, if not said")
    page.add_argument("--project", help="of W&B; WANDB_PROJECT, or hydraprune, if not said")
    page.add_argument("--name", default="hydraprune", help="of the workspace; hydraprune if not said")
    page.set_defaults(call=_dashboard)
    score = commands.add_parser("eval", help="score a saved model on a task: hydraprune eval MODEL task=sst2")
    score.add_argument("model", help="a folder or hub id")
    score.add_argument("overrides", nargs="*", metavar="key=value", help="task=..., task.path=..., training.device=...")
    score.set_defaults(call=_eval)
    verify = commands.add_parser("verify", help="count a saved model's zeros and say which pattern each layer obeys")
    verify.add_argument("model", help="a folder or hub id")
    verify.add_argument("--pattern", help="check that every layer with zeros obeys it, e.g. 4x1, 2:4; exit 1 if not")
    verify.set_defaults(call=_verify)
    turned = commands.add_parser("convert", help="a Neural Compressor 2.x pruning configuration, in our words")
    turned.add_argument("file", metavar="FILE", help="YAML, JSON, or Python that is read and never run")
    turned.add_argument("--steps", type=int, metavar="N", help="optimizer steps of the whole training")
    turned.add_argument(
        "--out", metavar="FILE", help="experiment/NAME.yaml, or the folder of experiment/; else printed"
    )
    turned.add_argument("--name", help="the word to type after experiment=; the file's name if not said")
    turned.set_defaults(call=_convert)
    kept = commands.add_parser("cache", help="show what is kept of tokens, teachers' answers and compiled code")
    kept.add_argument("overrides", nargs="*", metavar="cache.dir=...", help="another folder than the default")
    kept.add_argument("--clean", action="store_true", help="remove all of it; it is made again when needed")
    kept.set_defaults(call=_cache)
    commands.add_parser("doctor", help=_DOCTOR, add_help=False)
    return parser


def _train() -> None:
    import hydra

    from hydraprune.config.messages import conf_dir
    from hydraprune.launch import job

    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()


def _watch(arguments: argparse.Namespace) -> int:
    from hydraprune.sweeps.watch import watch

    if not 0 < arguments.period < threading.TIMEOUT_MAX:
        raise UserError(f"--period {arguments.period:g}: must be seconds above 0, such as --period 2")
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
            "dashboard: say of what: hydraprune dashboard multirun_sweeps/default, or hydraprune dashboard --wandb"
        )
    from hydraprune.dashboard import write_figures, write_page

    folders = [Path(folder) for folder in arguments.folders]
    page = write_page(folders, Path(arguments.out) if arguments.out else None, arguments.title)
    print(f"{page}  {page.stat().st_size / 1e6:.1f} MB, all of it in this one file")
    if arguments.figures:
        print(f"{len(write_figures(folders, Path(arguments.figures)))} figures in {arguments.figures}")
    return 0


def _workspace(arguments: argparse.Namespace) -> int:
    from hydraprune.tracking import wandb_workspace as workspace
    from hydraprune.utils.files import write_text

    if arguments.folders:
        raise UserError(
            f"dashboard --wandb {' '.join(arguments.folders)}: takes no folders; it shows the runs of the W&B project"
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
        raise UserError(f"--out {arguments.out}: cannot be written ({error.strerror or error})") from None
    return 0


def _eval(arguments: argparse.Namespace) -> int:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from hydraprune.config.messages import conf_dir
    from hydraprune.runs.request import request_of
    from hydraprune.utils.hub_access import quiet_libraries

    if not any(override.startswith("task=") for override in arguments.overrides):
        raise UserError("eval: say on which task, for example task=sst2")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", [*arguments.overrides, "pattern=dense"], return_hydra_config=True)
        go_offline_if_unreachable([arguments.model, str(OmegaConf.select(config, "task.path") or ".")])
        quiet_libraries()
        from hydraprune.runs.preflight import check_numbers
        from hydraprune.runs.setup import evaluate_model  # only now: the libraries read the environment once

        request = request_of(config)
        check_numbers(request.config)
        values = evaluate_model(request.config, arguments.model, "MODEL")
    for metric, value in values.items():
        print(f"{metric}  {value:.4f}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    go_offline_if_unreachable([arguments.model])
    from hydraprune.deploy.verify import table, violations
    from hydraprune.models.pretrained import PretrainedModel
    from hydraprune.sparsity import SparsityError, parse
    from hydraprune.utils.hub_access import quiet_libraries

    quiet_libraries()
    try:
        pattern = None if arguments.pattern is None else parse(arguments.pattern)
    except SparsityError as error:
        raise UserError(f"--pattern {error}") from None
    model = PretrainedModel(Path(arguments.model).name, arguments.model, key="MODEL").load()
    print(table(model))
    if pattern is None:
        return 0
    broken = violations(model, pattern)
    print("\n".join(broken) if broken else f"{arguments.pattern} holds in every layer that has zeros")
    return 1 if broken else 0


def _convert(arguments: argparse.Namespace) -> int:
    from hydraprune import convert
    from hydraprune.config.messages import conf_dir

    steps, file = arguments.steps, Path(arguments.file)
    if steps is not None and steps < 1:
        raise UserError(f"--steps {steps}: must be at least 1")
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

    from hydraprune.config.messages import conf_dir
    from hydraprune.utils.cache import KINDS, cache_of

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cache = cache_of(compose("config", arguments.overrides).get("cache"))
    for kind in KINDS:
        files = [file for file in cache.files() if file.parent.name == kind]
        print(f"{kind:8} {len(files):5} files  {sum(file.stat().st_size for file in files) / 1e9:8.3f} GB")
    print(f"in {cache.folder}, at most {cache.max_gb:g} GB")
    if arguments.clean:
        print(f"removed {cache.clean() / 1e9:.3f} GB")
    return 0


if __name__ == "__main__":
    main()
