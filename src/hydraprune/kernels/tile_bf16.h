/* The layers of an encoder on one tile, with products in bfloat16. The residual stream, normalisation and softmax stay
   in single precision. */

#pragma once

#include "attention_bf16.h"
#include "batch.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)

static bf16 *narrow_of(const Batch *batch, const Tile *tile) {
  return (bf16 *)batch->narrow + (long)batch->encoder->hidden * tile->start;
}

static void project_narrow(const Batch *batch, int layer, const Tile *tile) {
  const Layer *l = batch->encoder->layer + layer;
  const Linear *linear[3] = {&l->query, &l->key, &l->value};
  narrow_rows(hidden_of(batch, tile), narrow_of(batch, tile), (long)batch->encoder->hidden * tile->width);
  for (int which = 0; which < 3; which++) {
    void *y = projection(batch, which, tile);
    linear_pairs_forward(linear[which], narrow_of(batch, tile), y, 0, tile->width);
    if (which < 2) interleave_rows(y, linear[which]->outputs, tile->width);
  }
}

static void attend_narrow(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  const bf16 *query = projection(batch, 0, tile);
  for (int32_t s = tile->first_span; s < tile->first_span + tile->spans; s++) {
    const Span *span = batch->layout.span + s;
    for (int32_t head = 0; head < l->heads; head++) {
      const Keys keys = keys_of(batch, span->example, head, l->head_size);
      const long row = keys.row * tile->width;
      attention_pairs_forward(&keys, query + row + 2 * span->first, (bf16 *)scratch->context + row + span->first,
                              tile->width, span->position, span->count, scratch->scores, scratch->powers);
    }
  }
}

static void finish_narrow(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  const Encoder *encoder = batch->encoder;
  const Layer *l = encoder->layer + layer;
  float *hidden = hidden_of(batch, tile);
  bf16 *narrow = narrow_of(batch, tile);
  attend_narrow(batch, layer, tile, scratch);
  linear_pairs_forward(&l->attention_output, scratch->context, scratch->sum, hidden, tile->width);
  norm_forward(&l->attention_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, tile->width);
  narrow_rows(hidden, narrow, (long)encoder->hidden * tile->width);
  linear_pairs_forward(&l->ffn_in, narrow, scratch->inner, 0, tile->width);
  linear_pairs_forward(&l->ffn_out, scratch->inner, scratch->sum, hidden, tile->width);
  norm_forward(&l->ffn_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, tile->width);
}

#endif
