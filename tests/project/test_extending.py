"""Every example of docs/extending.md: its files are written and its commands run, with small settings."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hydraprune.sparsity import unregister

pytestmark = pytest.mark.xdist_group("extending")

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(python|yaml|bash)\n(.*?)```", re.DOTALL)
SECTIONS = {title.strip(): text for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.M)}
SMALL = (
    "training.epochs=1",
    "training.batch_size=32",
    "scheduler.warmup=2",
    "scheduler.cooldown=2",
    "scheduler.frequency=2",
    "dense.overrides=['training.epochs=1']",
)
TOY = ("task.train_examples=320", "task.evaluation_examples=64")


def files_of(text: str) -> dict[str, str]:
    """Path -> content of the files in a section."""
    blocks = [body for kind, body in BLOCK.findall(text) if kind != "bash"]
    return {body.splitlines()[0].removeprefix("# "): body for body in blocks}


def commands_of(text: str) -> list[str]:
    return [line for kind, body in BLOCK.findall(text) if kind == "bash" for line in body.splitlines()]


def write(files: dict[str, str], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


@pytest.fixture
def project(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which commands are typed; modules and what they register are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HYDRAPRUNE_TARGETS", "")
    for name in [name for name in sys.modules if name.startswith("my_")]:
        monkeypatch.delitem(sys.modules, name)
    rows = "".join(f"a sentence {i},{'yes' if i % 2 else 'no'}\n" for i in range(320))
    for name in ("train.csv", "dev.csv"):
        (workplace / name).write_text("text,label\n" + rows)
    yield workplace
    unregister("diagonal2")


@pytest.fixture
def mpnet(project: Path) -> None:
    """A small MPNet checkpoint where the example expects one."""
    from transformers import MPNetConfig, MPNetForSequenceClassification

    from hydraprune.models.tiny import TinyModel

    tiny = TinyModel("tiny", 32, 1, 2, 32)
    size = tiny.config().vocab_size
    config = MPNetConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    MPNetForSequenceClassification(config).save_pretrained(project / "checkpoints" / "mpnet")
    tiny.tokenizer().save_pretrained(project / "checkpoints" / "mpnet")


def made_small(command: str) -> list[str]:
    program, verb, *words = shlex.split(command)
    assert program == "hydraprune"
    if verb != "train":
        found = [str(path) for word in words for path in (sorted(Path().glob(word)) if "*" in word else [word])]
        return [verb, *found[:1], *(word for word in found[1:] if not word.endswith("/model"))]
    return [verb, *words, *SMALL, *(TOY if "task=toy" in words else ())]


@pytest.mark.usefixtures("mpnet")
@pytest.mark.parametrize("title", [title for title, text in SECTIONS.items() if commands_of(text)])
def test_an_example_runs(title: str, project: Path, hydraprune: Callable[..., Any]) -> None:
    whole = title == "All at once"
    write(files_of(PAGE if whole else SECTIONS[title]), project)
    for command in commands_of(SECTIONS[title]):
        done = hydraprune(*made_small(command))
        assert done.code == 0, f"{command}\n{done.err[-2000:]}"
        assert "gave up" not in done.out + done.err
    reports = [json.loads(path.read_text()) for path in project.rglob("report.json")]
    assert reports
    assert {report["status"] for report in reports} == {"finished"}
    assert all(report["pattern_ok"] is not False for report in reports)
    CHECKS.get(title, lambda *_: None)(project, reports)


def check_pattern(project: Path, reports: list[dict[str, Any]]) -> None:
    assert {report["pattern"] for report in reports} == {"dense", "diagonal2"}
    page = (project / "outputs" / "dashboard.html").read_text(encoding="utf-8")
    assert "diagonal2" in page


def check_criterion(project: Path, reports: list[dict[str, Any]]) -> None:
    assert {report["criterion"] for report in reports} == {None, "taylor"}


def check_schedule(project: Path, reports: list[dict[str, Any]]) -> None:
    assert {report["scheduler"] for report in reports} == {None, "smoothstep"}


def check_loss(project: Path, reports: list[dict[str, Any]]) -> None:
    assert {report["teacher"] for report in reports} == {None, "stored"}


def check_metric(project: Path, reports: list[dict[str, Any]]) -> None:
    assert all(
        report["metric"] == "balanced" and set(report["final"]) == {"balanced", "accuracy"} for report in reports
    )


def check_tracker(project: Path, reports: list[dict[str, Any]]) -> None:
    rows = (project / "metrics.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows} == {report["hash"] for report in reports}
    assert list(project.glob("wandb/offline-run-*"))


CHECKS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "A criterion": check_criterion,
    "A pattern": check_pattern,
    "A schedule": check_schedule,
    "A distillation loss": check_loss,
    "A metric": check_metric,
    "A tracker": check_tracker,
}


def test_every_kind_has_an_example() -> None:
    kinds = {"criterion", "pattern", "schedule", "distillation loss", "model family", "task", "metric", "tracker"}
    assert {f"A {kind}" for kind in kinds} <= set(SECTIONS)


def test_a_module_is_not_allowed_by_a_config_file(project: Path, train: Callable[..., Any]) -> None:
    write({"my_evil.py": "def run():\n    raise SystemExit('it ran')\n"}, project)
    write(
        {"conf/experiment/evil.yaml": "# @package _global_\nmodules: [my_evil]\npruner:\n  _target_: my_evil.run\n"},
        project,
    )
    refused = train("--config-dir", "conf", "experiment=evil", "model=tiny", "task=toy")
    assert refused.code == 2
    assert "modules=[my_module]" in refused.err
    assert "it ran" not in refused.out + refused.err


def test_a_mistyped_module_is_one_line(project: Path, train: Callable[..., Any]) -> None:
    refused = train("modules=['my module']", "model=tiny", "task=toy")
    assert refused.code == 2
    assert "modules=my module: must be names of modules" in refused.err
