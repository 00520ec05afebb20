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

/* query: pairs; context: bf16 [size][ld]; scores: [keys][vectors] vectors; powers: the same in bfloat16, by pairs. */
INLINE void attend_pairs(const int vectors, const Keys *keys, const bf16 *query, long ld, long position, bf16 *context,
                         float *scores, bf16 *powers) {
  vec largest[4], sum[4];
  UNROLL for (int v = 0; v < vectors; v++) largest[v] = splat(-1e30f), sum[v] = splat(0.0f);
  float *score = scores;
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
          largest[v] = larger(largest[v], (vec)product[k][v]);
          store(score, (vec)product[k][v]);
          score += LANES;
        }
      }
    }
  }
  const long ld_score = vectors * LANES;
  for (long j = 0; j < place; j += 2) {
    UNROLL for (int v = 0; v < vectors; v++) {
      const float *at = scores + j * ld_score + v * LANES;
      const vec a = exponential(load(at) - largest[v]), b = exponential(load(at + ld_score) - largest[v]);
      sum[v] += a + b;
      _mm512_storeu_si512(powers + j * ld_score + 2 * v * LANES, paired((__m512)a, (__m512)b));
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) sum[v] = splat(1.0f) / sum[v];
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
      for (int j = 0; j < span->count / 2; j++, power += 2 * ld_score) {
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
                              (__m256i)_mm512_cvtneps_pbh((__m512)((vec)total[k][v] * sum[v])));
      }
    }
  }
}

#define ATTEND_PAIRS(VECTORS)                                                                                       \
  KERNEL void attend_pairs_##VECTORS(const Keys *keys, const bf16 *query, long ld, long position, bf16 *context,    \
                                     float *scores, bf16 *powers) {                                                 \
    attend_pairs(VECTORS, keys, query, ld, position, context, scores, powers);                                      \
  }

ATTEND_PAIRS(1)
ATTEND_PAIRS(2)
ATTEND_PAIRS(3)
ATTEND_PAIRS(4)

/* As attention_forward, with queries and the context in bfloat16. */
static void attention_pairs_forward(const Keys *keys, const bf16 *query, bf16 *context, long ld, long position,
                                    long count, float *scores, bf16 *powers) {
  for (long token = 0; token < count;) {
    const long left = (count - token) / LANES, at = position + token;
    const bf16 *q = query + 2 * token;
    bf16 *c = context + token;
    switch (left < 4 ? left : 4) {
    case 1: attend_pairs_1(keys, q, ld, at, c, scores, powers); break;
    case 2: attend_pairs_2(keys, q, ld, at, c, scores, powers); break;
    case 3: attend_pairs_3(keys, q, ld, at, c, scores, powers); break;
    default: attend_pairs_4(keys, q, ld, at, c, scores, powers);
    }
    token += (left < 4 ? left : 4) * LANES;
  }
}

#endif
