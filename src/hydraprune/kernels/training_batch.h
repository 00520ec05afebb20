/* The tokens of a batch in training: those of all examples side by side, without padding, cut into tiles. */

#pragma once

#include <stdlib.h>

#include "training_attention.h"

typedef struct {
  int32_t examples;
  int32_t tokens;        /* of an example in memory, padding included */
  const int32_t *length; /* [examples] */
  long tiles;
  int32_t longest;
  int32_t *start;  /* [examples + 1]: an example's first token among all that are real */
  uint32_t *place; /* [tiles * TILE]: where a token lies in memory, padding included; 0 behind the last */
} Texts;

static long tiles_of(const int32_t *length, int32_t examples) {
  long total = 0;
  for (int32_t e = 0; e < examples; e++) total += length[e];
  return (total + TILE - 1) / TILE;
}

/* Returns 0 if there is no memory. */
static int place_texts(Texts *texts, const int32_t *length, int32_t examples, int32_t tokens) {
  memset(texts, 0, sizeof *texts);
  texts->examples = examples, texts->tokens = tokens, texts->length = length;
  texts->tiles = tiles_of(length, examples);
  texts->start = malloc((examples + 1) * sizeof(int32_t));
  texts->place = calloc(texts->tiles * TILE + 1, sizeof(uint32_t));
  if (!texts->start || !texts->place) return 0;
  texts->start[0] = 0;
  for (int32_t e = 0; e < examples; e++) {
    if (length[e] > texts->longest) texts->longest = length[e];
    for (int32_t i = 0; i < length[e]; i++) texts->place[texts->start[e] + i] = (uint32_t)(e * tokens + i);
    texts->start[e + 1] = texts->start[e] + length[e];
  }
  return 1;
}

static void free_texts(Texts *texts) {
  free(texts->start);
  free(texts->place);
}

static long width_of(int32_t length) { return (length + UNIT - 1) / UNIT * UNIT; }

/* The rows of UNIT tokens in memory, where they lie side by side; NULL where they do not. */
static const float *rows_of(const Texts *texts, long first, long features, const float *memory) {
  const uint32_t *place = texts->place + first;
  const int whole = first + UNIT <= texts->start[texts->examples] && place[UNIT - 1] == place[0] + UNIT - 1;
  return whole ? memory + (long)place[0] * features : 0;
}

/* x[features][TILE] of one tile, from [examples][tokens][features]; behind the last token: 0. room: [UNIT][features]. */
static void read_tile(const Texts *texts, long tile, long features, const float *from, float *x, float *room) {
  const long last = texts->start[texts->examples];
  for (int i = 0; i < TILE; i += UNIT) {
    const long first = tile * TILE + i;
    const float *rows = rows_of(texts, first, features, from);
    for (int t = 0; !rows && t < UNIT; t++) {
      if (first + t < last)
        memcpy(room + t * features, from + (long)texts->place[first + t] * features, features * sizeof(float));
      else
        memset(room + t * features, 0, features * sizeof(float));
    }
    transpose_in(rows ? rows : room, features, x + i, TILE, features);
  }
}

/* The reverse; tokens that are padding stay as they are. */
static void write_tile(const Texts *texts, long tile, long features, const float *x, float *to, float *room) {
  const long last = texts->start[texts->examples];
  for (int i = 0; i < TILE && tile * TILE + i < last; i += UNIT) {
    const long first = tile * TILE + i;
    float *rows = (float *)rows_of(texts, first, features, to);
    transpose_out(x + i, TILE, rows ? rows : room, features, features, UNIT);
    for (int t = 0; !rows && t < UNIT && first + t < last; t++)
      memcpy(to + (long)texts->place[first + t] * features, room + t * features, features * sizeof(float));
  }
}

static void clear_padding(const Texts *texts, int32_t example, long features, float *to) {
  const long length = texts->length[example], left = texts->tokens - length;
  memset(to + ((long)example * texts->tokens + length) * features, 0, left * features * sizeof(float));
}

static void scale_row(const float *from, float factor, long count, float *to) {
  for (long i = 0; i < count; i += LANES) {
    const long some = count - i < LANES ? count - i : LANES;
    store_some(to + i, load_some(from + i, some) * splat(factor), some);
  }
}

/* Rows `first` to `first + size` of an example, [size][width], times `factor`; the last columns are 0. */
static void read_head(const Texts *texts, int32_t example, const float *tiles, long features, long first, long size,
                      float factor, float *to) {
  const long length = texts->length[example], width = width_of(texts->length[example]);
  for (long done = 0; done < length;) {
    const long token = texts->start[example] + done, in_tile = token % TILE;
    const long count = TILE - in_tile < length - done ? TILE - in_tile : length - done;
    const float *from = tiles + (token / TILE * features + first) * TILE + in_tile;
    for (long row = 0; row < size; row++) {
      scale_row(from + row * TILE, factor, count, to + row * width + done);
    }
    done += count;
  }
  for (long row = 0; row < size; row++) memset(to + row * width + length, 0, (width - length) * sizeof(float));
}

/* The reverse. */
static void write_head(const Texts *texts, int32_t example, float *tiles, long features, long first, long size,
                       float factor, const float *from) {
  const long length = texts->length[example], width = width_of(texts->length[example]);
  for (long done = 0; done < length;) {
    const long token = texts->start[example] + done, in_tile = token % TILE;
    const long count = TILE - in_tile < length - done ? TILE - in_tile : length - done;
    float *to = tiles + (token / TILE * features + first) * TILE + in_tile;
    for (long row = 0; row < size; row++) {
      scale_row(from + row * width + done, factor, count, to + row * TILE);
    }
    done += count;
  }
}
