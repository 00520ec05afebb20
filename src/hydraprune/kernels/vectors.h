/* Vectors of tokens, one token per lane, and the functions computed on them.

   The width is that of the processor which the code is compiled for. GCC's and Clang's vector types stand for the
   instructions, so that one source serves AVX-512, AVX2, NEON and anything else. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

/* LANES: floats in a vector. STRIP: vectors of tokens that a kernel keeps in registers for each of four rows. */
#if defined(__AVX512F__)
#define LANES 16
#define STRIP 4
#elif defined(__AVX2__) && defined(__FMA__)
#define LANES 8
#define STRIP 2
#elif defined(__aarch64__) || defined(WIDE_STRIPS) /* the latter for tests on other processors */
#define LANES 4
#define STRIP 4
#else
#define LANES 4
#define STRIP 2
#endif

#define INLINE static inline __attribute__((always_inline))
/* A kernel that is inlined into its caller runs out of registers. */
#define KERNEL static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 16")

/* Keeps a value in its register up to here: a product is then added in the register of the sum, where the compiler
   would otherwise overwrite a factor that it does not need any more, and move the sum back. */
#if defined(__AVX512F__)
#define KEEP(value) __asm__ volatile("" ::"v"(value))
#elif LANES == 8
#define KEEP(value) __asm__ volatile("" ::"x"(value))
#else
#define KEEP(value)
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec x) { *(vec *)p = x; }
INLINE vec splat(float x) {
#if defined(__AVX512F__)
  return (vec)_mm512_set1_ps(x);
#else
  return x - (vec){0};
#endif
}

INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }

INLINE vec larger(vec a, vec b) {
#if defined(__AVX512F__)
  return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
  return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return choose(a > b, a, b);
#endif
}

INLINE vec smaller(vec a, vec b) {
#if defined(__AVX512F__)
  return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8
  return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return choose(a < b, a, b);
#endif
}

/* exp(x) for x <= 88, to 2 units in the last place; exactly 0 below -87, so that a masked key adds nothing.
   exp(x) = 2^n exp(f) with |f| <= ln(2)/2, and the Taylor series of exp(f) up to f^6. */
INLINE vec exponential(vec x) {
  const vec magic = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
  const vec n = (x * splat(1.44269504f) + magic) - magic;
  vec f = x - n * splat(0.693145752f);
  f = f - n * splat(1.42860677e-6f);
  vec p = splat(1.0f / 720);
  p = p * f + splat(1.0f / 120);
  p = p * f + splat(1.0f / 24);
  p = p * f + splat(1.0f / 6);
  p = p * f + splat(0.5f);
  p = p * f + splat(1.0f);
  p = p * f + splat(1.0f);
#if defined(__AVX512F__)
  const vec result = (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  const ivec power = __builtin_convertvector(larger(n, splat(-126.0f)), ivec);
  const vec result = p * (vec)((power + 127) << 23);
#endif
  return choose(x < splat(-87.0f), splat(0.0f), result);
}

enum activation { NONE, GELU, GELU_TANH, RELU };

/* GELU(x) = x (1/2 + c P(u)) with c = x held within +-GELU_CLAMP and u = 2 (c / GELU_CLAMP)^2 - 1.
   Chebyshev's variable u keeps the sum free of cancellation. Coefficients: benchmarks/gelu_fit.py. */
#include "gelu_coefficients.h"

/* GELU of `n` vectors side by side: one chain of additions each, which hides their latency. */
INLINE void gelu_vectors(const int n, vec *x) {
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

/* The approximation of GELU by tanh: x / (1 + exp(-2 sqrt(2/pi) (x + 0.044715 x^3))). */
INLINE vec gelu_tanh(vec x) {
  const vec z = splat(-1.59576912f) * (x + splat(0.044715f) * x * x * x);
  return x / (splat(1.0f) + exponential(smaller(z, splat(87.0f))));
}

/* An activation of `n` vectors in memory, in place. */
static __attribute__((noinline)) void activate(enum activation activation, vec *x, int n) {
  int i = 0;
  if (activation == GELU) {
    for (; i + 8 <= n; i += 8) gelu_vectors(8, x + i);
    for (; i + 4 <= n; i += 4) gelu_vectors(4, x + i);
    for (; i < n; i++) gelu_vectors(1, x + i);
  } else if (activation == GELU_TANH) {
    for (; i < n; i++) x[i] = gelu_tanh(x[i]);
  } else if (activation == RELU) {
    for (; i < n; i++) x[i] = larger(splat(0.0f), x[i]); /* NaN stays: the second is taken */
  }
}
