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

/* Keys, or rows of values, at a time: as many as there are registers for their sums. */
#define AT_ONCE(vectors) ((vectors) > 2 ? 4 : SUMS / (vectors))

/* The steps of attention for one strip of queries. Each is a function of its own, or the compiler runs out of
   registers. scores: [keys][vectors] vectors. */
typedef void Scores(const Keys *, const float *query, long ld, long position, float *scores, float *largest);
typedef void Softmax(long keys, float *scores, const float *largest, float *scale);
typedef void Mix(const Keys *, const float *scores, const float *scale, float *context, long ld);

/* scores = query times key, and the largest one of each query. */
INLINE void score_keys(const int vectors, const Keys *keys, const float *query, long ld, long position, float *scores,
                       float *largest) {
  const int at_once = AT_ONCE(vectors);
  vec most[STRIP];
  UNROLL for (int v = 0; v < vectors; v++) most[v] = splat(-1e30f);
  long place = 0;
  for (int s = 0; s < keys->spans; s++) {
    const Span *span = keys->span + s;
    const long width = keys->tile[span->tile].width;
    const float *first = rows_at(keys, keys->key, span);
    for (int j = 0; j < span->count; j += at_once, place += at_once) {
      const float *key = first + j;
      vec product[SUMS][STRIP];
      UNROLL for (int k = 0; k < at_once; k++) {
        UNROLL for (int v = 0; v < vectors; v++) {
          product[k][v] = splat(keys->mask[place + k]);
          if (keys->bias) product[k][v] += load(keys->bias + position + v * LANES - (place + k));
        }
      }
      for (int d = 0; d < keys->size; d++) {
        vec q[STRIP];
        UNROLL for (int v = 0; v < vectors; v++) q[v] = load(query + d * ld + v * LANES);
        UNROLL for (int k = 0; k < at_once; k++) {
          const vec one = splat(key[d * width + k]);
          UNROLL for (int v = 0; v < vectors; v++) product[k][v] += one * q[v];
          KEEP(one);
        }
        UNROLL for (int v = 0; v < vectors; v++) KEEP(q[v]);
      }
      UNROLL for (int k = 0; k < at_once; k++) {
        UNROLL for (int v = 0; v < vectors; v++) {
          most[v] = larger(most[v], product[k][v]);
          store(scores, product[k][v]);
          scores += LANES;
        }
      }
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) store(largest + v * LANES, most[v]);
}

/* scores = exp(score - largest), and one divided by their sum. */
INLINE void exponentiate(const int vectors, long keys, float *scores, const float *largest, float *scale) {
  vec sum[STRIP], most[STRIP];
  UNROLL for (int v = 0; v < vectors; v++) sum[v] = splat(0.0f), most[v] = load(largest + v * LANES);
  for (const float *end = scores + keys * vectors * LANES; scores < end; scores += vectors * LANES) {
    UNROLL for (int v = 0; v < vectors; v++) {
      const vec power = exponential(load(scores + v * LANES) - most[v]);
      sum[v] += power;
      store(scores + v * LANES, power);
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) store(scale + v * LANES, splat(1.0f) / sum[v]);
}

/* context = scale times the sum of the values, weighted by the scores. */
INLINE void mix_values(const int vectors, const Keys *keys, const float *scores, const float *scale, float *context,
                       long ld) {
  const int at_once = AT_ONCE(vectors);
  for (int d = 0; d < keys->size; d += at_once) {
    const int rows = keys->size - d < at_once ? keys->size - d : at_once;
    vec total[SUMS][STRIP];
    UNROLL for (int k = 0; k < at_once; k++) {
      UNROLL for (int v = 0; v < vectors; v++) total[k][v] = splat(0.0f);
    }
    const float *score = scores;
    for (int s = 0; s < keys->spans; s++) {
      /* Beyond the head's last row the first one is read again; its sum is not stored. */
      const Span *span = keys->span + s;
      const long width = keys->tile[span->tile].width;
      const float *first = rows_at(keys, keys->value, span);
      const float *value[SUMS];
      UNROLL for (int k = 0; k < at_once; k++) value[k] = first + (k < rows ? d + k : d) * width;
      for (int j = 0; j < span->count; j++, score += vectors * LANES) {
        vec p[STRIP];
        UNROLL for (int v = 0; v < vectors; v++) p[v] = load(score + v * LANES);
        UNROLL for (int k = 0; k < at_once; k++) {
          const vec one = splat(value[k][j]);
          UNROLL for (int v = 0; v < vectors; v++) total[k][v] += one * p[v];
          KEEP(one);
        }
        UNROLL for (int v = 0; v < vectors; v++) KEEP(p[v]);
      }
    }
    UNROLL for (int k = 0; k < at_once; k++) {
      if (k < rows) {
        UNROLL for (int v = 0; v < vectors; v++)
          store(context + (d + k) * ld + v * LANES, total[k][v] * load(scale + v * LANES));
      }
    }
  }
}

#define ATTENTION(VECTORS)                                                                                          \
  KERNEL void scores_##VECTORS(const Keys *keys, const float *query, long ld, long position, float *scores,         \
                               float *largest) {                                                                    \
    score_keys(VECTORS, keys, query, ld, position, scores, largest);                                                \
  }                                                                                                                 \
  KERNEL void softmax_##VECTORS(long keys, float *scores, const float *largest, float *scale) {                     \
    exponentiate(VECTORS, keys, scores, largest, scale);                                                            \
  }                                                                                                                 \
  KERNEL void mix_##VECTORS(const Keys *keys, const float *scores, const float *scale, float *context, long ld) {   \
    mix_values(VECTORS, keys, scores, scale, context, ld);                                                          \
  }

ATTENTION(1)
ATTENTION(2)
#if STRIP == 4
ATTENTION(3)
ATTENTION(4)
static Scores *const SCORES[] = {0, scores_1, scores_2, scores_3, scores_4};
static Softmax *const SOFTMAX[] = {0, softmax_1, softmax_2, softmax_3, softmax_4};
static Mix *const MIX[] = {0, mix_1, mix_2, mix_3, mix_4};
#else
static Scores *const SCORES[] = {0, scores_1, scores_2};
static Softmax *const SOFTMAX[] = {0, softmax_1, softmax_2};
static Mix *const MIX[] = {0, mix_1, mix_2};
#endif

/* Keys of an example, padding to a whole UNIT included. */
static long key_count(const Keys *keys) {
  const Span *last = keys->span + keys->spans - 1;
  return last->position + last->count;
}

/* The attention of one head for `count` queries, from `position` in their example on.
   query, context: [size][ld]. scores: room for STRIP * LANES floats per key. */
static void attention_forward(const Keys *keys, const float *query, float *context, long ld, long position, long count,
                              float *scores) {
  float largest[STRIP * LANES], scale[STRIP * LANES];
  for (long token = 0; token < count;) {
    const long left = (count - token) / LANES, vectors = left < STRIP ? left : STRIP;
    SCORES[vectors](keys, query + token, ld, position + token, scores, largest);
    SOFTMAX[vectors](key_count(keys), scores, largest, scale);
    MIX[vectors](keys, scores, scale, context + token, ld);
    token += vectors * LANES;
  }
}

/* The bias of a score at query 0 and each of the keys from `place` on. */
INLINE vec first_bias(const Keys *keys, long place) {
  float bias[LANES];
  for (long i = 0; i < LANES; i++) bias[i] = keys->bias[-(place + i)];
  return load(bias);
}

/* Softmax of `count` scores, a multiple of LANES: scores = exp(score - largest). Returns 1 / their sum. */
static float softmax_first(float *scores, long count) {
  vec most = load(scores), sum = splat(0.0f);
  for (long j = LANES; j < count; j += LANES) most = larger(most, load(scores + j));
  float largest = most[0];
  for (int i = 1; i < LANES; i++) largest = most[i] > largest ? most[i] : largest;
  for (long j = 0; j < count; j += LANES) {
    const vec power = exponential(load(scores + j) - splat(largest));
    sum += power;
    store(scores + j, power);
  }
  return 1.0f / total(sum);
}

/* The attention of one head for the first token of an example. Keys lie across the lanes.
   query, which becomes the context: [size], `ld` floats apart. scores: room for a float per key. */
static void attend_first(const Keys *keys, float *query, long ld, float *scores) {
  for (int s = 0; s < keys->spans; s++) {
    const Span *span = keys->span + s;
    const long width = keys->tile[span->tile].width;
    const float *key = rows_at(keys, keys->key, span);
    for (long j = 0, place = span->position; j < span->count; j += LANES, place += LANES) {
      vec product = load(keys->mask + place);
      if (keys->bias) product += first_bias(keys, place);
      for (int d = 0; d < keys->size; d++) product += splat(query[d * ld]) * load(key + d * width + j);
      store(scores + place, product);
    }
  }
  const float scale = softmax_first(scores, key_count(keys));
  for (int d = 0; d < keys->size; d++) {
    vec sum = splat(0.0f);
    for (int s = 0; s < keys->spans; s++) {
      const Span *span = keys->span + s;
      const float *value = rows_at(keys, keys->value, span) + d * keys->tile[span->tile].width;
      for (int j = 0; j < span->count; j += LANES) sum += load(scores + span->position + j) * load(value + j);
    }
    query[d * ld] = total(sum) * scale;
  }
}
