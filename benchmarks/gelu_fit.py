"""Fits the polynomial of GELU that the kernels use, and prints the header with its coefficients.

    python benchmarks/gelu_fit.py > src/hydraprune/kernels/gelu_coefficients.h

GELU(x) = x * (1/2 + c * P(u)), c = x held within +-CLAMP, u = 2 (c / CLAMP)**2 - 1. P is the Chebyshev series of
(normal_cdf(c) - 1/2) / c in u, fitted by least squares with weights that are raised where the error is largest
(Lawson's algorithm), then written in powers of u.
"""

from __future__ import annotations

import sys
from math import erf, sqrt

import numpy as np

CLAMP, TERMS = 5.0, 13


def fit(clamp: float, terms: int) -> np.ndarray:
    """Coefficients of the powers of u, lowest first."""
    nodes = np.cos(np.pi * (np.arange(4000) + 0.5) / 4000)
    x = clamp * np.sqrt((nodes + 1) / 2)
    # Divided so that the clamped ends give exactly 0 and 1.
    wanted = np.array([erf(value / sqrt(2)) / (2 * value * erf(clamp / sqrt(2))) for value in x])
    # An error of P is multiplied by x * c in GELU.
    scale = np.maximum(x * x, 0.01)
    weights = np.ones_like(x)
    basis = np.polynomial.chebyshev.chebvander(nodes, terms - 1)
    for _ in range(100):
        series = np.linalg.lstsq(basis * (weights * scale)[:, None], wanted * weights * scale, rcond=None)[0]
        error = np.abs(basis @ series - wanted) * scale
        weights *= 0.2 + error / error.max()
        weights /= weights.max()
    return np.asarray(np.polynomial.chebyshev.cheb2poly(series))


def largest_error(coefficients: np.ndarray, clamp: float) -> float:
    """The largest error of GELU in single precision for |x| up to 8."""
    single = np.float32
    x = np.linspace(-8, 8, 200001).astype(single)
    c = np.clip(x, single(-clamp), single(clamp))
    u = c * c * single(2 / clamp**2) - single(1)
    p = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        p = p * u + single(coefficient)
    exact = np.array([value * 0.5 * (1 + erf(value / sqrt(2))) for value in x.astype(float)])
    return float(np.abs(x * (c * p + single(0.5)) - exact).max())


if __name__ == "__main__":
    found = fit(CLAMP, TERMS)
    print(f"largest error for |x| <= 8: {largest_error(found, CLAMP):.1e}", file=sys.stderr)
    print("/* Written by benchmarks/gelu_fit.py. */\n#pragma once\n")
    print(f"#define GELU_CLAMP {CLAMP}f\n#define GELU_TERMS {TERMS}")
    print("static const float GELU_COEFFICIENTS[GELU_TERMS] = {")
    for start in range(0, TERMS, 5):
        print("    " + " ".join(f"{value:.9e}f," for value in found[start : start + 5]))
    print("};")
