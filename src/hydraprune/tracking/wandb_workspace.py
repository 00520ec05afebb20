"""A W&B workspace for hydraprune's runs: its panels, and saving it. Only here `wandb_workspaces` is imported."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from hydraprune.errors import UserError, one_line
from hydraprune.tracking.wandb_auth import credentials_problem, quiet_settings
from hydraprune.utils.time_limit import TimeLimitError, call_within

# As in `data.metrics`, the most common first.
METRICS = ("accuracy", "f1", "matthews", "pearson", "spearman", "f1_macro")
# Of the patterns in conf/; a mixed one has several.
PRUNERS = ("4x1", "2of4", "1xchannel", "channelx1", "1x1", "attention", "attention_output", "ffn")
# Enough for the published matrix with its dense runs; W&B's default is ten.
_RUNS = 200
# Time limits in seconds: for one answer of the server, and for saving as a whole.
_ANSWER_SECONDS, _SAVE_SECONDS = 10, 45.0


def build(entity: str, project: str, name: str) -> Any:
    """Build the workspace, without a server.

    The run list is not grouped, so that scatter plots, tables and the run comparer show single runs;
    line and bar plots group by run group themselves.

    Raises:
        UserError: the package is missing, or refuses the name.
    """
    ws, wr = _packages()
    _check_name(name)
    sections = [
        _section("Accuracy", [_line(wr, f"eval/{metric}", metric) for metric in METRICS]),
        _section(
            "Sparsity",
            [
                _line(wr, "sparsity/global", "share of prunable weights that are zero"),
                _bar(wr, ["sparsity/prunable", "sparsity/linear", "sparsity/model"], "at the end, by share"),
            ],
            columns=2,
            rows=1,
        ),
        _section(
            "Accuracy against sparsity",
            [_scatter(wr, key) for key in ("headline", *(f"final/{metric}" for metric in METRICS[:2]))],
            rows=1,
        ),
        _section("Dense beside sparse", list(_dense_beside_sparse(wr))),
        _section(
            "Training",
            [
                _line(wr, "train/loss", "loss"),
                _line(wr, "train/lr", "learning rate"),
                _bar(wr, ["seconds/total"], "seconds, in all"),
                _bar(wr, [f"seconds/{part}" for part in ("train", "eval", "teacher")], "seconds, by part"),
            ],
            columns=2,
        ),
        _section("Masks and layers", list(_masks_and_layers(wr)), columns=2),
        _section("Compare", [wr.RunComparer(diff_only="split")], columns=1, rows=1),
    ]
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[_section_of(ws, section, place) for place, section in enumerate(sections)],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=_RUNS),
        runset_settings=ws.RunsetSettings(
            # No filter by state: W&B may count a run interrupted by Ctrl-C as failed, though it can be resumed.
            order=[ws.Ordering(ws.Metric(key), ascending=True) for key in ("Group", "JobType", "Name")],
            pinned_columns=[
                "run:displayName",
                "run:jobType",
                *(f"summary:{key}" for key in ("headline", "sparsity/prunable", "pattern_ok")),
            ],
        ),
        # Panels for keys that are not known here, such as masks of other patterns, at the end.
        auto_generate_panels=True,
    )
    workspace._internal_runset_id = _id("runs")
    return workspace


def as_json(workspace: Any) -> str:
    """The workspace as JSON; equal workspaces give equal texts."""
    view = workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
    return json.dumps(view, indent=1, sort_keys=True) + "\n"


def save(entity: str | None, project: str, name: str) -> str:
    """Build the workspace and save it as a new view of the project.

    Args:
        entity: user or team; None: the account's default.

    Returns:
        Its URL.

    Raises:
        UserError: no credentials, no entity, or a server that refuses or does not answer in time.
    """
    _packages()
    _check_name(name)
    try:
        # W&B retries again and again, and not all of its requests have a time limit.
        return call_within(_SAVE_SECONDS, lambda: _save(entity, project, name))
    except TimeLimitError:
        raise UserError(
            f"{_server()} does not answer", key="W&B", cure="check WANDB_BASE_URL, or write a file with --out FILE"
        ) from None


def _save(entity: str | None, project: str, name: str) -> str:
    settings = quiet_settings()
    if (problem := credentials_problem(settings)) is not None:
        raise UserError(problem, key="W&B", cure="--out FILE needs none")
    import wandb

    try:
        # First, in any case: it notices an unreachable server sooner than `save` does.
        api = wandb.Api(timeout=_ANSWER_SECONDS)
        owner = entity or api.default_entity
        if not owner:
            raise UserError("the account has no default entity", key="W&B", cure="give --entity, or set WANDB_ENTITY")
        workspace = build(owner, project, name).save()
        return str(workspace.url)
    except UserError:
        raise
    except Exception as error:  # W&B raises many classes
        place = f"{entity or 'the default entity'}/{project} at {settings.base_url}"
        raise UserError(
            f"cannot save in {place}: {one_line(error).rstrip('.')}",
            key="W&B",
            cure="check --entity, --project, WANDB_API_KEY and WANDB_BASE_URL, or write a file with --out FILE",
        ) from None


def _packages() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError as error:
        raise UserError(
            f"no module {error.name}", key="dashboard --wandb", cure="pip install 'hydraprune[workspaces]'"
        ) from None
    return ws, wr


def _check_name(name: str) -> None:
    from wandb_workspaces.utils.validators import validate_no_emoji

    try:
        validate_no_emoji(name)
    except ValueError:
        raise UserError("must have no emojis: W&B refuses them", key=f"--name {name}") from None


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL") or "the server"


def _dense_beside_sparse(wr: Any) -> Iterator[Any]:
    for metric in METRICS[:2]:
        yield _line(wr, f"eval/{metric}", f"{metric}: dense and sparse configs")
        yield _bar(wr, [f"dense/{metric}", f"final/{metric}"], f"{metric}: dense model and what came of it")
    for metric in METRICS:
        yield _bar(wr, [f"difference/{metric}"], f"{metric}: sparse - dense of the same seed")


def _masks_and_layers(wr: Any) -> Iterator[Any]:
    for table in ("layers", "result"):
        yield wr.WeavePanelSummaryTable(table_name=table)
    yield wr.MediaBrowser(
        title="parts of the masks", media_keys=[f"masks/{pruner}" for pruner in PRUNERS], num_columns=4
    )


def _line(wr: Any, key: str, title: str) -> Any:
    """A metric over steps: a line per cell, the mean over its seeds, in a band of one standard deviation."""
    return wr.LinePlot(
        title=title,
        x="step",
        y=[key],
        title_x="step",
        groupby="Group",
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=_RUNS,
    )


def _bar(wr: Any, keys: list[str], title: str) -> Any:
    """Summary values: a bar per cell, the mean over its seeds, with one standard deviation."""
    return wr.BarPlot(
        title=title,
        metrics=keys,
        groupby="Group",
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=_RUNS,
        max_bars_to_show=_RUNS,
    )


def _scatter(wr: Any, key: str) -> Any:
    """A summary value against sparsity: a dot per run."""
    return wr.ScatterPlot(
        title=f"{key} against sparsity",
        x=wr.SummaryMetric("sparsity/prunable"),
        y=wr.SummaryMetric(key),
        legend_template="${run:displayName}",
    )


_Section = tuple[str, list[Any], int, int]


def _section(name: str, panels: list[Any], columns: int = 3, rows: int = 2) -> _Section:
    return name, panels, columns, rows


def _section_of(ws: Any, section: _Section, place: int) -> Any:
    name, panels, columns, rows = section
    for number, panel in enumerate(panels):
        # Random by default; ids only need to differ from each other.
        panel._id = _id(f"{name}/{number}")
    return ws.Section(
        name=name,
        panels=panels,
        is_open=place < 4,
        layout_settings=ws.SectionLayoutSettings(columns=columns, rows=rows),
        panel_settings=ws.SectionPanelSettings(x_axis="step"),
    )


def _id(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:12]
