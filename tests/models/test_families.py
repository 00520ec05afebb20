"""Model families: roles and outside modules of the built-in ones, families of the user, and position limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from data_helpers import encoded_of
from family_helpers import save_checkpoint
from model_helpers import KINDS, TWO_CLASSES, small_model
from torch import nn
from transformers import BertTokenizer

from hydraprune.config import instantiate
from hydraprune.data.examples import Examples, TaskData
from hydraprune.errors import UserError
from hydraprune.models import ModelFamily
from hydraprune.models.attention import choose_attention
from hydraprune.models.compact_embedding import compact
from hydraprune.models.families import (
    FAMILIES,
    attach_family,
    family_of,
    family_of_model,
    max_positions,
)
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.models.tiny import TinyModel
from hydraprune.models.tokenizer_checks import check_tokenizer
from hydraprune.sparsity import Exp, Layers, Magnitude, Plans, block

MPNET = ModelFamily(
    "mpnet",
    roles={
        "query": r".*\.attention\.attn\.q",
        "key": r".*\.attention\.attn\.k",
        "value": r".*\.attention\.attn\.v",
        "attention_output": r".*\.attention\.attn\.o",
        "ffn_in": r".*\.intermediate\.dense",
        "ffn_out": r".*\.layer\.\d+\.output\.dense",
    },
    outside=["classifier.dense", "classifier.out_proj"],
)


def plans(layers: Layers = Layers()) -> Plans:  # noqa: B008 frozen
    plan = block(4, 1, 0.5, layers=layers).parts["4x1"].completed(Magnitude(), Exp())
    return Plans("4x1", {"4x1": plan})


def roles_of(model: nn.Module, family: ModelFamily) -> set[str | None]:
    (pruner,) = instantiate.pruners(plans(), model, 10, 5)
    return {family.role_of(weight.name.removesuffix(".weight")) for weight in pruner.weights}


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_is_pruned_and_nothing_outside(kind: str) -> None:
    model, family = small_model(kind), FAMILIES[kind]
    (pruner,) = instantiate.pruners(plans(), model, 10, 5)
    assert len(pruner.weights) == 2 * (4 if kind == "gpt2" else 6)
    assert roles_of(model, family) == set(family.roles)
    names = {name for name, _ in model.named_modules()}
    assert set(family_of_model(model).outside) < names


@pytest.mark.parametrize("kind", KINDS)
def test_the_attention_dropout_of_a_family_is_a_field_of_its_config(kind: str) -> None:
    field = FAMILIES[kind].attention_dropout
    assert field is None or hasattr(small_model(kind).config, field)


class UnknownConfig:
    model_type = "elsewhere"


def test_a_model_without_numbered_blocks_needs_its_layers_named() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model.config = UnknownConfig()
    assert family_of("elsewhere") is None
    with pytest.raises(UserError, match=r"no linear layers in numbered blocks.*pattern\.layers\.include"):
        instantiate.pruners(plans(), model, 10, 5)
    (pruner,) = instantiate.pruners(plans(Layers(include=["^0$"])), model, 10, 5)
    assert [weight.name for weight in pruner.weights] == ["0.weight"]


def test_a_family_of_the_user_applies_to_the_models_it_names() -> None:
    assert family_of("mpnet") is None
    assert family_of("mpnet", MPNET) is MPNET
    assert family_of("bert", MPNET) is FAMILIES["bert"]
    model, bert = small_model("mpnet"), small_model("bert")
    for loaded in (model, bert):
        attach_family(loaded, MPNET)
    assert family_of_model(model) is MPNET
    assert family_of_model(bert).roles == FAMILIES["bert"].roles
    assert roles_of(model, MPNET) == set(MPNET.roles)


def test_a_family_of_the_user_keeps_its_attention_and_embedding() -> None:
    model = small_model("mpnet")
    attach_family(model, MPNET)
    attention, embedding = model.config._attn_implementation, model.get_input_embeddings()  # type: ignore[union-attr, operator]
    choose_attention(model, torch.device("cpu"))
    assert not compact(model, torch.optim.AdamW, [encoded_of([3, 4])])
    assert model.config._attn_implementation == attention  # type: ignore[union-attr]
    assert model.get_input_embeddings() is embedding  # type: ignore[operator]


def test_a_role_of_the_user_comes_before_those_that_are_found() -> None:
    model = small_model("mpnet")
    attach_family(model, ModelFamily("mpnet", roles={"mine": [r".*\.layer\.\d+\..*dense"]}))
    (pruner,) = instantiate.pruners(plans(Layers(roles=["mine"])), model, 10, 5)
    assert len(pruner.weights) == 4
    assert family_of_model(model).role_of("mpnet.encoder.layer.0.attention.attn.q") == "query"


@pytest.fixture
def mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose position embedding has 130 rows, of which 128 are for tokens."""
    tokenizer = TinyModel("tiny", 32, 1, 2, 32).tokenizer()
    model = small_model("mpnet", vocabulary=len(tokenizer), max_position_embeddings=130)
    folder = tmp_path_factory.mktemp("mpnet")
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    return folder


def test_a_loaded_model_has_the_family_of_its_source(mpnet: Path) -> None:
    source = PretrainedModel("mpnet", str(mpnet), family=MPNET)
    assert family_of_model(source.load()) is family_of_model(source.blueprint()) is MPNET
    assert family_of_model(PretrainedModel("mpnet", str(mpnet)).load()).roles.keys() == MPNET.roles.keys()
    source.load().save_pretrained(mpnet / "again")  # type: ignore[operator]
    assert "family" not in (mpnet / "again" / "config.json").read_text()


POSITIONS = {"bert": 40, "distilbert": 40, "gpt2": 40, "electra": 40, "roberta": 38, "mpnet": 38}


@pytest.mark.parametrize("kind", POSITIONS)
def test_the_longest_input_is_computed_and_a_longer_one_is_not(kind: str) -> None:
    model = small_model(kind, max_position_embeddings=40).eval()
    longest = max_positions(model)
    assert longest == POSITIONS[kind]
    model(input_ids=torch.full((1, longest), 3))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 3))


def texts(count: int = 4) -> TaskData:
    examples = Examples([("the film was good",)] * count, [0, 1] * (count // 2))
    return TaskData(examples, {"validation": examples}, TWO_CLASSES)


def test_a_tokenizer_must_fit_its_model() -> None:
    tiny = TinyModel("tiny", 32, 1, 2, 32)
    tokenizer, model = tiny.tokenizer(), tiny.blueprint(TWO_CLASSES)
    check_tokenizer("model", "tiny", tokenizer, texts(), model, 128)
    with pytest.raises(UserError, match=r"task\.max_length=129: model=tiny has 128 positions; give at most that"):
        check_tokenizer("model", "tiny", tokenizer, texts(), model, 129)
    narrow = small_model("bert", vocabulary=9)
    with pytest.raises(UserError, match=r"model=tiny: its tokenizer has \d+ tokens, its model only 9"):
        check_tokenizer("model", "tiny", tokenizer, texts(), narrow, 64)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    foreign = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    with pytest.raises(UserError, match="does not know most words of the task; check its vocabulary files"):
        check_tokenizer("model", "tiny", foreign, texts(), model, 64)


MODEL = ("model=bert_mini", "model.name=mpnet")
FAMILY = [
    "+model.family._target_=hydraprune.models.ModelFamily",
    "+model.family.name=mpnet",
    *(f"+model.family.roles.{role}=['{patterns[0]}']" for role, patterns in MPNET.roles.items()),
    f"+model.family.outside=[{','.join(MPNET.outside)}]",
]


def words_of(small: tuple[str, ...]) -> list[str]:
    return [word for word in small if not word.startswith("model=")]


def test_too_long_inputs_are_refused_in_one_line_for_any_family(
    mpnet: Path, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = [*words_of(small), *MODEL, f"model.path={mpnet}", "pattern.layers.include=[encoder]"]
    refused = train(*words, "task.max_length=129")
    assert refused.code == 2, refused.err
    assert refused.err.count("\n") == 1
    assert "task.max_length=129: model=mpnet has 128 positions; give at most that" in refused.err
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("pattern", ["heads", "mixed"])
def test_patterns_by_role_prune_a_family_of_the_user(
    pattern: str, mpnet: Path, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    finished = train(
        *words_of(small), *MODEL, f"model.path={mpnet}", *FAMILY, f"pattern={pattern}", "training.epochs=2",
        "task.train_examples=96", "scheduler.warmup=1", "scheduler.cooldown=1", "scheduler.frequency=1",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    assert list(workplace.glob(f"outputs/toy/mpnet/{pattern}/*/report.json"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("modernbert", ["pattern=mixed"]),
        ("gpt2", ["pattern=heads"]),
        ("bloom", ["pattern=heads", "distill=logits"]),
        ("llama", ["pattern=ffn_channels"]),
        ("t5", ["pattern=2:4", "distill=logits"]),
        ("convbert", ["pattern=4x1"]),
    ],
)
def test_a_family_that_nothing_is_said_about_is_pruned_by_its_path(
    kind: str, words: list[str], train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    save_checkpoint(workplace / "mine", kind)
    finished = train(
        *words_of(small), "model.path=mine", "task.max_length=24", *words, "training.epochs=2",
        "task.train_examples=96", "scheduler.warmup=1", "scheduler.cooldown=1", "scheduler.frequency=1",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    (report,) = [
        json.loads(path.read_text())
        for path in workplace.glob("outputs/toy/mine/*/*/report.json")
        if "dense" not in path.parts
    ]
    assert report["pattern_ok"]
    assert report["recipe"]["name"] is None
