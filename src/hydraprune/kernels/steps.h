/* The steps of an encoder other than its products: embedding, normalisation, and the way in and out of the layout
   feature by feature. */

#pragma once

#include "tokens.h"
#include "encoder.h"

/* Layer normalisation of each token, x[features][width] to y. The mean is taken first, then the squares of what
   differs from it, which no outlier cancels. */
INLINE void normalize(const int vectors, const Norm *norm, float epsilon, long features, const float *x, float *y,
                      long ld) {
  vec mean[STRIP], scale[STRIP];
  UNROLL for (int v = 0; v < vectors; v++) mean[v] = scale[v] = splat(0.0f);
  for (long f = 0; f < features; f++) {
    UNROLL for (int v = 0; v < vectors; v++) mean[v] += load(x + f * ld + v * LANES);
  }
  UNROLL for (int v = 0; v < vectors; v++) mean[v] *= splat(1.0f / features);
  for (long f = 0; f < features; f++) {
    UNROLL for (int v = 0; v < vectors; v++) {
      const vec difference = load(x + f * ld + v * LANES) - mean[v];
      scale[v] += difference * difference;
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) {
    float lanes[LANES];
    store(lanes, scale[v] * splat(1.0f / features) + splat(epsilon));
    /* Squares that overflow give NaN, as in PyTorch; 1 / infinity would leave nothing but the bias. */
    for (int i = 0; i < LANES; i++) lanes[i] = isinf(lanes[i]) ? NAN : 1.0f / sqrtf(lanes[i]);
    scale[v] = load(lanes);
  }
  for (long f = 0; f < features; f++) {
    const vec weight = splat(norm->weight[f]), bias = splat(norm->bias[f]);
    UNROLL for (int v = 0; v < vectors; v++)
      store(y + f * ld + v * LANES, (load(x + f * ld + v * LANES) - mean[v]) * scale[v] * weight + bias);
  }
}

typedef void Normalize(const Norm *, float epsilon, long features, const float *x, float *y, long ld);

#define NORMALIZE(VECTORS)                                                                                          \
  KERNEL void normalize_##VECTORS(const Norm *norm, float epsilon, long features, const float *x, float *y,         \
                                  long ld) {                                                                        \
    normalize(VECTORS, norm, epsilon, features, x, y, ld);                                                          \
  }

NORMALIZE(1)
NORMALIZE(2)
#if STRIP == 4
NORMALIZE(3)
NORMALIZE(4)
static Normalize *const NORMALIZERS[] = {0, normalize_1, normalize_2, normalize_3, normalize_4};
#else
static Normalize *const NORMALIZERS[] = {0, normalize_1, normalize_2};
#endif

static void norm_forward(const Norm *norm, float epsilon, long features, const float *x, float *y, long width) {
  for (long token = 0; token < width;) {
    const long left = (width - token) / LANES, vectors = left < STRIP ? left : STRIP;
    NORMALIZERS[vectors](norm, epsilon, features, x + token, y + token, width);
    token += vectors * LANES;
  }
}

/* What a batch is made of: input ids and what goes with them. [examples][tokens] */
typedef struct {
  const int64_t *ids;
  const int64_t *types; /* NULL: all of type 0 */
  const int64_t *mask;  /* NULL: every token is kept */
  long tokens;
} Inputs;

/* The row of each token of an example in the table of positions; RoBERTa counts tokens that are no padding. */
static void positions_of(const Encoder *encoder, const int64_t *ids, int32_t length, int32_t *position) {
  int32_t seen = 0;
  for (int32_t i = 0; i < length; i++) {
    if (encoder->padding < 0)
      position[i] = encoder->first_position + i;
    else if (ids[i] == encoder->padding)
      position[i] = encoder->padding;
    else
      position[i] = encoder->first_position + seen++;
  }
}

/* The sum of a token's rows in the tables, as [embedding]. */
static void embed(const Encoder *encoder, int64_t id, int64_t type, int32_t position, float *restrict row) {
  const long size = encoder->embedding;
  const float *word = encoder->word + id * size;
  const float *place = encoder->position ? encoder->position + position * size : 0;
  const float *kind = encoder->type ? encoder->type + type * size : 0;
  if (kind && place) {
    for (long i = 0; i < size; i++) row[i] = word[i] + kind[i] + place[i];
  } else if (kind || place) {
    const float *other = kind ? kind : place;
    for (long i = 0; i < size; i++) row[i] = word[i] + other[i];
  } else {
    memcpy(row, word, size * sizeof(float));
  }
}

/* Begins to fetch a token's row of the table of words, which is seldom in a cache. */
static void fetch(const Encoder *encoder, int64_t id) {
  const float *word = encoder->word + id * encoder->embedding;
  for (long i = 0; i < encoder->embedding; i += 16) __builtin_prefetch(word + i);
}
