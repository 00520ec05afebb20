"""Races the kernels against other engines on whole encoders, or on one linear layer: CPU time, medians, ratios.

    python benchmarks/inference.py                            # encoders, 4x1 at 90 %
    python benchmarks/inference.py --models minilm=FOLDER     # a real model, its weights pruned in one step
    python benchmarks/inference.py --classifier               # with a head, which reads first tokens alone
    python benchmarks/inference.py --density 0.2 1.0 --length 128
    python benchmarks/inference.py --layers                   # 1024x256 and so on

All sides run in this process with one thread on one core. They take turns; in each turn a side runs three times, and
the first one is not counted. Sides whose engine is not installed are left out. Weights are random unless a folder is
given: speed does not depend on them. The error is that of a side's output against PyTorch's on the same weights.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Before the libraries are loaded: every engine gets one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from hydraprune.bench.machine import machine
from hydraprune.deploy import accelerate
from hydraprune.kernels.compiled import compile_kernels
from hydraprune.kernels.linears import LinearKernel
from hydraprune.kernels.packing import pack

Side = Callable[[Tensor], Any]
SHAPES = {
    "bert-mini": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    "minilm": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
}
LAYERS = ((1024, 256), (256, 1024), (1536, 384), (384, 1536))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--models", nargs="+", default=list(SHAPES), help="shapes, or NAME=FOLDER")
    words.add_argument("--density", nargs="+", type=float, default=[0.1])
    words.add_argument("--rows", type=int, default=4, help="of a block: 1, 2, 4, 8")
    words.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    words.add_argument("--length", nargs="+", type=int, default=[32, 128])
    words.add_argument("--rounds", type=int, default=15)
    words.add_argument("--classifier", action="store_true", help="encoders with a head for two classes")
    words.add_argument("--layers", action="store_true", help="one linear layer instead of encoders")
    chosen = words.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    here = machine(None)
    print(f"{here.cpu} ({', '.join(here.flags)}); torch {torch.__version__}{versions()}; load {os.getloadavg()[0]:.1f}")
    with torch.inference_mode():
        for density in chosen.density:
            if chosen.layers:
                race_layers(density, chosen.rows, chosen.length, chosen.rounds)
            else:
                for name in chosen.models:
                    race_encoders(name, density, chosen)


def race_encoders(name: str, density: float, chosen: argparse.Namespace) -> None:
    model = classifier_of(name) if chosen.classifier else encoder_of(name)
    prune(model, density, chosen.rows)
    sides = dict(encoder_sides(model))
    print(f"\n{name}, {chosen.rows}x1 with {density:.0%} of the weights left; milliseconds of CPU time")
    for batch in chosen.batch:
        for length in chosen.length:
            ids = torch.randint(1000, 20000, (batch, length))
            wanted = model(ids)[0]
            times = take_turns(sides, ids, chosen.rounds)
            print(f"  batch {batch}, {length} tokens")
            for side, call in sides.items():
                error = float((torch.as_tensor(call(ids)) - wanted).norm() / wanted.norm())
                print(f"    {side:<18} {1000 * times[side]:9.3f}   error {error:.1e}   {ratios(side, times)}")


def race_layers(density: float, rows: int, lengths: Iterable[int], rounds: int) -> None:
    for outputs, inputs in LAYERS:
        linear = nn.Linear(inputs, outputs)
        prune(nn.ModuleDict({"layer": linear}), density, rows)
        sides = dict(layer_sides(linear))
        for length in lengths:
            times = take_turns(sides, torch.randn(length, inputs), rounds)
            print(f"\n{outputs}x{inputs}, {length} tokens, {density:.0%} of the weights left; milliseconds of CPU time")
            for side in sides:
                print(f"    {side:<18} {1000 * times[side]:9.4f}   {ratios(side, times)}")


def ratios(side: str, times: dict[str, float]) -> str:
    """How many times as fast a side of ours is as the best dense one of single precision, and of any precision."""
    dense = {name: seconds for name, seconds in times.items() if not name.startswith(("ours", "sparse"))}
    if side in dense or not dense:
        return ""
    found = []
    for what, names in (("fp32", [name for name in dense if name.endswith("fp32")]), ("any", list(dense))):
        best = min(names, key=dense.__getitem__)
        found.append(f"{dense[best] / times[side]:.2f}x the best dense of {what} ({best})")
    found += [
        f"{times[name] / times[side]:.2f}x {name}" for name in times if name.startswith("sparse") and name != side
    ]
    return ", ".join(found)


def take_turns(sides: dict[str, Side], x: Tensor, rounds: int) -> dict[str, float]:
    """The median of the CPU seconds of each side."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, call in sides.items():
            call(x)
            for _ in range(2):
                start = time.process_time()
                call(x)
                seconds[side].append(time.process_time() - start)
    return {side: statistics.median(found) for side, found in seconds.items()}


def encoder_of(name: str) -> nn.Module:
    name, _, folder = name.partition("=")
    if folder:
        return AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    return BertModel(BertConfig(**SHAPES[name]), add_pooling_layer=False).eval()


def classifier_of(name: str) -> nn.Module:
    name, _, folder = name.partition("=")
    if folder:
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    return BertForSequenceClassification(BertConfig(**SHAPES[name])).eval()


@torch.no_grad()
def prune(model: nn.Module, density: float, rows: int) -> None:
    """Set the blocks of least magnitude to zero, layer by layer."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "layer" in name and density < 1:
            blocks = module.weight.view(-1, rows, module.in_features)
            size = blocks.abs().sum(1)
            least = size.flatten().kthvalue(max(1, round((1 - density) * size.numel())))[0]
            blocks.mul_((size > least)[:, None])


def encoder_sides(model: nn.Module) -> Iterable[tuple[str, Side]]:
    for precision in ("fp32", "bf16"):
        fast = accelerate(model, precision)
        found = fast.acceleration
        if precision == "fp32" or found.precision != "fp32":
            yield f"ours {precision}", lambda ids, fast=fast: fast(ids)[0]
        if precision == "bf16":
            print(f"bf16: {found}")
    yield "torch fp32", lambda ids: model(ids)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = exported(model, Path(folder))
        if path is not None:
            yield from onnxruntime_sides(path)
        yield from openvino_sides(model, torch.randint(1000, 20000, (2, 64)))


def layer_sides(linear: nn.Linear) -> Iterable[tuple[str, Side]]:
    cache = Path(os.environ.get("HYDRAPRUNE_CACHE") or "~/.cache/hydraprune").expanduser()
    kernel = LinearKernel(pack(linear.weight, linear.bias), compile_kernels(cache / "native"))
    yield "ours fp32", kernel
    kept: dict[int, Tensor] = {}

    def in_tiles(x: Tensor) -> Tensor:
        if len(x) not in kept:
            kept[len(x)] = tiles_of(x)
        return kernel.tiles(kept[len(x)])

    yield "ours, in tiles", in_tiles  # as within an encoder: nothing is transposed
    yield "torch fp32", linear
    csr = linear.weight.to_sparse_csr()
    yield "sparse: MKL CSR", lambda x: torch.addmm(linear.bias[:, None], csr, x.T)
    yield from openvino_sides(linear, torch.randn(4, linear.in_features))


def tiles_of(x: Tensor) -> Tensor:
    """Tokens by features as [tiles, features, at most 64 tokens]."""
    width = min(64, len(x))
    return x.view(-1, width, x.shape[1]).transpose(1, 2).contiguous()


def exported(model: nn.Module, folder: Path) -> Path | None:
    """The model as an ONNX file; None without the exporter."""
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        return None
    path = folder / "model.onnx"
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    ids = torch.randint(1000, 20000, (2, 64))
    torch.onnx.export(model, (ids,), str(path), dynamo=True, dynamic_shapes={"input_ids": sizes}, verbose=False)
    return path


def onnxruntime_sides(path: Path) -> Iterable[tuple[str, Side]]:
    try:
        import onnxruntime
    except ImportError:
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    yield "ONNX Runtime fp32", lambda ids: session.run(None, {name: ids.numpy()})[0]


def openvino_sides(model: nn.Module, example: Tensor) -> Iterable[tuple[str, Side]]:
    try:
        import openvino
    except ImportError:
        return
    converted = openvino.convert_model(model, example_input=example)
    core = openvino.Core()

    def side(of: Any, precision: str) -> Side:
        options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
        request = core.compile_model(of, "CPU", options).create_infer_request()
        return lambda x: request.infer([x.numpy()], share_inputs=True)[0]

    yield "OpenVINO fp32", side(converted, "f32")
    yield "OpenVINO bf16", side(converted, "bf16")
    try:
        import nncf
    except ImportError:
        return
    samples = [torch.randint(1000, 20000, (1, 64)) if example.dtype == torch.int64 else example for _ in range(8)]
    quantized = nncf.quantize(converted, nncf.Dataset([sample.numpy() for sample in samples]), subset_size=8)
    yield "OpenVINO int8", side(quantized, "f32")


def versions() -> str:
    found = ""
    for module in ("onnxruntime", "openvino", "nncf"):
        try:
            found += f", {module} {__import__(module).__version__}"
        except ImportError:
            continue
    return found


if __name__ == "__main__":
    main()
