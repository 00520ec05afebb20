/* The layers of an encoder on one tile, or on first tokens, in single precision. */

#pragma once

#include "attention.h"
#include "first_tokens.h"

/* Queries (0), keys (1) and values (2), or those from `which` on. */
static void project_single(const Batch *batch, int layer, int which, const Tile *tile, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  const Linear *linear[3] = {&l->query, &l->key, &l->value};
  for (; which < 3; which++)
    linear_forward(linear[which], hidden_of(batch, tile), projection(batch, which, tile), 0, tile->width);
  (void)scratch;
}

static void attend_single(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  const float *query = projection(batch, 0, tile);
  for (int32_t s = tile->first_span; s < tile->first_span + tile->spans; s++) {
    const Span *span = batch->layout.span + s;
    for (int32_t head = 0; head < l->heads; head++) {
      const Keys keys = keys_of(batch, span->example, head, l->head_size);
      const long at = keys.row * tile->width + span->first;
      attention_forward(&keys, query + at, (float *)scratch->context + at, tile->width, span->position, span->count,
                        scratch->scores);
    }
  }
}

/* What follows attention, whose context is in the scratch; hidden: [hidden][width]. */
static void feed_forward_single(const Encoder *encoder, const Layer *l, float *hidden, long width, Scratch *scratch) {
  linear_forward(&l->attention_output, scratch->context, scratch->sum, hidden, width);
  norm_forward(&l->attention_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, width);
  linear_forward(&l->ffn_in, hidden, scratch->inner, 0, width);
  linear_forward(&l->ffn_out, scratch->inner, scratch->sum, hidden, width);
  norm_forward(&l->ffn_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, width);
}

static void finish_single(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  attend_single(batch, layer, tile, scratch);
  feed_forward_single(batch->encoder, batch->encoder->layer + layer, hidden_of(batch, tile), tile->width, scratch);
}

/* The first tokens alone, once keys and values of all tokens are there. */
static void finish_first_single(const Batch *batch, int layer, const FirstTokens *first, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  const long width = first->width;
  float *query = scratch->context; /* becomes the context, head by head */
  linear_forward(&l->query, first->hidden, query, 0, width);
  for (int32_t e = 0; e < first->count; e++) {
    for (int32_t head = 0; head < l->heads; head++) {
      const Keys keys = keys_of(batch, first->example + e, head, l->head_size);
      attend_first(&keys, query + keys.row * width + e, width, scratch->scores);
    }
  }
  feed_forward_single(batch->encoder, l, first->hidden, width, scratch);
}
