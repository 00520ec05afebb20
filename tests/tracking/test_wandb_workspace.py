"""`hydraprune dashboard --wandb`: the workspace as JSON, and as it is saved on a W&B server."""

from __future__ import annotations

import http.server
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hydraprune.data.metrics import CLASSIFICATION, REGRESSION
from hydraprune.errors import UserError
from hydraprune.tracking import wandb_workspace as workspace
from hydraprune.tracking.wandb_process import end_service

GOLDEN = Path(__file__).with_name("workspace.json")
KEY = "0123456789" * 4


def model() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(workspace.as_json(workspace.build("us", "sparse", "one look")))
    return found


def sections() -> dict[str, list[dict[str, Any]]]:
    bank = model()["spec"]["section"]["panelBankConfig"]
    return {section["name"]: section["panels"] for section in bank["sections"]}


def test_the_workspace_is_the_expected_one() -> None:
    """To accept a change: HYDRAPRUNE_REWRITE=1 pytest -n 0 tests/tracking/test_wandb_workspace.py"""
    text = workspace.as_json(workspace.build("us", "sparse", "one look"))
    if os.environ.get("HYDRAPRUNE_REWRITE"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_the_same_bytes_in_every_process(dashboard: Callable[..., Any], tmp_path: Path) -> None:
    words = ("--wandb", "--entity", "us", "--project", "sparse", "--name", "one look", "--out")
    file = tmp_path / "workspace.json"
    command = [sys.executable, "-m", "hydraprune.cli", "dashboard", *words, str(file)]
    done = subprocess.run(command, env=_without_wandb(), capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.read_text() == GOLDEN.read_text()
    again = dashboard(*words, str(file))
    assert (again.code, again.out, again.err) == (0, "", "")
    assert file.read_text() == GOLDEN.read_text()


def test_no_two_panels_share_an_id() -> None:
    ids = Counter(panel["__id__"] for panels in sections().values() for panel in panels)
    assert set(ids.values()) == {1}


def test_the_sections() -> None:
    assert {name: len(panels) for name, panels in sections().items()} == {
        "Accuracy": 6,
        "Sparsity": 2,
        "Accuracy against sparsity": 3,
        "Dense beside sparse": 10,
        "Training": 4,
        "Masks and layers": 3,
        "Compare": 1,
    }


def test_every_metric_is_shown() -> None:
    assert set(workspace.METRICS) == {*CLASSIFICATION, *REGRESSION}
    found = sections()
    assert [panel["config"]["metrics"] for panel in found["Accuracy"]] == [[f"eval/{m}"] for m in workspace.METRICS]
    bars = [panel["config"]["metrics"] for panel in found["Dense beside sparse"]]
    assert [bar for bar in bars if bar[0].startswith("difference/")] == [[f"difference/{m}"] for m in workspace.METRICS]


def test_the_seeds_of_a_cell_are_one_line_with_a_band() -> None:
    lines = [
        panel for panels in sections().values() for panel in panels if panel["viewType"] == "Run History Line Plot"
    ]
    for line in lines:
        config = line["config"]
        shown = (config["xAxis"], config["aggregate"], config["groupAgg"], config["groupArea"])
        assert shown == ("step", True, "mean", "stddev")
    # Not by job type: tasks and models would be averaged.
    assert Counter(line["config"]["groupBy"] for line in lines) == {"group": len(lines)}


def test_every_key_is_one_that_a_run_logs() -> None:
    metrics = [*CLASSIFICATION, *REGRESSION]
    logged = {f"{kind}/{metric}" for kind in ("eval", "final", "best", "dense", "difference") for metric in metrics}
    logged |= {f"sparsity/{share}" for share in ("global", "prunable", "linear", "model")}
    logged |= {f"seconds/{part}" for part in ("total", "train", "eval", "teacher")}
    logged |= {"train/loss", "train/lr", "epoch", "headline", "pattern_ok", "steps"}
    used = set()
    for panels in sections().values():
        for panel in panels:
            used |= set(panel["config"].get("metrics", []))
            axes = [panel["config"].get(axis, "") for axis in ("xAxis", "yAxis")]
            used |= {axis.removeprefix("summary:") for axis in axes if axis.startswith("summary:")}
    columns = model()["spec"]["section"]["runSets"][0]["runFeed"]["columnOrder"]
    used |= {column.removeprefix("summary:") for column in columns if column.startswith("summary:")}
    assert used <= logged
    assert {"headline", "sparsity/prunable", "sparsity/global", "train/loss", "seconds/total"} <= used


def test_scatter_plots_and_the_comparer_show_single_runs() -> None:
    (runs,) = model()["spec"]["section"]["runSets"]
    assert runs["grouping"] == []
    assert [key["key"]["name"] for key in runs["sort"]["keys"]] == ["group", "jobType", "displayName"]
    # W&B may count an interrupted run as failed.
    assert not runs["filters"].get("filters")
    assert [(p["config"]["xAxis"], p["config"]["yAxis"]) for p in sections()["Accuracy against sparsity"]] == [
        ("summary:sparsity/prunable", f"summary:{key}") for key in ("headline", "final/accuracy", "final/f1")
    ]
    # W&B makes panels for keys that are not known beforehand, such as masks of other patterns.
    assert model()["spec"]["section"]["settings"]["shouldAutoGeneratePanels"] is True


def _without_wandb() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}


@pytest.fixture
def dashboard(hydraprune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`hydraprune dashboard ...` in this process, with these variables; W&B reads them each time."""

    def call(*words: str, **environment: str) -> Any:
        end_service()
        with monkeypatch.context() as context:
            for name, value in environment.items():
                context.setenv(name, value)
            return hydraprune("dashboard", *words)

    return call


class Server(http.server.ThreadingHTTPServer):
    """A W&B server that saves workspaces.

    Args:
        entity: the default of the account.
        refuses: the error with which it refuses to save.
    """

    def __init__(self, entity: str | None = "us", refuses: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.entity, self.refuses = entity, refuses
        self.saved: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        viewer = {"id": "1", "entity": self.server.entity, "username": "me", "flags": "{}", "teams": {"edges": []}}
        answer: dict[str, Any] = {"data": {"viewer": viewer}}
        if "upsertView" in asked["query"]:
            self.server.saved.append(asked["variables"])
            answer = {"data": {"upsertView": {"view": {"id": "2", "name": "nw-abc-v"}, "inserted": True}}}
            if self.server.refuses:
                answer = {"data": None, "errors": [{"message": self.server.refuses}]}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


def test_it_is_saved_and_its_url_printed(dashboard: Callable[..., Any], server: Server) -> None:
    done = dashboard(
        "--wandb", "--project", "sparse", "--name", "one look", WANDB_API_KEY=KEY, WANDB_BASE_URL=server.address
    )
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{server.address}/us/sparse?nw=abc\n"
    (saved,) = server.saved
    kept = json.loads(GOLDEN.read_text())
    assert json.loads(saved["spec"]) == kept["spec"]
    assert (saved["entityName"], saved["projectName"], saved["displayName"]) == ("us", "sparse", "one look")
    assert (saved["type"], bool(saved["name"]), "id" in saved) == ("project-view", True, False)


def test_entity_and_project_from_options_and_the_environment(dashboard: Callable[..., Any], server: Server) -> None:
    own = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.address}
    dashboard("--wandb", WANDB_ENTITY="team", WANDB_PROJECT="other", **own)
    dashboard("--wandb", "--entity", "typed", "--project", "too", WANDB_ENTITY="team", WANDB_PROJECT="other", **own)
    dashboard("--wandb", **own)
    places = [(saved["entityName"], saved["projectName"], saved["displayName"]) for saved in server.saved]
    assert places == [
        ("team", "other", "hydraprune"),
        ("typed", "too", "hydraprune"),
        ("us", "hydraprune", "hydraprune"),
    ]


def one_line(done: Any) -> str:
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("hydraprune: error: ")
    return done.err


def test_without_credentials(dashboard: Callable[..., Any]) -> None:
    began = time.monotonic()
    line = one_line(dashboard("--wandb", WANDB_BASE_URL="http://127.0.0.1:9"))
    assert "WANDB_API_KEY" in line
    assert "wandb login" in line
    assert "40" in one_line(dashboard("--wandb", WANDB_API_KEY="short"))
    assert time.monotonic() - began < 100


def test_there_is_no_prompt_for_a_key_in_a_terminal(tmp_path: Path) -> None:
    inner, outer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "hydraprune.cli", "dashboard", "--wandb"],
        env={**_without_wandb(), "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")},
        stdin=outer,
        stdout=outer,
        stderr=outer,
        start_new_session=True,
    )
    os.close(outer)
    try:
        # A prompt would wait for an answer.
        assert process.wait(60) == 2
        assert b"no credentials" in os.read(inner, 10_000)
    finally:
        process.kill()
        os.close(inner)


def test_a_server_that_does_not_answer(dashboard: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_ANSWER_SECONDS", 2)
    began = time.monotonic()
    line = one_line(dashboard("--wandb", WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9"))
    assert "http://127.0.0.1:9" in line
    assert "WANDB_BASE_URL" in line
    assert time.monotonic() - began < 100


def test_an_account_without_an_entity_and_a_server_that_refuses(dashboard: Callable[..., Any], server: Server) -> None:
    own = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.address}
    server.refuses = "permission denied"
    line = one_line(dashboard("--wandb", **own))
    assert "us/hydraprune" in line or "the default entity/hydraprune" in line
    assert "permission denied" in line
    server.entity = None
    assert "WANDB_ENTITY" in one_line(dashboard("--wandb", **own))


def test_a_call_that_never_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_SAVE_SECONDS", 0.1)
    monkeypatch.setattr(workspace, "_save", lambda *_: threading.Event().wait(60))
    with pytest.raises(UserError, match="does not answer; check WANDB_BASE_URL"):
        workspace.save("us", "sparse", "one look")


def test_mistakes_are_one_line(dashboard: Callable[..., Any], tmp_path: Path) -> None:
    assert "hydraprune dashboard --wandb" in one_line(dashboard())
    assert "takes no folders" in one_line(dashboard("--wandb", str(tmp_path)))
    assert "no emojis" in one_line(dashboard("--wandb", "--name", "\N{SPARKLES}"))
    assert "cannot be written" in one_line(dashboard("--wandb", "--out", str(tmp_path)))


def test_without_the_package_it_says_how_to_get_it(
    dashboard: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb_workspaces", "wandb_workspaces.reports.v2", "wandb_workspaces.workspaces"):
        monkeypatch.setitem(sys.modules, name, None)
    for words in (("--wandb",), ("--wandb", "--out", str(tmp_path / "out.json"))):
        assert "pip install 'hydraprune[workspaces]'" in one_line(dashboard(*words))


def test_no_address_of_a_server_is_in_our_code() -> None:
    assert not re.search(r"https?://|wandb\.ai|coreweave", Path(str(workspace.__file__)).read_text())
