/* One layer of an encoder in training: forward and backward, with products of live blocks alone. */

#include "training.h"

enum status { DONE, NO_MEMORY };

/* Bytes of the inputs of a linear layer that are multiplied with all groups of rows before the next ones: they should
   stay in the second cache. */
#define CHUNK_BYTES (512L * 1024)

/* Floats that attention of one head needs, for texts of this width. */
static long room_of_head(const Layer *layer, long width) { return 8 * layer->head_size * width + 3 * width * width; }

static Head head_of(const Texts *texts, const Layer *layer, const Dropout *dropout, int32_t example, int32_t head) {
  const uint32_t tokens = (uint32_t)texts->tokens;
  return (Head){.size = layer->head_size,
                .length = texts->length[example],
                .width = width_of(texts->length[example]),
                .dropout = *dropout,
                .first = ((uint32_t)example * layer->heads + head) * tokens * tokens,
                .row = tokens};
}

/* Where the attention weights of each example begin: first[examples]. */
static void place_weights(const Texts *texts, const Layer *layer, long *first) {
  long at = 0;
  for (int32_t e = 0; e < texts->examples; e++) {
    const long width = width_of(texts->length[e]);
    first[e] = at;
    at += layer->heads * width * width;
  }
}

/* Behind the last token: 0, since products with these numbers are added up. */
static void clear_end(const Texts *texts, float *tiles, long features) {
  const long last = texts->start[texts->examples];
  if (last % TILE == 0) return;
  for (long f = 0; f < features; f++)
    memset(tiles + (last / TILE * features + f) * TILE + last % TILE, 0, (TILE - last % TILE) * sizeof(float));
}

static float scale_of(const Layer *layer) { return 1.0f / sqrtf((float)layer->head_size); }

static void attend_example(const Texts *texts, const Layer *layer, const Dropout *dropout, int32_t example,
                           int32_t head, const long *first, const Kept *kept, float *room) {
  const Head one = head_of(texts, layer, dropout, example, head);
  const long rows = layer->query.outputs, row = (long)head * one.size, matrix = one.size * one.width;
  float *q = room, *k = q + matrix, *v = k + matrix, *context = v + matrix, *rest = context + matrix;
  read_head(texts, example, kept->query, rows, row, one.size, scale_of(layer), q);
  read_head(texts, example, kept->key, rows, row, one.size, 1, k);
  read_head(texts, example, kept->value, rows, row, one.size, 1, v);
  attend(&one, q, k, v, kept->weights + first[example] + head * one.width * one.width, context, rest);
  write_head(texts, example, kept->context, rows, row, one.size, 1, context);
}

static void attend_example_backward(const Texts *texts, const Layer *layer, const Dropout *dropout, int32_t example,
                                    int32_t head, const long *first, const Kept *kept, const Slopes *slopes,
                                    float *room) {
  const Head one = head_of(texts, layer, dropout, example, head);
  const long rows = layer->query.outputs, row = (long)head * one.size, matrix = one.size * one.width;
  float *q = room, *k = q + matrix, *v = k + matrix, *given = v + matrix;
  float *dq = given + matrix, *dk = dq + matrix, *dv = dk + matrix, *rest = dv + matrix;
  read_head(texts, example, kept->query, rows, row, one.size, scale_of(layer), q);
  read_head(texts, example, kept->key, rows, row, one.size, 1, k);
  read_head(texts, example, kept->value, rows, row, one.size, 1, v);
  read_head(texts, example, slopes->context, rows, row, one.size, 1, given);
  attend_backward(&one, q, k, v, kept->weights + first[example] + head * one.width * one.width, given, dq, dk, dv,
                  rest);
  write_head(texts, example, slopes->query, rows, row, one.size, scale_of(layer), dq);
  write_head(texts, example, slopes->key, rows, row, one.size, 1, dk);
  write_head(texts, example, slopes->value, rows, row, one.size, 1, dv);
}

static void add(const float *x, float *y, long n) {
  for (long i = 0; i < n; i++) y[i] += x[i];
}

/* sum = dropout(linear(x)) + residual, of one tile. */
static void add_dropped(const Linear *linear, const Dropout *dropout, const uint32_t *place, const float *x,
                        const float *residual, float *sum) {
  if (!dropout->levels) {
    linear_forward(linear, x, sum, residual, TILE);
    return;
  }
  linear_forward(linear, x, sum, 0, TILE);
  drop_features(dropout, place, linear->outputs, sum, sum);
  add(residual, sum, (long)linear->outputs * TILE);
}

/* What follows attention, of one tile; y: [hidden][TILE]. */
static void finish_tile(const TrainedLayer *trained, const Dropouts *dropouts, const Texts *texts, long tile,
                        const Kept *kept, float *y) {
  const Layer *l = &trained->layer;
  const long hidden = l->query.inputs, of_hidden = tile * hidden * TILE;
  const long of_rows = tile * l->query.outputs * TILE, inner = l->ffn_in.outputs, of_inner = tile * inner * TILE;
  const uint32_t *place = texts->place + tile * TILE;
  add_dropped(&l->attention_output, &dropouts->attention, place, kept->context + of_rows, kept->x + of_hidden,
              kept->attention_sum + of_hidden);
  norm_tile(&l->attention_norm, trained->attention_epsilon, hidden, kept->attention_sum + of_hidden,
            kept->attended + of_hidden, kept->mean[0] + tile * TILE, kept->scale[0] + tile * TILE);
  linear_forward(&l->ffn_in, kept->attended + of_hidden, kept->in + of_inner, 0, TILE);
  memcpy(kept->inner + of_inner, kept->in + of_inner, inner * TILE * sizeof(float));
  activate(trained->activation, (vec *)(kept->inner + of_inner), (int)(inner * VECTORS));
  add_dropped(&l->ffn_out, &dropouts->ffn, place, kept->inner + of_inner, kept->attended + of_hidden,
              kept->ffn_sum + of_hidden);
  norm_tile(&l->ffn_norm, trained->ffn_epsilon, hidden, kept->ffn_sum + of_hidden, y, kept->mean[1] + tile * TILE,
            kept->scale[1] + tile * TILE);
}

/* The slopes of one tile down to the context of attention. */
static void finish_tile_backward(const TrainedLayer *trained, const Dropouts *dropouts, const Texts *texts, long tile,
                                 const Kept *kept, const Slopes *s) {
  const Layer *l = &trained->layer;
  const long hidden = l->query.inputs, h = tile * hidden * TILE, of_rows = tile * l->query.outputs * TILE;
  const long inner = l->ffn_in.outputs, i = tile * inner * TILE;
  const uint32_t *place = texts->place + tile * TILE;
  norm_tile_backward(&l->ffn_norm, hidden, kept->ffn_sum + h, kept->mean[1] + tile * TILE,
                     kept->scale[1] + tile * TILE, s->y + h, s->ffn_sum + h);
  const float *out = s->ffn_sum + h;
  if (dropouts->ffn.levels) {
    drop_features(&dropouts->ffn, place, hidden, out, s->out + h);
    out = s->out + h;
  }
  memset(s->inner + i, 0, inner * TILE * sizeof(float));
  add_input_gradient(&l->ffn_out, out, s->inner + i);
  activation_backward(trained->activation, kept->in + i, s->inner + i, s->inner + i, inner * TILE);
  memcpy(s->attended + h, s->ffn_sum + h, hidden * TILE * sizeof(float));
  add_input_gradient(&l->ffn_in, s->inner + i, s->attended + h);
  norm_tile_backward(&l->attention_norm, hidden, kept->attention_sum + h, kept->mean[0] + tile * TILE,
                     kept->scale[0] + tile * TILE, s->attended + h, s->attention_sum + h);
  const float *output = s->attention_sum + h;
  if (dropouts->attention.levels) {
    drop_features(&dropouts->attention, place, hidden, output, s->output + h);
    output = s->output + h;
  }
  memset(s->context + of_rows, 0, (long)l->query.outputs * TILE * sizeof(float));
  add_input_gradient(&l->attention_output, output, s->context + of_rows);
}

/* From the slopes of a linear layer's outputs, and its inputs; slope: of live blocks, copied to `weight` unless that is
   NULL. */
static void weight_gradient(const Linear *linear, const float *dy, const float *x, long tiles, float *slope,
                            float *weight, float *bias) {
  const Tiles slopes = {dy, linear->outputs}, inputs = {x, linear->inputs};
  const Part *part = linear->part;
  const long chunk = CHUNK_BYTES / (linear->inputs * TILE * (long)sizeof(float)), step = chunk < 1 ? 1 : chunk;
  for (long first = 0; first < tiles; first += step) {
    const long count = tiles - first < step ? tiles - first : step;
    /* A thread gets the same groups in every chunk. */
#pragma omp for schedule(static, 2) nowait
    for (int32_t group = 0; group < part->groups; group++) {
      const int32_t begin = part->start[group], blocks = part->start[group + 1] - begin;
      if (first == 0) {
        memset(slope + (long)begin * ROWS, 0, (long)blocks * ROWS * sizeof(float));
        if (bias) memset(bias + group * ROWS, 0, ROWS * sizeof(float));
      }
      add_weight_gradient(linear, group, &slopes, &inputs, first, count, slope, bias);
      if (weight && first + count == tiles) scatter_gradient(linear, group, slope, weight);
    }
  }
}

static void norm_gradients(const float *x, const float *mean, const float *scale, const float *dy, long hidden,
                           long tiles, float *weight, float *bias) {
  const Tiles inputs = {x, hidden}, slopes = {dy, hidden};
  if (!weight && !bias) return;
#pragma omp for schedule(static) nowait
  for (long f = 0; f < hidden; f++) norm_gradient(&inputs, mean, scale, &slopes, f, tiles, weight, bias);
}

/* Memory of one thread. */
static float *thread_room(const Layer *layer, const Texts *texts) {
  const long hidden = layer->query.inputs, head = room_of_head(layer, width_of(texts->longest));
  const long rows = (UNIT + TILE) * hidden;
  return aligned_alloc(64, ((head > rows ? head : rows) * sizeof(float) + 63) / 64 * 64);
}

/* y[examples][tokens][hidden] of x, in single precision; padding gets 0. `memory` is what backward needs. */
void hydraprune_layer_forward(const TrainedLayer *trained, const Dropouts *dropouts, const int32_t *length,
                              int examples, int tokens, const float *x, float *y, float *memory, int threads,
                              int32_t *status) {
  const Layer *layer = &trained->layer;
  const long hidden = layer->query.inputs;
  Texts texts;
  Kept kept;
  int failed = !place_texts(&texts, length, examples, tokens);
  long *first = malloc((examples + 1) * sizeof(long));
  if (!failed && first) {
    distribute_kept(layer, length, examples, memory, &kept);
    place_weights(&texts, layer, first);
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : failed)
    {
      float *room = thread_room(layer, &texts);
      failed = !room;
      for (int which = 0; which < LINEARS; which++) {
        const Linear *linear = linear_of(layer, which);
#pragma omp for schedule(static) nowait
        for (int32_t group = 0; group < (trained->weight[which] ? linear->part->groups : 0); group++)
          gather_values(linear, trained->weight[which], group);
      }
#pragma omp barrier
#pragma omp for schedule(dynamic)
      for (long tile = 0; tile < texts.tiles; tile++) {
        if (failed) continue;
        read_tile(&texts, tile, hidden, x, kept.x + tile * hidden * TILE, room);
        float *to[3] = {kept.query, kept.key, kept.value};
        for (int which = QUERY; which <= VALUE; which++)
          linear_forward(linear_of(layer, which), kept.x + tile * hidden * TILE,
                         to[which] + tile * layer->query.outputs * TILE, 0, TILE);
      }
#pragma omp single
      clear_end(&texts, kept.context, layer->query.outputs);
#pragma omp for schedule(dynamic)
      for (long i = 0; i < (long)examples * layer->heads; i++) {
        const int32_t example = (int32_t)(i / layer->heads), head = (int32_t)(i % layer->heads);
        if (failed) continue;
        attend_example(&texts, layer, &dropouts->weights, example, head, first, &kept, room);
        if (head == 0) clear_padding(&texts, example, hidden, y);
      }
#pragma omp for schedule(dynamic)
      for (long tile = 0; tile < texts.tiles; tile++) {
        if (failed) continue;
        finish_tile(trained, dropouts, &texts, tile, &kept, room);
        write_tile(&texts, tile, hidden, room, y, room + hidden * TILE);
      }
      free(room);
    }
  } else {
    failed = 1;
  }
  free(first);
  free_texts(&texts);
  *status = failed ? NO_MEMORY : DONE;
}

/* From the slopes of y those of x (NULL: not wanted) and of the weights. `memory`: as forward left it; `work`: room. */
void hydraprune_layer_backward(const TrainedLayer *trained, const Dropouts *dropouts, const int32_t *length,
                               int examples, int tokens, const float *dy, float *dx, float *memory, float *work,
                               const Gradients *gradients, int threads, int32_t *status) {
  const Layer *layer = &trained->layer;
  const long hidden = layer->query.inputs, rows = layer->query.outputs;
  Texts texts;
  Kept kept;
  Slopes s;
  int failed = !place_texts(&texts, length, examples, tokens);
  long *first = malloc((examples + 1) * sizeof(long));
  if (!failed && first) {
    const long tiles = texts.tiles;
    distribute_kept(layer, length, examples, memory, &kept);
    distribute_slopes(layer, tiles, work, &s);
    place_weights(&texts, layer, first);
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : failed)
    {
      float *room = thread_room(layer, &texts);
      failed = !room;
#pragma omp for schedule(dynamic)
      for (long tile = 0; tile < tiles; tile++) {
        if (failed) continue;
        read_tile(&texts, tile, hidden, dy, s.y + tile * hidden * TILE, room);
        finish_tile_backward(trained, dropouts, &texts, tile, &kept, &s);
      }
#pragma omp single
      {
        clear_end(&texts, s.query, rows);
        clear_end(&texts, s.key, rows);
        clear_end(&texts, s.value, rows);
      }
#pragma omp for schedule(dynamic)
      for (long i = 0; i < (long)examples * layer->heads; i++) {
        const int32_t example = (int32_t)(i / layer->heads), head = (int32_t)(i % layer->heads);
        if (!failed) attend_example_backward(&texts, layer, &dropouts->weights, example, head, first, &kept, &s, room);
      }
      if (dx) {
#pragma omp for schedule(dynamic) nowait
        for (long tile = 0; tile < tiles; tile++) {
          const long h = tile * hidden * TILE, r = tile * rows * TILE;
          if (failed) continue;
          memcpy(s.x + h, s.attention_sum + h, hidden * TILE * sizeof(float));
          add_input_gradient(&layer->query, s.query + r, s.x + h);
          add_input_gradient(&layer->key, s.key + r, s.x + h);
          add_input_gradient(&layer->value, s.value + r, s.x + h);
          write_tile(&texts, tile, hidden, s.x + h, dx, room);
        }
#pragma omp for schedule(static) nowait
        for (int32_t e = 0; e < examples; e++) clear_padding(&texts, e, hidden, dx);
      }
      const float *slopes[LINEARS] = {s.query,
                                      s.key,
                                      s.value,
                                      dropouts->attention.levels ? s.output : s.attention_sum,
                                      s.inner,
                                      dropouts->ffn.levels ? s.out : s.ffn_sum};
      const float *inputs[LINEARS] = {kept.x, kept.x, kept.x, kept.context, kept.attended, kept.inner};
      float *room_of_blocks = s.blocks;
      for (int which = 0; which < LINEARS; which++) {
        const Linear *linear = linear_of(layer, which);
        float *live = gradients->live[which];
        if (live || gradients->weight[which] || gradients->bias[which])
          weight_gradient(linear, slopes[which], inputs[which], tiles, live ? live : room_of_blocks,
                          gradients->weight[which], gradients->bias[which]);
        room_of_blocks += blocks_of(linear) * ROWS;
      }
      norm_gradients(kept.attention_sum, kept.mean[0], kept.scale[0], s.attended, hidden, tiles,
                     gradients->norm_weight[0], gradients->norm_bias[0]);
      norm_gradients(kept.ffn_sum, kept.mean[1], kept.scale[1], s.y, hidden, tiles, gradients->norm_weight[1],
                     gradients->norm_bias[1]);
      free(room);
    }
  } else {
    failed = 1;
  }
  free(first);
  free_texts(&texts);
  *status = failed ? NO_MEMORY : DONE;
}

/* Floats of the memory and of the room that a batch needs. */
void hydraprune_layer_room(const TrainedLayer *trained, const int32_t *length, int examples, int64_t *memory,
                           int64_t *work) {
  Kept kept;
  Slopes slopes;
  *memory = distribute_kept(&trained->layer, length, examples, 0, &kept) - (float *)0;
  *work = distribute_slopes(&trained->layer, tiles_of(length, examples), 0, &slopes) - (float *)0;
}
