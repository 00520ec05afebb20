"""Do the hub and W&B answer? Asked once, with little patience, and only where a run would ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydraprune.doctor.result import Finding, bad, ok, warn
from hydraprune.doctor.run_config import Named, home_of_the_hub
from hydraprune.doctor.runner import LateError, Later
from hydraprune.utils.hub_access import at_home, exists, is_local, is_offline

# That an answer may take, in seconds.
PATIENCE = 2.0
_REFUSED = (403, 407)
_LOCAL = "give local folders (model.path=/path task.path=/path), or try task=toy model=tiny, which need no hub"


def hub() -> Finding:
    """The hub, by the client that a run uses: its endpoint, proxies and certificates."""
    if is_offline():
        return ok("not asked: HF_HUB_OFFLINE is set, so only what is local or downloaded already is to be had")
    why, endpoint = asked_hub()
    if why is None:
        return ok(f"{endpoint} answers, {'with' if _token() else 'without'} a token")
    todo = "see whether HF_ENDPOINT, HTTPS_PROXY and the network are right; else " + _LOCAL
    if "CERTIFICATE" in why.upper():
        todo = "give your proxy's certificates: SSL_CERT_FILE=/path/to/bundle.pem; else " + _LOCAL
    return warn(f"{endpoint} {why}", todo)


def asked_hub() -> tuple[str | None, str]:
    """Why the hub does not answer, None if it does; and its address."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    client = get_session()
    try:
        # A timeout of its own for the whole: looking a name up has none, and an answer may drip.
        status = Later(lambda: int(client.head(endpoint, timeout=PATIENCE).status_code)).result(PATIENCE + 0.5)
    except LateError:
        return f"does not answer within {PATIENCE:g} s", endpoint
    except Exception as error:
        if "timeout" in type(error).__name__.lower():
            return f"does not answer within {PATIENCE:g} s", endpoint
        why = " ".join(str(error).split())[:120] or type(error).__name__
        return f"cannot be reached ({why})", endpoint
    return (f"answers with HTTP {status}" if status in _REFUSED or status >= 500 else None), endpoint


def _token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def wandb(mode: str | None) -> Finding:
    """W&B's server and whether there are credentials for it, which are never shown.

    Args:
        mode: of the run's tracker; None: the run does not use W&B.
    """
    from hydraprune.tracking.wandb_auth import credentials, quiet_settings, unreachable

    settings = quiet_settings()
    chosen = settings.mode if mode in (None, "auto") else mode
    key = credentials(settings)
    have = (
        "no credentials"
        if key is not None and key.startswith("no ")
        else "a key that is none"
        if key
        else "credentials found"
    )
    if chosen in ("offline", "dryrun", "disabled"):
        return ok(f"not asked (mode {chosen}), {have}")
    down = unreachable(settings, PATIENCE)
    found = f"{down or f'{settings.base_url} answers'}, {have}"
    if mode is None:
        return ok(f"{found}; not used (tracker=none)")
    if down is None and key is None:
        return ok(found)
    todo = "see WANDB_BASE_URL, HTTPS_PROXY and the network" if down else f"{key}"
    return warn(found, f"{todo}; until then runs are kept offline in wandb/, for `wandb sync`")


def named(named: Named, chosen: bool) -> Finding:
    """A path that a run loads: there, or downloaded, or to be had from the hub.

    Args:
        chosen: whether the user's words choose what is loaded; otherwise other words may work.
    """
    key, path = named.key, named.path
    if named.kind == "file" or is_local(path):
        return _local(named, at_home(path))
    if _downloaded(named):
        return ok(f"{path} (hub), downloaded already")
    if is_offline():
        why: str | None = "HF_HUB_OFFLINE is set"
    else:
        why = asked_hub()[0]
    if why is None:
        return ok(f"{path} (hub)")
    broken = bad if chosen else warn
    return broken(
        f"{path} is not downloaded, and the hub is not to be had", f"{key}=/path/to/folder, or task=toy model=tiny"
    )


def _local(named: Named, path: Path) -> Finding:
    give = f"{named.key}=/path/that/is/there"
    if not exists(path):
        return bad(f"{path}: no such file or folder", give)
    if not os.access(path, os.R_OK):
        return bad(f"{path}: may not be read", f"chmod u+r, or {give}")
    if named.kind == "file" and not path.is_file():
        return bad(f"{path}: is a folder", f"{named.key}=FILE.csv, .json, .jsonl or .parquet")
    if named.kind == "model" and not (path / "config.json").is_file():
        return bad(f"{path}: holds no config.json", f"{named.key}=/folder/made/by/save_pretrained")
    return ok(str(path))


def _downloaded(named: Named) -> bool:
    from huggingface_hub import constants, try_to_load_from_cache

    if named.kind == "model":
        return isinstance(try_to_load_from_cache(named.path, "config.json"), str)
    flat = named.path.replace("/", "--")
    made: Any = os.environ.get("HF_DATASETS_CACHE") or home_of_the_hub() / "datasets"
    prepared = Path(made) / named.path.replace("/", "___")
    return prepared.is_dir() or (Path(constants.HF_HUB_CACHE) / f"datasets--{flat}").is_dir()
