"""Words of other tools for our keys and choices, and what they are called here. Messages suggest them; nothing else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

# Key of another tool, or a common name for it -> our key; with a value, where it stands for a key and its value.
_KEYS: dict[str, str] = {
    **dict.fromkeys(("lr", "learning_rate", "base_lr", "init_lr"), "optimizer.lr"),
    **dict.fromkeys(("weight_decay", "wd"), "optimizer.weight_decay"),
    **dict.fromkeys(("betas", "adam_betas"), "optimizer.betas"),
    **dict.fromkeys(("optim", "optimiser", "optimizer_type"), "optimizer"),
    **dict.fromkeys(("lr_scheduler_type", "lr_schedule", "lr_decay"), "lr_scheduler"),
    **dict.fromkeys(("lr_warmup", "warmup_steps", "warmup_ratio", "warmup_epochs"), "lr_scheduler.warmup"),
    **dict.fromkeys(("sparsity_warm_epochs", "start_step", "start_epoch"), "scheduler.warmup"),
    **dict.fromkeys(("cooldown", "cooldown_epochs"), "scheduler.cooldown"),
    **dict.fromkeys(("pruning_frequency", "prune_every", "update_frequency"), "scheduler.frequency"),
    **dict.fromkeys(("schedule", "sparsity_decay_type", "pruning_schedule"), "scheduler"),
    **dict.fromkeys(("epoch", "epochs", "num_epochs", "n_epochs", "num_train_epochs", "max_epochs"), "training.epochs"),
    **dict.fromkeys(
        ("batch", "bs", "batch_size", "train_batch_size", "per_device_train_batch_size", "per_gpu_train_batch_size"),
        "training.batch_size",
    ),
    **dict.fromkeys(("eval_batch_size", "per_device_eval_batch_size"), "training.eval_batch_size"),
    **dict.fromkeys(
        (
            "accumulation",
            "grad_accum",
            "gradient_accumulation",
            "gradient_accumulation_steps",
            "accumulate_grad_batches",
        ),
        "training.accumulation",
    ),
    **dict.fromkeys(
        ("max_grad_norm", "grad_clip", "clip_grad", "clip_grad_norm", "gradient_clip_val", "clip"),
        "training.max_grad_norm",
    ),
    **dict.fromkeys(("device", "gpu", "accelerator"), "training.device"),
    **dict.fromkeys(("precision", "dtype", "torch_dtype", "mixed_precision", "amp"), "training.precision"),
    **{kind: f"training.precision={kind}" for kind in ("fp16", "bf16", "fp32")},
    **dict.fromkeys(("log_every", "logging_steps", "log_interval", "log_every_n_steps"), "training.log_every"),
    **dict.fromkeys(("save_steps", "checkpoint_every", "save_every", "save_strategy"), "training.checkpoint_every"),
    **dict.fromkeys(("save_total_limit", "keep_checkpoints"), "training.keep_checkpoints"),
    **dict.fromkeys(
        ("max_length", "max_len", "max_seq_length", "max_seq_len", "seq_len", "block_size"), "task.max_length"
    ),
    **dict.fromkeys(("max_train_samples", "max_train_examples", "max_samples"), "task.max_train_examples"),
    **dict.fromkeys(("task_name", "dataset", "dataset_name", "data_set", "glue"), "task"),
    **dict.fromkeys(("data", "data_path", "data_dir", "train_file", "train_path", "train_data", "file"), "task.path"),
    **dict.fromkeys(
        ("validation_file", "validation_path", "val_file", "dev_file", "eval_file", "test_file"), "task.validation_path"
    ),
    **dict.fromkeys(("text", "text_column", "text_col", "sentence"), "task.text"),
    **dict.fromkeys(("label", "labels", "label_column", "label_col", "target"), "task.label"),
    **dict.fromkeys(("metric", "metrics"), "task.metrics"),
    **dict.fromkeys(
        (
            "model_name",
            "model_name_or_path",
            "name_or_path",
            "model_path",
            "pretrained",
            "pretrained_model",
            "checkpoint",
        ),
        "model.path",
    ),
    **dict.fromkeys(
        ("sparsity", "target_sparsity", "sparsity_ratio", "final_sparsity", "pruning_ratio", "prune_ratio", "amount"),
        "pattern.target_sparsity",
    ),
    **dict.fromkeys(("scope", "pruning_scope"), "pattern.scope"),
    **dict.fromkeys(("pruning_pattern", "block", "structure"), "pattern"),
    **dict.fromkeys(("criterion", "pruning_type", "method_name", "pruning_method", "score", "importance"), "pruner"),
    **dict.fromkeys(("exclude", "excluded_op_names", "skip_layers", "ignore"), "pattern.layers.exclude"),
    **dict.fromkeys(("include", "op_names", "layers"), "pattern.layers.include"),
    "roles": "pattern.layers.roles",
    **dict.fromkeys(
        ("pattern.target", "pattern.ratio", "pattern.share", "pattern.density", "pruner.target"),
        "pattern.target_sparsity",
    ),
    "keep": "pattern.keep",
    **dict.fromkeys(("dense_model", "dense_path", "base_model", "start_from"), "dense.source"),
    **dict.fromkeys(("teacher", "teacher_model", "teacher_path"), "distill.teacher"),
    **dict.fromkeys(("distillation", "kd", "distill_type"), "distill"),
    **dict.fromkeys(("distill_loss_weight", "kd_weight", "alpha"), "distill.weight"),
    **dict.fromkeys(("temperature", "kd_temperature"), "distill.temperature"),
    **dict.fromkeys(("wandb", "use_wandb", "report_to", "logger", "logging", "log"), "tracker=wandb"),
    **dict.fromkeys(("wandb_project", "project", "project_name"), "tracker.project"),
    **dict.fromkeys(("entity", "wandb_entity", "team"), "tracker.entity"),
    "tags": "tracker.tags",
    **dict.fromkeys(("threads", "num_threads", "n_threads", "cpu"), "runtime.threads"),
    **dict.fromkeys(("random_seed", "random_state", "rng", "seeds", "manual_seed"), "seed"),
    **dict.fromkeys(("output_dir", "out", "output", "save_dir", "save_path", "run_dir", "log_dir"), "hydra.run.dir"),
    **dict.fromkeys(("root", "runs", "output_root"), "run.root"),
    **dict.fromkeys(("cache_dir", "cache"), "cache.dir"),
    **dict.fromkeys(("n_jobs", "jobs", "workers", "num_jobs", "parallel"), "hydra.launcher.n_jobs"),
    **dict.fromkeys(("dry_run", "dryrun", "show_plan"), "plan=true"),
    **dict.fromkeys(("sweep_name", "name", "run_name"), "sweep"),
    "exp": "experiment",
}
# Words that mean something else below a group of ours: pattern.target is not task.label.
_OF_MANY_GROUPS = {
    "target",
    "label",
    "labels",
    "text",
    "file",
    "data",
    "name",
    "log",
    "out",
    "output",
    "block",
    "score",
    "project",
    "clip",
    "layers",
    "cache",
    "root",
    "runs",
    "epoch",
    "device",
    "cpu",
    "metrics",
}
# What other tools have a flag or key for, and needs none here.
_WAYS: dict[str, str] = {
    **dict.fromkeys(
        ("resume", "resume_from_checkpoint", "continue", "restart"), "leave it out: the same command resumes by itself"
    ),
    **dict.fromkeys(
        ("overwrite_output_dir", "overwrite", "force"), "leave it out: another config gets another folder by itself"
    ),
    **dict.fromkeys(("do_train", "do_eval", "train", "evaluate"), "leave it out: a run trains and evaluates"),
    **dict.fromkeys(("do_prune", "prune", "pruning"), "leave it out: every pattern but pattern=dense prunes"),
    **dict.fromkeys(("evaluation_strategy", "eval_strategy"), "leave it out: a run evaluates after every epoch"),
    **dict.fromkeys(("num_workers", "dataloader_num_workers"), "leave it out: batches are made before the training"),
    **dict.fromkeys(("trust_remote_code",), "leave it out: code that comes with a model is never run"),
    **dict.fromkeys(("no_cuda", "use_cpu", "cuda"), "type training.device=cpu or training.device=cuda"),
}
# Group -> a word of another tool -> the choice, with its keys.
_CHOICES: dict[str, dict[str, str]] = {
    "pattern": {
        **dict.fromkeys(("unstructured", "none_structured", "irregular", "element"), "1x1"),
        **dict.fromkeys(("channel", "channels", "row", "structured", "filter"), "1xchannel"),
        **dict.fromkeys(("head", "attention_heads"), "heads"),
        **dict.fromkeys(("none", "no", "full", "baseline"), "dense"),
        "nxm": "block",
    },
    "optimizer": dict.fromkeys(("adam", "adamw_torch", "adamw_hf"), "adamw"),
    "scheduler": {"cosine": "cos", "constant": "hold", "iterative": "exp", "one_shot": "oneshot", "polynomial": "cube"},
    "lr_scheduler": {"none": "constant", "cos": "cosine", "constant_with_warmup": "constant lr_scheduler.warmup=1ep"},
    "pruner": {
        **dict.fromkeys(("l1", "l2", "magnitude_pruning", "l1_unstructured"), "magnitude"),
        **dict.fromkeys(("obs", "gptq", "sparsegpt"), "sparse_gpt"),
        **dict.fromkeys(("grad", "taylor"), "gradient"),
    },
    "distill": {**dict.fromkeys(("kd", "soft", "kl"), "logits"), **dict.fromkeys(("no", "off", "false"), "none")},
    "tracker": dict.fromkeys(("wb", "weights_and_biases", "weightsandbiases"), "wandb"),
    "task": {"sts_b": "stsb", "sst": "sst2", "mnli_mm": "mnli", "csv": "file", "json": "file", "custom": "file"},
    "model": {
        **dict.fromkeys(("bert", "bert_base_uncased"), "bert_base"),
        **dict.fromkeys(("distilbert_base_uncased",), "distilbert"),
        **dict.fromkeys(("bertmini", "prajjwal1_bert_mini"), "bert_mini"),
    },
}


def our_key(word: str) -> str | None:
    """Our key for a key of another tool, or `key=value` where it stands for both; None if there is none known.

    Args:
        word: as typed, perhaps dotted: `learning_rate`, `training.lr`, `batch-size`.
    """
    plain = word.lower().replace("-", "_")
    _, _, leaf = plain.rpartition(".")
    found = _KEYS.get(plain)
    if found is None and leaf not in _OF_MANY_GROUPS:
        found = _KEYS.get(leaf)
    return None if found in (None, word) else found


def our_way(word: str) -> str | None:
    """What to do in place of a flag or key of another tool that needs no key here; None if it is not known."""
    return _WAYS.get(word.lower().replace("-", "_").rpartition(".")[2])


def our_choice(group: str, word: str, options: Iterable[str]) -> str | None:
    """The choice of a group that a word means: by a known name, by other capitals or signs, or the nearest."""
    options = sorted(options)
    known: Mapping[str, str] = _CHOICES.get(group, {})
    plain = re.sub(r"[^a-z0-9]+", "_", word.lower()).strip("_")
    if plain in known:
        return known[plain]
    bare = {_bare(option): option for option in options}
    if _bare(word) in bare:
        return bare[_bare(word)]
    near = difflib.get_close_matches(word.lower(), options, n=1, cutoff=0.6)
    return near[0] if near else None


def _bare(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())
