"""Run as a script with the sanitizers' libraries preloaded: random encoders and layers in sanitized kernels.

LD_PRELOAD=libasan.so:libubsan.so python sanitized_kernels.py FOLDER ROUNDS FLAG...
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch

from hydraprune.kernels.compiled import compile_kernels
from hydraprune.kernels.encoders import EmbeddingWeights, Encoder, EncoderWeights, LayerWeights, NormWeights
from hydraprune.kernels.linears import LinearKernel
from hydraprune.kernels.packing import PackedLinear, Precision, pack

# Without optimisation: the compiler takes a fifth of the time, and removes no fault.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0")


def linear(outputs: int, inputs: int, precision: Precision, choose: random.Random) -> PackedLinear:
    rows, density = choose.choice([1, 2, 4, 8]), choose.choice([0.0, 0.1, 0.5, 1.0])
    groups = -(-outputs // rows)
    keep = (torch.rand(groups, inputs) < density).repeat_interleave(rows, 0)[:outputs]
    return pack(torch.randn(outputs, inputs) / 8 * keep, torch.randn(outputs), precision)


def norm(size: int) -> NormWeights:
    return NormWeights(torch.ones(size), torch.zeros(size))


def encoder(precision: Precision, size: int, choose: random.Random) -> EncoderWeights:
    """size: of a head."""
    heads = choose.randint(1, 4)
    hidden, words = heads * size, 20

    def layer() -> LayerWeights:
        kept, inner = choose.randint(1, heads), choose.randint(1, 70)
        query, key, value = (linear(kept * size, hidden, precision, choose) for _ in range(3))
        output, ffn_out = linear(hidden, kept * size, precision, choose), linear(hidden, inner, precision, choose)
        ffn_in = linear(inner, hidden, precision, choose)
        activation = choose.choice(["gelu", "gelu_tanh", "relu"])
        return LayerWeights(kept, query, key, value, output, norm(hidden), ffn_in, activation, ffn_out, norm(hidden))

    width = choose.choice([hidden, choose.randint(1, 40)])
    embedding = EmbeddingWeights(
        torch.randn(words, width),
        choose.choice([None, torch.randn(200, width)]),
        choose.choice([None, torch.randn(2, width)]),
        norm(width),
        None if width == hidden else linear(hidden, width, "fp32", choose),
        *choose.choice([(0, None), (2, 1)]),
    )
    relative = choose.choice([None, torch.randn(heads, 2 * 220 + 1)])
    return EncoderWeights(embedding, [layer() for _ in range(choose.randint(0, 3))], 1e-5, precision, relative)


def main(folder: str, rounds: str, *flags: str) -> None:
    compiled = compile_kernels(Path(folder), (*flags, *SANITIZERS))
    for seed in range(int(rounds)):
        choose = random.Random(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(choose.choice([1, 2, 3]))
        kinds: list[tuple[Precision, Precision]] = [("fp32", "fp32")]
        kinds += [("bf16", "bf16")] * compiled.bf16 + [("fp32", "bf16")] * compiled.amx
        precision, attention = choose.choice(kinds)
        size = 2 * choose.randint(1, 20) if attention == precision else 16 * choose.randint(1, 4)
        run = Encoder(encoder(precision, size, choose), compiled, attention)
        lengths = [choose.choice([1, 15, 16, 17, 64, 65, choose.randint(1, 190)]) for _ in range(choose.randint(1, 6))]
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        if choose.random() < 0.3:
            mask[0] = 0
        ids = torch.randint(0, 20, mask.shape)
        types = torch.randint(0, 2, mask.shape) if run.weights.embedding.token_type is not None else None
        assert run(ids, types, mask).isfinite().all()
        assert run.first(ids, types, mask).isfinite().all()
        outputs, inputs = choose.randint(1, 40), choose.randint(1, 40)
        kernel = LinearKernel(linear(outputs, inputs, "fp32", choose), compiled, choose.choice([None, "gelu"]))
        assert kernel(torch.randn(choose.randint(0, 140), inputs)).isfinite().all()
    print(f"{rounds} rounds, {compiled.instructions}")


if __name__ == "__main__":
    main(*sys.argv[1:])
