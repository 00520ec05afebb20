"""`hydraprune check`, `layers`, `export` and `bench`: they compose a config and train nothing. Light to import."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from hydraprune.bench import command as bench_command
from hydraprune.bench.options import BenchOptions
from hydraprune.config.command_words import arranged
from hydraprune.config.composition import conf_dir, loaded_paths, resolved
from hydraprune.config.model_choice import with_model_choice
from hydraprune.deploy import export_command
from hydraprune.deploy.export_options import ExportOptions
from hydraprune.errors import UserError
from hydraprune.runs.resolvers import register
from hydraprune.utils.hub_access import at_home, go_offline_if_unreachable, model_of_run

# Of a training that is never run, long enough for any schedule.
_STEPS, _EPOCH = 10**9, 1_000


@contextmanager
def composed(words: Sequence[str], model: str | None = None) -> Iterator[DictConfig]:
    """The config that the words of a run compose to, while Hydra is initialized; libraries may be imported then.

    Args:
        model: folder or hub id of the model that is loaded; None: those that the config names.
    """
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", with_model_choice(arranged(words)), return_hydra_config=True)
        named = [path for path in loaded_paths(config) if path.kind == "dataset" or model is None]
        go_offline_if_unreachable([path.path for path in named if path.kind != "file"] + ([model] if model else []))
        from hydraprune.utils.hub_access import quiet_libraries  # imports them, and they read the environment once

        quiet_libraries()
        yield config


def check(words: Sequence[str]) -> int:
    """Print the checklist of a run.

    Returns:
        The exit code: 1 if something is odd.

    Raises:
        UserError: the run cannot work.
    """
    with composed(words) as config:
        from hydraprune.runs.checklist import checklist
        from hydraprune.runs.experiment import build_single_run

        text, is_odd = checklist(build_single_run(config))
    print(text)
    return 1 if is_odd else 0


def export(model: str, words: Sequence[str], options: ExportOptions) -> int:
    """Export a model to another form, checked and calibrated on the texts of a task if the words name one.

    Args:
        model: folder or hub id.
        words: task=... and what belongs to it; none: a sample of texts is used.

    Returns:
        The exit code.

    Raises:
        UserError: the model or the task cannot be used, or the export fails.
    """
    if not words:
        go_offline_if_unreachable([model])
        from hydraprune.utils.hub_access import quiet_libraries  # as in `composed`

        quiet_libraries()
        return export_command.export(model, options, None)
    if not any(word.startswith("task=") for word in words):
        raise UserError("a task is needed", key=f"export ... {words[0]}", cure="for example task=sst2")
    with composed([*words, "pattern=dense"], model) as config:
        from hydraprune.deploy.compact_model import source_of
        from hydraprune.deploy.text_batches import TaskTexts
        from hydraprune.models.tokenizer_checks import check_tokenizer
        from hydraprune.runs.experiment import build_experiment
        from hydraprune.runs.setup import TaskLoader

        experiment, source = build_experiment(config), source_of(model, "MODEL")
        data, longest = TaskLoader()(experiment), experiment.components.task.max_length
        check_tokenizer("MODEL", model, source.tokenizer(), data, source.blueprint(), longest)
        check = next(iter(data.evaluations.values()))
        texts = TaskTexts(data.train.texts, check.texts, longest, data.labels)
        return export_command.export(model, options, texts)


def bench(words: Sequence[str], options: BenchOptions) -> int:
    """Measure models in several engines, also on the texts of a task if the words name one.

    Args:
        words: folders or hub ids of models; task=... and what belongs to it.

    Returns:
        The exit code.

    Raises:
        UserError: a model or the task cannot be used, or nothing can be measured.
    """
    models, overrides = bench_command.split_words(words)
    if not models:
        raise UserError("give at least one model", key="bench", cure="as in hydraprune bench MODEL task=sst2")
    go_offline_if_unreachable(models)
    if not overrides:
        from hydraprune.utils.hub_access import quiet_libraries  # as in `composed`

        quiet_libraries()
        return bench_command.measure(models, options, None)
    if not any(word.startswith("task=") for word in overrides):
        raise UserError("a task is needed", key=f"bench ... {overrides[0]}", cure="for example task=sst2")
    with composed([*overrides, "pattern=dense"], models[0]) as config:
        from hydraprune.runs.bench_task import bench_task

        task = bench_task(config, models)
    return bench_command.measure(models, options, task)


def layers(model: str, words: Sequence[str]) -> int:
    """Print the layers of a model by role, those that a pattern takes first; only its config is read.

    Args:
        model: folder or hub id.
        words: pattern=..., model.family...; without a pattern all layers of the encoder are shown.

    Returns:
        The exit code.

    Raises:
        UserError: the model's config cannot be read, or the pattern takes no layer of it.
    """
    chosen = list(words) if any(word.startswith("pattern=") for word in words) else ["pattern=1x1", *words]
    with composed(["model=checkpoint", "model.path=MODEL", "task=toy", *chosen], model) as config:
        from hydraprune.config import instantiate
        from hydraprune.models.families import family_of_model
        from hydraprune.models.layer_table import format_table
        from hydraprune.sparsity.coverage import coverage

        components = instantiate.Components(resolved(config))
        source = instantiate.pretrained(str(model_of_run(at_home(model)) or model), "MODEL", components.family)
        blueprint = source.architecture()
        pruners = instantiate.pruners(components.plans, blueprint, _STEPS, _EPOCH)
        family = family_of_model(blueprint)
        text = format_table(coverage(blueprint, pruners, family), family)
    print(f"{type(blueprint).__name__} of {model}\n\n{text}")
    return 0
