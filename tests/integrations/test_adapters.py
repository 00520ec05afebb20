"""LoRA on a pruned model, where the package peft is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family_helpers import model_of
from sparsity_helpers import plan_of
from torch import nn

from hydraprune.integrations.adapters import mask_adapters
from hydraprune.models.families import family_of_model
from hydraprune.sparsity import Magnitude, OneShot, Pruner, SparsityError, attach, block

peft = pytest.importorskip("peft")
# The layers of attention, of each family.
TARGETS = {"bert": ["query", "value"], "gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}
IDS = torch.randint(5, 50, (4, 8), generator=torch.Generator().manual_seed(0))


def pruned(kind: str) -> tuple[nn.Module, Pruner]:
    torch.manual_seed(0)
    model = model_of(kind)
    plans = block(rows=4, cols=1, target_sparsity=0.5)
    (pruner,) = attach(model, {"4x1": plan_of(plans, Magnitude(), OneShot())}, family_of_model(model), steps=0)
    assert pruner.project(0)
    return model, pruner


def adapted(model: nn.Module, kind: str, **more: Any) -> Any:
    config = peft.LoraConfig(
        target_modules=TARGETS[kind], r=4, task_type="SEQ_CLS", fan_in_fan_out=kind == "gpt2", **more
    )
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_a_trained_adapter_keeps_the_zeros(kind: str) -> None:
    model, pruner = pruned(kind)
    masks = {name: mask.clone() for name, mask in pruner.masks_in_force.items()}
    peft_model = adapted(model, kind)
    adapters = mask_adapters(peft_model, [pruner])
    optimizer = torch.optim.AdamW([p for p in peft_model.parameters() if p.requires_grad], 1e-2)
    for _ in range(5):
        peft_model(input_ids=IDS, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    peft_model.eval()
    with torch.no_grad():
        before = peft_model(input_ids=IDS).logits
        with peft_model.disable_adapter():
            plain = peft_model(input_ids=IDS).logits
        merged = adapters.merge(peft_model)
        after = merged.eval()(input_ids=IDS).logits
    assert not torch.allclose(before, plain, atol=1e-3), "the adapter has learned something"
    assert torch.allclose(before, after, atol=1e-5)
    weights = dict(merged.named_parameters())
    for name, mask in masks.items():
        assert bool((weights[name][~mask] == 0).all()), name


def test_without_masks_the_zeros_are_lost() -> None:
    model, pruner = pruned("bert")
    peft_model = adapted(model, "bert", init_lora_weights=False)
    merged = peft_model.merge_and_unload()
    name = next(name for name in pruner.masks_in_force if "query" in name)
    weight = dict(merged.named_parameters())[name]
    assert bool((weight[~pruner.masks_in_force[name]] != 0).any())


def test_what_does_not_fit_is_refused() -> None:
    model, pruner = pruned("bert")
    with pytest.raises(SparsityError, match="no adapter of the model is on a weight"):
        mask_adapters(model, [pruner])
    with pytest.raises(SparsityError, match=r"drops inputs at random: give LoraConfig\(lora_dropout=0\.0\)"):
        mask_adapters(adapted(model, "bert", lora_dropout=0.1), [pruner])
    other, pruner = pruned("bert")
    with pytest.raises(SparsityError, match="is a variant of LoRA"):
        mask_adapters(adapted(other, "bert", use_dora=True), [pruner])


def test_attaching_to_a_model_with_adapters_is_refused() -> None:
    peft_model = adapted(model_of("bert"), "bert")
    plan = plan_of(block(rows=4, cols=1, target_sparsity=0.5), Magnitude(), OneShot())
    with pytest.raises(SparsityError, match=r"is a layer with an adapter.*mask_adapters; or merge them first"):
        attach(peft_model, {"4x1": plan}, family_of_model(model_of("bert")), steps=0)
