"""Fits the polynomials of GELU that the kernels use, and prints the header with their coefficients.

    python benchmarks/gelu_fit.py > src/hydraprune/kernels/gelu_coefficients.h

With look-ups (AVX-512): GELU(x) = max(x, 0) - t(|x|), t(a) = a (1 - normal_cdf(a)), and the same with the
approximation by tanh. t is a cubic polynomial of a on each of PIECES pieces, the first and the last of half the width.

Without: GELU(x) = x * (1/2 + c * P(u)), c = x held within +-CLAMP, u = 2 (c / CLAMP)**2 - 1. P is the Chebyshev series
of (normal_cdf(c) - 1/2) / c in u, written in powers of u.

All are fitted by least squares with weights that are raised where the error is largest (Lawson's algorithm).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import erf, pi, sqrt, tanh

import numpy as np

CLAMP, TERMS = 5.0, 13
PIECES, PER_UNIT = 32, 6
END = (PIECES - 0.51) / PER_UNIT  # below it, rounding gives a piece that there is


def cdf(x: float) -> float:
    """The normal distribution, as in GELU."""
    return 0.5 * (1 + erf(x / sqrt(2)))


def cdf_tanh(x: float) -> float:
    """The same as approximated by tanh."""
    return 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))


def least_largest(basis: np.ndarray, wanted: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Coefficients for which the largest of scale * |basis @ coefficients - wanted| is least."""
    weights = np.ones_like(wanted)
    for _ in range(100):
        found = np.linalg.lstsq(basis * (weights * scale)[:, None], wanted * weights * scale, rcond=None)[0]
        error = np.abs(basis @ found - wanted) * scale
        weights *= 0.2 + error / error.max()
        weights /= weights.max()
    return np.asarray(found)


def chebyshev_nodes(count: int) -> np.ndarray:
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)


def fit(clamp: float, terms: int) -> np.ndarray:
    """Coefficients of the powers of u, lowest first."""
    nodes = chebyshev_nodes(4000)
    x = clamp * np.sqrt((nodes + 1) / 2)
    # Divided so that the clamped ends give exactly 0 and 1.
    wanted = np.array([erf(value / sqrt(2)) / (2 * value * erf(clamp / sqrt(2))) for value in x])
    # An error of P is multiplied by x * c in GELU.
    scale = np.maximum(x * x, 0.01)
    return np.asarray(
        np.polynomial.chebyshev.cheb2poly(
            least_largest(np.polynomial.chebyshev.chebvander(nodes, terms - 1), wanted, scale)
        )
    )


def fit_pieces(distribution: Callable[[float], float]) -> np.ndarray:
    """Coefficients of the powers of a, lowest first, [4, PIECES]."""
    found = np.zeros((4, PIECES))
    for piece in range(PIECES):
        first, last = max(piece - 0.5, 0) / PER_UNIT, (piece + 0.5) / PER_UNIT
        a = (first + last) / 2 + (last - first) / 2 * chebyshev_nodes(400)
        wanted = np.array([value * (1 - distribution(value)) for value in a])
        # In the first one nothing is constant: GELU(0) is 0, and the error near 0 is relative.
        lowest = 1 if piece == 0 else 0
        powers = np.vander(a, 4, increasing=True)[:, lowest:]
        found[lowest:, piece] = least_largest(powers, wanted, 1 / a if piece == 0 else np.ones_like(a))
    return found


def polynomial_gelu(x: np.ndarray) -> np.ndarray:
    """GELU in single precision, as the kernels compute it without look-ups."""
    single = np.float32
    coefficients = fit(CLAMP, TERMS)
    c = np.clip(x, single(-CLAMP), single(CLAMP))
    u = c * c * single(2 / CLAMP**2) - single(1)
    p = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        p = p * u + single(coefficient)
    return np.asarray(x * (c * p + single(0.5)))


def piecewise_gelu(table: np.ndarray, x: np.ndarray) -> np.ndarray:
    """GELU in single precision, as the kernels compute it with look-ups."""
    single = np.float32
    a = np.minimum(np.abs(x), single(END))
    piece = (a * single(PER_UNIT) + single(1.5 * 2**23)).view(np.int32) % PIECES
    c = table.astype(single)[:, piece]
    return np.asarray(np.maximum(x, 0) - (((c[3] * a + c[2]) * a + c[1]) * a + c[0]))


def largest_error(gelu: np.ndarray, x: np.ndarray, distribution: Callable[[float], float]) -> str:
    exact = np.array([value * distribution(value) for value in x.astype(float)])
    return f"{float(np.abs(gelu - exact).max()):.1e}"


def rows(values: np.ndarray, indent: str) -> str:
    texts = [f"{value:.9e}f," for value in values]
    return "\n".join(indent + " ".join(texts[start : start + 5]) for start in range(0, len(texts), 5))


def main() -> None:
    x = np.linspace(-8, 8, 200001).astype(np.float32)
    tables = {"GELU_TAIL": fit_pieces(cdf), "GELU_TANH_TAIL": fit_pieces(cdf_tanh)}
    errors = {
        "polynomial": largest_error(polynomial_gelu(x), x, cdf),
        "pieces": largest_error(piecewise_gelu(tables["GELU_TAIL"], x), x, cdf),
        "pieces, tanh": largest_error(piecewise_gelu(tables["GELU_TANH_TAIL"], x), x, cdf_tanh),
    }
    print(
        "largest errors for |x| <= 8:", ", ".join(f"{name} {error}" for name, error in errors.items()), file=sys.stderr
    )
    print("/* Written by benchmarks/gelu_fit.py. */\n#pragma once\n")
    print("#if defined(__AVX512F__)")
    print(f"#define GELU_PIECES {PIECES}\n#define GELU_PIECES_PER_UNIT {PER_UNIT}.0f\n#define GELU_END {END:.9e}f")
    for name, table in tables.items():
        print(f"static const float {name}[4][GELU_PIECES] = {{")
        for coefficients in table:
            print("    {\n" + rows(coefficients, "        ") + "\n    },")
        print("};")
    print("#else")
    print(f"#define GELU_CLAMP {CLAMP}f\n#define GELU_TERMS {TERMS}")
    print("static const float GELU_COEFFICIENTS[GELU_TERMS] = {")
    print(rows(fit(CLAMP, TERMS), "    "))
    print("};\n#endif")


if __name__ == "__main__":
    main()
