"""Post-training methods: units chosen from a few calibration batches, without training. One module per method."""

from hydraprune.sparsity.posttraining.activations import ignore_padding
from hydraprune.sparsity.posttraining.base import Calibration, MaskDecision, PostTraining, PruningTask
from hydraprune.sparsity.posttraining.retrain_free import RetrainFree
from hydraprune.sparsity.posttraining.sparse_gpt import SparseGpt
from hydraprune.sparsity.posttraining.wanda import Wanda

__all__ = [
    "Calibration",
    "MaskDecision",
    "PostTraining",
    "PruningTask",
    "RetrainFree",
    "SparseGpt",
    "Wanda",
    "ignore_padding",
]
