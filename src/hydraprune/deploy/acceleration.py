"""A saved sparse model made fast on the CPU that it runs on."""

from __future__ import annotations

import copy
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from hydraprune.deploy.compact_model import CompactModel, source_of
from hydraprune.deploy.dense_bf16 import DenseBfloat16, multiplies_tiles
from hydraprune.deploy.encoder_modules import encoder_weights, fused_misfit
from hydraprune.deploy.encoder_trial import other_outputs, seconds_of
from hydraprune.deploy.file_encoder import accelerate_file
from hydraprune.deploy.first_token import compute_first_token, reads_first_token
from hydraprune.deploy.fused_encoder import FusedEncoder, refuse_saving
from hydraprune.deploy.sparse_linear import replace_linears
from hydraprune.errors import UserError
from hydraprune.kernels.compiled import Compiled, compile_kernels
from hydraprune.kernels.encoders import Encoder
from hydraprune.kernels.packing import Precision
from hydraprune.models.classification_head import base_model
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.sparsity.native_code import UNFIT
from hydraprune.sparsity.statistics import nonfinite_parameters
from hydraprune.utils.hub_access import loading, local_or_id

log = logging.getLogger(__name__)
# Layer by layer, the kernels pay below this share of weights left: activations are transposed for each layer.
_MOST_LEFT = 0.5
_ATTRIBUTE = "acceleration"


@dataclass(frozen=True)
class Acceleration:
    """How an accelerated model computes.

    Args:
        way: `fused`, `layer by layer`, or `torch`.
        precision: of the products.
        instructions: the kernels were compiled for these; None with torch.
        zeros: share of the encoder's linear weights that is zero.
        layers: linear layers that the kernels compute.
        why: why it is not fused, or not of the precision asked for; None if it is.
    """

    way: str
    precision: str
    instructions: str | None
    zeros: float
    layers: int
    why: str | None = None

    def __str__(self) -> str:
        kernels = "" if self.instructions is None else f", kernels for {self.instructions} in {self.layers} layers"
        why = "" if self.why is None else f" ({self.why})"
        return f"{self.way}, {self.precision}{kernels}, {self.zeros:.1%} of the weights are zero{why}"


def accelerate(
    model: nn.Module | str | os.PathLike[str], precision: Precision = "fp32", cache: str | Path | None = None
) -> nn.Module:
    """A fast copy of a sparse model for inference on this CPU, with the same inputs and outputs.

    Encoders of BERT's kind (BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, DistilBERT, MPNet) are computed as a whole
    by kernels that skip zeros in any pattern; of other models, the sparse linear layers are. Kernels are
    compiled on first use; without a C compiler the copy computes with PyTorch. Which of these it is, is logged in one
    line, and kept as the model's `acceleration`. The copy shares the original's tables of embeddings; made from a
    folder, it reads words from the file when they first occur: no file may be written into (docs/deployment.md).

    Args:
        model: a Hugging Face model, or the folder of one, of a run, of a compact export, or a hub id.
        precision: of the products: `fp32`, or `bf16` for processors with AVX-512 BF16. On one with AMX, `bf16` takes
            what is fastest when it is measured here: these kernels in either precision, or PyTorch in bfloat16.
        cache: the folder of compiled kernels (default: HYDRAPRUNE_CACHE, or ~/.cache/hydraprune).

    Raises:
        UserError: the model cannot be found or loaded, or the precision is another word.
    """
    if precision not in ("fp32", "bf16"):
        raise UserError("must be fp32 or bf16", key="precision", value=precision)
    if not isinstance(model, (nn.Module, str, os.PathLike)):
        raise UserError("must be a model, a folder or a hub id", key="model", value=model)
    source = None if isinstance(model, nn.Module) else source_of(os.fspath(model), "model")
    try:
        compiled = compile_kernels(_cache_folder(cache))
    except (*UNFIT, RuntimeError) as error:  # RuntimeError: there is no home folder
        fast = copy.deepcopy(_loaded(model, source)).eval()
        made = Acceleration("torch", "fp32", None, _zeros(fast), 0, f"no kernels: {error}")
    else:
        found = None if source is None else _from_file(source, precision, compiled)
        fast, made = found or _with_kernels(_loaded(model, source), precision, compiled)
    if made.way == "fused" and reads_first_token(fast):
        compute_first_token(fast)
    # A gradient that somebody wants is then one of an input, which is refused.
    fast.requires_grad_(False)
    object.__setattr__(fast, _ATTRIBUTE, made)
    if made.way != "torch":
        object.__setattr__(fast, "save_pretrained", refuse_saving)
    log.info("accelerate: %s", made)
    if made.zeros < 0.5:
        log.warning(
            "accelerate: %.0f%% of the weights are zero; a model with so few is as fast in a dense engine "
            "(`hydraprune export --to openvino`), and faster there where the processor has AMX",
            100 * made.zeros,
        )
    return fast


def _from_file(
    source: PretrainedModel, precision: Precision, compiled: Compiled
) -> tuple[nn.Module, Acceleration] | None:
    """What is made without the model as a whole; None where that takes it."""
    precision, why = _possible(precision, compiled)
    made = None if _measures(precision) else accelerate_file(source, precision, compiled)
    if made is None:
        return None
    return made.model, Acceleration("fused", precision, compiled.instructions, made.zeros, made.layers, why)


def _possible(precision: Precision, compiled: Compiled) -> tuple[Precision, str | None]:
    """The precision, or fp32 and why."""
    if precision == "bf16" and not compiled.bf16:
        return "fp32", "this processor has no AVX-512 BF16"
    return precision, None


def _measures(precision: Precision) -> bool:
    """Whether the fastest of several models is taken."""
    return precision == "bf16" and multiplies_tiles()


def _with_kernels(model: nn.Module, precision: Precision, compiled: Compiled) -> tuple[nn.Module, Acceleration]:
    zeros = _zeros(model)
    _, found = base_model(model)
    base = model if found is None else found
    why = fused_misfit(base)
    if why is not None:
        return _layer_by_layer(model, compiled, zeros, why)
    precision, why = _possible(precision, compiled)
    made = Acceleration("fused", precision, compiled.instructions, zeros, 0, why)
    fused: nn.Module
    if _measures(precision):
        fused, made = _fastest(base, made, compiled)
    else:
        fused = _fused(base, precision, compiled)
    if other := other_outputs(base, fused, made.precision):
        return _layer_by_layer(model, compiled, zeros, other)
    if isinstance(fused, FusedEncoder):
        made = replace(made, layers=6 * len(fused.encoder.weights.layers))
    # The copy of everything else, with the fast encoder in place of the base model.
    fast = fused if base is model else copy.deepcopy(model, {id(base): fused}).cpu()
    return fast.eval(), made


def _layer_by_layer(model: nn.Module, compiled: Compiled, zeros: float, why: str) -> tuple[nn.Module, Acceleration]:
    fast = copy.deepcopy(model).cpu().eval()
    layers = replace_linears(fast, compiled, _MOST_LEFT)
    return fast, Acceleration("layer by layer", "fp32", compiled.instructions, zeros, layers, why)


def _fastest(base: nn.Module, made: Acceleration, compiled: Compiled) -> tuple[nn.Module, Acceleration]:
    """The fastest base model in bfloat16, or partly so, on a processor with AMX, by measurement.

    AMX multiplies dense matrices: those of attention always, and weights where they are not sparse. AVX-512 may be no
    faster in bfloat16 than in single precision there.
    """
    single = _fused(base, "fp32", compiled)
    sides: dict[tuple[str, str], nn.Module] = {
        ("fused", "fp32"): single,
        ("fused", "bf16"): _fused(base, "bf16", compiled),
        ("torch", "bf16"): DenseBfloat16(base).eval(),
    }
    if compiled.amx and single.encoder.weights.has_tiles:
        attention = Encoder(single.encoder.weights, compiled, "bf16")
        sides["fused", "fp32 with attention in bf16"] = _of_encoder(base, attention)
    times = seconds_of(sides)
    way, precision = best = min(times, key=times.__getitem__)
    shown = ", ".join(f"{way} {precision} {1000 * seconds:.2f}" for (way, precision), seconds in times.items())
    instructions = None if way == "torch" else compiled.instructions
    why = f"the fastest on this processor with AMX, in ms of a text: {shown}"
    return sides[best], replace(made, way=way, precision=precision, instructions=instructions, why=why)


def _fused(base: Any, precision: Precision, compiled: Compiled) -> FusedEncoder:
    with torch.no_grad():
        return _of_encoder(base, Encoder(encoder_weights(base, precision), compiled))


def _of_encoder(base: Any, encoder: Encoder) -> FusedEncoder:
    pooler = copy.deepcopy(getattr(base, "pooler", None))
    fused = FusedEncoder(base.config, encoder, None if pooler is None else pooler.cpu(), base.dtype)
    fused.eval()
    return fused


def _zeros(model: nn.Module) -> float:
    """The share of zeros in the linear layers of a model's encoder."""
    _, base = base_model(model)
    weights = [m.weight for m in (base or model).modules() if isinstance(m, (nn.Linear, Conv1D))]
    total = sum(weight.numel() for weight in weights)
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / total if total else 0.0


def _refuse_wrong(model: nn.Module) -> None:
    if not hasattr(model, "config") or not hasattr(model.config, "model_type"):
        raise UserError("is no Hugging Face model", key="model", value=type(model).__name__)
    if hasattr(model, _ATTRIBUTE):
        raise UserError("is accelerated already", key="model", value=type(model).__name__)
    if any(weight.is_meta for weight in model.parameters()):
        raise UserError("has weights without values, on the meta device", key="model", value=type(model).__name__)
    if broken := sorted(nonfinite_parameters(model)):
        raise UserError(f"{len(broken)} of its weights hold NaN or infinity, {broken[0]} among them", key="model")


def _cache_folder(given: str | Path | None) -> Path:
    return Path(given or os.environ.get("HYDRAPRUNE_CACHE") or "~/.cache/hydraprune").expanduser() / "native"


def _loaded(model: object, source: PretrainedModel | None) -> nn.Module:
    """The given model, or that of a source.

    Raises:
        UserError: it cannot be loaded or accelerated.
    """
    loaded: nn.Module = _load(source) if source is not None else model  # type: ignore[assignment]
    _refuse_wrong(loaded)
    return loaded


def _load(source: PretrainedModel) -> nn.Module:
    """The model of a source, with the head that its config.json names."""
    architecture = str((getattr(source.config(), "architectures", None) or [""])[0])
    is_read_here = isinstance(source, CompactModel) or not hasattr(transformers, architecture)
    if is_read_here or architecture.endswith("ForSequenceClassification"):
        return source.load()
    kind: Any = getattr(transformers, architecture)
    path = source.path
    with loading("model", path):
        loaded: nn.Module
        loaded, info = kind.from_pretrained(
            local_or_id(path, "model"), trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    if missing := sorted(info["missing_keys"]):
        reason = f"{len(missing)} of its weights are missing, {missing[0]} among them"
        raise UserError(reason, key="model", value=path)
    return loaded
