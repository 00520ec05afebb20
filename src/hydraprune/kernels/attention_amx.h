/* Attention of one head by AMX, in bfloat16; softmax in single precision.

   One instruction multiplies 16 rows of 32 numbers with 32 rows of 16: a row of the first is a key, or a feature of the
   values; the second are queries, or powers, as pairs [numbers / 2][queries][2]. The keys of a head lie token
   by token, [width][size], its values feature by feature. */

#pragma once

#include "attention_bf16.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && \
    defined(__linux__)
#define HAS_AMX 1

#include <sys/syscall.h>
#include <unistd.h>

/* Registers 0 to 3 are sums of 16 x 16; 4 and 5 the factors of 32 numbers; 6 and 7 those of 16. */
typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} TileConfig;

static const TileConfig TILES = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 32, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 8}};

/* Whether the system lets this process use AMX. */
static int amx_is_allowed(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0; }

/* GCC's functions for tiles do not tell the compiler that they read and write memory: what was written before is there
   before a tile is loaded, and nothing is read before a tile was stored. */
#define MEMORY_IS_SEEN() __asm__ volatile("" ::: "memory")

/* sum[v] += one times other[v], for `vectors` vectors of 16 queries; `numbers`: 32 or 16 of them are summed. */
#define MULTIPLY_TILES(vectors, one, one_ld, other, other_ld, half)                            \
  do {                                                                                         \
    const char *other_ = (const char *)(other);                                                \
    MEMORY_IS_SEEN();                                                                          \
    if (half) {                                                                                \
      _tile_loadd(6, one, one_ld);                                                             \
      MULTIPLY_TILE(0, 6, 7, other_, other_ld);                                                \
      if (vectors > 1) MULTIPLY_TILE(1, 6, 7, other_ + 64, other_ld);                          \
      if (vectors > 2) MULTIPLY_TILE(2, 6, 7, other_ + 128, other_ld);                         \
      if (vectors > 3) MULTIPLY_TILE(3, 6, 7, other_ + 192, other_ld);                         \
    } else {                                                                                   \
      _tile_loadd(4, one, one_ld);                                                             \
      MULTIPLY_TILE(0, 4, 5, other_, other_ld);                                                \
      if (vectors > 1) MULTIPLY_TILE(1, 4, 5, other_ + 64, other_ld);                          \
      if (vectors > 2) MULTIPLY_TILE(2, 4, 5, other_ + 128, other_ld);                         \
      if (vectors > 3) MULTIPLY_TILE(3, 4, 5, other_ + 192, other_ld);                         \
    }                                                                                          \
  } while (0)
#define MULTIPLY_TILE(sum, one, second, other, ld) \
  do {                                             \
    _tile_loadd(second, other, ld);                \
    _tile_dpbf16ps(sum, one, second);              \
  } while (0)

INLINE void zero_tiles(int vectors) {
  _tile_zero(0);
  if (vectors > 1) _tile_zero(1);
  if (vectors > 2) _tile_zero(2);
  if (vectors > 3) _tile_zero(3);
}

/* to[16][ld], 16 numbers for each sum. */
INLINE void store_tiles(int vectors, float *to, long ld) {
  _tile_stored(0, to, ld * sizeof(float));
  if (vectors > 1) _tile_stored(1, to + 16, ld * sizeof(float));
  if (vectors > 2) _tile_stored(2, to + 32, ld * sizeof(float));
  if (vectors > 3) _tile_stored(3, to + 48, ld * sizeof(float));
  MEMORY_IS_SEEN();
}

/* scores[keys][vectors * 16]; query: pairs. */
static void scores_by_tiles(int vectors, const Keys *keys, const bf16 *query, long ld, float *scores) {
  for (int s = 0; s < keys->spans; s++) {
    const Span *span = keys->span + s;
    const bf16 *key = narrow_rows_at(keys, keys->key, span, keys->size);
    for (int j = 0; j < span->count; j += 16) {
      zero_tiles(vectors);
      for (int d = 0; d < keys->size; d += 32)
        MULTIPLY_TILES(vectors, key + j * keys->size + d, 2 * keys->size, query + d * ld, 4 * ld,
                       keys->size - d < 32);
      store_tiles(vectors, scores + (span->position + j) * vectors * 16, vectors * 16);
    }
  }
}

/* The scores of key `j` with its mask and bias, for one vector of queries. */
INLINE vec score_of(const Keys *keys, const float *scores, long position, long j, int v, long ld) {
  vec score = load(scores + j * ld + v * LANES) + splat(keys->mask[j]);
  if (keys->bias) score += load(keys->bias + position + v * LANES - j);
  return score;
}

/* exp(x) for x <= 0 to 4e-6, which bfloat16 cannot tell from exact: 2^n 2^f with |f| <= 1/2, and Taylor's series. */
INLINE vec rough_exponential(vec x) {
  const __m512 t = (__m512)(x * splat(1.44269504f));
  const __m512 n = _mm512_roundscale_ps(t, 0);
  const vec f = (vec)_mm512_sub_ps(t, n);
  vec p = splat(9.61812911e-3f);
  p = p * f + splat(5.55041087e-2f);
  p = p * f + splat(2.40226507e-1f);
  p = p * f + splat(6.93147181e-1f);
  p = p * f + splat(1.0f);
  return (vec)_mm512_scalef_ps((__m512)p, n);
}

/* As exponentiate_pairs, of scores without masks and biases. */
INLINE void softmax_pairs(const int vectors, const Keys *keys, long position, const float *scores, float *scale,
                          bf16 *powers) {
  const long ld = vectors * LANES, count = key_count(keys);
  vec sum[4], most[4];
  UNROLL for (int v = 0; v < vectors; v++) sum[v] = splat(0.0f), most[v] = splat(-1e30f);
  for (long j = 0; j < count; j++) {
    UNROLL for (int v = 0; v < vectors; v++) most[v] = larger(most[v], score_of(keys, scores, position, j, v, ld));
  }
  for (long j = 0; j < count; j += 2) {
    UNROLL for (int v = 0; v < vectors; v++) {
      const vec a = rough_exponential(score_of(keys, scores, position, j, v, ld) - most[v]);
      const vec b = rough_exponential(score_of(keys, scores, position, j + 1, v, ld) - most[v]);
      sum[v] += a + b;
      _mm512_storeu_si512(powers + j * ld + 2 * v * LANES, paired((__m512)a, (__m512)b));
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) store(scale + v * LANES, splat(1.0f) / sum[v]);
}

/* 16 rows of values at 32 keys, the first 16 at the end of one span and the others at the start of the next. */
static void join_values(const Keys *keys, const Span *span, int d, bf16 *joined) {
  const long width = keys->tile[span->tile].width, next = keys->tile[span[1].tile].width;
  const bf16 *first = narrow_rows_at(keys, keys->value, span, 1) + span->count - 16 + d * width;
  const bf16 *second = narrow_rows_at(keys, keys->value, span + 1, 1) + d * next;
  for (int r = 0; r < 16; r++) {
    memcpy(joined + 32 * r, first + r * width, 16 * sizeof(bf16));
    memcpy(joined + 32 * r + 16, second + r * next, 16 * sizeof(bf16));
  }
}

/* context[size][ld]; value: [features][width] of each tile. Keys are summed 32 by 32 from an example's first one on,
   wherever its spans end: the sum depends on that grouping. */
static void mix_by_tiles(int vectors, const Keys *keys, const bf16 *powers, const float *scale, float *context,
                         long ld) {
  const long power_ld = 2 * vectors * LANES;
  for (int d = 0; d < keys->size; d += 16) {
    float *to = context + d * ld;
    int taken = 0; /* keys of a span that went with the last of the one before */
    zero_tiles(vectors);
    for (int s = 0; s < keys->spans; s++) {
      const Span *span = keys->span + s;
      const long width = keys->tile[span->tile].width;
      const bf16 *value = narrow_rows_at(keys, keys->value, span, 1) + d * width;
      const int first = taken;
      taken = 0;
      for (int j = first; j < span->count; j += 32) {
        const bf16 *power = powers + (span->position + j) / 2 * power_ld;
        bf16 joined[16 * 32];
        if (span->count - j >= 32) {
          MULTIPLY_TILES(vectors, value + j, 2 * width, power, 2 * power_ld, 0);
        } else if (s + 1 < keys->spans) {
          join_values(keys, span, d, joined);
          MULTIPLY_TILES(vectors, joined, 64, power, 2 * power_ld, 0);
          taken = 16;
        } else {
          MULTIPLY_TILES(vectors, value + j, 2 * width, power, 2 * power_ld, 1);
        }
      }
    }
    store_tiles(vectors, to, ld);
    for (int r = 0; r < 16; r++) {
      for (int v = 0; v < vectors; v++) {
        float *at = to + r * ld + v * LANES;
        store(at, load(at) * load(scale + v * LANES));
      }
    }
  }
}

KERNEL void softmax_pairs_1(const Keys *k, long p, const float *s, float *f, bf16 *o) { softmax_pairs(1, k, p, s, f, o); }
KERNEL void softmax_pairs_2(const Keys *k, long p, const float *s, float *f, bf16 *o) { softmax_pairs(2, k, p, s, f, o); }
KERNEL void softmax_pairs_3(const Keys *k, long p, const float *s, float *f, bf16 *o) { softmax_pairs(3, k, p, s, f, o); }
KERNEL void softmax_pairs_4(const Keys *k, long p, const float *s, float *f, bf16 *o) { softmax_pairs(4, k, p, s, f, o); }
typedef void SoftmaxPairs(const Keys *, long, const float *, float *, bf16 *);
static SoftmaxPairs *const SOFTMAX_PAIRS[] = {0, softmax_pairs_1, softmax_pairs_2, softmax_pairs_3, softmax_pairs_4};

/* As attention_forward, with keys, queries and values in bfloat16. */
static void attention_by_tiles(const Keys *keys, const bf16 *query, float *context, long ld, long position, long count,
                               float *scores, bf16 *powers) {
  float scale[4 * LANES];
  for (long token = 0; token < count;) {
    const long left = (count - token) / LANES;
    const int vectors = left < 4 ? (int)left : 4;
    scores_by_tiles(vectors, keys, query + 2 * token, ld, scores);
    SOFTMAX_PAIRS[vectors](keys, position + token, scores, scale, powers);
    mix_by_tiles(vectors, keys, powers, scale, context + token, ld);
    token += vectors * LANES;
  }
}

#endif
