/* Attention of one head in bfloat16; softmax in single precision. Queries and keys lie as pairs of features,
   [size / 2][width][2], values as [size][width]: neighbouring keys are the pairs there. */

#pragma once

#include "attention.h"
#include "bfloat16.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)

INLINE const bf16 *narrow_rows_at(const Keys *keys, const void *of, const Span *span, long per_token) {
  const Tile *tile = keys->tile + span->tile;
  return (const bf16 *)of + keys->rows * tile->start + keys->row * tile->width + per_token * span->first;
}

/* Two vectors of single precision as one of pairs. */
INLINE __m512i paired(__m512 first, __m512 second) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

/* The steps of attention, as in single precision. query: pairs; scores: [keys][vectors] vectors. */
typedef void PairScores(const Keys *, const bf16 *query, long ld, long position, float *scores, float *largest);
typedef void PairSoftmax(long keys, const float *scores, const float *largest, float *scale, bf16 *powers);
typedef void PairMix(const Keys *, const bf16 *powers, const float *scale, bf16 *context, long ld);

INLINE void score_pairs(const int vectors, const Keys *keys, const bf16 *query, long ld, long position, float *scores,
                        float *largest) {
  vec most[4];
  UNROLL for (int v = 0; v < vectors; v++) most[v] = splat(-1e30f);
  long place = 0;
  for (int s = 0; s < keys->spans; s++) {
    const Span *span = keys->span + s;
    const long width = keys->tile[span->tile].width;
    const uint32_t *first = (const uint32_t *)narrow_rows_at(keys, keys->key, span, 2);
    for (int j = 0; j < span->count; j += 4, place += 4) {
      const uint32_t *key = first + j;
      __m512 product[4][4];
      UNROLL for (int k = 0; k < 4; k++) {
        UNROLL for (int v = 0; v < vectors; v++) {
          product[k][v] = _mm512_set1_ps(keys->mask[place + k]);
          if (keys->bias) product[k][v] += (__m512)load(keys->bias + position + v * LANES - (place + k));
        }
      }
      for (int d = 0; d < keys->size / 2; d++) {
        __m512i q[4];
        UNROLL for (int v = 0; v < vectors; v++) q[v] = _mm512_loadu_si512(query + 2 * (d * ld + v * LANES));
        UNROLL for (int k = 0; k < 4; k++) {
          const __m512i one = _mm512_set1_epi32((int)key[d * width + k]);
          UNROLL for (int v = 0; v < vectors; v++)
            product[k][v] = _mm512_dpbf16_ps(product[k][v], (__m512bh)q[v], (__m512bh)one);
        }
      }
      UNROLL for (int k = 0; k < 4; k++) {
        UNROLL for (int v = 0; v < vectors; v++) {
          most[v] = larger(most[v], (vec)product[k][v]);
          store(scores, (vec)product[k][v]);
          scores += LANES;
        }
      }
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) store(largest + v * LANES, most[v]);
}

/* powers: [keys / 2][vectors][LANES][2], exp(score - largest). */
INLINE void exponentiate_pairs(const int vectors, long keys, const float *scores, const float *largest, float *scale,
                               bf16 *powers) {
  const long ld = vectors * LANES;
  vec sum[4], most[4];
  UNROLL for (int v = 0; v < vectors; v++) sum[v] = splat(0.0f), most[v] = load(largest + v * LANES);
  for (long j = 0; j < keys; j += 2) {
    UNROLL for (int v = 0; v < vectors; v++) {
      const float *at = scores + j * ld + v * LANES;
      const vec a = exponential(load(at) - most[v]), b = exponential(load(at + ld) - most[v]);
      sum[v] += a + b;
      _mm512_storeu_si512(powers + j * ld + 2 * v * LANES, paired((__m512)a, (__m512)b));
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) store(scale + v * LANES, splat(1.0f) / sum[v]);
}

INLINE void mix_pairs(const int vectors, const Keys *keys, const bf16 *powers, const float *scale, bf16 *context,
                      long ld) {
  for (int d = 0; d < keys->size; d += 4) {
    const int rows = keys->size - d < 4 ? keys->size - d : 4;
    __m512 total[4][4];
    UNROLL for (int k = 0; k < 4; k++) {
      UNROLL for (int v = 0; v < vectors; v++) total[k][v] = _mm512_setzero_ps();
    }
    const bf16 *power = powers;
    for (int s = 0; s < keys->spans; s++) {
      /* Beyond the head's last row the first one is read again; its sum is not stored. */
      const Span *span = keys->span + s;
      const long width = keys->tile[span->tile].width;
      const bf16 *first = narrow_rows_at(keys, keys->value, span, 1);
      const uint32_t *value[4];
      UNROLL for (int k = 0; k < 4; k++) value[k] = (const uint32_t *)(first + (k < rows ? d + k : d) * width);
      for (int j = 0; j < span->count / 2; j++, power += 2 * vectors * LANES) {
        __m512i p[4];
        UNROLL for (int v = 0; v < vectors; v++) p[v] = _mm512_loadu_si512(power + 2 * v * LANES);
        UNROLL for (int k = 0; k < 4; k++) {
          const __m512i one = _mm512_set1_epi32((int)value[k][j]);
          UNROLL for (int v = 0; v < vectors; v++)
            total[k][v] = _mm512_dpbf16_ps(total[k][v], (__m512bh)p[v], (__m512bh)one);
        }
      }
    }
    UNROLL for (int k = 0; k < 4; k++) {
      if (k < rows) {
        UNROLL for (int v = 0; v < vectors; v++)
          _mm256_storeu_si256((__m256i *)(context + (d + k) * ld + v * LANES),
                              (__m256i)_mm512_cvtneps_pbh((__m512)((vec)total[k][v] * load(scale + v * LANES))));
      }
    }
  }
}

#define ATTENTION_PAIRS(VECTORS)                                                                                    \
  KERNEL void pair_scores_##VECTORS(const Keys *keys, const bf16 *query, long ld, long position, float *scores,     \
                                    float *largest) {                                                               \
    score_pairs(VECTORS, keys, query, ld, position, scores, largest);                                               \
  }                                                                                                                 \
  KERNEL void pair_softmax_##VECTORS(long keys, const float *scores, const float *largest, float *scale,            \
                                     bf16 *powers) {                                                                \
    exponentiate_pairs(VECTORS, keys, scores, largest, scale, powers);                                              \
  }                                                                                                                 \
  KERNEL void pair_mix_##VECTORS(const Keys *keys, const bf16 *powers, const float *scale, bf16 *context, long ld) { \
    mix_pairs(VECTORS, keys, powers, scale, context, ld);                                                           \
  }

ATTENTION_PAIRS(1)
ATTENTION_PAIRS(2)
ATTENTION_PAIRS(3)
ATTENTION_PAIRS(4)
static PairScores *const PAIR_SCORES[] = {0, pair_scores_1, pair_scores_2, pair_scores_3, pair_scores_4};
static PairSoftmax *const PAIR_SOFTMAX[] = {0, pair_softmax_1, pair_softmax_2, pair_softmax_3, pair_softmax_4};
static PairMix *const PAIR_MIX[] = {0, pair_mix_1, pair_mix_2, pair_mix_3, pair_mix_4};

/* As attention_forward, with queries and the context in bfloat16. */
static void attention_pairs_forward(const Keys *keys, const bf16 *query, bf16 *context, long ld, long position,
                                    long count, float *scores, bf16 *powers) {
  float largest[4 * LANES], scale[4 * LANES];
  for (long token = 0; token < count;) {
    const long left = (count - token) / LANES, vectors = left < 4 ? left : 4;
    PAIR_SCORES[vectors](keys, query + 2 * token, ld, position + token, scores, largest);
    PAIR_SOFTMAX[vectors](key_count(keys), scores, largest, scale, powers);
    PAIR_MIX[vectors](keys, powers, scale, context + token, ld);
    token += vectors * LANES;
  }
}

INLINE float widened(bf16 x) {
  const uint32_t bits = (uint32_t)x << 16;
  float found;
  memcpy(&found, &bits, sizeof found);
  return found;
}

INLINE bf16 narrowed(float x) { return (bf16)_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(x)), 0); }

/* As attend_first; the query, which becomes the context, in bfloat16. */
static void attend_first_pairs(const Keys *keys, bf16 *query, long ld, float *scores) {
  for (int s = 0; s < keys->spans; s++) {
    const Span *span = keys->span + s;
    const long width = keys->tile[span->tile].width;
    const bf16 *key = narrow_rows_at(keys, keys->key, span, 2);
    for (long j = 0, place = span->position; j < span->count; j += LANES, place += LANES) {
      vec start = load(keys->mask + place);
      if (keys->bias) start += first_bias(keys, place);
      __m512 product = (__m512)start;
      for (int d = 0; d < keys->size / 2; d++) {
        const uint32_t pair = query[2 * d * ld] | (uint32_t)query[(2 * d + 1) * ld] << 16;
        product = _mm512_dpbf16_ps(product, (__m512bh)_mm512_loadu_si512(key + 2 * (d * width + j)),
                                   (__m512bh)_mm512_set1_epi32((int)pair));
      }
      store(scores + place, (vec)product);
    }
  }
  const float scale = softmax_first(scores, key_count(keys));
  for (int d = 0; d < keys->size; d++) {
    vec sum = splat(0.0f);
    for (int s = 0; s < keys->spans; s++) {
      const Span *span = keys->span + s;
      const bf16 *value = narrow_rows_at(keys, keys->value, span, 1) + d * keys->tile[span->tile].width;
      for (int j = 0; j < span->count; j += LANES) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(value + j)));
        sum += load(scores + span->position + j) * (vec)_mm512_slli_epi32(wide, 16);
      }
    }
    query[d * ld] = narrowed(total(sum) * scale);
  }
}

#endif
