"""Accelerated models: the outputs of the model that they were made from, in the places where that one is used."""

from __future__ import annotations

import copy
import importlib
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from family_helpers import SIZES, model_of, save_checkpoint
from kernel_helpers import difference, kernels, make_sparse, sparse_weight
from torch import nn
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification, BertConfig, BertModel, pipeline

from hydraprune.deploy import Acceleration, ExportOptions, accelerate, export_model
from hydraprune.deploy.dense_bf16 import multiplies_tiles
from hydraprune.deploy.encoder_modules import ENCODERS
from hydraprune.deploy.fused_encoder import FusedEncoder
from hydraprune.deploy.sparse_linear import SparseLinear
from hydraprune.errors import UserError
from hydraprune.kernels.structures import Structures
from hydraprune.models.encoder_layers import encoder_layers
from hydraprune.models.families import FAMILIES
from hydraprune.sparsity import native_code

FUSED = ["bert", "roberta", "electra", "distilbert", "mpnet"]
LAYER_BY_LAYER = ["gpt2", "albert", "modernbert", "deberta-v2", "convbert", "llama", "gpt_neox"]


@pytest.fixture
def compiled() -> None:
    kernels()


def inputs(vocabulary: int, types: bool = False) -> dict[str, torch.Tensor]:
    """Three texts of 1, 18 and 29 tokens, padded with id 0."""
    mask = (torch.arange(29) < torch.tensor([1, 18, 29])[:, None]).long()
    ids = torch.randint(2, vocabulary, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask}


def sparse_model(kind: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    return make_sparse(model_of(kind, **more))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", FUSED)
def test_a_fused_model_has_the_same_outputs(kind: str) -> None:
    model = sparse_model(kind)
    given = inputs(model.config.vocab_size)
    fast = accelerate(model)
    assert fast.acceleration.way == "fused"
    assert fast.acceleration.why is None
    with torch.no_grad():
        wanted, found = model(**given), fast(**given)
    assert type(found) is type(wanted)
    assert difference(found.logits, wanted.logits) < 1e-5
    labels = torch.tensor([0, 1, 1])
    with torch.no_grad():
        assert torch.allclose(fast(**given, labels=labels).loss, model(**given, labels=labels).loss, rtol=1e-4)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", LAYER_BY_LAYER)
def test_another_model_is_accelerated_layer_by_layer(kind: str) -> None:
    model = sparse_model(kind)
    given = inputs(model.config.vocab_size)
    fast = accelerate(model)
    assert fast.acceleration.way == "layer by layer"
    assert fast.acceleration.layers > 0
    assert f"model_type {kind}" in str(fast.acceleration.why)
    with torch.no_grad():
        assert difference(fast(**given).logits, model(**given).logits) < 1e-4


class Doubled(nn.Module):
    """A layer around another, as an adapter is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled: torch.Tensor = 2 * self.inner(x)
        return doubled


def with_adapter(model: Any) -> None:
    model.bert.encoder.layer[0].output.dense = Doubled(model.bert.encoder.layer[0].output.dense)


def with_another_epsilon(model: Any) -> None:
    model.bert.embeddings.LayerNorm.eps = 1e-3


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("fields", "change", "why"),
    [
        ({"output_hidden_states": True}, None, "asks for the states of all layers"),
        ({"hidden_act": "silu"}, None, "its activation silu is none of gelu, "),
        ({"hidden_size": 36}, None, "heads have an odd size"),
        ({}, with_adapter, "not made of plain linear layers"),
        ({}, with_another_epsilon, "several epsilons"),
    ],
)
def test_what_the_kernels_do_not_compute_is_not_fused(fields: dict[str, Any], change: Any, why: str) -> None:
    model = sparse_model("bert", **fields)
    if change is not None:
        change(model)
    fast = accelerate(model)
    assert fast.acceleration.way == "layer by layer"
    assert why in str(fast.acceleration.why)
    given = inputs(model.config.vocab_size)
    with torch.no_grad():
        assert difference(fast(**given).logits, model(**given).logits) < 1e-5


class Shifted(BertModel):
    """A forward pass of its own."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        output = super().forward(*arguments, **named)
        output.last_hidden_state = output.last_hidden_state + 0.05
        return output


def with_hook(model: Any) -> None:
    model.bert.encoder.layer[1].register_forward_hook(lambda module, given, output: output * 1.05)


def with_another_activation(model: Any) -> None:
    model.bert.encoder.layer[0].intermediate.intermediate_act_fn = nn.Tanh()


def with_another_class(model: Any) -> None:
    model.bert.__class__ = Shifted


def with_more_in_a_norm(model: Any) -> None:
    model.bert.encoder.layer[0].output.LayerNorm = Doubled(model.bert.encoder.layer[0].output.LayerNorm)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("change", [with_hook, with_another_activation, with_another_class, with_more_in_a_norm])
def test_a_model_that_computes_more_than_its_kind_is_not_fused(change: Any) -> None:
    model = sparse_model("bert").train()
    change(model)
    fast = accelerate(model)
    assert model.training
    assert fast.acceleration.way == "layer by layer"
    assert "the outputs differ by" in fast.acceleration.why or "normalisations" in fast.acceleration.why
    given = inputs(model.config.vocab_size)
    with torch.no_grad():
        assert difference(fast(**given).logits, model.eval()(**given).logits) < 1e-5


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_memory_that_moves_is_followed(kind: str) -> None:
    """`share_memory_`, which `torch.multiprocessing` calls, gives tensors other memory."""
    model = sparse_model(kind)
    fast = accelerate(model)
    given = inputs(model.config.vocab_size)
    before = fast(**given).logits
    model.share_memory()
    assert torch.equal(fast(**given).logits, before)
    for module in fast.modules():
        for kernel in (getattr(module, "kernel", None), getattr(module, "encoder", None)):
            for tensor in getattr(kernel, "_structures", Structures()).kept:
                if isinstance(tensor, torch.Tensor):
                    tensor.share_memory_()
    assert torch.equal(fast(**given).logits, before)


@pytest.mark.usefixtures("compiled")
def test_layer_by_layer_refuses_gradients_and_shows_weights() -> None:
    model = sparse_model("gpt2")
    fast = accelerate(model)
    embedded = torch.randn(1, 4, 32)
    with torch.no_grad():
        wanted = model(inputs_embeds=embedded).logits
    assert difference(fast(inputs_embeds=embedded).logits, wanted) < 1e-5
    with pytest.raises(UserError, match="computes no gradients"):
        fast(inputs_embeds=embedded.requires_grad_())
    replaced = [module for module in fast.modules() if isinstance(module, SparseLinear)]
    assert replaced
    assert replaced[0].weight.shape == (replaced[0].out_features, replaced[0].in_features)
    assert replaced[0].bias.shape == (replaced[0].out_features,)


@pytest.mark.usefixtures("compiled")
def test_a_layer_that_is_looked_at_by_its_model() -> None:
    """T5 reads the type of a weight."""
    torch.manual_seed(0)
    model = make_sparse(model_of("t5"), 4, 0.1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("wo.weight", "wi.weight")):
                parameter.copy_(sparse_weight(*parameter.shape, 4, 0.1))
    ids = torch.tensor([[5, 6, 7, model.config.eos_token_id]])
    fast = accelerate(model)
    assert fast.acceleration.layers > 0
    with torch.no_grad():
        assert difference(fast(ids).logits, model(ids).logits) < 1e-4


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", ["distilbert", "mpnet"])
def test_token_types_are_ignored_where_the_model_has_none(kind: str) -> None:
    fast = accelerate(sparse_model(kind))
    base = getattr(fast, fast.base_model_prefix)
    ids = torch.ones(1, 6, dtype=torch.long)
    assert torch.equal(base(ids, token_type_ids=ids * 0).last_hidden_state, base(ids).last_hidden_state)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("fields", [{"vocab_size": 1}, {"max_position_embeddings": 1}, {"max_position_embeddings": 3}])
def test_few_words_and_positions(fields: dict[str, int]) -> None:
    model = sparse_model("bert", **fields)
    ids = torch.zeros(2, 1, dtype=torch.long)
    for precision in ("fp32", "bf16"):
        with torch.no_grad():
            assert difference(accelerate(model, precision)(ids).logits, model(ids).logits) < 0.05


def test_every_known_family_is_tried() -> None:
    assert set(FAMILIES) - {"gpt2"} <= set(ENCODERS)
    assert {*FUSED, *LAYER_BY_LAYER} <= set(SIZES)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("head", [AutoModelForTokenClassification, AutoModelForQuestionAnswering])
def test_other_heads(head: Any) -> None:
    torch.manual_seed(0)
    model = make_sparse(head.from_config(BertConfig(vocab_size=60, **SIZES["bert"])).eval())
    given = inputs(60)
    kept = given["attention_mask"].bool()
    with torch.no_grad():
        wanted, found = model(**given), accelerate(model)(**given)
    for name in wanted.keys() & {"logits", "start_logits", "end_logits"}:
        assert difference(found[name][kept], wanted[name][kept]) < 1e-5


@pytest.mark.usefixtures("compiled")
def test_a_base_model_alone() -> None:
    base = sparse_model("bert").bert
    given = inputs(base.config.vocab_size)
    fast = accelerate(base)
    kept = given["attention_mask"].bool()
    with torch.no_grad():
        wanted, found = base(**given), fast(**given)
        assert isinstance(fast(**given, return_dict=False), tuple)
    assert difference(found.last_hidden_state[kept], wanted.last_hidden_state[kept]) < 1e-5
    assert difference(found.pooler_output, wanted.pooler_output) < 1e-5
    assert not found.last_hidden_state[~kept].any()


@pytest.mark.usefixtures("compiled")
def test_a_saved_model_in_a_pipeline(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "bert")
    texts = ["the film was good", "a bad story", "good"]
    plain = pipeline("text-classification", model=str(tmp_path))
    fast = pipeline("text-classification", model=accelerate(tmp_path), tokenizer=plain.tokenizer)
    for batch_size in (1, 3):
        for one, other in zip(plain(texts), fast(texts, batch_size=batch_size), strict=True):
            assert one["label"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
    features = pipeline("feature-extraction", model=accelerate(tmp_path).bert, tokenizer=plain.tokenizer)
    assert len(features("the film was good")[0][0]) == 32


@pytest.mark.usefixtures("compiled")
def test_the_original_stays_as_it_is() -> None:
    model = sparse_model("bert")
    before = copy.deepcopy(model.state_dict())
    training = model.train().training
    fast = accelerate(model)
    assert not fast.training
    assert model.training == training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any("encoder.layer" in name for name, _ in fast.named_parameters())
    assert fast.config.id2label == model.config.id2label


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", FUSED)
def test_layers_without_some_heads_and_channels(kind: str) -> None:
    model = sparse_model(kind)
    layers = encoder_layers(model)
    layers[0].keep_heads([1, 3])
    layers[1].keep_channels(range(5, 40))
    given = inputs(model.config.vocab_size)
    fast = accelerate(model)
    assert fast.acceleration.way == ("layer by layer" if kind == "mpnet" else "fused")
    with torch.no_grad():
        assert difference(fast(**given).logits, model(**given).logits) < 1e-5


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_another_type_give_their_type(dtype: torch.dtype) -> None:
    model = sparse_model("bert").to(dtype)
    given = inputs(model.config.vocab_size)
    found = accelerate(model)(**given).logits
    assert found.dtype == dtype
    with torch.no_grad():
        assert difference(found, model(**given).logits) < 0.03


@pytest.mark.usefixtures("compiled")
def test_bfloat16_or_a_line_that_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = sparse_model("bert")
    fast = accelerate(model, "bf16")
    given = inputs(model.config.vocab_size)
    with torch.no_grad():
        assert difference(fast(**given).logits, model(**given).logits) < 0.03
    if multiplies_tiles():
        assert "the fastest on this processor with AMX, in ms of a text: fused fp32 " in caplog.text
    elif kernels().bf16:
        assert "accelerate: fused, bf16, kernels for AVX-512 BF16 in 12 layers" in caplog.text
    else:
        assert "fp32" in caplog.text
        assert "has no AVX-512 BF16" in caplog.text


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "best",
    [
        ("FusedEncoder", "fp32"),
        ("FusedEncoder", "bf16"),
        ("FusedEncoder", "fp32 with attention in bf16"),
        ("DenseBfloat16", "bf16"),
    ],
)
def test_with_amx_the_fastest_is_taken(best: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels().bf16:
        pytest.skip("this processor has no AVX-512 BF16")
    kind, precision = best
    if "attention" in precision and not kernels().amx:
        pytest.skip("this processor has no AMX")

    def seconds_of_one(base: Any) -> float:
        own = base.encoder.weights.precision if isinstance(base, FusedEncoder) else "bf16"
        if isinstance(base, FusedEncoder) and base.encoder.attention != own:
            own += f" with attention in {base.encoder.attention}"
        return 0.001 if (type(base).__name__, own) == best else 0.002

    def seconds_of(sides: dict[Any, Any]) -> dict[Any, float]:
        return {side: seconds_of_one(base) for side, base in sides.items()}

    module = importlib.import_module("hydraprune.deploy.acceleration")
    monkeypatch.setattr(module, "multiplies_tiles", lambda: True)
    monkeypatch.setattr(module, "seconds_of", seconds_of)
    model = sparse_model("bert", hidden_size=32, num_attention_heads=2)
    fast = accelerate(model, "bf16")
    assert type(fast.bert).__name__ == kind
    assert fast.acceleration.precision == precision
    assert f"{precision} 1.00" in fast.acceleration.why
    given = inputs(model.config.vocab_size)
    with torch.no_grad():
        found = fast(**given).logits
        assert found.dtype == torch.float32
        assert difference(found, model(**given).logits) < 0.05


def test_without_a_compiler_pytorch_computes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(native_code, "compiler", lambda: None)
    model = sparse_model("bert")
    fast = accelerate(model)
    given = inputs(model.config.vocab_size)
    with torch.no_grad():
        assert torch.equal(fast(**given).logits, model(**given).logits)
    assert "accelerate: torch, fp32, 7" in caplog.text
    assert "(no kernels: no C compiler on PATH)" in caplog.text


@pytest.mark.usefixtures("compiled")
def test_a_dense_model_is_said_to_be_one(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = model_of("bert")
    fast = accelerate(model)
    assert "0% of the weights are zero; a model with so few is as fast in a dense engine" in caplog.text
    assert fast.acceleration == Acceleration("fused", "fp32", kernels().instructions, 0.0, 12)


@pytest.mark.usefixtures("compiled")
def test_arguments_that_the_kernels_do_not_know() -> None:
    fast = accelerate(sparse_model("bert"))
    ids = torch.ones(1, 6, dtype=torch.long)
    usual = torch.arange(6)[None]
    assert torch.equal(fast(ids, position_ids=usual).logits, fast(ids).logits)
    for name, value in (
        ("output_attentions", True),
        ("output_hidden_states", True),
        ("inputs_embeds", torch.zeros(1, 6, 32)),
        ("position_ids", usual + 1),
    ):
        with pytest.raises(UserError, match=rf"^{name}=.*: is not known to an accelerated model; use the model"):
            fast(ids, **{name: value})
    with pytest.raises(UserError, match="input_ids"):
        fast(attention_mask=ids)
    with pytest.raises(UserError, match="cannot be saved; save the model that it was made from"):
        fast.save_pretrained("x")
    with pytest.raises(UserError, match="cannot be saved; save the model that it was made from"):
        accelerate(sparse_model("bert").bert).save_pretrained("x")
    with pytest.raises(UserError, match="cannot be traced"):
        torch.jit.trace(fast, (ids,), strict=False)
    with pytest.raises(UserError, match="position_ids"):
        fast(ids, position_ids=torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="are integers, not torch"):
        fast(ids.float())
    kept = torch.tensor([[0.5, 1, 1, 1, 1, 0.0]])
    assert torch.equal(fast(ids, attention_mask=kept).logits, fast(ids, attention_mask=kept != 0).logits)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model=.*: "):
        accelerate(tmp_path / "none")
    with pytest.raises(UserError, match="model=Linear: is no Hugging Face model"):
        accelerate(nn.Linear(2, 2))
    with pytest.raises(UserError, match="precision=int8: must be fp32 or bf16"):
        accelerate(tmp_path, "int8")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="model=null: must be a model, a folder or a hub id"):
        accelerate(None)  # type: ignore[arg-type]
    with torch.device("meta"), pytest.raises(UserError, match="has weights without values"):
        accelerate(model_of("bert"))
    broken = sparse_model("bert")
    with torch.no_grad():
        broken.bert.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"1 of its weights hold NaN or infinity, bert\.encoder.layer.0.output"):
        accelerate(broken)


@pytest.mark.usefixtures("compiled")
def test_a_model_that_was_accelerated_already(tmp_path: Path) -> None:
    fast = accelerate(sparse_model("bert"))
    given = inputs(40)
    again = copy.deepcopy(fast)
    assert torch.equal(again(**given).logits, fast(**given).logits)
    assert again.acceleration == fast.acceleration
    with pytest.raises(UserError, match="is accelerated already"):
        accelerate(fast)


@pytest.mark.usefixtures("compiled")
def test_a_compact_export_is_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", "bert")
    exported = export_model(str(tmp_path / "model"), ExportOptions(to="compact", out=str(tmp_path / "compact")))
    given = inputs(25)
    assert torch.equal(accelerate(exported.folder)(**given).logits, accelerate(tmp_path / "model")(**given).logits)
