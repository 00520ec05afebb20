/* Attention of one head of one example in training: forward, and backward by the weights that forward kept.

   Matrices of the head lie feature by feature, [size][width] with width the length rounded up to 16, whose last columns
   are zeros; scores and weights key by key, [key][query]. */

#pragma once

#include "training_steps.h"

/* c[m][n] = sum over k of a[m * row + k * step] b[k][n]; n: of `vectors` vectors, m: multiple of 4. */
INLINE void product_strip(const int vectors, long m, long k, const float *a, long row, long step, const float *b,
                          float *c, long width) {
  for (long i = 0; i < m; i += 4) {
    vec sum[4][STRIP];
    UNROLL for (int r = 0; r < 4; r++) {
      UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = splat(0.0f);
    }
    const float *left = a + i * row;
    for (long j = 0; j < k; j++) {
      vec right[STRIP];
      UNROLL for (int v = 0; v < vectors; v++) right[v] = load(b + j * width + v * LANES);
      UNROLL for (int r = 0; r < 4; r++) {
        const vec one = splat(left[r * row + j * step]);
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] += one * right[v];
        KEEP(one);
      }
      UNROLL for (int v = 0; v < vectors; v++) KEEP(right[v]);
    }
    UNROLL for (int r = 0; r < 4; r++) {
      UNROLL for (int v = 0; v < vectors; v++) store(c + (i + r) * width + v * LANES, sum[r][v]);
    }
  }
}

#define PRODUCT(VECTORS_)                                                                                            \
  KERNEL void product_##VECTORS_(long m, long k, const float *a, long row, long step, const float *b, float *c,       \
                                 long width) {                                                                      \
    product_strip(VECTORS_, m, k, a, row, step, b, c, width);                                                       \
  }

PRODUCT(1)
PRODUCT(2)
#if STRIP == 4
PRODUCT(3)
PRODUCT(4)
#endif

typedef void Product(long m, long k, const float *a, long row, long step, const float *b, float *c, long width);

/* The same for all columns: `width` is a multiple of 16. */
static void product(long m, long k, const float *a, long row, long step, const float *b, float *c, long width) {
#if STRIP == 4
  static Product *const products[] = {0, product_1, product_2, product_3, product_4};
#else
  static Product *const products[] = {0, product_1, product_2};
#endif
  for (long n = 0; n < width;) {
    const long left = (width - n) / LANES, vectors = left < STRIP ? left : STRIP;
    products[vectors](m, k, a, row, step, b + n, c + n, width);
    n += vectors * LANES;
  }
}

/* y[width][width] = x[width][width] transposed. */
static void transpose_square(const float *x, float *y, long width) {
  for (long i = 0; i < width; i += UNIT) transpose_out(x + i, width, y + i * width, width, width, UNIT);
}

/* One head of one example. */
typedef struct {
  long size;   /* of the head */
  long length; /* tokens */
  long width;
  Dropout dropout;
  uint32_t first; /* index of the weight of query 0 and key 0 among all of the batch */
  uint32_t row;   /* indices from one query to the next */
} Head;

/* y = x after dropout, [key][query]. */
static void drop_weights(const Head *head, const float *x, float *y) {
  uint32_t lane[LANES];
  for (int i = 0; i < LANES; i++) lane[i] = (uint32_t)i * head->row;
  const uvec lanes = *(const uvec *)lane;
  for (long key = 0; key < head->length; key++) {
    for (long query = 0; query < head->width; query += LANES) {
      const uvec index = lanes + usplat(head->first + (uint32_t)query * head->row + (uint32_t)key);
      store(y + key * head->width + query, drop(&head->dropout, index, load(x + key * head->width + query)));
    }
  }
}

/* weights[key][query] = softmax over keys of k' q. */
static void attention_weights(const Head *head, const float *q, const float *k, float *weights) {
  const long width = head->width;
  product((head->length + 3) / 4 * 4, head->size, k, 1, width, q, weights, width);
  for (long query = 0; query < width; query += LANES) {
    vec most = load(weights + query), sum = splat(0.0f);
    for (long key = 1; key < head->length; key++) most = larger(most, load(weights + key * width + query));
    for (long key = 0; key < head->length; key++) {
      const vec power = exponential(load(weights + key * width + query) - most);
      sum += power;
      store(weights + key * width + query, power);
    }
    const vec share = splat(1.0f) / sum;
    for (long key = 0; key < head->length; key++)
      store(weights + key * width + query, load(weights + key * width + query) * share);
  }
  for (long key = head->length; key < width; key++) memset(weights + key * width, 0, width * sizeof(float));
}

/* context[size][width], from scaled queries. `weights` [width][width] are kept; room: [width][width]. */
static void attend(const Head *head, const float *q, const float *k, const float *v, float *weights, float *context,
                   float *room) {
  attention_weights(head, q, k, weights);
  const float *used = weights;
  if (head->dropout.levels) {
    drop_weights(head, weights, room);
    used = room;
  }
  product(head->size, head->length, v, head->width, 1, used, context, head->width);
}

/* The gradients of scaled queries, of keys and of values, [size][width] each; room: 3 [width][width]. */
static void attend_backward(const Head *head, const float *q, const float *k, const float *v, const float *weights,
                            const float *given, float *dq, float *dk, float *dv, float *room) {
  const long width = head->width, square = width * width, length = head->length;
  float *dropped = room, *turned = room + square, *slope = room + 2 * square;
  const float *used = weights;
  if (head->dropout.levels) {
    memset(dropped + length * width, 0, (width - length) * width * sizeof(float));
    drop_weights(head, weights, dropped);
    used = dropped;
  }
  transpose_square(used, turned, width);
  product(head->size, length, given, width, 1, turned, dv, width);
  product((length + 3) / 4 * 4, head->size, v, 1, width, given, slope, width);
  if (head->dropout.levels) drop_weights(head, slope, slope);
  for (long query = 0; query < width; query += LANES) {
    vec sum = splat(0.0f);
    for (long key = 0; key < length; key++)
      sum += load(slope + key * width + query) * load(weights + key * width + query);
    for (long key = 0; key < length; key++) {
      const long at = key * width + query;
      store(slope + at, load(weights + at) * (load(slope + at) - sum));
    }
  }
  memset(slope + length * width, 0, (width - length) * width * sizeof(float));
  product(head->size, length, k, width, 1, slope, dq, width);
  transpose_square(slope, turned, width);
  product(head->size, length, q, width, 1, turned, dk, width);
}
