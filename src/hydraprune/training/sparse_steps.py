"""Sparse steps: training steps whose products are of live blocks alone, where that is exact and pays.

A masked weight is 0, so it adds nothing to the outputs of its layer and nothing to the gradients of its inputs. Its own
gradient matters to the optimizer's state of that weight alone, unless something reads gradients of pruned weights: a
criterion that could bring them back, the norm by which gradients are clipped, an optimizer that mixes entries.

Once masks are final, the optimizer's state of masked weights is dropped: it moves packed weights, those of live blocks
alone, and masked weights stay 0 by themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from hydraprune.kernels.live_blocks import LiveBlocks
from hydraprune.sparsity import Pruner
from hydraprune.training.settings import Settings

log = logging.getLogger(__name__)

# Optimizers that move every weight by its own gradients alone.
_ENTRY_BY_ENTRY = (SGD, Adagrad, Adam, AdamW, NAdam, RAdam, RMSprop)


class Layers(Protocol):
    """Layers of a model that can be computed over live blocks; `hydraprune.models.live_layers.LiveLayers` are some."""

    def use(self, live: Mapping[int, Tensor] | None) -> None:
        """Compute live blocks alone from now on, by the kernels; with None, let the layers compute as they are.

        Args:
            live: id of a weight -> bool mask like it; a weight that is not in it is live as a whole.
        """

    def share(self, live: Mapping[int, Tensor]) -> float:
        """The share of weights in live blocks; `live` as of `use`."""

    @property
    def weights(self) -> list[Tensor]:
        """Those that may be live in part."""

    def pack(self) -> list[tuple[Tensor, LiveBlocks]]:
        """Train packed weights from now on: each weight, and its live blocks, whose `values` are the new leaf."""

    def unpack(self) -> None:
        """Write the values of packed weights into the model."""


@dataclass
class Pace:
    """Steps of one kind, the tokens that they read (padding included), and the seconds that they took."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


class SparseSteps:
    """Switches the layers of a model between dense and sparse steps as masks change, and counts both.

    Args:
        layers: of the model; None: PyTorch computes every step.
        pruners: of the training.
        switch_density: share of weights in live blocks up to which the kernels compute a step; at 1 dense steps too.
        optimizer: of the training; None: it keeps moving whole weights.
        exact: whether a step may leave out masked weights; otherwise every step is dense.
    """

    def __init__(
        self,
        layers: Layers | None,
        pruners: Sequence[Pruner] = (),
        switch_density: float = 0.0,
        optimizer: Optimizer | None = None,
        exact: bool = True,
    ) -> None:
        self.layers, self.pruners, self.switch_density = layers, tuple(pruners), switch_density
        self.optimizer, self.exact = optimizer, exact
        self.active = False  # whether steps leave out weights
        self.packed = False  # whether the optimizer moves packed weights, so that pruners have nothing left to do
        self.dense, self.sparse = Pace(), Pace()
        self.revived = 0  # weights that came back in an update after sparse steps
        self._live: dict[int, Tensor] = {}
        self._used: dict[int, Tensor] | None = None  # what the layers compute by the kernels

    def follow(self, step: int) -> None:
        """Take over the masks in force; call it when training starts or resumes, and after every update.

        A weight that comes back after sparse steps starts with an optimizer state that lacks the gradients of those
        steps. It is counted, and steps are dense from then on until the masks are final.

        Args:
            step: optimizer steps taken.
        """
        if self.layers is None or self.packed:
            return
        masks = self._masks() if self.exact else {}
        if self.active and (revived := self._revived(masks)):
            log.warning("step %d: %d pruned weights came back; steps are dense until masks are final", step, revived)
            self.revived += revived
        self._live = masks
        live = {} if self.revived and step < self._last else masks
        share = self.layers.share(live)
        used = live if share <= self.switch_density else None
        # Layers that are whole before and after need no new blocks.
        if used != {} or self._used != {}:
            self.layers.use(used)
        self._used, self.active = used, used is not None and share < 1
        if self.active and step >= self._packing_step and self.optimizer is not None:
            self._pack(self.layers, self.optimizer)

    def is_due(self, step: int) -> bool:
        """Whether `follow` has to be called at `step` though no mask was updated."""
        return step == self._packing_step

    @property
    def _last(self) -> int:
        """The step of the last update."""
        return max((pruner.updates.last for pruner in self.pruners), default=0)

    @property
    def _packing_step(self) -> int:
        # Regularizers act until the step after the last update.
        return self._last + 2 if self.pruners else -1

    def _pack(self, layers: Layers, optimizer: Optimizer) -> None:
        """Let the optimizer move packed weights, with the state that it has of them."""
        if not self._live.keys() <= {id(weight) for weight in layers.weights}:
            return  # weights elsewhere are masked too
        packed = {id(weight): (weight, blocks) for weight, blocks in layers.pack()}
        for group in optimizer.param_groups:
            for index, parameter in enumerate(group["params"]):
                if id(parameter) not in packed:
                    continue
                weight, blocks = packed[id(parameter)]
                weight.grad, group["params"][index] = None, blocks.values
                if (state := optimizer.state.pop(parameter, None)) is not None:
                    optimizer.state[blocks.values] = {
                        name: blocks.gather_live(value) if _is_like(value, weight) else value
                        for name, value in state.items()
                    }
        self.packed = True

    def write(self) -> None:
        """Write packed weights into the model; call it before anything reads the model's weights."""
        if self.layers is not None and self.packed:
            self.layers.unpack()

    def _masks(self) -> dict[int, Tensor]:
        """id of a weight -> its mask, of the weights that have one."""
        found: dict[int, Tensor] = {}
        for pruner in self.pruners:
            masks = pruner.masks_in_force
            found |= {id(w.parameter): masks[w.name] for w in pruner.weights if w.name in masks}
        return found

    def _revived(self, live: Mapping[int, Tensor]) -> int:
        return sum(int((mask & ~self._live[key]).sum()) for key, mask in live.items() if key in self._live)

    def count(self, tokens: int, seconds: float) -> None:
        """Count a step."""
        pace = self.sparse if self.active else self.dense
        pace.steps += 1
        pace.tokens += tokens
        pace.seconds += seconds

    @property
    def gain(self) -> float | None:
        """How many times as many tokens a second sparse steps read as dense ones; None without both."""
        if not (self.dense.tokens and self.sparse.tokens):
            return None
        return round((self.sparse.tokens / self.sparse.seconds) / (self.dense.tokens / self.dense.seconds), 2)

    def whole_state(self, optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state of packed weights as that of whole weights, which `optimizer` still has; other states unchanged.

        Once it is loaded, `follow` packs it again, where steps are to be sparse now.
        """
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        masks = self._masks()

        def whole(index: int, value: Any) -> Any:
            weight = weights[index]
            if not isinstance(value, Tensor) or value.dim() != 2 or value.shape == weight.shape:
                return value
            mask = masks.get(id(weight))
            return LiveBlocks(torch.ones_like(weight, dtype=torch.bool) if mask is None else mask).scatter(value)

        states = {
            index: {name: whole(index, value) for name, value in values.items()}
            for index, values in state["state"].items()
        }
        return {**state, "state": states}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs besides the masks."""
        counts = {"dense": asdict(self.dense), "sparse": asdict(self.sparse)}
        return {"revived": self.revived, "switch_density": self.switch_density, **counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; `follow` comes next."""
        self.revived = state["revived"]
        # 0 in checkpoints of runs that have had no layers; absent in those of earlier builds.
        if density := state.get("switch_density"):
            if self.layers is not None and density != self.switch_density:
                log.info("Switch density %g, as when the run began; here it would be %g", density, self.switch_density)
            self.switch_density = density
        self.dense, self.sparse = Pace(**state["dense"]), Pace(**state["sparse"])


def _is_like(value: Any, weight: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == weight.shape


def sparse_step_misfit(pruners: Sequence[Pruner], optimizer: Optimizer, settings: Settings) -> str | None:
    """Why steps have to compute masked weights too, whatever the masks; None if they need not."""
    if not pruners:
        return "nothing is pruned"
    reading = [pruner.name for pruner in pruners if pruner.needs_pruned_gradients]
    if reading:
        return f"pruner {reading[0]} needs the gradients of pruned weights"
    if settings.max_grad_norm is not None:
        return "the norm that gradients are clipped to is of all of them (training.max_grad_norm)"
    if type(optimizer) not in _ENTRY_BY_ENTRY:
        return f"optimizer {type(optimizer).__name__} may mix the gradients of several weights"
    return None
