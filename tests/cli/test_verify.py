"""`hydraprune verify` on models of any kind: their zeros are counted by the files alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from saved_run_helpers import run_folders

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def models() -> dict[str, Callable[[], Any]]:
    """Models that are no text classifiers: vision, language, translation, speech, embeddings."""
    t = transformers
    return {
        "vision": lambda: t.ViTForImageClassification(t.ViTConfig(**SMALL, image_size=32, patch_size=8)),
        "language": lambda: t.GPT2LMHeadModel(t.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50)),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, vocab_size=50, num_key_value_heads=1)),
        "translation": lambda: t.T5ForConditionalGeneration(
            t.T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, vocab_size=50)
        ),
        "embeddings": lambda: t.BertModel(t.BertConfig(**SMALL, vocab_size=50)),
        "convolutions": lambda: t.ResNetModel(
            t.ResNetConfig(embedding_size=8, hidden_sizes=[16], depths=[1], layer_type="basic")
        ),
    }


def counted(out: str) -> tuple[int, int]:
    """(zeros, weights) of all linear and convolution layers in the table."""
    found = re.search(r"all linear and convolution weights: ([\d,]+) of ([\d,]+) are zero", out)
    assert found is not None, out
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


@pytest.mark.parametrize("known", [True, False], ids=["known class", "unknown class"])
@pytest.mark.parametrize("kind", sorted(models()))
def test_zeros_of_a_model_that_is_no_classifier(
    kind: str, known: bool, hydraprune: Callable[..., Any], workplace: Path
) -> None:
    model = models()[kind]()
    linear = [
        module
        for module in model.modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, transformers.pytorch_utils.Conv1D))
    ]
    with torch.no_grad():
        for module in linear:
            module.weight.fill_(1.0)
            module.weight.view(-1)[: module.weight.numel() // 2] = 0
    model.save_pretrained("model")
    tied = sum(
        m.weight.numel() for n, m in model.named_modules() if n == "lm_head" and kind in ("language", "translation")
    )
    if not known:
        config = json.loads(Path("model/config.json").read_text())
        Path("model/config.json").write_text(json.dumps({**config, "architectures": ["Mine"], "model_type": "mine"}))
    verified = hydraprune("verify", "model")
    assert verified.code == 0, verified.err
    zeros, total = counted(verified.out)
    assert total == sum(module.weight.numel() for module in linear) - tied
    assert zeros == total // 2


def test_weights_without_a_config(hydraprune: Callable[..., Any], workplace: Path) -> None:
    Path("model").mkdir()
    weight = torch.ones(8, 8)
    weight[:4] = 0
    tensors = {"layer.weight": weight, "layer.bias": torch.zeros(8), "embed_tokens.weight": torch.ones(9, 8)}
    save_file(tensors, "model/one.safetensors")
    save_file({"other.weight": torch.ones(4, 4, dtype=torch.bfloat16)}, "model/two.safetensors")
    verified = hydraprune("verify", "model")
    assert verified.code == 0, verified.err
    assert counted(verified.out) == (32, 80)
    assert "1xchannel in 1 layer, dense in 1 layer" in verified.out
    assert hydraprune("verify", "model", "--pattern", "4x1").code == 0
    assert hydraprune("verify", "model", "--pattern", "channelx1").code == 1
    Path("model/two.safetensors").write_bytes(b"half")
    broken = hydraprune("verify", "model")
    assert (broken.code, broken.err.count("\n")) == (2, 1)
    assert "two.safetensors cannot be read" in broken.err


def test_a_runs_folder_means_its_model(
    train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    assert train(*small[:4], "training.epochs=1", "pattern=dense").code == 0
    (run,) = run_folders(workplace / "outputs", "dense")
    assert hydraprune("verify", str(run)).out == hydraprune("verify", str(run / "model")).out
    file = run / "model" / "model.safetensors"
    for key in ("dense.source", "distill.teacher"):
        finished = train(*small[:7], f"{key}={run}")
        assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
        assert f"is the folder of a run; give its model: {key}={run}/model" in finished.err
        finished = train(*small[:7], f"{key}={file}")
        assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
        assert f"is a file of a model; give its folder: {key}={run}/model" in finished.err
    (run / "model" / "tokenizer.json").write_text("")
    finished = train(*[word for word in small if not word.startswith("dense.")], f"dense.source={run}/model")
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    assert "tokenizer.json in it is empty" in finished.err


def test_weights_that_are_not_finite_are_said(hydraprune: Callable[..., Any], workplace: Path) -> None:
    models()["embeddings"]().save_pretrained("model")
    assert "NaN" not in hydraprune("verify", "model").out
    for value, count in ((float("nan"), 1), (float("inf"), 2)):
        state = load_file("model/model.safetensors")
        for name in sorted(state)[:count]:
            state[name] = torch.full_like(state[name], value)
        save_file(state, "model/model.safetensors", metadata={"format": "pt"})
        verified = hydraprune("verify", "model")
        assert f"{count} parameters hold NaN or infinity, {sorted(state)[0]} among them" in verified.out


def test_half_a_checkpoint_is_no_model(hydraprune: Callable[..., Any], workplace: Path) -> None:
    models()["embeddings"]().save_pretrained("model", max_shard_size="20KB")
    assert hydraprune("verify", "model").code == 0
    lost = sorted(Path("model").glob("*.safetensors"))[-1]
    lost.unlink()
    verified = hydraprune("verify", "model")
    assert (verified.code, verified.err.count("\n")) == (2, 1)
    assert lost.name in verified.err


def test_zeros_of_weights_beside_layers_are_counted_by_name(hydraprune: Callable[..., Any], workplace: Path) -> None:
    t = transformers
    config = t.GptOssConfig(**SMALL, head_dim=16, vocab_size=50, num_key_value_heads=1, num_local_experts=2)
    model = t.GptOssForCausalLM(config)
    packed = next(name for name, weight in model.named_parameters() if weight.ndim == 3)
    with torch.no_grad():
        model.get_parameter(packed)[:, ::4] = 0
    model.save_pretrained("model")
    finished = hydraprune("verify", "model")
    size = model.get_parameter(packed).numel()
    assert f"{packed}: {size // 4:,} of {size:,} are zero (0.2500); no layer's weight" in finished.out
