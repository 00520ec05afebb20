/* A batch in memory: its buffers, its tokens on the way in, and its output. */

#pragma once

#include "attention.h"
#include "encoder.h"
#include "steps.h"

/* What a thread needs while it computes a tile. */
typedef struct {
  float *sum;     /* [hidden or embedding][TILE]: before normalisation */
  float *scores;  /* [keys][STRIP * LANES] */
  float *rows;    /* [UNIT][embedding] */
  void *context;  /* as the inputs of linear layers: [rows of the widest attention][TILE] */
  void *inner;    /* [widest feed-forward][TILE] */
  void *powers;   /* [keys][STRIP * LANES]; for attention in bfloat16 only */
} Scratch;

/* What a batch needs. What is marked void is of the precision of linear layers, or of attention. */
typedef struct {
  const Encoder *encoder;
  const Inputs *inputs;
  const int32_t *length; /* [examples] */
  int32_t examples;
  Layout layout;
  long rows;            /* of the widest attention */
  long linear_bytes;    /* of a number in the products of linear layers */
  long attention_bytes; /* of a number in those of attention */
  float *mask;          /* [tokens] */
  float *hidden;        /* tile by tile, [hidden][width] */
  float *first;         /* [hidden][examples rounded up]: of first tokens */
  void *narrow;         /* hidden in the precision of linear layers; for bfloat16 only */
  void *projected;      /* in that of attention: query, key, value: each tile by tile, [rows][width] */
  int32_t *position;    /* [tokens] */
  Scratch *scratch;     /* [threads] */
} Batch;

/* The queries (0), keys (1) or values (2) from one tile on. */
static void *projection(const Batch *batch, int which, const Tile *tile) {
  const long tokens = which * (long)batch->layout.tokens + tile->start;
  return (char *)batch->projected + batch->attention_bytes * batch->rows * tokens;
}

static float *hidden_of(const Batch *batch, const Tile *tile) {
  return batch->hidden + (long)batch->encoder->hidden * tile->start;
}

static void embed_tile(const Batch *batch, const Tile *tile, Scratch *scratch) {
  const Encoder *encoder = batch->encoder;
  const long size = encoder->embedding;
  float *summed = encoder->projection ? scratch->sum : hidden_of(batch, tile);
  memset(summed, 0, size * tile->width * sizeof(float)); /* tokens of no example: zeros */
  for (int32_t s = tile->first_span; s < tile->first_span + tile->spans; s++) {
    const Span *span = batch->layout.span + s;
    const long example = span->example * batch->inputs->tokens;
    const int32_t *position = batch->position + tile->start + span->first;
    for (int32_t unit = 0; unit < span->count; unit += UNIT) {
      const int32_t left = batch->length[span->example] - span->position - unit;
      for (int32_t i = 0; i < left && i < UNIT; i++)
        fetch(encoder, batch->inputs->ids[example + span->position + unit + i]);
      for (int32_t i = 0; i < UNIT; i++) {
        const int32_t place = span->position + unit + i;
        float *row = scratch->rows + i * size;
        if (i < left) {
          const long token = example + place;
          embed(encoder, batch->inputs->ids[token], batch->inputs->types ? batch->inputs->types[token] : 0,
                position[unit + i], row);
        } else {
          memset(row, 0, size * sizeof(float));
        }
      }
      transpose_in(scratch->rows, size, summed + span->first + unit, tile->width, size);
    }
  }
  norm_forward(&encoder->embedding_norm, encoder->epsilon, size, summed, summed, tile->width);
  if (encoder->projection) linear_forward(encoder->projection, summed, hidden_of(batch, tile), 0, tile->width);
}

/* output[example][token][hidden]: the last hidden state; tokens behind an example's last one stay as they are. */
static void write_tile(const Batch *batch, const Tile *tile, float *output) {
  const long hidden = batch->encoder->hidden;
  for (int32_t s = tile->first_span; s < tile->first_span + tile->spans; s++) {
    const Span *span = batch->layout.span + s;
    for (int32_t unit = 0; unit < span->count; unit += UNIT) {
      const int32_t place = span->position + unit, left = batch->length[span->example] - place;
      if (left <= 0) break;
      transpose_out(hidden_of(batch, tile) + span->first + unit, tile->width,
                    output + (span->example * batch->inputs->tokens + place) * hidden, hidden, hidden,
                    left < UNIT ? left : UNIT);
    }
  }
}

/* Positions and mask of every token of the layout. */
static void place_tokens(Batch *batch) {
  for (int32_t i = 0; i < batch->layout.tokens; i++) batch->mask[i] = -1e30f;
  long start = 0;
  for (int32_t e = 0; e < batch->examples; e++) {
    const int32_t length = batch->length[e];
    const int64_t *mask = batch->inputs->mask ? batch->inputs->mask + e * batch->inputs->tokens : 0;
    const int any = mask && mask[length - 1]; /* a mask that keeps nothing is none */
    positions_of(batch->encoder, batch->inputs->ids + e * batch->inputs->tokens, length, batch->position + start);
    for (int32_t i = 0; i < length; i++) batch->mask[start + i] = !any || mask[i] ? 0.0f : -1e30f;
    start += (length + UNIT - 1) / UNIT * UNIT;
  }
}

static long widest(const Encoder *encoder, int of_attention) {
  long rows = 1;
  for (int32_t i = 0; i < encoder->layers; i++) {
    const Layer *l = encoder->layer + i;
    const long own = of_attention ? l->query.outputs : l->ffn_in.outputs;
    if (own > rows) rows = own;
  }
  return rows;
}

/* Parts of one block of memory, each on a cache line of its own. */
static void *part(char **memory, long bytes) {
  void *found = *memory;
  *memory += (bytes + 63) / 64 * 64;
  return found;
}

/* With `memory` NULL, counts. */
static char *distribute(Batch *batch, char *memory, int threads) {
  const Encoder *encoder = batch->encoder;
  const long tokens = batch->layout.tokens, single = sizeof(float);
  const long linear = batch->linear_bytes, attention = batch->attention_bytes;
  const long sum = encoder->hidden > encoder->embedding ? encoder->hidden : encoder->embedding;
  const long keys = (long)batch->layout.longest * STRIP * LANES;
  batch->mask = part(&memory, tokens * single);
  batch->position = part(&memory, tokens * single);
  batch->hidden = part(&memory, encoder->hidden * tokens * single);
  batch->first = part(&memory, encoder->hidden * (long)((batch->examples + TILE - 1) / TILE * TILE) * single);
  if (linear < single) batch->narrow = part(&memory, encoder->hidden * tokens * linear);
  batch->projected = part(&memory, 3 * batch->rows * tokens * attention);
  for (int i = 0; i < threads; i++) {
    Scratch *scratch = batch->scratch + i;
    scratch->sum = part(&memory, sum * TILE * single);
    scratch->scores = part(&memory, keys * single);
    scratch->rows = part(&memory, UNIT * encoder->embedding * single);
    scratch->context = part(&memory, batch->rows * TILE * linear);
    scratch->inner = part(&memory, widest(encoder, 0) * TILE * linear);
    if (attention < single) scratch->powers = part(&memory, keys * attention);
  }
  return memory;
}

/* The keys and values of one head of one example; `size`: of the head. */
static Keys keys_of(const Batch *batch, int32_t example, int32_t head, int32_t size) {
  const Encoder *encoder = batch->encoder;
  const Layout *layout = &batch->layout;
  const Span *first = layout->span + layout->first_span[example];
  return (Keys){
      .span = first,
      .spans = layout->first_span[example + 1] - layout->first_span[example],
      .tile = layout->tile,
      .key = projection(batch, 1, layout->tile),
      .value = projection(batch, 2, layout->tile),
      .rows = batch->rows,
      .row = (long)head * size,
      .size = size,
      .mask = batch->mask + layout->tile[first->tile].start + first->first,
      .bias = encoder->relative ? encoder->relative + head * (2L * encoder->reach + 1) + encoder->reach : 0,
  };
}
