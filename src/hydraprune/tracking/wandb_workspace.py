"""A W&B workspace for our runs: which panels it has, and saving it. `wandb_workspaces` is imported only here."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from hydraprune.errors import UserError, one_line
from hydraprune.tracking.wandb_auth import credentials, quiet_settings

# As `hub.metrics` names them, the commoner first.
METRICS = ("accuracy", "f1", "matthews", "pearson", "spearman", "f1_macro")
# Of the patterns in conf/; a mixed one has several.
PRUNERS = ("4x1", "2of4", "1xchannel", "channelx1", "1x1", "attention", "attention_output", "ffn")
# All runs of the published matrix, dense ones included; W&B shows ten if not told otherwise.
_RUNS = 200
# Seconds: for each answer of the server, and for all of them together.
_ANSWER, _PATIENCE = 10, 45.0


def build(entity: str, project: str, name: str) -> Any:
    """The workspace; nothing is asked of a server.

    The run list is not grouped: panels of lines and bars group by run group themselves, so that scatters, tables and
    the comparer still show single runs.

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
        sections=[_made(ws, section, place) for place, section in enumerate(sections)],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=_RUNS),
        runset_settings=ws.RunsetSettings(
            # No filter by state: W&B may count a run that Ctrl-C has cut as failed, and it goes on.
            order=[ws.Ordering(ws.Metric(key), ascending=True) for key in ("Group", "JobType", "Name")],
            pinned_columns=[
                "run:displayName",
                "run:jobType",
                *(f"summary:{key}" for key in ("headline", "sparsity/prunable", "pattern_ok")),
            ],
        ),
        # Keys that nobody can name beforehand, such as masks of other patterns, get panels of their own behind ours.
        auto_generate_panels=True,
    )
    workspace._internal_runset_id = _id("runs")
    return workspace


def as_json(workspace: Any) -> str:
    """What would be saved; the same workspace, the same text."""
    view = workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
    return json.dumps(view, indent=1, sort_keys=True) + "\n"


def save(entity: str | None, project: str, name: str) -> str:
    """Build the workspace, and save it as a new view of the project.

    Args:
        entity: user or team; None: the account's own.

    Returns:
        Its address.

    Raises:
        UserError: no credentials, no entity, a server that does not answer in time or refuses.
    """
    _packages()
    _check_name(name)
    outcome: list[str | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_saved(entity, project, name))
        except BaseException as error:
            outcome.append(error)

    # W&B tries again and again, and not each of its tries has an end.
    working = threading.Thread(target=work, daemon=True)
    working.start()
    working.join(_PATIENCE)
    if not outcome:
        raise UserError(f"W&B: {_server()} does not answer; see WANDB_BASE_URL, or write a file with --out FILE")
    if isinstance(found := outcome[0], BaseException):
        raise found
    return found


def _saved(entity: str | None, project: str, name: str) -> str:
    settings = quiet_settings()
    if (why := credentials(settings)) is not None:
        raise UserError(f"W&B: {why}; --out FILE needs none")
    import wandb

    try:
        # In any case first: of a server that is not there it learns sooner than a workspace being saved.
        api = wandb.Api(timeout=_ANSWER)
        owner = entity or api.default_entity
        if not owner:
            raise UserError("W&B: the account has no default entity; give --entity, or set WANDB_ENTITY")
        workspace = build(owner, project, name).save()
        return str(workspace.url)
    except UserError:
        raise
    except Exception as error:  # W&B's many kinds
        place = f"{entity or 'the default entity'}/{project} at {settings.base_url}"
        raise UserError(
            f"W&B: cannot save in {place}: {one_line(error).rstrip('.')}; "
            f"see --entity, --project, WANDB_API_KEY and WANDB_BASE_URL, or write a file with --out FILE"
        ) from None


def _packages() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError as error:
        raise UserError(f"dashboard --wandb: no module {error.name}; pip install 'hydraprune[workspaces]'") from None
    return ws, wr


def _check_name(name: str) -> None:
    from wandb_workspaces.utils.validators import validate_no_emoji

    try:
        validate_no_emoji(name)
    except ValueError:
        raise UserError(f"--name {name}: must have no emojis, W&B refuses them") from None


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
    """Over steps; all seeds of a cell are one line, their mean, in a band of a standard deviation."""
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
    """Of summaries; the mean over the seeds of a cell, with a standard deviation."""
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
    """A dot a run."""
    return wr.ScatterPlot(
        title=f"{key} against sparsity",
        x=wr.SummaryMetric("sparsity/prunable"),
        y=wr.SummaryMetric(key),
        legend_template="${run:displayName}",
    )


_Section = tuple[str, list[Any], int, int]


def _section(name: str, panels: list[Any], columns: int = 3, rows: int = 2) -> _Section:
    return name, panels, columns, rows


def _made(ws: Any, section: _Section, place: int) -> Any:
    name, panels, columns, rows = section
    for number, panel in enumerate(panels):
        # Drawn at random otherwise; they need only differ from each other.
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
