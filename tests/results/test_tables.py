"""The results matrix as Markdown, CSV and JSON, which agree, and beside the published figures."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from results_helpers import job, report, table
from test_matrix import _RUNS, made, with_dense

from hydraprune.results.matrix import matrix
from hydraprune.results.reference import PUBLISHED, Published, published
from hydraprune.results.report import RunReport
from hydraprune.results.tables import as_json, comma_separated, markdown

# (model, task, pattern) -> the published drop in percent; where none was printed, from the printed scores.
DROPS = {
    ("bert_mini", "mrpc", "4x1"): -0.34,
    ("bert_mini", "mrpc", "2:4"): -0.72,
    ("bert_mini", "mrpc", "1xchannel"): -0.82,
    ("distilbert", "mrpc", "4x1"): -0.45,
    ("distilbert", "mrpc", "2:4"): 0.69,
    ("bert_mini", "sst2", "4x1"): -0.79,
    ("bert_mini", "sst2", "2:4"): 0.14,
    ("bert_mini", "sst2", "1xchannel"): -0.79,
}


def like(row: Published, seed: int, difference: float, **changes: Any) -> RunReport:
    """A run of the published row's config with this difference to its dense model."""
    final = {row.metric: 0.8 + difference, "accuracy": 0.8 + difference}
    names = {"model": row.model, "task": row.task, "pattern": row.pattern, "target_sparsity": row.target_sparsity}
    dense = {row.metric: 0.8, "accuracy": 0.8, "run": "x"}
    return report(seed, final, **{**names, "metric": row.metric, "dense": dense, **changes})


@given(_RUNS)
def test_the_three_formats_agree(runs: Any) -> None:
    cells = matrix(made(runs))
    text, data = markdown(cells), json.loads(as_json(cells))
    lines = list(csv.DictReader(io.StringIO(comma_separated(cells))))
    assert [cell["cell"] for cell in data["cells"]] == [cell.spec.cell for cell in cells]
    scores = [(cell, score) for cell in data["cells"] for score in cell["scores"] or [None]]
    assert [(line["cell"], line.get("metric") or None) for line in lines] == [
        (cell["cell"], score and score["metric"]) for cell, score in scores
    ]
    for line, (cell, score) in zip(lines, scores, strict=True):
        assert line["finished"] == " ".join(map(str, cell["finished"]))
        for kind in ("sparse", "dense", "difference") if score else ():
            for name, value in score[kind].items():
                assert line[f"{kind}_{name}"] == ("" if value is None else str(value))
    sparse = [(cell, score) for cell, score in scores if cell["phase"] == "sparse"]
    rows = table(text, "Results") if sparse else []
    for row, (cell, score) in zip(rows, sparse, strict=True):
        assert row["pattern"].startswith(cell["pattern"])
        mean, best = (score["sparse"][key] if score else None for key in ("mean", "max"))
        assert row["sparse mean / max"] == ("-" if mean is None else f"{mean:.4f} / {best:.4f}")
        drop = score and score["drop"]
        assert row["relative drop"] == ("-" if drop is None else f"{drop:+.2%}")


def test_an_empty_table() -> None:
    assert "No runs here yet" in markdown([])
    assert json.loads(as_json([]))["cells"] == []
    assert list(csv.reader(io.StringIO(comma_separated([])))) in ([], [[]])


def test_the_published_form() -> None:
    text = markdown(matrix([with_dense(0, 0.861, 0.8619), with_dense(1, 0.8722, 0.8752), report(2, 0.9)]))
    (row,) = table(text, "Results")
    assert row == {
        "model": "tiny", "task": "toy", "pattern": "4x1 at 90%", "ratio": "0.8800", "metric": "accuracy",
        "dense mean / max": "0.8685 / 0.8752", "sparse mean / max": "0.8777 / 0.9000", "relative drop": "-0.34%",
        "n": "3",
    }  # fmt: skip
    (row,) = table(text, "Seed by seed")
    assert (row["seeds"], row["paired difference"], row["95% interval"]) == ("0 1 2", "-0.0020", "[-0.0153, +0.0114]")


def test_the_column_of_the_best_epoch_says_how_it_was_chosen() -> None:
    (row,) = table(markdown(matrix([report(0, 0.5, best={"accuracy": 0.75})])), "Seed by seed")
    assert row["best epoch mean / max (chosen on the evaluation data)"] == "0.7500 / 0.7500"


def test_missing_and_failed_seeds_are_marked() -> None:
    reports = [report(0), report(1, status="failed", error="not finite"), report(2, status="started")]
    text = markdown(matrix(reports, [job(seed) for seed in range(4)]), [("outputs/x", "not finite")])
    (row,) = table(text, "Results")
    assert row["n"] == "**1 of 4** (failed 1, missing 2 3)"
    assert "n of m: m were planned or started" in text
    assert "## Failed\n\n- outputs/x: not finite\n" in text
    (row,) = table(markdown(matrix([], [job(0)])), "Results")
    assert (row["sparse mean / max"], row["relative drop"], row["n"]) == ("-", "-", "**0 of 1** (missing 0)")
    assert "n of m" not in markdown(matrix([report(0)], [job(0)]))


def test_a_score_that_is_not_finite_is_marked() -> None:
    text = markdown(matrix([report(0, None), report(1, 0.5)]))
    (row,) = table(text, "Results")
    assert (row["n"], row["sparse mean / max"]) == ("**1 of 2** (not a number 0)", "0.5000 / 0.5000")


def test_dense_cells_have_their_own_table() -> None:
    dense = [report(seed, 0.25 + seed / 4, phase="dense", pattern="dense", target_sparsity=None) for seed in (0, 1)]
    text = markdown(matrix(dense))
    (row,) = table(text, "Dense models")
    assert (row["mean / max"], row["sd"], row["n"]) == ("0.3750 / 0.5000", "0.1768", "2")
    assert "Seed by seed" not in text
    # Two learning rates of a dense model are two rows, and say which is which.
    other = report(0, 0.75, cell="d" * 12, overrides=["lr=2"], phase="dense", pattern="dense", target_sparsity=None)
    rows = table(markdown(matrix([*dense, other])), "Dense models")
    assert len({tuple(row[name] for name in ("model", "task", "pattern")) for row in rows}) == 2


def test_a_mixed_pattern_has_no_target() -> None:
    (row,) = table(markdown(matrix([report(pattern="mixed", target_sparsity=None)])), "Results")
    assert row["pattern"] == "mixed"


def test_targets_that_round_to_the_same_value_are_distinguished() -> None:
    reports = [report(cell=f"{target}", target_sparsity=target) for target in (0.875, 0.88, 0.885)]
    assert len({row["pattern"] for row in table(markdown(matrix(reports)), "Results")}) == 3


def test_a_model_without_its_pattern_is_listed() -> None:
    text = markdown(matrix([report(3, pattern_ok=False), report(4)]))
    assert "The saved model does NOT have its pattern: tiny toy 4x1 at 90%, seed 3." in text
    assert json.loads(as_json(matrix([report(3, pattern_ok=False)])))["cells"][0]["broken"] == [3]
    assert "NOT have its" not in markdown(matrix([report(4)]))


def test_overrides_do_not_break_the_table() -> None:
    reports = [report(cell=f"{word}", overrides=[f"task.path={word}"]) for word in ("a|b", "c")]
    assert [row["pattern"] for row in table(markdown(matrix(reports)), "Results")] == [
        "4x1 at 90% task.path=a\\|b",
        "4x1 at 90% task.path=c",
    ]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.model} {row.task} {row.pattern}")
def test_published_rows(row: Published) -> None:
    """The printed scores, and the drop that was printed with them (or follows from them)."""
    assert row.drop * 100 == pytest.approx(DROPS[row.model, row.task, row.pattern], abs=0.006)
    assert published(row.model, row.task, row.pattern, row.target_sparsity) is row
    assert published(row.model, row.task, row.pattern, row.target_sparsity / 2) is None
    assert published(row.model, row.task, row.pattern, None) is None
    assert row.metric == {"mrpc": "f1", "sst2": "accuracy"}[row.task]
    assert row.difference == pytest.approx(row.sparse_mean - row.dense_mean)
    # A run that scored as published, in the table.
    (found,) = table(markdown(matrix([like(row, 0, row.difference)])), "Beside the published figures")
    assert (found["metric"], found["published"]) == (row.metric, f"{row.ratio:.4f}")
    assert found["difference of means"] == found["published 3"]
    assert found["published 2"] == f"{row.drop:+.2%}"


def test_all_published_rows() -> None:
    assert {(row.model, row.task, row.pattern) for row in PUBLISHED} == set(DROPS)
    means = {(r.model, r.task, r.pattern): (r.dense_mean, r.dense_max, r.sparse_mean, r.sparse_max) for r in PUBLISHED}
    assert means == {
        ("bert_mini", "mrpc", "4x1"): (0.8619, 0.8752, 0.8610, 0.8722),
        ("bert_mini", "mrpc", "2:4"): (0.8619, 0.8752, 0.8666, 0.8689),
        ("bert_mini", "mrpc", "1xchannel"): (0.8619, 0.8752, 0.8629, 0.8680),
        ("distilbert", "mrpc", "4x1"): (0.9026, 0.9026, 0.8985, 0.8985),
        ("distilbert", "mrpc", "2:4"): (0.9026, 0.9026, 0.9088, 0.9088),
        ("bert_mini", "sst2", "4x1"): (0.8660, 0.8761, 0.8651, 0.8692),
        ("bert_mini", "sst2", "2:4"): (0.8660, 0.8761, 0.8731, 0.8773),
        ("bert_mini", "sst2", "1xchannel"): (0.8660, 0.8761, 0.8651, 0.8692),
    }


@pytest.mark.parametrize(("away", "verdict"), [(0.0, "yes"), (0.02, "no"), (-0.02, "no")])
@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.model} {row.task} {row.pattern}")
def test_whether_the_published_difference_is_in_our_interval(row: Published, away: float, verdict: str) -> None:
    # t(0.975, 2) = 4.3027, sd 0.001: the interval reaches 0.00248 to both sides.
    cells = matrix([like(row, seed, row.difference + away + (seed - 1) * 0.001) for seed in range(3)])
    (found,) = table(markdown(cells), "Beside the published figures")
    answer = found["published lies in our interval"]
    assert answer.split()[0] == verdict
    assert ("repeats the scores of 4x1" in answer) == ((row.task, row.pattern) == ("sst2", "1xchannel"))
    assert found["published 3"] == f"{row.difference:+.4f}"
    (score, *others) = json.loads(as_json(cells))["cells"][0]["scores"]
    assert score["published_inside"] == (verdict == "yes")
    assert score["published_difference"] == row.difference
    assert all(other["published_inside"] is None for other in others)


def test_one_seed_gives_no_verdict() -> None:
    row = PUBLISHED[0]
    (found,) = table(markdown(matrix([like(row, 0, 0.0)])), "Beside the published figures")
    assert found["published lies in our interval"] == "unknown: an interval needs two seeds"


def test_a_row_without_a_published_one() -> None:
    other = like(PUBLISHED[0], 0, 0.0, cell="d" * 12, model="minilm")
    for reports in ([like(PUBLISHED[0], 0, 0.0), other], [other]):
        rows = table(markdown(matrix(reports)), "Beside the published figures")
        (found,) = (row for row in rows if row["model"] == "minilm")
        assert found["published lies in our interval"] == "nothing published"


def test_mrpc_shows_both_metrics_and_which_one_is_published() -> None:
    text = markdown(matrix([like(PUBLISHED[0], 0, 0.0)]))
    assert [row["metric"] for row in table(text, "Results")] == ["f1", "accuracy"]
    assert "MRPC: the published column holds F1" in text
    assert "MRPC" not in markdown(matrix([report(0)]))
