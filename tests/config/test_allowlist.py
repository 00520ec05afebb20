"""Attacks by `_target_`: each refused, in one line, before anything is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from hydraprune.config.allowlist import check_targets, target_of
from hydraprune.config.instantiate import make
from hydraprune.errors import UserError

FOREIGN = (
    "os.system",
    "builtins.eval",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "hydraprune.utils.cache.shutil.rmtree",
    "hydraprune.runs.run.os.system",
    "hydraprune.sparsity.saliency_kernels.subprocess.run",
    "transformers.utils.import_utils.os.system",
    "torch.optim.adam.torch.load",
    "torch.optim.Optimizer.__init__.__globals__",
    "transformers.pipeline",
    "transformers.AutoModel.from_pretrained",
    "transformers.dynamic_module_utils.get_class_from_dynamic_module",
    "transformers.Trainer",
    "hydraprune.sparsity.Exp.__class__",
    "hydraprune.models.pretrained.PretrainedModel.load",
    # Functions of hydraprune that write, remove or run something.
    "hydraprune.utils.files.write_text",
    "hydraprune.models.saving.save_model",
    "hydraprune.utils.cache.Cache",
    "hydraprune.training.checkpoints.Checkpoints",
    "hydraprune.tracking.JsonLines",
    "hydraprune.tracking.wandb_workspace.save",
    "hydraprune.sparsity.use_compiled",
    "hydraprune.launch.job",
    "hydraprune.sweeps.sweep.sweep",
    # Invalid names.
    "hydraprune.sparsity.Snap",
    "hydraprune.sparsity.${oc.env:HOME}",
    "hydraprune.",
    "hydraprunelike.Exp",
    "hydraprune.sparsity",
)


@pytest.mark.parametrize("target", FOREIGN)
def test_a_foreign_target_is_refused(target: str) -> None:
    with pytest.raises(UserError, match=r"pruner\._target_=") as refused:
        target_of(target, "pruner._target_")
    assert target in str(refused.value)
    assert "HYDRAPRUNE_TARGETS" in str(refused.value) or "no such class or function" in str(refused.value)


@pytest.mark.parametrize(
    "target",
    [
        *("hydraprune.sparsity.Exp", "hydraprune.sparsity.heads", "hydraprune.training.learning_rate.cosine"),
        *("hydraprune.tracking.WandB", "torch.optim.AdamW", "torch.optim.adamw.AdamW", "transformers.Adafactor"),
        *("transformers.get_cosine_schedule_with_warmup", "hydraprune.data.tasks.FileTask"),
    ],
)
def test_classes_that_a_config_describes_are_allowed(target: str) -> None:
    assert callable(target_of(target, "x._target_"))


def test_every_target_in_conf_is_allowed(root: Path) -> None:
    found = [yaml.safe_load(path.read_text()) for path in (root / "conf").rglob("*.yaml") if path.name != "config.yaml"]
    assert sum("_target_" in str(node) for node in found) > 50
    check_targets(found, "")


EVIL = "hydraprune.utils.cache.shutil.os.mkdir"
HIDDEN: dict[str, Any] = {
    "in a list": {"tags": [1, {"_target_": EVIL}]},
    "in a list of lists": {"tags": [[{"_target_": EVIL}]]},
    "in arguments": {"entity": {"x": {"_target_": EVIL}}},
    "in _args_": {"_args_": [{"_target_": EVIL}]},
    "partial": {"mode": {"_target_": EVIL, "_partial_": True}},
    "not recursive": {"_recursive_": False, "mode": {"_target_": EVIL}},
    "by interpolation": {"where": EVIL, "mode": {"_target_": "${tracker.where}"}},
    "half by interpolation": {"where": "mkdir", "mode": {"_target_": "hydraprune.utils.cache.os.${tracker.where}"}},
    "a list as target": {"mode": {"_target_": [EVIL]}},
}


@pytest.mark.parametrize("place", HIDDEN)
def test_nested_targets_are_checked(place: str) -> None:
    config = OmegaConf.create({"tracker": {"_target_": "hydraprune.tracking.WandB", **HIDDEN[place]}})
    with pytest.raises(UserError, match=r"tracker.*_target_="):
        make(config, "tracker")


@pytest.mark.parametrize("value", [True, "true", 1, None, "false", [False]])
@pytest.mark.parametrize("key", ["trust_remote_code", "TRUST_REMOTE_CODE"])
def test_trust_remote_code_is_refused(key: str, value: object) -> None:
    with pytest.raises(UserError, match="must be false"):
        check_targets({"model": [{"options": {key: value}}]}, "")
    check_targets({"model": [{"options": {key: False}}]}, "")


def test_prefixes_of_the_user_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "minelib.py").write_text(
        "import os\nfrom torch.optim import SGD\nfrom datasets import Dataset\n"
        "class Mine:\n    @classmethod\n    def made(cls): return cls()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="HYDRAPRUNE_TARGETS"):
        target_of("minelib.Mine", "x._target_")
    for listed in ("minelib", "minelib.", " other., minelib.Mine"):
        monkeypatch.setenv("HYDRAPRUNE_TARGETS", listed)
        assert callable(target_of("minelib.Mine", "x._target_"))
        assert callable(target_of("minelib.Mine.made", "x._target_"))
    monkeypatch.setenv("HYDRAPRUNE_TARGETS", "minelib")
    assert callable(target_of("minelib.SGD", "x._target_"))  # defined in torch.optim
    for foreign, home in (("minelib.os.system", "is posix.system"), ("minelib.Dataset", "datasets.arrow_dataset")):
        with pytest.raises(UserError, match=home):
            target_of(foreign, "x._target_")
    with pytest.raises(UserError, match="HYDRAPRUNE_TARGETS"):
        target_of("minelibrary.Mine", "x._target_")


def test_on_the_command_line(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    evil = workplace / "evil"
    for words, message in (
        ((f"+task.metrics=[{{_target_:{EVIL},path:{evil}}}]",), "HYDRAPRUNE_TARGETS"),
        (("+task.trust_remote_code=true",), "task.trust_remote_code=true: must be false"),
    ):
        finished = train(*small, *words)
        assert finished.code == 2
        assert finished.err.count("\n") == 1
        assert message in finished.err
    assert list(workplace.iterdir()) == []
