/* The description of a layer in training that the caller fills in; training.py has the same fields. */

#pragma once

#include "training_batch.h"

/* The linear layers of a layer, in the order of their fields in `Layer`. */
enum { QUERY, KEY, VALUE, OUTPUT, IN, OUT, LINEARS };

typedef struct {
  Layer layer;                  /* each weight in one part of ROWS rows; without activation */
  const float *weight[LINEARS]; /* whole, [outputs][inputs]: values of live blocks are read from them; NULL: they are
                                   there already */
  float attention_epsilon, ffn_epsilon;
  int32_t activation; /* of the feed-forward network */
} TrainedLayer;

/* Of attention weights, of the output of attention and of the feed-forward network. */
typedef struct {
  Dropout weights, attention, ffn;
} Dropouts;

/* Gradients; NULL: not wanted. Those of weights are zeros, [outputs][inputs], of which live blocks are written, or of
   live blocks alone, [block][ROWS]. */
typedef struct {
  float *weight[LINEARS], *live[LINEARS], *bias[LINEARS];
  float *norm_weight[2], *norm_bias[2];
} Gradients;

/* What forward keeps for backward. In tiles but for `mean`, `scale` [tiles][TILE] and `weights`. */
typedef struct {
  float *x, *query, *key, *value, *context;
  float *attention_sum, *attended; /* before normalisation and behind it */
  float *in, *inner;               /* before the activation and behind it */
  float *ffn_sum;
  float *mean[2], *scale[2];
  float *weights; /* of attention: of each example and head [width][width] */
} Kept;

/* What backward needs besides, in tiles. */
typedef struct {
  float *y, *ffn_sum, *out, *inner, *attended, *attention_sum, *output, *context, *query, *key, *value, *x;
  float *blocks; /* of all linear layers, [block][ROWS] */
} Slopes;

static const Linear *linear_of(const Layer *layer, int which) {
  const Linear *all[LINEARS] = {&layer->query, &layer->key,    &layer->value, &layer->attention_output,
                                &layer->ffn_in, &layer->ffn_out};
  return all[which];
}

static float *taken(float **memory, long count) {
  float *found = *memory;
  *memory += (count + 15) / 16 * 16;
  return found;
}

/* With `memory` NULL, counts. */
static float *distribute_kept(const Layer *layer, const int32_t *length, int32_t examples, float *memory, Kept *kept) {
  const long tokens = tiles_of(length, examples) * TILE;
  const long hidden = layer->query.inputs, rows = layer->query.outputs, inner = layer->ffn_in.outputs;
  kept->x = taken(&memory, hidden * tokens);
  kept->query = taken(&memory, rows * tokens);
  kept->key = taken(&memory, rows * tokens);
  kept->value = taken(&memory, rows * tokens);
  kept->context = taken(&memory, rows * tokens);
  kept->attention_sum = taken(&memory, hidden * tokens);
  kept->attended = taken(&memory, hidden * tokens);
  kept->in = taken(&memory, inner * tokens);
  kept->inner = taken(&memory, inner * tokens);
  kept->ffn_sum = taken(&memory, hidden * tokens);
  for (int i = 0; i < 2; i++) {
    kept->mean[i] = taken(&memory, tokens);
    kept->scale[i] = taken(&memory, tokens);
  }
  long squares = 0;
  for (int32_t e = 0; e < examples; e++) squares += width_of(length[e]) * width_of(length[e]);
  kept->weights = taken(&memory, layer->heads * squares);
  return memory;
}

static long blocks_of(const Linear *linear) { return linear->part->start[linear->part->groups]; }

static float *distribute_slopes(const Layer *layer, long tiles, float *memory, Slopes *slopes) {
  const long tokens = tiles * TILE;
  const long hidden = layer->query.inputs, rows = layer->query.outputs, inner = layer->ffn_in.outputs;
  float **of_hidden[] = {&slopes->y,             &slopes->ffn_sum, &slopes->out, &slopes->attended,
                         &slopes->attention_sum, &slopes->output,  &slopes->x};
  float **of_rows[] = {&slopes->context, &slopes->query, &slopes->key, &slopes->value};
  for (int i = 0; i < 7; i++) *of_hidden[i] = taken(&memory, hidden * tokens);
  for (int i = 0; i < 4; i++) *of_rows[i] = taken(&memory, rows * tokens);
  slopes->inner = taken(&memory, inner * tokens);
  long blocks = 0;
  for (int which = 0; which < LINEARS; which++) blocks += blocks_of(linear_of(layer, which));
  slopes->blocks = taken(&memory, blocks * ROWS);
  return memory;
}
