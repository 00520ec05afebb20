"""Whole runs of a tiny model: their folder, report and saved model."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_run_helpers import encoder_weights, report_of, run_folders, weights_of

from hydraprune import launch

REPORT_KEYS = {
    "schema", "status", "hash", "cell", "overrides", "phase", "model", "task", "pattern", "criterion", "scheduler",
    "recipe", "seed", "metric", "final", "best", "dense", "target_sparsity", "units", "sparsity", "pattern_ok",
    "steps", "seconds", "teacher", "threads", "precision", "versions", "device", "error",
}  # fmt: skip


def test_the_files_and_the_report_of_a_run(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    finished = train(*small, "pattern=4x1")
    assert finished.code == 0, finished.err
    (sparse,) = run_folders(workplace / "outputs", "4x1")
    (dense,) = run_folders(workplace / "outputs", "dense")
    for folder in (sparse, dense):
        assert {"config.yaml", "train.log", "metrics.jsonl", "report.json", "model"} <= {
            p.name for p in folder.iterdir()
        }
    report, before = report_of(sparse), report_of(dense)
    assert set(report) >= REPORT_KEYS
    assert report["status"] == before["status"] == "finished"
    assert report["dense"]["accuracy"] == before["final"]["accuracy"]
    assert report["pattern_ok"] is True
    assert report["steps"] == 30
    assert (report["criterion"], report["scheduler"]) == ("snip_momentum", "exp")
    log = (sparse / "train.log").read_text()
    assert log.count("epoch 3, step 30 of 30") == 1

    # Counted in the saved file: exactly floor(0.9 * blocks) blocks of four rows are zero, and nothing else.
    weights = encoder_weights(weights_of(sparse))
    blocks = {name: (w.reshape(w.shape[0] // 4, 4, -1) != 0) for name, w in weights.items()}
    empty = sum(int((~b.any(1)).sum()) for b in blocks.values())
    total = sum(b.shape[0] * b.shape[2] for b in blocks.values())
    assert empty == int(total * 9 // 10) == report["units"]["pruned"] == report["units"]["target"]
    assert total == report["units"]["total"]
    zeros = sum(int((w == 0).sum()) for w in weights.values())
    assert zeros == 4 * empty
    assert report["sparsity"]["prunable"] == zeros / sum(w.numel() for w in weights.values())

    lines = [json.loads(line) for line in (sparse / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [10, 20, 30]
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2, 3]
    assert lines[-1]["eval/accuracy"] == report["final"]["accuracy"]
    assert "4x1 holds" in finished.out
    assert f"hydraprune verify {sparse.relative_to(workplace)}/model" in finished.out


def test_plain_transformers_reads_the_model(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert train(*small, "pattern=2:4").code == 0
    (folder,) = run_folders(workplace / "outputs", "2of4")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert model.config.id2label == {0: "negative", 1: "positive"}
    for weight in encoder_weights(dict(model.named_parameters())).values():
        assert bool(((weight.reshape(-1, 4) != 0).sum(-1) == 2).all())
    assert model(**tokenizer(["the film was not good"], return_tensors="pt")).logits.shape == (1, 2)


def test_the_same_command_finds_its_run(
    train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    assert train(*small).code == 0
    (folder,) = run_folders(workplace / "outputs", "4x1")
    before = {
        p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name in ("report.json", "metrics.jsonl")
    }
    again = train(*small)
    assert again.code == 0
    assert "Finished already" in again.out
    assert {p: p.read_bytes() for p in before} == before
    # The same dense run as a command of its own is found finished.
    dense = train(*small[:4], "training.epochs=1", "pattern=dense")
    assert dense.code == 0, dense.err
    assert "Finished already" in dense.out

    report = report_of(folder)
    scored = hydraprune("eval", str(folder / "model"), "task=toy", "task.evaluation_examples=64")
    assert scored.code == 0, scored.err
    assert f"accuracy  {report['final']['accuracy']:.4f}" in scored.out
    Path("two.csv").write_text("text,label\na good film,1\na bad film,0\n")
    Path("one.csv").write_text("text,label\na good film,1\n")
    files = ("task=file", "task.path=two.csv", "task.validation_path=one.csv", "task.metrics=[f1]")
    single = hydraprune("eval", str(folder / "model"), *files)
    assert (single.code, single.err.count("\n")) == (2, 1), single.err
    assert "task.metrics=f1: every example of validation is of one class only" in single.err
    verified = hydraprune("verify", str(folder / "model"), "--pattern", "4x1")
    assert verified.code == 0, verified.err
    assert "4x1 in 12 layers, dense in 2 layers" in verified.out
    assert hydraprune("verify", str(folder / "model"), "--pattern", "2:4").code == 1
    assert hydraprune("verify", str(folder / "model"), "--pattern", "4y1").code == 2
    assert hydraprune("verify", "/no/such").code == 2

    foreign = train(*small, "seed=1", f"hydra.run.dir={folder}")
    assert foreign.code == 2
    assert "holds another run" in foreign.err
    assert {p: p.read_bytes() for p in before} == before


def test_same_seed_same_bits(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    assert train(*small, "run.root=one").code == 0
    assert train(*small, "run.root=two").code == 0
    first, second = (next(workplace.glob(f"{root}/*/*/4x1/*")) for root in ("one", "two"))
    assert first.name == second.name
    assert (first / "metrics.jsonl").read_text() == (second / "metrics.jsonl").read_text()
    one, two = (weights_of(folder) for folder in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "words",
    [
        ("pattern=mixed",),
        ("pattern=1xchannel", "pattern.scope=local"),
        ("pattern=channelx1", "pruner=magnitude", "scheduler=cubic"),
        ("pattern=nm", "pruner=gradient"),
        ("pattern=1x1", "pruner=snip", "scheduler=oneshot"),
        ("distill=logits", "training.accumulation=2", "training.batch_size=16"),
        ("distill=none", "training.precision=bf16", "optimizer=sgd", "lr_scheduler=cosine"),
        ("distill.padding=true", "training.max_grad_norm=1.0"),
    ],
    ids=" ".join,
)
def test_patterns_and_settings_reach_exactly_their_target(
    words: tuple[str, ...], train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    finished = train(*small, *words)
    assert finished.code == 0, finished.err
    (report,) = (
        r
        for r in (report_of(p.parent) for p in workplace.glob("outputs/*/*/*/*/report.json"))
        if r["phase"] == "sparse"
    )
    assert report["pattern_ok"] is True
    # A revived weight may still be zero, so a criterion that revives weights may exceed its target.
    if "pruner=gradient" not in words:
        assert report["units"]["pruned"] == report["units"]["target"]


def test_jobs_of_a_multirun_fail_alone(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    finished = train("-m", *small, "pattern=4x1", "pattern.rows=4,7")
    assert finished.code == 1
    assert "7x1 does not fit" in finished.err
    reports = [report_of(p.parent) for p in workplace.glob("multirun_sweeps/default/**/report.json")]
    assert sorted(r["status"] for r in reports) == ["failed", "finished"]
    (failed,) = (r for r in reports if r["status"] == "failed")
    assert "7x1 does not fit" in failed["error"]
    assert (failed["pattern"], failed["seed"]) == ("7x1", 0)
    # The next sweep, all of whose jobs are finished, does not repeat the failure.
    assert train("-m", *small, "pattern=4x1", "pattern.rows=4").code == 0


def test_a_refused_job_can_be_tried_again(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    words = ("-m", *small, f"dense.source={workplace / 'late'}")
    own = [word for word in words if not word.startswith("dense.overrides")]
    assert train(*own).code == 1
    assert train(*small[:4], "training.epochs=1", "pattern=dense").code == 0
    (dense,) = run_folders(workplace / "outputs", "dense")
    (dense / "model").rename(workplace / "late")
    again = train(*own)
    assert again.code == 0, again.err


def test_a_folder_of_the_user_is_not_changed(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    mine = workplace / "mine"
    (mine / "model").mkdir(parents=True)
    (mine / "model" / "precious").write_text("x")
    finished = train(*small, f"hydra.run.dir={mine}")
    assert finished.code == 2
    assert "holds other files" in finished.err
    assert [path.name for path in workplace.rglob("*")] == ["mine", "model", "precious"]


def test_threads_are_not_inherited(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    before = torch.get_num_threads()
    assert train("-m", *small, "runtime.threads=2,null").code == 0
    reports = [report_of(p.parent) for p in workplace.glob("multirun_sweeps/default/**/report.json")]
    assert sorted(report["threads"] for report in reports) == sorted([2, before])


def test_a_dense_model_of_the_user(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    own = [word for word in small if not word.startswith("dense.")]
    assert train(*small[:4], "training.epochs=1", "pattern=dense").code == 0
    (dense,) = run_folders(workplace / "outputs", "dense")
    mine = workplace / "mine"
    (dense / "model").rename(mine)
    finished = train(*own, f"dense.source={mine}", f"distill.teacher={mine}")
    assert finished.code == 0, finished.err
    (sparse,) = run_folders(workplace / "outputs", "4x1")
    assert report_of(sparse)["dense"]["accuracy"] == report_of(dense)["final"]["accuracy"]


def test_a_failure_is_recorded(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    finished = train(*small, "optimizer.lr=1e30", "distill=none")
    assert finished.code != 0
    (folder,) = run_folders(workplace / "outputs", "4x1")
    report = report_of(folder)
    assert report["status"] == "failed"
    assert "not finite" in report["error"]
    assert finished.err.count("hydraprune: error: ") == 1
    assert "Traceback" not in finished.err


def test_a_dense_model_without_a_head_is_refused_before_training(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from hydraprune.data.examples import Labels
    from hydraprune.models.tiny import TinyModel

    headless = tmp_path_factory.mktemp("headless")
    tiny = TinyModel("tiny", 64, 1, 4, 64)
    tiny.load(Labels(("negative", "positive"))).bert.save_pretrained(headless)
    tiny.tokenizer().save_pretrained(headless)
    own = [word for word in small if not word.startswith("dense.")]
    for key in ("dense.source", "distill.teacher"):
        finished = train(*own, f"{key}={headless}")
        assert finished.code == 2
        assert f"{key}={headless}: lacks" in finished.err
        assert finished.err.count("\n") == 1
    assert list(workplace.iterdir()) == []


def test_jobs_in_a_folder_with_other_files_are_refused(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    precious = workplace / "mine" / "model" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("x")
    for _ in range(2):
        finished = train("-m", *small, "seed=3,4", "hydra.sweep.dir=.", "hydra.sweep.subdir=mine")
        assert finished.code == 1
        assert finished.err.count("holds other files") == 2
        assert precious.read_text() == "x"
        assert {path.name for path in (workplace / "mine").iterdir()} <= {"model", ".hydra"}


def test_a_multirun_does_not_call_foreign_targets(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    evil = workplace / "evil"
    finished = train("-m", *small, "pruner._target_=os.mkdir", f"+pruner.path={evil}", "~pruner.decay")
    assert finished.code == 1
    assert "HYDRAPRUNE_TARGETS" in finished.err
    assert not evil.exists()


def test_a_class_of_the_user_can_be_allowed_by_the_environment(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "mylib.py").write_text(
        "import torch\n"
        "class Plain(torch.optim.SGD):\n"
        "    def __init__(self, params, lr, anything=None):\n"
        "        super().__init__(params, lr=lr)\n"
    )
    monkeypatch.syspath_prepend(str(workplace))
    words = (
        *small,
        "optimizer=sgd",
        "optimizer._target_=mylib.Plain",
        "~optimizer.momentum",
        "~optimizer.weight_decay",
    )
    words = (*words, "+optimizer.anything=[1,x]")
    refused = train("-m", *words)
    assert refused.code == 1
    monkeypatch.setenv("HYDRAPRUNE_TARGETS", "mylib.")
    again = train("-m", *words)
    assert again.code == 0, again.err


def test_hydras_own_folder_may_have_another_name(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = (*small, "hydra.run.dir=mine", "hydra.output_subdir=kept")
    first = train(*words)
    assert first.code == 0, first.err
    assert "Finished already" not in first.out
    assert "Finished already" in train(*words).out
    assert {path.name for path in Path("mine/kept").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}


@pytest.mark.parametrize("mode", [(), ("-m",)], ids=["run", "multirun"])
def test_a_disk_that_is_full_from_the_start(
    mode: tuple[str, ...],
    train: Callable[..., Any],
    small: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    workplace: Path,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(launch, "keep_job", full)
    finished = train(*mode, *small)
    assert finished.code == (1 if mode else 2)
    assert "Traceback" not in finished.out + finished.err
    assert "cannot be written (No space left on device); fix that" in finished.err
