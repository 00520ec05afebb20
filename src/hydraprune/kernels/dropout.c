/* Dropout: y = x * scale where a value is kept, 0 elsewhere; the operations and their order as in dropout.py. */

#include <string.h>

#include "random_bits.h"

void hydraprune_dropout_float32(const float *x, float *y, long n, uint32_t first, uint32_t second, int levels,
                                float scale, int threads) {
  const Dropout dropout = {{first, second}, levels, scale};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < n; i++) y[i] = (x[i] * (is_kept(&dropout, (uint32_t)i) ? 1.0f : 0.0f)) * scale;
}

static float bfloat16_to_float(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

/* Rounds to nearest, ties to even. */
static uint16_t float_to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : (uint16_t)rounded;
}

void hydraprune_dropout_bfloat16(const uint16_t *x, uint16_t *y, long n, uint32_t first, uint32_t second, int levels,
                                 float scale, int threads) {
  const Dropout dropout = {{first, second}, levels, scale};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < n; i++) {
    const float kept = bfloat16_to_float(x[i]) * (is_kept(&dropout, (uint32_t)i) ? 1.0f : 0.0f);
    y[i] = float_to_bfloat16(kept * scale);
  }
}
