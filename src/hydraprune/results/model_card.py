"""The model card: README.md of a saved model."""

from __future__ import annotations

from hydraprune.data.labels import Problem
from hydraprune.results.escaping import in_markdown
from hydraprune.results.report import RunReport

# Of the weights file by name: exports copy the card, and store the weights in other files.
_PLAIN = "`model.safetensors` holds the weights dense, with zeros: transformers alone can load it."
_SLIMMED = (
    "`model.safetensors` holds the weights dense, with zeros, in layers that differ in size, which transformers "
    "refuses: `hydraprune.deploy.load_slim(folder)` loads it, and so does any command of hydraprune."
)


# By benchmarks/older_transformers.py.
_TRIED = "tried: 4.46 and 4.52"
# What a head is for -> the task of a transformers pipeline.
_PIPELINES: dict[Problem, str] = {
    "sequence classification": "text-classification",
    "token classification": "token-classification",
    "question answering": "question-answering",
    "multiple choice": "multiple-choice",
    "causal language modelling": "text-generation",
    "masked language modelling": "fill-mask",
}


def model_card(report: RunReport, is_slimmed: bool = False, problem: Problem = "sequence classification") -> str:
    """The text of README.md for the model folder, with its front matter.

    Args:
        is_slimmed: whether the layers of the model differ in size, as after `hydraprune slim`.
        problem: what its head is for.
    """
    model, task, pattern = (in_markdown(name) for name in (report.spec.model, report.spec.task, report.spec.pattern))
    criterion, scheduler = (in_markdown(str(name)) for name in (report.spec.criterion, report.spec.scheduler))
    metrics = ", ".join(f"{in_markdown(name)} {value:.4f}" for name, value in report.final.items() if value is not None)
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {_PIPELINES[problem]}",
        f"tags: [hydraprune, {'sparse' if report.spec.phase == 'sparse' else 'dense'}]",
        "---",
        f"# {model} on {task}, {pattern}",
        "",
        f"- {metrics} on the validation set (seed {report.spec.seed}, final evaluation)",
    ]
    if report.dense is not None and report.sparsity is not None and report.units is not None:
        dense = ", ".join(f"{in_markdown(n)} {v:.4f}" for n, v in report.dense.items() if isinstance(v, float))
        lines += [
            f"- the {'slimmed' if is_slimmed else 'dense'} model it was pruned from: {dense or 'unknown'}",
            f"- pattern {pattern}: {report.units['pruned']} of {report.units['total']} units pruned; "
            f"{report.sparsity['prunable']:.4f} of the prunable weights, {report.sparsity['linear']:.4f} of all linear "
            f"weights and {report.sparsity['model']:.4f} of all parameters are zero",
            f"- criterion {criterion}, schedule {scheduler}",
            "",
            f"{_SLIMMED if is_slimmed else _PLAIN} `hydraprune.deploy.accelerate(folder)` computes without the zeros "
            "on a CPU.",
        ]
    elif is_slimmed:
        lines += ["", _SLIMMED]
    lines += ["", f"Made by hydraprune {report.versions.get('hydraprune', '')}, run {report.spec.hash}."]
    if library := report.versions.get("transformers"):
        lines[-1] += f" Written by transformers {library}; earlier versions that have its class load it ({_TRIED})."
    return "\n".join(lines) + "\n"
