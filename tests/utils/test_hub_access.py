"""Hub access: an unreachable hub, load errors in one line."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from network_helpers import closed_port

from hydraprune.errors import UserError
from hydraprune.utils.hub_access import go_offline_if_unreachable, loading, local_or_id


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    os.environ["HF_HUB_OFFLINE"] = "1"


def test_an_unreachable_hub_switches_to_offline_mode(online: pytest.MonkeyPatch) -> None:
    online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    go_offline_if_unreachable(["./here", "/there"])
    assert "HF_HUB_OFFLINE" not in os.environ
    go_offline_if_unreachable(["./here", "someone/model"])
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_reachable_hub_is_used(online: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        go_offline_if_unreachable(["someone/model"])
    assert "HF_HUB_OFFLINE" not in os.environ


def test_behind_a_proxy_nothing_is_tried(online: pytest.MonkeyPatch) -> None:
    online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    online.setenv("HTTPS_PROXY", "http://proxy:3128")
    go_offline_if_unreachable(["someone/model"])
    assert "HF_HUB_OFFLINE" not in os.environ


def test_load_errors_name_the_key_and_a_cure() -> None:
    with (
        pytest.raises(UserError, match=r"model\.path=a/b: not in the local cache.*model\.path=/path"),
        loading("model.path", "a/b"),
    ):
        raise OSError("many lines\nof explanation")
    with (
        pytest.raises(UserError, match=r"model\.path=\./c: cannot be loaded: header too small"),
        loading("model.path", "./c"),
    ):
        raise RuntimeError("header\ntoo small")
    with pytest.raises(UserError, match="no such file or folder"):
        local_or_id("~/surely/not/here", "task.path")
    assert local_or_id("someone/model", "model.path") == "someone/model"
