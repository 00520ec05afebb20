"""Small random models of many Hugging Face families, known to hydraprune or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from hydraprune.models.tiny import TinyModel

_USUAL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_DECODER = {**_USUAL, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
_BART = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
# model_type -> the sizes of its config.
SIZES: dict[str, dict[str, Any]] = {
    "bert": _USUAL,
    "roberta": _USUAL,
    "electra": {**_USUAL, "embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 2, "eos_token_id": 3},
    "albert": {**_USUAL, "embedding_size": 16},
    "mpnet": _USUAL,
    "modernbert": {**_USUAL, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    "deberta-v2": {**_USUAL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 8},
    "convbert": {**_USUAL, "embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 3},
    "longformer": {**_USUAL, "attention_window": 8},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "llama": _DECODER,
    "qwen2": _DECODER,
    "gpt_neox": {**_USUAL, "bos_token_id": 2, "eos_token_id": 3},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 2, "eos_token_id": 3},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "camembert": _USUAL,
    "xlm-roberta": _USUAL,
    "bart": {
        "d_model": 32,
        **{f"{part}_{key}": value for part in ("encoder", "decoder") for key, value in _BART.items()},
        "bos_token_id": 2,
        "eos_token_id": 3,
        "decoder_start_token_id": 3,
    },
    "big_bird": {**_USUAL, "attention_type": "original_full", "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3},
    "deberta": {**_USUAL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 8},
    "ernie": _USUAL,
    "eurobert": {**_USUAL, "num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3},
    "gemma": _DECODER,
    "gemma3_text": _DECODER,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "gte": _USUAL,
    "megatron-bert": _USUAL,
    "mistral": _DECODER,
    "mixtral": {**_DECODER, "num_local_experts": 2},
    "mobilebert": {**_USUAL, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "nomic_bert": _USUAL,
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "phi3": {**_DECODER, "original_max_position_embeddings": 128, "max_position_embeddings": 128},
    "qwen3": _DECODER,
    "rembert": {**_USUAL, "input_embedding_size": 16, "output_embedding_size": 16},
    "roformer": {**_USUAL, "embedding_size": 32},
    "squeezebert": {**_USUAL, "embedding_size": 32},
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        "eos_token_id": 3,
    },
}


def model_of(kind: str, head: Any = AutoModelForSequenceClassification, **more: Any) -> nn.Module:
    """A model, for two classes if no other `head` is given, from torch's global generator, in evaluation mode.

    `more` are fields of its config.
    """
    vocabulary = len(TinyModel("tiny", 32, 1, 2, 32).tokenizer())
    fields = {"vocab_size": vocabulary, "pad_token_id": 0, **SIZES[kind], **more}
    if "id2label" not in fields:
        fields.setdefault("num_labels", 2)  # BART's default is 3
    config = AutoConfig.for_model(kind, **fields)
    model: nn.Module = head.from_config(config).eval()
    return model


def save_checkpoint(folder: Path, kind: str, head: Any = AutoModelForSequenceClassification, **more: Any) -> nn.Module:
    """Save `model_of(kind, head, **more)` with a tokenizer of the toy language; returns the model."""
    torch.manual_seed(0)
    model = model_of(kind, head, **more)
    model.save_pretrained(folder)  # type: ignore[operator]
    TinyModel("tiny", 32, 1, 2, 32).tokenizer().save_pretrained(folder)
    return model
