/* The description of an encoder that the caller fills in; encoder_kernels.py has the same fields. */

#pragma once

#include "block_rows.h"

typedef struct {
  const float *weight; /* [hidden]; NULL: no normalisation */
  const float *bias;
} Norm;

/* One block of BERT: attention, normalisation, feed-forward, normalisation. */
typedef struct {
  int32_t heads;
  int32_t head_size;
  Linear query, key, value, attention_output, ffn_in, ffn_out;
  Norm attention_norm, ffn_norm;
} Layer;

typedef struct {
  int32_t layers;
  int32_t hidden;
  int32_t embedding; /* size of the tables' rows */
  int32_t words, positions, types;
  int32_t longest;        /* tokens of the longest text */
  int32_t first_position; /* row of the first token */
  int32_t padding;        /* RoBERTa: an id that has no position of its own; -1: every token has one */
  float epsilon;
  const Layer *layer;
  const float *word, *position, *type; /* [words or positions or types][embedding]; position, type: NULL without */
  Norm embedding_norm;
  const Linear *projection; /* from embedding to hidden; NULL where they are the same */
  const float *relative;    /* [heads][2 * reach + 1]: what is added to a score at query - key + reach; NULL: none */
  int32_t reach;
} Encoder;
