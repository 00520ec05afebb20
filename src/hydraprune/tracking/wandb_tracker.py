"""Weights & Biases: one W&B run per run of ours. `wandb` is imported when a run starts, not before."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from hydraprune.errors import one_line
from hydraprune.tracking.base import About, Outcome
from hydraprune.tracking.trackers import Silent
from hydraprune.tracking.wandb_auth import chosen_mode, quiet_settings, why_not_online
from hydraprune.tracking.wandb_process import own_process, start_anew, watch_exit
from hydraprune.tracking.wandb_tables import (
    LAYER_COLUMNS,
    RESULT_COLUMNS,
    layer_rows,
    picture_of,
    result_rows,
    summary_of,
)
from hydraprune.utils.redaction import redacted

log = logging.getLogger(__name__)

_MODES = ("auto", "online", "offline", "disabled")
# What WANDB_MODE may still say in W&B's older words; empty is as good as not set.
_OLDER_WORDS = {"dryrun": "offline", "run": "online", "": "auto"}
_REFUSED_IN_A_PROJECT = r"/\#?%:"
_LONGEST_NAME, _LONGEST_TAG = 128, 64
_LONGEST_CAUSE = 300
# Seconds: with those that the server has for its first answer, and those to start anew offline, below 20.
_INIT_TIMEOUT = 9.0
_FLUSH_INTERVAL = 1.0


class WandB(Silent):
    """Follows a run in Weights & Biases, online or in a folder that `wandb sync` sends.

    Args:
        mode: auto (online with credentials, else offline) | online | offline | disabled.
        project: W&B's, made when it is not there.
        entity: user or team; None: the account's own.
        tags: besides those of the run.
        log_model: keep the saved model as an artifact.
        finish_timeout: seconds that `close` waits for the upload.

    Raises:
        ValueError: a value that W&B would refuse.
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
        self._mode = _OLDER_WORDS.get(mode, mode)
        self._project = project or "hydraprune"
        self._entity = entity or None
        self._tags = (tags,) if isinstance(tags, str) else tuple(tags)
        self._log_model = log_model
        self._finish_timeout = finish_timeout
        self._run: Any = None
        self._ended = False
        self._core: Any = None
        self._about: About | None = None
        if self._mode not in _MODES:
            raise ValueError(f"mode={mode}: must be auto, online, offline or disabled")
        if len(self._project) > _LONGEST_NAME or set(self._project) & set(_REFUSED_IN_A_PROJECT):
            raise ValueError(
                f"project={project}: must be at most {_LONGEST_NAME} characters, none of {_REFUSED_IN_A_PROJECT}"
            )
        for tag in self._tags:
            if not 1 <= len(tag) <= _LONGEST_TAG:
                raise ValueError(f"tags={tag}: must be at most {_LONGEST_TAG} characters each, and not empty")
        if not 0 < finish_timeout < float("inf"):
            raise ValueError(f"finish_timeout={finish_timeout}: must be above 0, in seconds")

    @property
    def patience(self) -> float:
        """Seconds that the end of a run may take."""
        return self._finish_timeout

    def start(self, about: About) -> None:
        mode = chosen_mode(self._mode)
        if mode == "disabled":
            return
        self._about = about
        settings = quiet_settings()
        self._core = own_process()
        why = why_not_online(settings) if mode == "online" else None
        if mode == "online" and why is None:
            why = self._try_online(about)
        if self._run is None:
            self._run = self._begun(about, "offline")
        self._core = own_process()
        watch_exit(self._core)
        # Of a piece of the run that failed before: it goes on.
        self._run.summary["error"] = None
        _define_metrics(self._run)
        _keep_composed(self._run, about.config)
        self._tell(why)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._run is not None:
            # Never W&B's own step: it drops what goes back, as a run does that goes on from a checkpoint.
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
            # It becomes a file's name, in which some systems have no colon.
            name = pruner.replace(":", "of")
            shown[f"masks/{name}"] = wandb.Image(picture_of(mask.kept), caption=mask.weight)
        if shown:
            self._run.log({**shown, "step": report["steps"]})
        self._run.summary.update(summary_of(report))
        if self._log_model:
            self._keep_model(outcome)

    def close(self, error: BaseException | None) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        # What was cut by Ctrl-C did not fail, and goes on; W&B's own word for it is 255.
        cut = isinstance(error, KeyboardInterrupt)
        if self._ended:
            error = None  # what came after its end, such as a signal that was put off, is none of this run
        if error is not None and not cut:
            run.summary["error"] = redacted(one_line(error))
        try:
            run.finish(exit_code=0 if error is None else 255 if cut else 1)
        except TimeoutError:
            log.warning(
                "W&B: not all was uploaded within tracker.finish_timeout=%g s; `wandb sync --include-online %s` sends "
                "the rest",
                self._finish_timeout,
                _place(run),
            )
        except Exception:
            start_anew()
            raise

    def abandon(self) -> None:
        """End W&B's own process, from any thread: what waits for it comes back with an error."""
        if self._core is not None:
            self._core.kill()

    def _try_online(self, about: About) -> str | None:
        """Begin the run online; or say why that did not work."""
        try:
            self._run = self._begun(about, "online")
        except Exception as error:  # W&B's many kinds
            start_anew()
            return one_line(error)
        return None

    def _begun(self, about: About, mode: Literal["online", "offline"]) -> Any:
        import wandb

        with _outside_a_sweep(quiet_settings(), hidden=not about.asked), _words_redacted():
            return wandb.init(
                # What a sweep's agent says of project, entity and id comes first in there.
                project=self._project,
                entity=self._entity,
                id=about.id,
                name=redacted(about.name)[:_LONGEST_NAME],
                group=redacted(about.group)[-_LONGEST_NAME:],
                job_type=about.job_type,
                tags=[tag[:_LONGEST_TAG] for tag in dict.fromkeys(redacted([*about.tags, *self._tags]))],
                config=dict(about.config),
                mode=mode,
                resume="allow",
                # Else a second run of one process gets the first, if that was not finished.
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    save_code=False,
                    disable_code=True,
                    x_disable_stats=True,
                    # A killed run loses what was not yet written: W&B's own choice is 15 seconds.
                    x_transaction_log_flush_interval=_FLUSH_INTERVAL,
                    init_timeout=_INIT_TIMEOUT,
                    finish_timeout=self._finish_timeout,
                    finish_timeout_raises=True,
                ),
            )

    def _tell(self, why: str | None) -> None:
        place = _place(self._run)
        if why is not None:
            log.warning(
                "W&B goes on offline: %s; `wandb sync %s` sends the run later", redacted(why)[:_LONGEST_CAUSE], place
            )
        elif self._run.offline:
            log.info("W&B: offline in %s; `wandb sync %s` sends it", place, place)
        else:
            log.info("W&B: %s", self._run.url)

    def _keep_model(self, outcome: Outcome) -> None:
        import wandb

        assert self._about is not None
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self._about.name)[: _LONGEST_NAME - len(self._about.id) - 1]
        known = {key: outcome.report[key] for key in ("task", "model", "pattern", "seed")}
        artifact = wandb.Artifact(
            f"{name}-{self._about.id}", type="model", metadata={**known, **summary_of(outcome.report)}
        )
        # Not a second copy of every model: what is sent later is read from the run's folder.
        artifact.add_dir(str(outcome.model.absolute()), policy="immutable")
        self._run.log_artifact(artifact)


def _define_metrics(run: Any) -> None:
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    # Of all others the last value, W&B's default: the best of all epochs would be that of a model not yet sparse.
    run.define_metric("train/loss", step_metric="step", summary="last,min")


def _keep_composed(run: Any, config: Mapping[str, Any]) -> None:
    """A sweep's words stand in W&B's config under their own names, `pattern` too: ours as composed, beside them."""
    if any(run.config[key] != value for key, value in config.items()):
        run.config.update({"composed": dict(config)})


def _place(run: Any) -> str:
    """The folder of a W&B run, as a person would type it from here."""
    return os.path.relpath(str(run.settings.sync_dir))


@contextmanager
def _outside_a_sweep(settings: Any, hidden: bool) -> Iterator[None]:
    """With `hidden`, W&B does not see that a sweep's agent started this process.

    The agent's id is that of the run that was asked for, not of a dense model trained on the way to it.
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
def _words_redacted() -> Iterator[None]:
    """Within it W&B, which keeps the command line of a run, reads it without secrets."""
    kept, sys.argv = sys.argv, redacted(sys.argv)
    try:
        yield
    finally:
        sys.argv = kept
