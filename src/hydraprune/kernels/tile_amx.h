/* The layers of an encoder on one tile, or on first tokens: attention by AMX, everything else in single precision. */

#pragma once

#include "attention_amx.h"
#include "tile_single.h"

#ifdef HAS_AMX

/* Most rows of a head. */
#define AMX_ROWS 256

/* Whether heads are cut into whole tiles. */
static int amx_fits(const Encoder *encoder) {
  for (int32_t i = 0; i < encoder->layers; i++) {
    const int32_t size = encoder->layer[i].head_size;
    if (size % 16 || size > AMX_ROWS) return 0;
  }
  return 1;
}

/* x[rows][width] as pairs of rows, y[rows / 2][width][2]. */
static void pair_rows(const float *x, bf16 *y, long rows, long width) {
  for (long row = 0; row < rows; row += 2) {
    for (long i = 0; i < width; i += 16)
      _mm512_storeu_si512(y + row * width + 2 * i,
                          paired(_mm512_loadu_ps(x + row * width + i), _mm512_loadu_ps(x + (row + 1) * width + i)));
  }
}

/* A head's x[size][width] as y[width][size]; both multiples of 16. */
static void turn_head(const float *x, bf16 *y, long size, long width) {
  const long block = size < 16 ? size : 16; /* 16; a constant would make GCC warn of loops that never run */
  float turned[16 * 16];
  for (long row = 0; row < size; row += block) {
    for (long i = 0; i < width; i += 16) {
      transpose_out(x + row * width + i, width, turned, 16, block, 16);
      for (int t = 0; t < 16; t += 2) {
        const __m512i two = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(turned + 16 * (t + 1)),
                                                         _mm512_loadu_ps(turned + 16 * t));
        _mm256_storeu_si256((__m256i *)(y + (i + t) * size + row), _mm512_castsi512_si256(two));
        _mm256_storeu_si256((__m256i *)(y + (i + t + 1) * size + row), _mm512_extracti64x4_epi64(two, 1));
      }
    }
  }
}

static void project_amx(const Batch *batch, int layer, int which, const Tile *tile, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  const Linear *linear[3] = {&l->query, &l->key, &l->value};
  float *rows = scratch->context;
  for (; which < 3; which++) {
    const long outputs = linear[which]->outputs;
    bf16 *y = projection(batch, which, tile);
    linear_forward(linear[which], hidden_of(batch, tile), rows, 0, tile->width);
    if (which == 0) pair_rows(rows, y, outputs, tile->width);
    for (long row = 0; which == 1 && row < outputs; row += l->head_size)
      turn_head(rows + row * tile->width, y + row * tile->width, l->head_size, tile->width);
    if (which == 2) narrow_rows(rows, y, outputs * tile->width);
  }
}

/* Sets up the tiles of attention; `before` gets how they were, for whoever called. */
INLINE void begin_tiles(TileConfig *before) {
  _tile_storeconfig(before);
  MEMORY_IS_SEEN();
  _tile_loadconfig(&TILES);
}

INLINE void end_tiles(const TileConfig *before) {
  MEMORY_IS_SEEN();
  _tile_loadconfig(before);
}

static void attend_amx(const Batch *batch, const Layer *l, const Tile *tile, Scratch *scratch) {
  const bf16 *query = projection(batch, 0, tile);
  TileConfig before;
  begin_tiles(&before);
  for (int32_t s = tile->first_span; s < tile->first_span + tile->spans; s++) {
    const Span *span = batch->layout.span + s;
    for (int32_t head = 0; head < l->heads; head++) {
      const Keys keys = keys_of(batch, span->example, head, l->head_size);
      const long row = keys.row * tile->width;
      attention_by_tiles(&keys, query + row + 2 * span->first,
                         (float *)scratch->context + row + span->first, tile->width, span->position, span->count,
                         scratch->scores, scratch->powers);
    }
  }
  end_tiles(&before);
}

static void finish_amx(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  attend_amx(batch, l, tile, scratch);
  feed_forward_single(batch->encoder, l, hidden_of(batch, tile), tile->width, scratch);
}

/* One head of one first token: it fills a vector of queries with zeros beside it. */
static void attend_first_amx(const Keys *keys, float *query, long ld, Scratch *scratch) {
  bf16 pairs[AMX_ROWS * LANES] = {0};
  float context[AMX_ROWS * LANES];
  for (int d = 0; d < keys->size; d++) pairs[d / 2 * 2 * LANES + d % 2] = narrowed(query[d * ld]);
  attention_by_tiles(keys, pairs, context, LANES, 0, LANES, scratch->scores, scratch->powers);
  for (int d = 0; d < keys->size; d++) query[d * ld] = context[d * LANES];
}

static void finish_first_amx(const Batch *batch, int layer, const FirstTokens *first, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  const long width = first->width;
  float *query = scratch->context; /* becomes the context, head by head */
  TileConfig before;
  linear_forward(&l->query, first->hidden, query, 0, width);
  begin_tiles(&before);
  for (int32_t e = 0; e < first->count; e++) {
    for (int32_t head = 0; head < l->heads; head++) {
      const Keys keys = keys_of(batch, first->example + e, head, l->head_size);
      attend_first_amx(&keys, query + keys.row * width + e, width, scratch);
    }
  }
  end_tiles(&before);
  feed_forward_single(batch->encoder, l, first->hidden, width, scratch);
}

#endif
