/* The first tokens of a batch: a classifier reads nothing else of the last layer, so that layer is computed for them
   alone. */

#pragma once

#include "batch.h"

/* The first tokens of some examples, side by side as in a tile. */
typedef struct {
  int32_t example; /* the first one */
  int32_t count;
  int32_t width;   /* count rounded up */
  float *hidden;   /* [hidden][width] */
} FirstTokens;

static int32_t first_tiles(const Batch *batch) { return (batch->examples + TILE - 1) / TILE; }

/* Those of one tile, gathered from all tokens; `unit`: what a width is a multiple of. */
static FirstTokens gather_first(const Batch *batch, int32_t tile, int32_t unit) {
  const long features = batch->encoder->hidden;
  const int32_t example = tile * TILE, left = batch->examples - example, count = left < TILE ? left : TILE;
  const FirstTokens first = {example, count, (count + unit - 1) / unit * unit, batch->first + features * example};
  memset(first.hidden, 0, features * first.width * sizeof(float));
  for (int32_t e = 0; e < count; e++) {
    const Span *span = batch->layout.span + batch->layout.first_span[example + e];
    const Tile *from = batch->layout.tile + span->tile;
    const float *hidden = hidden_of(batch, from) + span->first;
    for (long f = 0; f < features; f++) first.hidden[f * first.width + e] = hidden[f * from->width];
  }
  return first;
}

/* output[example][hidden] */
static void write_first(const Batch *batch, const FirstTokens *first, float *output) {
  const long hidden = batch->encoder->hidden;
  for (int32_t e = 0; e < first->count; e += UNIT) {
    const int32_t left = first->count - e;
    transpose_out(first->hidden + e, first->width, output + (first->example + e) * hidden, hidden, hidden,
                  left < UNIT ? left : UNIT);
  }
}
