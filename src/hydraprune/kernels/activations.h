/* What follows a linear layer, on vectors of tokens. */

#pragma once

#include "gelu_coefficients.h"
#include "vectors.h"

enum activation { NONE, GELU, GELU_TANH, RELU };

#if defined(__AVX512F__)
/* GELU(x) = max(x, 0) - t(|x|), where t(a) = a (1 - cdf(a)) is small and has an end: a cubic polynomial for each of 32
   pieces, its four coefficients looked up by one instruction each. */
INLINE vec gelu_by_pieces(const float table[4][GELU_PIECES], vec x) {
  const vec a = smaller((vec)_mm512_abs_ps((__m512)x), splat(GELU_END));
  /* Adding 1.5 * 2^23 rounds to an integer, which is then in the lowest bits. */
  const __m512i piece = (__m512i)(a * splat(GELU_PIECES_PER_UNIT) + splat(12582912.0f));
  vec coefficient[4];
  UNROLL for (int i = 0; i < 4; i++)
    coefficient[i] = (vec)_mm512_permutex2var_ps(_mm512_loadu_ps(table[i]), piece, _mm512_loadu_ps(table[i] + 16));
  const vec tail = ((coefficient[3] * a + coefficient[2]) * a + coefficient[1]) * a + coefficient[0];
  return larger(splat(0.0f), x) - tail; /* NaN stays: the second is taken */
}

INLINE void gelu_vectors(int n, vec *x) {
  for (int i = 0; i < n; i++) x[i] = gelu_by_pieces(GELU_TAIL, x[i]);
}

INLINE void gelu_tanh_vectors(int n, vec *x) {
  for (int i = 0; i < n; i++) x[i] = gelu_by_pieces(GELU_TANH_TAIL, x[i]);
}
#else
/* GELU(x) = x (1/2 + c P(u)) with c = x held within +-GELU_CLAMP and u = 2 (c / GELU_CLAMP)^2 - 1.
   Chebyshev's variable u keeps the sum free of cancellation. */
INLINE void gelu_chains(const int n, vec *x) {
  vec c[8], u[8], p[8];
  UNROLL for (int i = 0; i < n; i++) {
    c[i] = larger(smaller(x[i], splat(GELU_CLAMP)), splat(-GELU_CLAMP));
    u[i] = c[i] * c[i] * splat(2 / (GELU_CLAMP * GELU_CLAMP)) - splat(1.0f);
    p[i] = splat(GELU_COEFFICIENTS[GELU_TERMS - 1]);
  }
  UNROLL for (int k = GELU_TERMS - 2; k >= 0; k--) {
    UNROLL for (int i = 0; i < n; i++) p[i] = p[i] * u[i] + splat(GELU_COEFFICIENTS[k]);
  }
  /* Below -GELU_CLAMP the factor is 0 up to rounding, by which a large number would be multiplied. */
  UNROLL for (int i = 0; i < n; i++)
    x[i] = choose(x[i] < splat(-GELU_CLAMP), splat(0.0f), x[i] * (c[i] * p[i] + splat(0.5f)));
}

/* Vectors side by side, one chain of additions each: that hides their latency. */
INLINE void gelu_vectors(int n, vec *x) {
  int i = 0;
  for (; i + 8 <= n; i += 8) gelu_chains(8, x + i);
  for (; i + 4 <= n; i += 4) gelu_chains(4, x + i);
  for (; i < n; i++) gelu_chains(1, x + i);
}

/* The approximation of GELU by tanh: x / (1 + exp(-2 sqrt(2/pi) (x + 0.044715 x^3))). */
INLINE void gelu_tanh_vectors(int n, vec *x) {
  for (int i = 0; i < n; i++) {
    const vec z = splat(-1.59576912f) * (x[i] + splat(0.044715f) * x[i] * x[i] * x[i]);
    x[i] /= splat(1.0f) + exponential(smaller(z, splat(87.0f)));
  }
}
#endif

/* An activation of `n` vectors in memory, in place. */
static __attribute__((noinline)) void activate(enum activation activation, vec *x, int n) {
  if (activation == GELU) {
    gelu_vectors(n, x);
  } else if (activation == GELU_TANH) {
    gelu_tanh_vectors(n, x);
  } else if (activation == RELU) {
    for (int i = 0; i < n; i++) x[i] = larger(splat(0.0f), x[i]); /* NaN stays: the second is taken */
  }
}
