"""W&B login, mode and reachability, found out without a prompt and within a time limit."""

from __future__ import annotations

import os
from enum import Enum, auto
from typing import Any

from hydraprune.errors import single_line
from hydraprune.utils.time_limit import TimeLimitError, call_within

# The time limit for a server's first answer, in seconds.
_ANSWER_SECONDS = 5.0
_TRUE = ("1", "true", "yes", "on")


def quiet_settings() -> Any:
    """W&B's settings, from the environment and its files. W&B prints nothing in this process from now on."""
    # W&B sends its error reports to the same server: if that hangs, the exit of this process would take 20 s more.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.setup(wandb.Settings(silent=True)).settings


def resolved_mode(mode: str) -> str:
    """`mode`, with `auto` resolved to W&B's own setting, and to offline without credentials."""
    chosen = requested_mode(mode)
    return (
        "offline"
        if chosen == "auto" and _key_state(quiet_settings()) is _Key.MISSING
        else chosen.replace("auto", "online")
    )


def requested_mode(mode: str) -> str:
    """`mode`, with `auto` resolved to W&B's own setting where there is one; whatever the credentials are."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in _TRUE:
        return "disabled"
    own = quiet_settings().mode
    return {"offline": "offline", "dryrun": "offline", "disabled": "disabled"}.get(own, "auto")


def online_problem(settings: Any) -> str | None:
    """Why a run cannot be online, as far as can be checked without W&B; None if it can."""
    return credentials_problem(settings) or server_problem(settings, _ANSWER_SECONDS)


def credentials_problem(settings: Any) -> str | None:
    """What is wrong with the API key that W&B would use; None if nothing is."""
    key = _key_state(settings)
    if key is _Key.MISSING:
        return "no credentials (`wandb login`, or WANDB_API_KEY)"
    return None if key is _Key.FOUND else key


class _Key(Enum):
    FOUND = auto()
    MISSING = auto()


def _key_state(settings: Any) -> _Key | str:
    """The state of the API key; a text says what is wrong with an invalid one."""
    try:
        # W&B's own function: it knows which of its addresses share a key. It neither prompts nor sends anything.
        from wandb.sdk.lib.wbauth import authenticate_session

        host = settings.base_url
        found = authenticate_session(host=host, source="hydraprune", prompt=False, update_session=False)
    except Exception as error:  # W&B's various errors for an invalid key
        return single_line(error)
    return _Key.MISSING if found is None else _Key.FOUND


def server_problem(settings: Any, seconds: float) -> str | None:
    """Why the W&B server does not answer within `seconds`; None if it does, whatever the answer."""
    import requests

    def ask() -> str | None:
        configured = {"http": settings.http_proxy, "https": settings.https_proxy}
        proxies = {scheme: proxy for scheme, proxy in configured.items() if proxy}
        try:
            requests.head(
                settings.base_url, timeout=seconds, proxies=proxies, verify=not settings.insecure_disable_ssl
            ).close()
        except requests.exceptions.SSLError:
            return None  # the server answered; W&B checks it against other certificates
        except (requests.RequestException, OSError, ValueError) as error:
            return f"{settings.base_url} cannot be reached ({type(error).__name__})"
        return None

    try:
        # The timeout of the request does not cover the name look-up.
        return call_within(seconds, ask)
    except TimeLimitError:
        return f"{settings.base_url} does not answer"
