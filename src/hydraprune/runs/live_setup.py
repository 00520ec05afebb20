"""What computes the layers of a run's models: PyTorch, or the kernels over live blocks."""

from __future__ import annotations

import logging
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from hydraprune.data.batches import Encoded
from hydraprune.errors import one_line
from hydraprune.kernels.dropout import use_fast_dropout
from hydraprune.kernels.training import compile_training
from hydraprune.models.live_layers import LiveLayers, live_misfit
from hydraprune.models.switch_density import Workload, switch_density
from hydraprune.runs.experiment import Experiment
from hydraprune.sparsity import Pruner, native_code
from hydraprune.training.fixed_shape_batches import TOKENS
from hydraprune.training.sparse_steps import SparseSteps, sparse_step_misfit
from hydraprune.utils.cache import Cache

log = logging.getLogger(__name__)

# The kernels compute in fp32, so at least as exactly as these.
_PRECISIONS = ("fp32", "bf16")


class LiveSetup:
    """Gives the kernels the layers of models that they can compute.

    Args:
        data: the training examples, whose lengths decide what pays.
    """

    def __init__(self, experiment: Experiment, accelerator: Accelerator, cache: Cache, data: Encoded) -> None:
        self._runtime, self._settings = experiment.config["runtime"], experiment.components.settings
        self._reads_padding = experiment.components.distiller.reads_padding
        self._accelerator, self._cache = accelerator, cache
        self._mean_tokens = float(data.lengths.float().mean()) if len(data) else 1.0

    @property
    def is_on(self) -> bool:
        """Whether the config asks for kernels."""
        return bool(self._runtime["sparse_steps"] and self._runtime["compiled"])

    def sparse_steps(self, model: Any, pruners: tuple[Pruner, ...], optimizer: Optimizer) -> SparseSteps:
        """What switches the model to sparse steps; the log says why where it never will."""
        if not self.is_on:
            return SparseSteps(None, pruners)
        why = sparse_step_misfit(pruners, optimizer, self._settings)
        layers = self._layers(model)
        if isinstance(layers, LiveLayers):
            density = self._density(layers, trains=True)
            steps = SparseSteps(layers, pruners, density, optimizer, exact=why is None)
        else:
            steps, why = SparseSteps(None, pruners), why or layers
        if pruners and why is not None:
            log.info("Every step is dense: %s", why)
        return steps

    def speed_up(self, teacher: Any) -> str | None:
        """Let the kernels compute the live blocks of a sparse teacher where that is faster.

        A dense teacher stays in PyTorch: a dense student in the kernels would equal it bit for bit, so that without
        dropout the first scores, made of the gradient of their difference, would all be 0.

        Returns:
            The name of the kernels, which differs where their bits may; None if PyTorch computes it.
        """
        if not self.is_on:
            return None
        use_fast_dropout(teacher)  # which it never draws from, and the kernels know
        layers = self._layers(teacher)
        if not isinstance(layers, LiveLayers):
            return None
        live: dict[int, Tensor] = {id(weight): weight != 0 for weight in layers.weights}
        share = layers.share(live)
        if share == 1 or share > self._density(layers, trains=False):
            return None
        layers.use(live)
        return layers.kernels

    def _layers(self, model: Any) -> LiveLayers | str:
        """The layers, or why the kernels do not compute them."""
        if self._reads_padding:
            return "the loss reads hidden states of padded positions"
        if self._settings.precision not in _PRECISIONS:
            return f"precision {self._settings.precision} has no kernels"
        if (why := live_misfit(model)) is not None:
            return why
        try:
            return LiveLayers(model.base_model, compile_training(self._cache.folder / "native"))
        except native_code.UNFIT as error:
            return f"the kernels cannot be compiled ({one_line(error)})"

    def _density(self, layers: LiveLayers, trains: bool) -> float:
        given = self._runtime["switch_density"]
        if given is not None:
            return float(given)
        batch = self._settings.batch_size if trains else int(TOKENS / self._mean_tokens)
        workload = Workload.like(batch, self._mean_tokens, self._settings.precision, trains)
        return switch_density(layers, workload, self._accelerator.autocast, self._cache)
