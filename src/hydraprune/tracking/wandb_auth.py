"""Is Weights & Biases to be had? Its settings, credentials and server, without a prompt and without waiting long."""

from __future__ import annotations

import os
import threading
from enum import Enum, auto
from typing import Any

# A server's first answer, in seconds; the look-up of its name, which no timeout of a request covers, included.
_ANSWER = 5.0
_TRUE = ("1", "true", "yes", "on")


def quiet_settings() -> Any:
    """W&B's own settings, from the environment and its files; from here on it is silent in this process."""
    # Its reports about itself go to the same server: where that hangs, so would our exit, for 20 seconds.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.setup(wandb.Settings(silent=True)).settings


def chosen_mode(mode: str) -> str:
    """What `auto` means here: as the person set W&B up, and without credentials not online."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in _TRUE:
        return "disabled"
    settings = quiet_settings()
    if settings.mode in ("offline", "dryrun", "disabled"):
        return "disabled" if settings.mode == "disabled" else "offline"
    return "offline" if _key(settings) is _Key.MISSING else "online"


def why_not_online(settings: Any) -> str | None:
    """What keeps a run from being online, as far as can be told without W&B; None when nothing does."""
    return credentials(settings) or unreachable(settings)


def credentials(settings: Any) -> str | None:
    """What is wrong with the key that W&B would find for its server by itself; None when nothing is."""
    key = _key(settings)
    if key is _Key.MISSING:
        return "no credentials (`wandb login`, or WANDB_API_KEY)"
    return None if key is _Key.FOUND else key


class _Key(Enum):
    FOUND = auto()
    MISSING = auto()


def _key(settings: Any) -> _Key | str:
    """The key's state; a text says what is wrong with one that is there."""
    try:
        # Its own function: it knows which of its addresses share a key. It neither asks nor sends anything.
        from wandb.sdk.lib.wbauth import authenticate_session

        host = settings.base_url
        found = authenticate_session(host=host, source="hydraprune", prompt=False, update_session=False)
    except Exception as error:  # whatever W&B says of a key that is none
        return " ".join(str(error).split())
    return _Key.MISSING if found is None else _Key.FOUND


def unreachable(settings: Any, seconds: float = _ANSWER) -> str | None:
    """Why the server does not answer within so many seconds; any answer is one."""
    import requests

    outcome: list[str | None] = []

    def ask() -> None:
        own = {"http": settings.http_proxy, "https": settings.https_proxy}
        proxies = {scheme: proxy for scheme, proxy in own.items() if proxy}
        try:
            requests.head(
                settings.base_url, timeout=seconds, proxies=proxies, verify=not settings.insecure_disable_ssl
            ).close()
            outcome.append(None)
        except requests.exceptions.SSLError:
            outcome.append(None)  # somebody answered; whether to trust them, W&B decides by other certificates
        except (requests.RequestException, OSError, ValueError) as error:
            outcome.append(f"{settings.base_url} cannot be reached ({type(error).__name__})")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return outcome[0] if outcome else f"{settings.base_url} does not answer"
