"""Accelerated classifiers, whose last layer is computed for first tokens alone."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from family_helpers import model_of
from kernel_helpers import difference, kernels, make_sparse
from torch import nn
from transformers import BertForSequenceClassification

from hydraprune.deploy import accelerate, first_token
from hydraprune.models.classification_head import base_model

FUSED = ["bert", "roberta", "electra", "distilbert", "mpnet"]


@pytest.fixture(autouse=True)
def compiled() -> None:
    kernels()


def sparse_model(kind: str = "bert") -> Any:
    torch.manual_seed(0)
    return make_sparse(model_of(kind))


def texts(model: Any) -> dict[str, torch.Tensor]:
    mask = (torch.arange(29) < torch.tensor([1, 18, 29])[:, None]).long()
    return {"input_ids": torch.randint(2, model.config.vocab_size, mask.shape) * mask, "attention_mask": mask}


@pytest.mark.parametrize("kind", FUSED)
def test_a_classifier_asks_for_first_tokens_and_its_encoder_alone_gives_all(kind: str) -> None:
    model = sparse_model(kind)
    given, fast, seen = texts(model), accelerate(model), []
    base, original = base_model(fast)[1], base_model(model)[1]
    assert base is not None
    assert original is not None
    with torch.no_grad():
        base.register_forward_hook(lambda *given: seen.append(given[-1][0].shape))
        assert difference(fast(**given).logits, model(**given).logits) < 1e-5
        mask = given["attention_mask"][:, :, None]
        wanted = original(**given).last_hidden_state * mask
        assert difference(base(**given).last_hidden_state * mask, wanted) < 1e-5
    hidden = model.config.hidden_size
    assert seen == [(3, 1, hidden), (3, 29, hidden)]


def test_with_return_dict_false_outputs_are_the_same() -> None:
    model = sparse_model()
    given, fast = texts(model), accelerate(model)
    with torch.no_grad():
        wanted, found = model(**given, return_dict=False), fast(**given, return_dict=False)
    assert type(found) is type(wanted)
    assert len(found) == len(wanted)
    assert difference(found[0], wanted[0]) < 1e-5


def test_a_call_that_fails_leaves_nothing_behind() -> None:
    fast = accelerate(sparse_model())
    with pytest.raises(ValueError, match="vocabulary"):
        fast(torch.full((1, 4), 10**6))
    assert not first_token.is_enough(fast.bert)
    with pytest.raises(ValueError, match="no first token"):
        fast(torch.ones(2, 0, dtype=torch.long))
    assert not first_token.is_enough(fast.bert)
    with pytest.raises(TypeError, match="unexpected"), fast.bert.register_forward_pre_hook(raise_error(TypeError)):
        fast(torch.ones(2, 4, dtype=torch.long))
    assert not first_token.is_enough(fast.bert)


def raise_error(error: type[BaseException]) -> Any:
    def hook(*_: Any) -> None:
        raise error("unexpected")

    return hook


def test_a_call_that_is_interrupted_leaves_nothing_behind() -> None:
    """Hooks are not called after Ctrl-C."""
    fast, ids = accelerate(sparse_model()), torch.ones(2, 4, dtype=torch.long)
    for module in (fast, fast.classifier):
        with module.register_forward_pre_hook(raise_error(KeyboardInterrupt)), pytest.raises(KeyboardInterrupt):
            fast(ids)
        assert fast.bert(ids).last_hidden_state.shape[1] == 4


def test_other_models_that_are_called_meanwhile_give_all_tokens() -> None:
    model, other = sparse_model(), accelerate(sparse_model("roberta").roberta)
    given, fast, seen = texts(model), accelerate(model), []

    def hook(*_: Any) -> None:
        for encoder in (other, fast.bert):
            seen.append(encoder(given["input_ids"]).last_hidden_state.shape[1])

    for module in (fast, fast.classifier):
        with module.register_forward_pre_hook(hook), torch.no_grad():
            assert difference(fast(**given).logits, model(**given).logits) < 1e-5
    with fast.bert.register_forward_pre_hook(lambda *_: seen.append(other(given["input_ids"])[0].shape[1])):
        fast(**given)
    assert seen == [29] * 5


def test_copies_are_classifiers_too() -> None:
    model = sparse_model()
    given, fast = texts(model), accelerate(model)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(other(**given).logits, fast(**given).logits)
        assert other.bert(**given).last_hidden_state.shape[1] == 29


class MeanHead(nn.Module):
    """A head of one's own, which reads all tokens."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, 2)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(hidden.mean(1))
        return found


class OwnClassifier(BertForSequenceClassification):  # type: ignore[misc]
    """A class of one's own."""


def with_own_head() -> Any:
    model = sparse_model("roberta")
    model.classifier = MeanHead(model.config.hidden_size)
    return model


def with_own_pooler() -> Any:
    model = sparse_model()
    model.bert.pooler = MeanHead(model.config.hidden_size)
    model.classifier = nn.Linear(2, 2)
    return model


def with_own_class() -> Any:
    model = sparse_model()
    own = OwnClassifier(model.config).eval()
    own.load_state_dict(model.state_dict())
    return own


def with_a_layer_for_its_head() -> Any:
    model = sparse_model("roberta")
    model.classifier = nn.Linear(model.config.hidden_size, 2)
    return model


def with_own_forward() -> Any:
    model = sparse_model()
    forward = model.bert.pooler.forward
    model.bert.pooler.forward = lambda hidden: forward(hidden)
    return model


OWN = [with_own_head, with_own_pooler, with_own_class, with_a_layer_for_its_head, with_own_forward]


@pytest.mark.parametrize("change", OWN)
def test_whatever_may_read_other_tokens_gets_them(change: Any) -> None:
    model = change()
    given = texts(model)
    # All of one length: behind the end of a text hidden states are 0, where the original has something else.
    given = {"input_ids": given["input_ids"][2:]}
    fast, seen = accelerate(model), []
    base = base_model(fast)[1]
    assert base is not None
    base.register_forward_hook(lambda *given: seen.append(given[-1][0].shape[1]))
    with torch.no_grad():
        assert difference(fast(**given).logits, model(**given).logits) < 1e-5
    assert seen == [29]


def give_own_head(model: Any) -> None:
    torch.manual_seed(1)
    model.classifier = MeanHead(model.config.hidden_size)


def give_own_forward(model: Any) -> None:
    model.classifier.forward = lambda hidden: hidden.mean(1)


def give_hook(model: Any) -> None:
    model.classifier.register_forward_pre_hook(lambda _, given: (given[0].mean(1, keepdim=True),))


@pytest.mark.parametrize("give", [give_own_head, give_own_forward, give_hook])
@pytest.mark.parametrize("is_before", [True, False])
def test_a_head_that_is_changed_before_or_after_gets_all_tokens(give: Any, is_before: bool) -> None:
    model = sparse_model("roberta")
    given = {"input_ids": texts(model)["input_ids"][2:]}
    if is_before:
        give(model)
    fast = accelerate(model)
    if not is_before:
        give(model)
        give(fast)
    with torch.no_grad():
        assert difference(fast(**given).logits, model(**given).logits) < 1e-5
