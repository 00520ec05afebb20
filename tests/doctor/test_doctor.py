"""`hydraprune doctor`: the command, with real folders, servers and compilers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from network_helpers import closed_port

TINY = ("task=toy", "model=tiny")
NAMES = ("versions", "torch", "threads", "memory", "compiler", "run.root", "sweep", "cache.dir", "HF_HOME", "hub")
NAMES += ("W&B", "launchers")
SECRETS = {"HF_TOKEN": "hf_mostsecret", "WANDB_API_KEY": "k" * 20 + "3" * 20, "MY_PASSWORD": "hunter2hunter2"}


def checks(out: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(out)["checks"]}


def below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_all_checks_are_shown_and_leave_nothing_behind(hydraprune: Callable[..., Any], workplace: Path) -> None:
    cache = Path(os.environ["HYDRAPRUNE_CACHE"])
    before = below(cache)
    done = hydraprune("doctor", *TINY, "run.root=runs/of/mine")
    lines = done.out.splitlines()
    assert done.code == 0
    assert done.err == ""
    assert len(lines) <= 24
    assert tuple(line[6:].split()[0] for line in lines if line[:4] in ("ok  ", "warn", "bad ")) == NAMES
    assert "runs/of/mine (not created yet), writes, locks" in done.out
    assert lines[-1].startswith(("All is well", "A run works here"))
    assert "\x1b" not in done.out
    assert below(workplace) == []
    assert below(cache) == before


def test_several_problems_at_once(
    hydraprune: Callable[..., Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders, paths, device and threads of the overrides are checked; the exit code is 1."""
    monkeypatch.setenv("HF_HOME", str(workplace / "hub"))
    (workplace / "file").write_text("")
    (workplace / "empty").mkdir()
    done = hydraprune(
        "doctor",
        "task=file",
        "task.path=no.csv",
        "model=bert_mini",
        "model.path=./empty",
        "distill.teacher=someone/model",
        "run.root=file/runs",
        "training.device=mps",
        "-m",
        "seed=0,1",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=3",
        "runtime.threads=7",
        "runtime.compiled=false",
        "cache.dir=kept",
        "cache.max_gb=3",
        "--json",
    )
    found = checks(done.out)
    assert done.code == 1
    assert json.loads(done.out)["state"] == "bad"
    bad = {name: check["todo"] for name, check in found.items() if check["state"] == "bad"}
    assert bad == {
        "task.path": "task.path=/path/that/exists",
        "model.path": "model.path=/folder/made/by/save_pretrained",
        "distill.teacher": "distill.teacher=/path/to/folder, or task=toy model=tiny",
        "run.root": "give another folder: run.root=/path",
        "torch": "training.device=auto or cpu",
    }
    assert "3 jobs of 7 threads" in found["threads"]["found"]
    assert found["threads"]["state"] == "warn"
    assert found["compiler"]["found"].startswith("not used")
    assert "kept (not created yet)" in found["cache.dir"]["found"]
    assert "of at most 3 GB" in found["cache.dir"]["found"]
    assert below(workplace) == [workplace / "empty", workplace / "file"]


@pytest.mark.parametrize(
    ("word", "message"),
    [("patern=4x1", "did you mean pattern?"), ("cache.max_gb=-1", "at least 0"), ("task=file", "task.path=...")],
)
def test_a_mistake_in_the_overrides_is_one_line(hydraprune: Callable[..., Any], word: str, message: str) -> None:
    done = hydraprune("doctor", word)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_secrets_are_not_printed_and_servers_that_hang_are_not_waited_for(workplace: Path, silent: str) -> None:
    """Both servers accept the connection and never answer: a warning each, and the other checks work."""
    environ = {n: value for n, value in os.environ.items() if not n.startswith(("HF_", "WANDB_", "COLUMNS"))}
    environ |= SECRETS
    environ |= {"HF_ENDPOINT": f"http://someone:hunter2@{silent}", "WANDB_BASE_URL": f"http://{silent}"}
    environ |= {"OMP_NUM_THREADS": "1", "HOME": str(workplace), "WANDB_CONFIG_DIR": str(workplace / "wandb")}
    words = [*TINY, "tracker=wandb", "runtime.compiled=false", "run.root=hunter2hunter2"]
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-m", "hydraprune.cli", "doctor", *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if "no answer within" not in done.stdout:  # which a busy machine may say of any check
            break
    assert done.returncode == 0, done.stdout + done.stderr
    for secret in (*SECRETS.values(), "hunter2"):
        assert secret not in done.stdout + done.stderr
    assert f"http://someone:<redacted>@{silent} does not answer within 2 s" in done.stdout
    assert f"http://{silent} " in done.stdout
    assert ", credentials found" in done.stdout
    assert "WANDB_BASE_URL" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("A run works here, with ")


WITHOUT = """
import sys
for name in ("torch", "hydra", "rich"):
    sys.modules[name] = None
sys.argv = ["hydraprune", "doctor", "task=toy"]
from hydraprune.cli import main
main()
"""


def test_it_works_without_torch_hydra_and_rich(workplace: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120, check=False)
    found = checks(done.stdout)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert {name for name, check in found.items() if check["state"] == "bad"} == {"words", "torch"}
    assert "torch" in found["compiler"]["found"]
    assert "writes, locks" in found["run.root"]["found"]


HUB = """
import os, sys
from hydraprune.doctor.network import hub
for os.environ["HF_ENDPOINT"] in sys.argv[1:]:
    found = hub()
    print(found.state.value, found.found, found.todo, sep="|")
"""


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server whose answer arrives byte by byte and never ends."""

    def drip() -> None:
        with suppress(OSError):
            call, _ = server.accept()
            for _ in range(100):
                call.sendall(b"x")
                time.sleep(0.3)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_the_answers_of_the_hub(workplace: Path, dripping: str) -> None:
    class Site(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(503 if self.path.startswith("/down") else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    up = f"http://127.0.0.1:{server.server_port}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environ |= {"HF_HOME": str(workplace), "HF_TOKEN": "hf_mostsecret"}
    addresses = [up, f"{up}/down", f"http://127.0.0.1:{closed_port()}", "nonsense", dripping]
    done = subprocess.run(
        [sys.executable, "-c", HUB, *addresses], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    server.shutdown()
    server.server_close()
    well, down, refused, nonsense, slow = [line.split("|") for line in done.stdout.splitlines()]
    assert well == ["ok", f"{up} answers, with a token", ""]
    assert down[:2] == ["warn", f"{up}/down answers with HTTP 503"]
    assert refused[0] == "warn"
    assert "cannot be reached (" in refused[1]
    assert "HTTPS_PROXY" in refused[2]
    assert "model.path=/path" in refused[2]
    assert slow[1] == f"{dripping} does not answer within 2 s"
    assert nonsense[0] == "warn"
    assert "HF_ENDPOINT" in nonsense[2]
