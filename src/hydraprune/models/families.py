"""What do model families call their parts? Facts, no logic."""

from __future__ import annotations

from hydraprune.sparsity import Family

_BERT_ROLES = {
    "query": [r".*\.attention\.self\.query"],
    "key": [r".*\.attention\.self\.key"],
    "value": [r".*\.attention\.self\.value"],
    "attention_output": [r".*\.attention\.output\.dense"],
    "ffn_in": [r".*\.layer\.\d+\.intermediate\.dense"],
    "ffn_out": [r".*\.layer\.\d+\.output\.dense"],
}
_ROBERTA_OUTSIDE = ["classifier.dense", "classifier.out_proj"]

FAMILIES: dict[str, Family] = {
    "bert": Family("bert", _BERT_ROLES, ["bert.pooler.dense", "classifier"]),
    "roberta": Family("roberta", _BERT_ROLES, _ROBERTA_OUTSIDE),
    "xlm-roberta": Family("xlm-roberta", _BERT_ROLES, _ROBERTA_OUTSIDE),
    "camembert": Family("camembert", _BERT_ROLES, _ROBERTA_OUTSIDE),
    "electra": Family("electra", _BERT_ROLES, ["electra.embeddings_project", *_ROBERTA_OUTSIDE]),
    "distilbert": Family(
        "distilbert",
        {
            "query": [r".*\.attention\.q_lin"],
            "key": [r".*\.attention\.k_lin"],
            "value": [r".*\.attention\.v_lin"],
            "attention_output": [r".*\.attention\.out_lin"],
            "ffn_in": [r".*\.ffn\.lin1"],
            "ffn_out": [r".*\.ffn\.lin2"],
        },
        ["pre_classifier", "classifier"],
    ),
    "gpt2": Family(
        "gpt2",
        {
            "query_key_value": [r".*\.attn\.c_attn"],
            "attention_output": [r".*\.attn\.c_proj"],
            "ffn_in": [r".*\.mlp\.c_fc"],
            "ffn_out": [r".*\.mlp\.c_proj"],
        },
        ["score"],
    ),
}


def family_of(model_type: str) -> Family:
    """The family of a `config.model_type`; one without roles and heads when we do not know it."""
    return FAMILIES.get(model_type, Family(model_type))


def is_known(model_type: str) -> bool:
    """Whether we know which layers of this model type lie outside its encoder."""
    return model_type in FAMILIES
