/* The layers of an encoder on one tile, in single precision. */

#pragma once

#include "attention.h"
#include "batch.h"

static void project_single(const Batch *batch, int layer, const Tile *tile) {
  const Layer *l = batch->encoder->layer + layer;
  const Linear *linear[3] = {&l->query, &l->key, &l->value};
  for (int which = 0; which < 3; which++)
    linear_forward(linear[which], hidden_of(batch, tile), projection(batch, which, tile), 0, tile->width);
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

static void finish_single(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  const Encoder *encoder = batch->encoder;
  const Layer *l = encoder->layer + layer;
  float *hidden = hidden_of(batch, tile);
  attend_single(batch, layer, tile, scratch);
  linear_forward(&l->attention_output, scratch->context, scratch->sum, hidden, tile->width);
  norm_forward(&l->attention_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, tile->width);
  linear_forward(&l->ffn_in, hidden, scratch->inner, 0, tile->width);
  linear_forward(&l->ffn_out, scratch->inner, scratch->sum, hidden, tile->width);
  norm_forward(&l->ffn_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, tile->width);
}
