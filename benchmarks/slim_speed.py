"""Race a slimmed model against the dense one: `python benchmarks/slim_speed.py`.

A BERT of MiniLM's shape with random weights, of which a third of the heads and of the FFN channels
stay. Each engine that is installed computes both on one thread: torch, ONNX Runtime and OpenVINO in
fp32, and OpenVINO in int8, both models quantized in the same way. Dense and slimmed take turns; the
figures are medians over the turns of the process's CPU time, and of the ratios of the pairs. Before,
the outputs of every engine are compared with those of dense torch, in int8 with those of its dense model.

Needs no network and no data. Takes about three minutes; run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from hydraprune.bench.machine import machine
from hydraprune.deploy.openvino_export import OPTIONS, quantize_openvino
from hydraprune.deploy.slim_model import slim_model
from hydraprune.models.encoder_layers import encoder_layers

SHAPES = {
    "MiniLM": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
    },
    "tiny": {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "intermediate_size": 192,
        "vocab_size": 99,
    },
}
# Batches that int8 is calibrated on.
CALIBRATED = 8
Run = Callable[[Tensor], np.ndarray[Any, Any]]
# Norm of the difference to the expected outputs / their norm. The slimmed weights are exact, and engines sum in
# different orders; in int8 ranges of activations differ too.
MOST_DIFFERENT = {"fp32": 1e-3, "int8": 0.3}


class Logits(nn.Module):
    """A model as a function of ids alone, for engines that trace it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """[texts, tokens] -> [texts, labels]."""
        logits: Tensor = self.model(input_ids=input_ids).logits
        return logits


def two_models(shape: str, kept: float) -> tuple[nn.Module, nn.Module]:
    """A model in which the share `kept` of heads and channels is not zero, and the same slimmed."""
    torch.manual_seed(0)
    dense: nn.Module = BertForSequenceClassification(BertConfig(**SHAPES[shape])).eval()
    with torch.no_grad():
        for layer in encoder_layers(dense):
            rows = round(layer.heads * kept) * layer.head_size
            layer.value.weight[rows:] = 0
            layer.ffn_in.weight[round(layer.channels * kept) :] = 0
    slim = copy.deepcopy(dense)
    slim_model(slim)
    return dense, slim


def torch_engine(model: nn.Module, sample: Tensor) -> Run:
    """The model itself."""

    @torch.inference_mode()
    def run(ids: Tensor) -> np.ndarray[Any, Any]:
        return np.asarray(model(input_ids=ids).logits)

    return run


def onnx_engine(model: nn.Module, sample: Tensor) -> Run:
    """ONNX Runtime on one thread."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.onnx")
        torch.onnx.export(Logits(model).eval(), (sample,), file, input_names=["input_ids"], dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda ids: np.asarray(session.run(None, {"input_ids": ids.numpy()})[0])


def openvino_engine(model: nn.Module, sample: Tensor) -> Run:
    """OpenVINO on one thread, in fp32: its default is bf16 where the CPU has it."""
    import openvino

    converted = openvino.convert_model(Logits(model).eval(), example_input=sample, input=[list(sample.shape)])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda ids: np.asarray(compiled(ids.numpy())[0])


def openvino_int8_engine(model: nn.Module, sample: Tensor) -> Run:
    """OpenVINO on one thread, in int8 as `hydraprune export` writes it, calibrated on random texts of this length."""
    import openvino

    converted = openvino.convert_model(Logits(model).eval(), example_input=sample, input=[list(sample.shape)])
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(1, int(sample.max()), tuple(sample.shape), generator=generator) for _ in range(CALIBRATED)]
    name = converted.inputs[0].any_name
    quantized = quantize_openvino(converted, [{name: ids} for ids in texts])
    compiled = openvino.Core().compile_model(quantized, "CPU", {**OPTIONS["int8"], "INFERENCE_NUM_THREADS": 1})
    return lambda ids: np.asarray(compiled(ids.numpy())[0])


# Word on the command line -> modules that must be installed, the engine's own first, its precision, and the engine.
ENGINES: dict[str, tuple[tuple[str, ...], str, Callable[[nn.Module, Tensor], Run]]] = {
    "torch": (("torch",), "fp32", torch_engine),
    "onnxruntime": (("onnxruntime", "onnx", "onnxscript"), "fp32", onnx_engine),
    "openvino": (("openvino",), "fp32", openvino_engine),
    "openvino-int8": (("openvino", "nncf"), "int8", openvino_int8_engine),
}


def cpu_seconds(run: Run, ids: Tensor, calls: int) -> float:
    """CPU time of the process for one call, all threads together."""
    run(ids)  # caches are the other model's
    start = time.process_time()
    for _ in range(calls):
        run(ids)
    return (time.process_time() - start) / calls


def race(dense: Run, slim: Run, ids: Tensor, turns: int, calls: int) -> dict[str, float]:
    """Medians of both in seconds, and of the ratios of neighbouring turns."""
    pairs = [(cpu_seconds(dense, ids, calls), cpu_seconds(slim, ids, calls)) for _ in range(turns)]
    return {
        "dense": statistics.median(pair[0] for pair in pairs),
        "slim": statistics.median(pair[1] for pair in pairs),
        "gain": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="MiniLM")
    parser.add_argument("--engines", choices=tuple(ENGINES), nargs="+", default=list(ENGINES))
    parser.add_argument("--kept", type=float, default=1 / 3, help="share of heads and channels (default: a third)")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--calls", type=int, default=3, help="calls in a turn; one more comes first, uncounted")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _quiet()
    dense, slim = two_models(arguments.shape, arguments.kept)
    sizes = [sum(p.numel() for layer in encoder_layers(m) for p in _weights(layer)) for m in (dense, slim)]
    print(f"{machine(None).cpu}, one thread, {arguments.shape}, {arguments.tokens} tokens, CPU ms")
    print(f"weights of the encoder's layers: {sizes[0]:,} -> {sizes[1]:,} ({sizes[0] / sizes[1]:.2f}x)\n")
    print("| engine | precision | batch | dense | slim | gain |\n|---|---|---|---|---|---|")
    rows = []
    for engine in arguments.engines:
        modules, precision, make = ENGINES[engine]
        if lacking := [module for module in modules if importlib.util.find_spec(module) is None]:
            print(f"{engine}: left out, since {', '.join(lacking)} is not installed", file=sys.stderr)
            continue
        version = importlib.import_module(modules[0]).__version__.partition("-")[0]
        for batch in arguments.batches:
            ids = torch.randint(1, SHAPES[arguments.shape]["vocab_size"], (batch, arguments.tokens))
            runs = make(dense, ids), make(slim, ids)
            # Random weights give int8 an error of their own, so there dense and slimmed are compared with each other.
            expected = (runs[0] if precision == "int8" else torch_engine(dense, ids))(ids)
            for run in runs:
                apart = float(np.linalg.norm(run(ids) - expected) / np.linalg.norm(expected))
                assert apart < MOST_DIFFERENT[precision], f"{engine}: outputs differ by {apart:.1e} of their norm"
            found = race(*runs, ids, arguments.turns, arguments.calls)
            about = {"engine": modules[0], "version": version, "precision": precision, "batch": batch}
            rows.append({**about, "cpu": machine(None).cpu, **found})
            times = f"{found['dense'] * 1e3:.2f} | {found['slim'] * 1e3:.2f}"
            print(f"| {modules[0]} {version} | {precision} | {batch} | {times} | {found['gain']:.2f}x |", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _quiet() -> None:
    """Without the warnings of exporters about their own parts."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)


def _weights(layer: Any) -> list[Tensor]:
    linears = (layer.query, layer.key, layer.value, layer.attention_output, layer.ffn_in, layer.ffn_out)
    return [linear.weight for linear in linears]


if __name__ == "__main__":
    main()
