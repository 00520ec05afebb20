"""Pretrained models, model families, and changes to a model that make training faster.

To add a model family, give a `ModelFamily` as `model.family`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydraprune.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from hydraprune.models.families import ModelFamily
    from hydraprune.models.pretrained import ModelSource, PretrainedModel

__all__ = ["ModelFamily", "ModelSource", "PretrainedModel"]

__getattr__ = lazy_exports(
    __name__,
    {
        "ModelFamily": "hydraprune.models.families",
        "ModelSource": "hydraprune.models.pretrained",
        "PretrainedModel": "hydraprune.models.pretrained",
    },
)
