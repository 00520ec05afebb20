"""The short table at the end of a run."""

from __future__ import annotations

from pathlib import Path

from hydraprune.results.report import RunReport


def summary(report: RunReport, directory: Path) -> str:
    """What a person wants to know first."""
    rows: list[tuple[str, str]] = [
        ("run", f"{report.spec.task}, {report.spec.model}, {report.spec.pattern}, seed {report.spec.seed}")
    ]
    for metric, value in report.final.items():
        if value is None:
            rows.append((metric, "not a number"))
        elif report.dense is not None:
            dense = report.dense.get(metric)
            change = f"  ({value - dense:+.4f})" if dense is not None else ""
            rows.append((metric, f"dense {_number(dense)}   sparse {value:.4f}{change}"))
        else:
            rows.append((metric, f"{value:.4f}"))
    if report.units is not None and report.sparsity is not None and report.spec.phase == "sparse":
        target = "per part" if report.spec.target_sparsity is None else f"{report.spec.target_sparsity:g}"
        units = report.units
        rows.append(("sparsity", f"target {target}   achieved {report.sparsity['prunable']:.4f} of prunable weights"))
        rows.append(("units", f"{units['pruned']:,} of {units['total']:,} pruned, {units['target']:,} asked for"))
        rows.append(
            ("pattern", f"{report.spec.pattern} {'holds' if report.pattern_ok else 'DOES NOT HOLD'} in the saved model")
        )
    rows.append(("model", str(directory / "model")))
    rows.append(("look", f"hydraprune verify {directory / 'model'}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
