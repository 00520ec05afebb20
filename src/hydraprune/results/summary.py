"""The summary that is printed at the end of a run."""

from __future__ import annotations

from pathlib import Path

from hydraprune.results.metric_rows import MetricRow, metric_rows
from hydraprune.results.report import RunReport


def summary(report: RunReport, directory: Path) -> str:
    """The main results of a run as an aligned list.

    Args:
        directory: of the run.
    """
    spec = report.spec
    lines: list[tuple[str, str]] = [("run", f"{spec.task}, {spec.model}, {spec.pattern}, seed {spec.seed}")]
    lines += [
        (row.metric, _metric(row, has_dense=report.dense is not None))
        for row in metric_rows(report.final, dense=report.dense)
    ]
    if report.units is not None and report.sparsity is not None and spec.phase == "sparse":
        # A single part has no target where its zeros are only kept.
        missing = "per part" if len(report.parts or {}) > 1 else "none"
        target = missing if spec.target_sparsity is None else f"{spec.target_sparsity:g}"
        units = report.units
        lines.append(("sparsity", f"target {target}   achieved {report.sparsity['prunable']:.4f} of prunable weights"))
        lines.append(("units", f"{units['pruned']:,} of {units['total']:,} pruned, target {units['target']:,}"))
        holds = "holds" if report.pattern_ok else "DOES NOT HOLD"
        lines.append(("pattern", f"{spec.pattern} {holds} in the saved model"))
    if report.sparse_steps is not None and report.sparse_steps["count"]:
        gain = "" if report.sparse_gain is None else f", {report.sparse_gain:.2g} times as fast as dense ones"
        lines.append(("sparse steps", f"{report.sparse_steps['count']:,} of {report.steps or 0:,}{gain}"))
    lines.append(("model", str(directory / "model")))
    lines.append(("verify", f"hydraprune verify {directory / 'model'}"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)


def _metric(row: MetricRow, has_dense: bool) -> str:
    if row.final is None:
        return "not a number"
    if not has_dense:
        return f"{row.final:.4f}"
    dense = "unknown" if row.dense is None else f"{row.dense:.4f}"
    change = "" if row.difference is None else f"  ({row.difference:+.4f})"
    return f"dense {dense}   sparse {row.final:.4f}{change}"
