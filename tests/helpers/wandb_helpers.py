"""Offline W&B runs read with W&B's own reader, and servers that are missing, hang, refuse or answer."""

from __future__ import annotations

import http.server
import json
import logging
import re
import socket
import subprocess
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from wandb.util import get_core_path

from hydraprune.results.run_spec import split_spec
from hydraprune.tracking import About

KEY = "0123456789" * 4
# Prefix of the values that W&B adds to its history.
_OWN = "_"


def about_of(directory: Path, **changes: Any) -> About:
    """A small run for a tracker; `changes` may be fields of its spec too."""
    known = {"hash": "abc", "cell": "cell", "phase": "sparse", "model": "model", "task": "task", "pattern": "4x1"}
    spec, others = split_spec({**known, "config": {}, "directory": directory, "steps": 10, **changes})
    return About(spec, **others)


@dataclass(frozen=True)
class Read:
    """One W&B run, as `wandb leet inspect --json` reads its file."""

    folder: Path
    records: list[dict[str, Any]]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def run(self) -> dict[str, Any]:
        """The record of its start."""
        (begun,) = self.of_type("run")
        return begun

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = dict(self.run["config"]["update"])
        for later in self.of_type("config"):
            config.update(later["update"])
        return config

    @property
    def tags(self) -> list[str]:
        return list(self.run["tags"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its lines without W&B's own values and without media."""
        items = [line["item"] for line in self.of_type("history")]
        plain = [{k: v for k, v in item.items() if not k.startswith(_OWN) and "._" not in k} for item in items]
        return [item for item in plain if not any(key.startswith(("result", "layers", "masks")) for key in item)]

    @cached_property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(_inspect(self.folder, "--summary"))["summary"]
        return summary

    @property
    def exit_code(self) -> int | None:
        """Its exit code, which W&B leaves out if it is 0; None for a run without an end."""
        ends = self.of_type("exit")
        return ends[-1].get("exit_code", 0) if ends else None

    def table(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "files" / self.summary[name]["path"]).read_text())
        return content


def read(folder: Path) -> Read:
    """One run's folder."""
    return Read(folder, [json.loads(line) for line in _inspect(folder).splitlines()])


def _inspect(folder: Path, *options: str) -> str:
    """The output of `wandb leet inspect --json`, without the start of Python that the command takes."""
    (file,) = folder.glob("*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *options, "--run-file", str(file)]
    return subprocess.run([*command, str(folder.parent)], capture_output=True, text=True, check=True).stdout


def folders(place: Path) -> list[Path]:
    """The folders of all W&B runs below `place`, in the order of their start."""
    return sorted((place / "wandb").glob("*run-*-*"), key=lambda path: path.stat().st_ctime)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of hydraprune."""
    ours = [record for record in caplog.records if record.name.startswith("hydraprune")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def refusing() -> str:
    """The URL of a port that refuses connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


class Accepting:
    """A server that accepts every connection and never answers."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(64)
        self._taken: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        try:
            while True:
                self._taken.append(self._socket.accept()[0])
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()
        for connection in self._taken:
            connection.close()


# The run `abc`.
_BUCKET = {"id": "1", "name": "abc", "displayName": "abc", "config": "{}", "historyLineCount": 0}
_PROJECT = {"id": "2", "name": "project", "entity": {"id": "3", "name": "entity"}}
# The answers of W&B's server that a run needs.
_ANSWERS: dict[str, Any] = {
    "RunResumeStatus": {"model": None},
    "UpsertBucket": {"upsertBucket": {"bucket": {**_BUCKET, "project": _PROJECT}, "inserted": True}},
    "CreateRunFiles": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}},
}


class Answering:
    """An HTTP server; with status 200 it acts as W&B's server.

    Args:
        root_only: answers only requests for `/`, and hangs on others.
    """

    def __init__(self, status: int = 200, root_only: bool = False) -> None:
        self.asked: list[str] = []
        self.sent = ""
        self.root_only = root_only
        self.gone = False
        self._over = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode(errors="replace")
                if outer.gone:
                    self.close_connection = True
                    return
                if outer.root_only and self.path != "/":
                    outer._over.wait()
                    self.close_connection = True
                    return
                found = re.search(r"(?:query|mutation) (\w+)", body)
                outer.asked.append(found.group(1) if found else self.path)
                outer.sent += body
                content = {"data": _ANSWERS.get(outer.asked[-1], {})} if self.path == "/graphql" else {}
                payload = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(payload)

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def die(self) -> None:
        """Close the server and its connections."""
        self.gone = True
        self.close()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
