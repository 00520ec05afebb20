/* y = x where noise >= threshold, times scale; 0 elsewhere. In the order of the torch path in dropout.py. */

#include <math.h>
#include <stdint.h>
#include <string.h>

void hydraprune_dropout_float32(const float *x, const int16_t *noise, float *y, long n, int threshold, float scale,
                                int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < n; i++) y[i] = (x[i] * (noise[i] >= threshold ? 1.0f : 0.0f)) * scale;
}

static float widened(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

/* To the nearest bfloat16, ties to even. */
static uint16_t narrowed(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : (uint16_t)rounded;
}

void hydraprune_dropout_bfloat16(const uint16_t *x, const int16_t *noise, uint16_t *y, long n, int threshold,
                                 float scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < n; i++) y[i] = narrowed((widened(x[i]) * (noise[i] >= threshold ? 1.0f : 0.0f)) * scale);
}
