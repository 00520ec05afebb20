/* Dropout: y = x * scale where noise >= threshold, 0 elsewhere; the operations and their order as in dropout.py. */

#include <math.h>
#include <stdint.h>
#include <string.h>

void hydraprune_dropout_float32(const float *x, const int16_t *noise, float *y, long n, int threshold, float scale,
                                int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < n; i++) y[i] = (x[i] * (noise[i] >= threshold ? 1.0f : 0.0f)) * scale;
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

void hydraprune_dropout_bfloat16(const uint16_t *x, const int16_t *noise, uint16_t *y, long n, int threshold,
                                 float scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < n; i++) {
    float kept = bfloat16_to_float(x[i]) * (noise[i] >= threshold ? 1.0f : 0.0f);
    y[i] = float_to_bfloat16(kept * scale);
  }
}
