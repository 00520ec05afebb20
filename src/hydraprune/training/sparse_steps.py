"""Sparse steps: training steps whose products are of live blocks alone, where that is exact and pays.

A masked weight is 0, so it adds nothing to the outputs of its layer and nothing to the gradients of its inputs. Its own
gradient matters to the optimizer's state of that weight alone, unless something reads gradients of pruned weights: a
criterion that could bring them back, the norm by which gradients are clipped, an optimizer that mixes entries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from hydraprune.sparsity import Pruner
from hydraprune.training.settings import Settings

log = logging.getLogger(__name__)

# Largest share of weights in live blocks at which sparse steps are faster on every processor tried, by precision
# (benchmarks/training_step.py). Constants, not measured at start: the same config gives the same bits.
LARGEST_DENSITY = {"fp32": 0.5, "bf16": 0.25}
# Optimizers that move every weight by its own gradients alone.
_ENTRY_BY_ENTRY = (SGD, Adagrad, Adam, AdamW, NAdam, RAdam, RMSprop)


class Layers(Protocol):
    """Layers of a model that can be computed over live blocks; `hydraprune.models.live_layers.LiveLayers` are some."""

    def use(self, live: Mapping[int, Tensor] | None) -> float:
        """Compute live blocks alone from now on, or with None the layers as they are; returns the share that is live.

        Args:
            live: id of a weight -> bool mask like it.
        """


@dataclass
class Pace:
    """Steps of one kind, the tokens that they read (padding included), and the seconds that they took."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


class SparseSteps:
    """Switches the layers of a model between dense and sparse steps as masks change, and counts both.

    Args:
        layers: of the model; None: every step is dense.
        pruners: of the training.
        largest_density: share of weights in live blocks above which steps are dense.
    """

    def __init__(self, layers: Layers | None, pruners: Sequence[Pruner] = (), largest_density: float = 0.0) -> None:
        self.layers, self.pruners, self.largest_density = layers, tuple(pruners), largest_density
        self.active = False
        self.dense, self.sparse = Pace(), Pace()
        self.revived = 0  # weights that came back in an update after sparse steps
        self._live: dict[int, Tensor] = {}

    def follow(self, step: int) -> None:
        """Take over the masks in force; call it when training starts or resumes, and after every update.

        A weight that comes back after sparse steps starts with an optimizer state that lacks the gradients of those
        steps. It is counted, and steps are dense from then on until the masks are final.

        Args:
            step: optimizer steps taken.
        """
        if self.layers is None:
            return
        live = self._masks()
        if self.active and (revived := self._revived(live)):
            log.warning("step %d: %d pruned weights came back; steps are dense until masks are final", step, revived)
            self.revived += revived
        final = all(step >= pruner.updates.last for pruner in self.pruners)
        self._live = live
        may_be = bool(live) and (final or not self.revived)
        self.active = may_be and self.layers.use(live) <= self.largest_density
        if not self.active:
            self.layers.use(None)

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
        return (self.sparse.tokens / self.sparse.seconds) / (self.dense.tokens / self.dense.seconds)

    def summary(self) -> dict[str, float | None]:
        """For the report."""
        gain = None if self.gain is None else round(self.gain, 2)
        return {"count": self.sparse.steps, "gain": gain, "revived": self.revived}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs besides the masks."""
        return {"revived": self.revived, "dense": asdict(self.dense), "sparse": asdict(self.sparse)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; `follow` comes next."""
        self.revived = state["revived"]
        self.dense, self.sparse = Pace(**state["dense"]), Pace(**state["sparse"])


def sparse_step_misfit(pruners: Sequence[Pruner], optimizer: Optimizer, settings: Settings) -> str | None:
    """Why steps have to be dense whatever the masks; None if they need not."""
    if not pruners:
        return "nothing is pruned"
    reading = [pruner.name for pruner in pruners if pruner.needs_pruned_gradients]
    if reading:
        return f"pruner {reading[0]} needs the gradients of pruned weights"
    if settings.max_grad_norm is not None:
        return "the norm that gradients are clipped to is of all of them (training.max_grad_norm)"
    if type(optimizer) not in _ENTRY_BY_ENTRY:
        return f"optimizer {type(optimizer).__name__} may mix the gradients of several weights"
    if settings.precision not in LARGEST_DENSITY:
        return f"precision {settings.precision} has no kernels"
    return None
