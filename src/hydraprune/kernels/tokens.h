/* How the tokens of a batch lie: examples one behind the other, each rounded up to 16 tokens, cut into tiles. */

#pragma once

#include <stdlib.h>

#include "tiles.h"

/* The tokens of an example that lie in one tile. */
typedef struct {
  int32_t example;
  int32_t tile;
  int32_t first;    /* its first token's place in the tile */
  int32_t count;    /* multiple of UNIT */
  int32_t position; /* its first token's place in the example */
} Span;

typedef struct {
  int32_t width; /* tokens; multiple of UNIT */
  int32_t start; /* tokens of the tiles before it */
  int32_t first_span, spans;
} Tile;

typedef struct {
  int32_t tiles, spans, tokens, longest;
  Tile *tile;
  Span *span;
  int32_t *first_span; /* [examples + 1] */
} Layout;

/* Tokens up to the last one that the mask keeps; all of them where it keeps none. */
static int32_t length_of(const int64_t *mask, long tokens) {
  if (mask) {
    for (long i = tokens; i > 0; i--) {
      if (mask[i - 1]) return (int32_t)i;
    }
  }
  return (int32_t)tokens;
}

static void free_layout(Layout *layout) {
  free(layout->tile);
  free(layout->span);
  free(layout->first_span);
}

/* Lay out examples of the given lengths. Tiles are even, at most TILE wide, multiples of `unit` (UNIT or twice that),
   and as many as there are threads where that leaves them 2 UNITs wide. Returns 0 if there is no memory. */
static int lay_out(Layout *layout, const int32_t *length, int32_t examples, int32_t unit, int threads) {
  long tokens = 0, units;
  memset(layout, 0, sizeof *layout);
  for (int32_t e = 0; e < examples; e++) {
    const int32_t rounded = (length[e] + UNIT - 1) / UNIT * UNIT;
    tokens += rounded;
    if (rounded > layout->longest) layout->longest = rounded;
  }
  units = (tokens + unit - 1) / unit;
  const long widest = TILE / unit, narrowest = 2 * UNIT / unit;
  long tiles = (units + widest - 1) / widest;
  const long even = (tiles + threads - 1) / threads * threads;
  if (units >= even * narrowest) tiles = even;
  layout->tokens = (int32_t)(units * unit);
  layout->tiles = (int32_t)tiles;
  layout->tile = calloc(tiles, sizeof(Tile));
  layout->span = calloc(tiles + examples, sizeof(Span));
  layout->first_span = calloc(examples + 1, sizeof(int32_t));
  if (!layout->tile || !layout->span || !layout->first_span) {
    free_layout(layout);
    return 0;
  }
  for (long t = 0, start = 0; t < tiles; t++) {
    layout->tile[t].start = (int32_t)start;
    layout->tile[t].width = (int32_t)((units / tiles + (t < units % tiles)) * unit);
    start += layout->tile[t].width;
  }
  int32_t t = 0, used = 0;
  for (int32_t e = 0; e < examples; e++) {
    int32_t left = (length[e] + UNIT - 1) / UNIT * UNIT, position = 0;
    layout->first_span[e] = layout->spans;
    while (left > 0) {
      Tile *tile = layout->tile + t;
      const int32_t room = tile->width - used, count = left < room ? left : room;
      if (tile->spans++ == 0) tile->first_span = layout->spans;
      layout->span[layout->spans++] = (Span){e, t, used, count, position};
      left -= count, position += count, used += count;
      if (used == tile->width) t++, used = 0;
    }
  }
  layout->first_span[examples] = layout->spans;
  return 1;
}
