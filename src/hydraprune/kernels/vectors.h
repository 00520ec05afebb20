/* Vectors of tokens, one token per lane, and exp of them.

   The width is that of the processor which the code is compiled for. GCC's and Clang's vector types stand for the
   instructions, so that one source serves AVX-512, AVX2, NEON and anything else. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

/* LANES: floats in a vector. STRIP: vectors of tokens that a kernel keeps in registers for each of four rows.
   SUMS: registers for sums. */
#if defined(__AVX512F__)
#define LANES 16
#define STRIP 4
#define SUMS 16
#elif defined(__AVX2__) && defined(__FMA__)
#define LANES 8
#define STRIP 2
#define SUMS 8
#elif defined(__aarch64__) || defined(WIDE_STRIPS) /* the latter for tests on other processors */
#define LANES 4
#define STRIP 4
#define SUMS 16
#else
#define LANES 4
#define STRIP 2
#define SUMS 8
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

/* `n` <= LANES floats; the other lanes are 0, and not stored. */
INLINE vec load_some(const float *p, long n) {
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  float lanes[LANES] = {0};
  memcpy(lanes, p, n * sizeof(float));
  return load(lanes);
#endif
}

INLINE void store_some(float *p, vec x, long n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
#else
  memcpy(p, &x, n * sizeof(float));
#endif
}

INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }

/* The sum of all lanes. */
INLINE float total(vec x) {
  float sum[LANES];
  store(sum, x);
  for (int half = LANES / 2; half; half /= 2) {
    for (int i = 0; i < half; i++) sum[i] += sum[i + half];
  }
  return sum[0];
}

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

/* 1 / x, to 1 unit in the last place; a division takes as long as a dozen products. */
INLINE vec reciprocal(vec x) {
#if defined(__AVX512F__)
  const vec r = (vec)_mm512_rcp14_ps((__m512)x);
  return r * (splat(2.0f) - x * r);
#else
  return splat(1.0f) / x;
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
