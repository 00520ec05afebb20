"""Which units go, judged on a few batches and without training? One small file for each method."""

from hydraprune.sparsity.posttraining.activations import only
from hydraprune.sparsity.posttraining.base import Calibration, Choice, Orders, PostTraining
from hydraprune.sparsity.posttraining.retrain_free import RetrainFree
from hydraprune.sparsity.posttraining.sparse_gpt import SparseGpt
from hydraprune.sparsity.posttraining.wanda import Wanda

__all__ = ["Calibration", "Choice", "Orders", "PostTraining", "RetrainFree", "SparseGpt", "Wanda", "only"]
