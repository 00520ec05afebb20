/* Tiles of tokens, x[feature][token], and the way into and out of them from rows of features, x[token][feature]. */

#pragma once

#include "vectors.h"

/* Tokens of a unit: what a length is rounded up to. Tokens of the widest tile. */
#define UNIT 16
#define TILE 64

typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));

/* to[feature][token] = from[token][feature] for UNIT tokens and any number of features. */
static void transpose_in(const float *from, long from_ld, float *to, long to_ld, long features) {
  long f = 0;
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  for (; f + 4 <= features; f += 4) {
    for (int t = 0; t < UNIT; t += 4) {
      const float *p = from + t * from_ld + f;
      const quad a = *(const quad *)p, b = *(const quad *)(p + from_ld);
      const quad c = *(const quad *)(p + 2 * from_ld), d = *(const quad *)(p + 3 * from_ld);
      const quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const quad ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      float *q = to + f * to_ld + t;
      *(quad *)q = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
      *(quad *)(q + to_ld) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
      *(quad *)(q + 2 * to_ld) = __builtin_shufflevector(ef, gh, 0, 1, 4, 5);
      *(quad *)(q + 3 * to_ld) = __builtin_shufflevector(ef, gh, 2, 3, 6, 7);
    }
  }
#endif
  for (; f < features; f++) {
    for (int t = 0; t < UNIT; t++) to[f * to_ld + t] = from[t * from_ld + f];
  }
}

/* to[token][feature] = from[feature][token] for `tokens` <= UNIT tokens. */
static void transpose_out(const float *from, long from_ld, float *to, long to_ld, long features, int tokens) {
  long f = 0;
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  for (; f + 4 <= features; f += 4) {
    const float *p = from + f * from_ld;
    float *q = to + f;
    for (int t = 0; t < tokens; t += 4, p += 4, q += 4 * to_ld) {
      const quad a = *(const quad *)p, b = *(const quad *)(p + from_ld);
      const quad c = *(const quad *)(p + 2 * from_ld), d = *(const quad *)(p + 3 * from_ld);
      const quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const quad ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      *(quad *)q = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
      if (t + 1 < tokens) *(quad *)(q + to_ld) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
      if (t + 2 < tokens) *(quad *)(q + 2 * to_ld) = __builtin_shufflevector(ef, gh, 0, 1, 4, 5);
      if (t + 3 < tokens) *(quad *)(q + 3 * to_ld) = __builtin_shufflevector(ef, gh, 2, 3, 6, 7);
    }
  }
#endif
  for (; f < features; f++) {
    for (int t = 0; t < tokens; t++) to[t * to_ld + f] = from[f * from_ld + t];
  }
}
