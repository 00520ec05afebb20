"""The model card: README.md of a saved model."""

from __future__ import annotations

from hydraprune.results.report import RunReport


def model_card(report: RunReport) -> str:
    """The text of README.md for the model folder, with its front matter."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in report.final.items() if value is not None)
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        f"tags: [hydraprune, {'sparse' if report.spec.phase == 'sparse' else 'dense'}]",
        "---",
        f"# {report.spec.model} on {report.spec.task}, {report.spec.pattern}",
        "",
        f"- {metrics} on the validation set (seed {report.spec.seed}, final evaluation)",
    ]
    if report.dense is not None and report.sparsity is not None and report.units is not None:
        dense = ", ".join(f"{n} {v:.4f}" for n, v in report.dense.items() if isinstance(v, float))
        lines += [
            f"- the dense model it was pruned from: {dense or 'unknown'}",
            f"- pattern {report.spec.pattern}: {report.units['pruned']} of {report.units['total']} units pruned; "
            f"{report.sparsity['prunable']:.4f} of the prunable weights, {report.sparsity['linear']:.4f} of all linear "
            f"weights and {report.sparsity['model']:.4f} of all parameters are zero",
            f"- criterion {report.spec.criterion}, schedule {report.spec.scheduler}",
            "",
            "The weights are stored dense, with zeros: transformers alone can load them; to run faster they need a "
            "kernel for the pattern.",
        ]
    lines += ["", f"Made by hydraprune {report.versions.get('hydraprune', '')}, run {report.spec.hash}."]
    return "\n".join(lines) + "\n"
