/* Attention of one head for the queries of one strip. Scores are kept as [key][query]: queries lie across the lanes,
   and softmax needs no sum within a vector. */

#pragma once

#include "tokens.h"
#include "vectors.h"

/* Keys and values of one head of one example. */
typedef struct {
  const Span *span; /* [spans]: where the example's tokens lie */
  int32_t spans;
  const Tile *tile;
  const void *key, *value;  /* of the batch: tile by tile, [rows][width] */
  long rows;                /* of a tile */
  long row;                 /* the head's first */
  int32_t size;             /* of the head: its rows */
  const float *mask;        /* [keys]: 0, or a large negative number for a key that nobody attends to */
  const float *bias;        /* added to a score: bias[query - key]; NULL: none */
} Keys;

/* A head's first row at the first token of one of its spans. */
INLINE const float *rows_at(const Keys *keys, const void *of, const Span *span) {
  const Tile *tile = keys->tile + span->tile;
  return (const float *)of + keys->rows * tile->start + keys->row * tile->width + span->first;
}

INLINE void attend(const int vectors, const Keys *keys, const float *query, long ld, long position, float *context,
                   float *scores) {
  vec largest[STRIP], sum[STRIP];
  UNROLL for (int v = 0; v < vectors; v++) largest[v] = splat(-1e30f), sum[v] = splat(0.0f);
  float *score = scores;
  long place = 0;
  for (int s = 0; s < keys->spans; s++) {
    const Span *span = keys->span + s;
    const long width = keys->tile[span->tile].width;
    const float *first = rows_at(keys, keys->key, span);
    for (int j = 0; j < span->count; j += 4, place += 4) {
      const float *key = first + j;
      vec product[4][STRIP];
      UNROLL for (int k = 0; k < 4; k++) {
        UNROLL for (int v = 0; v < vectors; v++) {
          product[k][v] = splat(keys->mask[place + k]);
          if (keys->bias) product[k][v] += load(keys->bias + position + v * LANES - (place + k));
        }
      }
      for (int d = 0; d < keys->size; d++) {
        vec q[STRIP];
        UNROLL for (int v = 0; v < vectors; v++) q[v] = load(query + d * ld + v * LANES);
        UNROLL for (int k = 0; k < 4; k++) {
          const vec one = splat(key[d * width + k]);
          UNROLL for (int v = 0; v < vectors; v++) product[k][v] += one * q[v];
        }
      }
      UNROLL for (int k = 0; k < 4; k++) {
        UNROLL for (int v = 0; v < vectors; v++) {
          largest[v] = larger(largest[v], product[k][v]);
          store(score, product[k][v]);
          score += LANES;
        }
      }
    }
  }
  float *end = score;
  for (score = scores; score < end; score += vectors * LANES) {
    UNROLL for (int v = 0; v < vectors; v++) {
      const vec power = exponential(load(score + v * LANES) - largest[v]);
      sum[v] += power;
      store(score + v * LANES, power);
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) sum[v] = splat(1.0f) / sum[v];
  for (int d = 0; d < keys->size; d += 4) {
    const int rows = keys->size - d < 4 ? keys->size - d : 4;
    vec total[4][STRIP];
    UNROLL for (int k = 0; k < 4; k++) {
      UNROLL for (int v = 0; v < vectors; v++) total[k][v] = splat(0.0f);
    }
    score = scores;
    for (int s = 0; s < keys->spans; s++) {
      /* Beyond the head's last row the first one is read again; its sum is not stored. */
      const Span *span = keys->span + s;
      const long width = keys->tile[span->tile].width;
      const float *first = rows_at(keys, keys->value, span);
      const float *value[4];
      UNROLL for (int k = 0; k < 4; k++) value[k] = first + (k < rows ? d + k : d) * width;
      for (int j = 0; j < span->count; j++, score += vectors * LANES) {
        vec p[STRIP];
        UNROLL for (int v = 0; v < vectors; v++) p[v] = load(score + v * LANES);
        UNROLL for (int k = 0; k < 4; k++) {
          const vec one = splat(value[k][j]);
          UNROLL for (int v = 0; v < vectors; v++) total[k][v] += one * p[v];
        }
      }
    }
    UNROLL for (int k = 0; k < 4; k++) {
      if (k < rows) {
        UNROLL for (int v = 0; v < vectors; v++) store(context + (d + k) * ld + v * LANES, total[k][v] * sum[v]);
      }
    }
  }
}

#define ATTEND(VECTORS)                                                                                             \
  KERNEL void attend_##VECTORS(const Keys *keys, const float *query, long ld, long position, float *context,        \
                               float *scores) {                                                                     \
    attend(VECTORS, keys, query, ld, position, context, scores);                                                    \
  }

ATTEND(1)
ATTEND(2)
#if STRIP == 4
ATTEND(3)
ATTEND(4)
#endif

/* The attention of one head for `count` queries, from `position` in their example on.
   query, context: [size][ld]. scores: room for STRIP * LANES floats per key. */
static void attention_forward(const Keys *keys, const float *query, float *context, long ld, long position, long count,
                              float *scores) {
  for (long token = 0; token < count;) {
    const long left = (count - token) / LANES;
    const int vectors = left < STRIP ? (int)left : STRIP;
    switch (vectors) {
    case 1: attend_1(keys, query + token, ld, position + token, context + token, scores); break;
    case 2: attend_2(keys, query + token, ld, position + token, context + token, scores); break;
#if STRIP == 4
    case 3: attend_3(keys, query + token, ld, position + token, context + token, scores); break;
    case 4: attend_4(keys, query + token, ld, position + token, context + token, scores); break;
#endif
    }
    token += (long)vectors * LANES;
  }
}
