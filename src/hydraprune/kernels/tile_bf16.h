/* The layers of an encoder on one tile, or on first tokens, with products in bfloat16. The residual stream, normalisation and softmax stay
   in single precision. */

#pragma once

#include "attention_bf16.h"
#include "first_tokens.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)

static bf16 *narrow_of(const Batch *batch, const Tile *tile) {
  return (bf16 *)batch->narrow + (long)batch->encoder->hidden * tile->start;
}

static void project_narrow(const Batch *batch, int layer, int which, const Tile *tile, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  const Linear *linear[3] = {&l->query, &l->key, &l->value};
  narrow_rows(hidden_of(batch, tile), narrow_of(batch, tile), (long)batch->encoder->hidden * tile->width);
  for (; which < 3; which++) {
    void *y = projection(batch, which, tile);
    linear_pairs_forward(linear[which], narrow_of(batch, tile), y, 0, tile->width);
    if (which < 2) interleave_rows(y, linear[which]->outputs, tile->width);
  }
  (void)scratch;
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

static void feed_forward_narrow(const Encoder *encoder, const Layer *l, float *hidden, bf16 *narrow, long width,
                                Scratch *scratch) {
  linear_pairs_forward(&l->attention_output, scratch->context, scratch->sum, hidden, width);
  norm_forward(&l->attention_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, width);
  narrow_rows(hidden, narrow, (long)encoder->hidden * width);
  linear_pairs_forward(&l->ffn_in, narrow, scratch->inner, 0, width);
  linear_pairs_forward(&l->ffn_out, scratch->inner, scratch->sum, hidden, width);
  norm_forward(&l->ffn_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, width);
}

static void finish_narrow(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  attend_narrow(batch, layer, tile, scratch);
  feed_forward_narrow(batch->encoder, batch->encoder->layer + layer, hidden_of(batch, tile), narrow_of(batch, tile),
                      tile->width, scratch);
}

static void finish_first_narrow(const Batch *batch, int layer, const FirstTokens *first, Scratch *scratch) {
  const Layer *l = batch->encoder->layer + layer;
  const long width = first->width, features = batch->encoder->hidden;
  /* Room that nobody needs any more: an example has at least UNIT tokens. */
  bf16 *narrow = (bf16 *)batch->narrow + features * first->example;
  bf16 *query = scratch->context;
  narrow_rows(first->hidden, narrow, features * width);
  linear_pairs_forward(&l->query, narrow, query, 0, width);
  for (int32_t e = 0; e < first->count; e++) {
    for (int32_t head = 0; head < l->heads; head++) {
      const Keys keys = keys_of(batch, first->example + e, head, l->head_size);
      attend_first_pairs(&keys, query + keys.row * width + e, width, scratch->scores);
    }
  }
  feed_forward_narrow(batch->encoder, l, first->hidden, narrow, width, scratch);
}

#endif
