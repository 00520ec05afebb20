"""The checklist of a run, printed by `hydraprune check`: its state, data, weights and layers, before it is trained."""

from __future__ import annotations

from hydraprune.config import instantiate
from hydraprune.data.encoding import encode_once
from hydraprune.runs.directory import finished, is_begun
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.model_loading import starting_model
from hydraprune.runs.preflight import Needs, preflight
from hydraprune.runs.provenance import Provenance, provenance
from hydraprune.runs.setup import TaskLoader
from hydraprune.utils.cache import cache_of
from hydraprune.utils.sizes import format_bytes


def checklist(experiment: Experiment) -> tuple[str, bool]:
    """Check a run as before its training, and describe it; nothing but the cache of tokens is written.

    Returns:
        (lines for the terminal, whether something is odd)

    Raises:
        UserError: the run cannot work.
    """
    load_data = TaskLoader()
    needs = preflight(experiment, load_data)
    lines = [("run", f"{experiment.spec.name}, {_state(experiment)}"), ("folder", str(experiment.directory))]
    if needs is None:
        return _aligned(lines), False
    if experiment.dense is not None:
        state = "is finished" if finished(experiment.dense) is not None else "is trained first"
        lines.append(("starts from", f"dense run, which {state}, {experiment.dense.directory}"))
    elif experiment.dense_source is not None:
        lines.append(("starts from", experiment.dense_source))
    lines += _plan(experiment, needs)
    made_from = _provenance(experiment, load_data)
    lines += [*made_from.lines(), *_left_dense(made_from)]
    oddities = made_from.oddities()
    lines += [("odd", line) for line in oddities]
    return _aligned(lines), bool(oddities)


def _state(experiment: Experiment) -> str:
    if finished(experiment) is not None:
        return "finished"
    return "interrupted, the same command resumes it" if is_begun(experiment.directory) else "new"


def _plan(experiment: Experiment, needs: Needs) -> list[tuple[str, str]]:
    settings, recipe = experiment.components.settings, experiment.spec.recipe
    named = f"{recipe['name']} ({recipe['source']})" if recipe["name"] else "none for this model and task"
    cached = needs.answer_bytes + needs.token_bytes
    disk = f"{format_bytes(needs.model_bytes)} for the model, {format_bytes(cached)} in the cache"
    return [("recipe", named), ("steps", f"{needs.steps:,} in {settings.epochs} epochs"), ("disk", disk)]


def _provenance(experiment: Experiment, load_data: TaskLoader) -> Provenance:
    components, data = experiment.components, load_data(experiment)
    cache, task, settings = cache_of(experiment.config["cache"]), components.task, components.settings
    model, tokenizer = starting_model(experiment, data.labels)
    encoded = {
        name: encode_once(tokenizer, examples, task.max_length, data.labels, cache)
        for name, examples in {"train": data.train, **data.evaluations}.items()
    }
    per_epoch = settings.steps_per_epoch(encoded["train"].groups)
    pruners = instantiate.pruners(components.plans, model, settings.epochs * per_epoch, per_epoch)
    return provenance(data, encoded, model, pruners, components)


def _left_dense(made_from: Provenance) -> list[tuple[str, str]]:
    """The parameters that stay dense, by reason, and the largest weights that no pruner takes."""
    if made_from.coverage is None:
        return []
    reasons = [f"{count:,} {reason}" for reason, count in made_from.coverage.by_reason.items()]
    lines = [("dense", ", ".join([*reasons, f"{made_from.coverage.small:,} biases and normalisation"]))]
    for weight in made_from.coverage.unsupported[:3]:
        lines.append(("", f"{weight.name} {list(weight.shape)} of {weight.module}"))
    return lines


def _aligned(lines: list[tuple[str, str]]) -> str:
    width = max(len(subject) for subject, _ in lines)
    return "\n".join(f"  {subject:<{width}}  {text}" for subject, text in lines)
