"""Checks of the hub and W&B, each asked once with a short time limit, and of what a run loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hydraprune.doctor.result import Finding, bad, ok, warn
from hydraprune.errors import single_line
from hydraprune.utils.hub_access import at_home, exists, is_local, is_offline
from hydraprune.utils.hub_home import hub_home
from hydraprune.utils.time_limit import TimeLimitError, call_within

if TYPE_CHECKING:
    from hydraprune.config.composition import LoadedPath

# The time limit for one answer, in seconds.
ANSWER_SECONDS = 2.0
_REFUSED = (403, 407)
_LOCAL = "give local folders (model.path=/path task.path=/path), or try task=toy model=tiny, which need no hub"


def hub() -> Finding:
    """The hub, asked with the client that a run uses: its endpoint, proxies and certificates."""
    if is_offline():
        return ok("not asked: HF_HUB_OFFLINE is set, so only local and downloaded files can be loaded")
    problem, endpoint = ask_hub()
    if problem is None:
        return ok(f"{endpoint} answers, {'with' if _has_token() else 'without'} a token")
    todo = "check HF_ENDPOINT, HTTPS_PROXY and the network; or " + _LOCAL
    if "CERTIFICATE" in problem.upper():
        todo = "give your proxy's certificates: SSL_CERT_FILE=/path/to/bundle.pem; or " + _LOCAL
    return warn(f"{endpoint} {problem}", todo)


def ask_hub() -> tuple[str | None, str]:
    """(what is wrong with the hub's answer, None if nothing; its endpoint)."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    client = get_session()
    late = f"does not answer within {ANSWER_SECONDS:g} s"
    try:
        # The client's own timeout covers neither the name look-up nor an answer that arrives byte by byte.
        status = call_within(
            ANSWER_SECONDS + 0.5, lambda: int(client.head(endpoint, timeout=ANSWER_SECONDS).status_code)
        )
    except TimeLimitError:
        return late, endpoint
    except Exception as error:
        if "timeout" in type(error).__name__.lower():
            return late, endpoint
        why = single_line(error)[:120] or type(error).__name__
        return f"cannot be reached ({why})", endpoint
    return (f"answers with HTTP {status}" if status in _REFUSED or status >= 500 else None), endpoint


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def wandb(mode: str | None) -> Finding:
    """The W&B server and the credentials for it, which are never shown.

    Args:
        mode: of the run's tracker; None: the run does not use W&B.
    """
    from hydraprune.tracking.wandb_auth import credentials_problem, quiet_settings, requested_mode, server_problem

    settings = quiet_settings()
    chosen = requested_mode(mode or "auto")
    problem = credentials_problem(settings)
    found = "credentials found"
    if problem is not None:
        found = "no credentials" if problem.startswith("no ") else "an invalid API key"
    if chosen in ("offline", "disabled"):
        return ok(f"not asked (mode {chosen}), {found}")
    down = server_problem(settings, ANSWER_SECONDS)
    found = f"{down or f'{settings.base_url} answers'}, {found}"
    if mode is None:
        return ok(f"{found}; not used (tracker=none)")
    if down is None and problem is None:
        return ok(found)
    todo = "check WANDB_BASE_URL, HTTPS_PROXY and the network" if down else f"{problem}"
    return warn(found, f"{todo}; until then runs are stored offline in wandb/, for `wandb sync`")


def loaded(source: LoadedPath, chosen: bool) -> Finding:
    """A model or data set that the run loads: local, downloaded, or available from the hub.

    Args:
        chosen: whether the overrides choose what is loaded; otherwise a run of another task or model may work.
    """
    key, path = source.key, source.path
    if source.kind == "file" or is_local(path):
        return _local(source, at_home(path))
    if _is_downloaded(source):
        return ok(f"{path} (hub), downloaded already")
    if not is_offline() and ask_hub()[0] is None:
        return ok(f"{path} (hub)")
    report = bad if chosen else warn
    return report(
        f"{path} is not downloaded, and the hub is not available", f"{key}=/path/to/folder, or task=toy model=tiny"
    )


def _local(source: LoadedPath, path: Path) -> Finding:
    give = f"{source.key}=/path/that/exists"
    if not exists(path):
        return bad(f"{path}: no such file or folder", give)
    if not os.access(path, os.R_OK):
        return bad(f"{path}: not readable", f"chmod u+r, or {give}")
    if source.kind == "file" and not path.is_file():
        return bad(f"{path}: is a folder", f"{source.key}=FILE.csv, .json, .jsonl or .parquet")
    if source.kind == "model" and not (path / "config.json").is_file():
        return bad(f"{path}: contains no config.json", f"{source.key}=/folder/made/by/save_pretrained")
    return ok(str(path))


def _is_downloaded(source: LoadedPath) -> bool:
    from huggingface_hub import constants, try_to_load_from_cache

    if source.kind == "model":
        return isinstance(try_to_load_from_cache(source.path, "config.json"), str)
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or hub_home() / "datasets")
    flat = source.path.replace("/", "--")
    return (prepared / source.path.replace("/", "___")).is_dir() or (
        Path(constants.HF_HUB_CACHE) / f"datasets--{flat}"
    ).is_dir()
