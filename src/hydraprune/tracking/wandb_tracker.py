"""The Weights & Biases tracker: one W&B run per run. `wandb` is imported only when a run starts."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from hydraprune.errors import UserError, one_line
from hydraprune.tracking.base import About, BaseTracker, Outcome
from hydraprune.tracking.wandb_auth import online_problem, quiet_settings, resolved_mode
from hydraprune.tracking.wandb_process import end_service, limit_exit, service_process
from hydraprune.tracking.wandb_tables import (
    LAYER_COLUMNS,
    RESULT_COLUMNS,
    layer_rows,
    mask_image,
    report_summary,
    result_rows,
)
from hydraprune.utils.redaction import redacted

log = logging.getLogger(__name__)

_MODES = ("auto", "online", "offline", "disabled")
# Older values of WANDB_MODE; empty is the same as not set.
_OLDER_MODES = {"dryrun": "offline", "run": "online", "": "auto"}
_NOT_IN_A_PROJECT_NAME = r"/\#?%:"
_LONGEST_NAME, _LONGEST_TAG = 128, 64
_LONGEST_REASON = 300
# Seconds; together with the time for the server's first answer and for a second start offline less than 20.
_INIT_TIMEOUT = 9.0
_FLUSH_INTERVAL = 1.0


class WandB(BaseTracker):
    """Tracks a run in Weights & Biases, online or in a folder for `wandb sync`.

    Args:
        mode: auto (online with credentials, else offline) | online | offline | disabled.
        project: of W&B; created if needed.
        entity: user or team; None: the account's default.
        tags: in addition to those of the run.
        log_model: upload the saved model as an artifact.
        finish_timeout: seconds that `close` waits for the upload.

    Raises:
        UserError: a value that W&B would refuse.
    """

    def __init__(
        self,
        mode: str = "auto",
        project: str = "hydraprune",
        entity: str | None = None,
        tags: Sequence[str] = (),
        log_model: bool = False,
        finish_timeout: float = 120.0,
    ) -> None:
        self._mode = _OLDER_MODES.get(mode, mode)
        self._project = project or "hydraprune"
        self._entity = entity or None
        self._tags = (tags,) if isinstance(tags, str) else tuple(tags)
        self._log_model = log_model
        self._finish_timeout = finish_timeout
        self._run: Any = None
        self._ended = False
        self._service: Any = None
        self._about: About | None = None
        if self._mode not in _MODES:
            raise UserError("must be auto, online, offline or disabled", key="tracker.mode", value=mode)
        if len(self._project) > _LONGEST_NAME or set(self._project) & set(_NOT_IN_A_PROJECT_NAME):
            reason = f"must be at most {_LONGEST_NAME} characters, none of {_NOT_IN_A_PROJECT_NAME}"
            raise UserError(reason, key="tracker.project", value=project)
        for tag in self._tags:
            if not 1 <= len(tag) <= _LONGEST_TAG:
                raise UserError(
                    f"must be at most {_LONGEST_TAG} characters each, and not empty", key="tracker.tags", value=tag
                )
        if not 0 < finish_timeout < float("inf"):
            raise UserError("must be above 0, in seconds", key="tracker.finish_timeout", value=finish_timeout)

    @property
    def patience(self) -> float:
        """Seconds that `end` and `close` may take, on top of those of every tracker."""
        return self._finish_timeout

    def start(self, about: About) -> None:
        mode = resolved_mode(self._mode)
        if mode == "disabled":
            return
        self._about = about
        settings = quiet_settings()
        self._service = service_process()
        problem = online_problem(settings) if mode == "online" else None
        if mode == "online" and problem is None:
            problem = self._try_online(about)
        if self._run is None:
            self._run = self._init(about, "offline")
        self._service = service_process()
        limit_exit(self._service)
        # The error of an earlier attempt, which this one resumes.
        self._run.summary["error"] = None
        _define_metrics(self._run)
        _keep_composed(self._run, about.config)
        self._log_start(problem)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._run is not None:
            # Not W&B's own step: W&B drops values of earlier steps, which a resumed run repeats.
            self._run.log({**values, "step": step})

    def end(self, outcome: Outcome) -> None:
        if self._run is None:
            return
        import wandb

        self._ended = True
        report = outcome.report
        shown: dict[str, Any] = {}
        for name, columns, rows in (
            ("result", RESULT_COLUMNS, result_rows(report)),
            ("layers", LAYER_COLUMNS, layer_rows(report)),
        ):
            if rows:
                shown[name] = wandb.Table(columns=list(columns), data=rows)
        for pruner, mask in outcome.masks().items():
            # It becomes a file name, in which some systems allow no colon.
            name = pruner.replace(":", "of")
            shown[f"masks/{name}"] = wandb.Image(mask_image(mask.kept), caption=mask.weight)
        if shown:
            self._run.log({**shown, "step": report["steps"]})
        self._run.summary.update(report_summary(report))
        if self._log_model:
            self._upload_model(outcome)

    def close(self, error: BaseException | None) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        # A run interrupted by Ctrl-C did not fail and can be resumed; W&B's exit code for that is 255.
        interrupted = isinstance(error, KeyboardInterrupt)
        if self._ended:
            error = None  # a deferred signal, for example: the run itself was finished
        if error is not None and not interrupted:
            run.summary["error"] = redacted(one_line(error))
        try:
            run.finish(exit_code=0 if error is None else 255 if interrupted else 1)
        except TimeoutError:
            log.warning(
                "W&B: the upload was not finished within tracker.finish_timeout=%g s; `wandb sync --include-online %s` "
                "uploads the rest",
                self._finish_timeout,
                _place(run),
            )
        except Exception:
            end_service()
            raise

    def abandon(self) -> None:
        """Kill W&B's service process: calls that wait for it return with an error."""
        if self._service is not None:
            self._service.kill()

    def _try_online(self, about: About) -> str | None:
        """Start the run online; returns why that failed, if it did."""
        try:
            self._run = self._init(about, "online")
        except Exception as error:  # W&B raises many classes
            end_service()
            return one_line(error)
        return None

    def _init(self, about: About, mode: Literal["online", "offline"]) -> Any:
        import wandb

        with _outside_a_sweep(quiet_settings(), hidden=not about.requested), _redacted_command_line():
            return wandb.init(
                # The project, entity and id of a sweep's agent take precedence in wandb.init.
                project=self._project,
                entity=self._entity,
                id=about.id,
                name=redacted(_named(about, "WANDB_NAME", about.name))[:_LONGEST_NAME],
                group=redacted(os.environ.get("WANDB_RUN_GROUP") or about.group)[-_LONGEST_NAME:],
                job_type=redacted(_named(about, "WANDB_JOB_TYPE", about.job_type)),
                tags=[tag[:_LONGEST_TAG] for tag in dict.fromkeys(redacted([*about.tags, *self._tags, *_own_tags()]))],
                config=dict(about.config),
                mode=mode,
                resume="allow",
                # Otherwise a second run of one process gets the first one, if that was not finished.
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    save_code=False,
                    disable_code=True,
                    x_disable_stats=True,
                    # A killed run loses what was not written yet; W&B's default is 15 seconds.
                    x_transaction_log_flush_interval=_FLUSH_INTERVAL,
                    init_timeout=_INIT_TIMEOUT,
                    finish_timeout=self._finish_timeout,
                    finish_timeout_raises=True,
                ),
            )

    def _log_start(self, problem: str | None) -> None:
        place = _place(self._run)
        if problem is not None:
            log.warning(
                "W&B: continuing offline: %s; `wandb sync %s` uploads the run later",
                redacted(problem)[:_LONGEST_REASON],
                place,
            )
        elif self._run.offline:
            log.info("W&B: offline in %s; `wandb sync %s` uploads it", place, place)
        else:
            log.info("W&B: %s", self._run.url)

    def _upload_model(self, outcome: Outcome) -> None:
        import wandb

        assert self._about is not None
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self._about.name)[: _LONGEST_NAME - len(self._about.id) - 1]
        known = {key: outcome.report[key] for key in ("task", "model", "pattern", "seed")}
        artifact = wandb.Artifact(
            f"{name}-{self._about.id}", type="model", metadata={**known, **report_summary(outcome.report)}
        )
        # Without copying the model: a later upload reads it from the run's folder.
        artifact.add_dir(str(outcome.model.absolute()), policy="immutable")
        self._run.log_artifact(artifact)


def _named(about: About, variable: str, ours: str) -> str:
    """The user's own value in the environment; ours for a dense run that was not asked for, which is another run."""
    return (os.environ.get(variable) if about.requested else None) or ours


def _own_tags() -> list[str]:
    """The tags of WANDB_TAGS."""
    return [tag for word in os.environ.get("WANDB_TAGS", "").split(",") if (tag := word.strip())]


def _define_metrics(run: Any) -> None:
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    # Other metrics keep W&B's default, the last value: the best epoch may be one before the model was sparse.
    run.define_metric("train/loss", step_metric="step", summary="last,min")


def _keep_composed(run: Any, config: Mapping[str, Any]) -> None:
    """Add our config as `composed` where a W&B sweep's parameters have replaced values in W&B's config."""
    if any(run.config[key] != value for key, value in config.items()):
        run.config.update({"composed": dict(config)})


def _place(run: Any) -> str:
    """The folder of a W&B run, relative to the current one."""
    return os.path.relpath(str(run.settings.sync_dir))


@contextmanager
def _outside_a_sweep(settings: Any, hidden: bool) -> Iterator[None]:
    """With `hidden`, W&B ignores that a sweep's agent started this process.

    The agent's run id belongs to the requested run, not to a dense model that is trained for it.
    """
    kept = {name: getattr(settings, name) for name in ("sweep_id", "sweep_param_path")} if hidden else {}
    for name in kept:
        setattr(settings, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(settings, name, value)


@contextmanager
def _redacted_command_line() -> Iterator[None]:
    """Redact `sys.argv`, which W&B stores, within the context."""
    kept, sys.argv = sys.argv, redacted(sys.argv)
    try:
        yield
    finally:
        sys.argv = kept
