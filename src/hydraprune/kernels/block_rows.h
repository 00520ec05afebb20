/* Linear layers of which only the live blocks are kept: a block is 1, 2, 4 or 8 weights of one input column, in as
   many output rows. Activations lie feature by feature, x[feature][token]: one weight multiplies a vector of tokens. */

#pragma once

#include "activations.h"

/* Groups of `rows` output rows; what is in a group's blocks: start[group] <= block < start[group + 1]. */
typedef struct {
  int32_t rows;
  int32_t groups;
  const int32_t *row;    /* [groups][rows]: output row */
  const int32_t *start;  /* [groups + 1] */
  const int32_t *column; /* [blocks]; with bfloat16 [blocks][2] */
  const void *value;     /* float [blocks][rows]; with bfloat16 [blocks][rows][2], of the two columns */
} Part;

/* y = weight x + bias, the weight in parts whose rows together are all rows. */
typedef struct {
  int32_t outputs;
  int32_t inputs;
  int32_t parts;
  int32_t activation;
  const Part *part;
  const float *bias; /* [outputs] */
} Linear;

/* One strip of `vectors` vectors of tokens; `ld` floats from one feature to the next. */
INLINE void multiply(const int rows, const int vectors, const Part *part, const Linear *linear, const float *x,
                     float *y, const float *residual, long ld) {
  const float *values = part->value;
  for (int32_t group = 0; group < part->groups; group++) {
    const int32_t *row = part->row + (long)group * rows;
    vec sum[8][STRIP];
    UNROLL for (int r = 0; r < rows; r++) {
      UNROLL for (int v = 0; v < vectors; v++) {
        sum[r][v] = splat(linear->bias[row[r]]);
        if (residual) sum[r][v] += load(residual + row[r] * ld + v * LANES);
      }
    }
    const int32_t end = part->start[group + 1];
    for (int32_t block = part->start[group]; block < end; block++) {
      const float *token = x + part->column[block] * ld;
      const float *value = values + (long)block * rows;
      vec tokens[STRIP];
      UNROLL for (int v = 0; v < vectors; v++) tokens[v] = load(token + v * LANES);
      UNROLL for (int r = 0; r < rows; r++) {
        const vec weight = splat(value[r]);
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] += weight * tokens[v];
        KEEP(weight);
      }
      UNROLL for (int v = 0; v < vectors; v++) KEEP(tokens[v]);
    }
    if (linear->activation) {
      vec buffer[8 * STRIP];
      UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) buffer[r * vectors + v] = sum[r][v];
      }
      activate(linear->activation, buffer, rows * vectors);
      UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) store(y + row[r] * ld + v * LANES, buffer[r * vectors + v]);
      }
    } else {
      UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) store(y + row[r] * ld + v * LANES, sum[r][v]);
      }
    }
  }
}

#define MULTIPLY(ROWS, VECTORS)                                                                                     \
  KERNEL void multiply_##ROWS##_##VECTORS(const Part *part, const Linear *linear, const float *x, float *y,         \
                                          const float *residual, long ld) {                                         \
    if (residual)                                                                                                   \
      multiply(ROWS, VECTORS, part, linear, x, y, residual, ld);                                                    \
    else                                                                                                            \
      multiply(ROWS, VECTORS, part, linear, x, y, 0, ld);                                                           \
  }

typedef void Multiply(const Part *, const Linear *, const float *, float *, const float *, long);

/* Vectors of a strip for 8 rows: as many sums as with 4 rows. */
#define STRIP8 (STRIP / 2)
MULTIPLY(1, 1)
MULTIPLY(2, 1)
MULTIPLY(4, 1)
MULTIPLY(8, 1)
MULTIPLY(1, 2)
MULTIPLY(2, 2)
MULTIPLY(4, 2)
#if STRIP == 4
MULTIPLY(8, 2)
MULTIPLY(1, 3)
MULTIPLY(2, 3)
MULTIPLY(4, 3)
MULTIPLY(1, 4)
MULTIPLY(2, 4)
MULTIPLY(4, 4)
#endif

/* By the logarithm of the rows, and the vectors. */
static Multiply *const MULTIPLIERS[4][STRIP + 1] = {
#if STRIP == 4
    {0, multiply_1_1, multiply_1_2, multiply_1_3, multiply_1_4},
    {0, multiply_2_1, multiply_2_2, multiply_2_3, multiply_2_4},
    {0, multiply_4_1, multiply_4_2, multiply_4_3, multiply_4_4},
    {0, multiply_8_1, multiply_8_2},
#else
    {0, multiply_1_1, multiply_1_2},
    {0, multiply_2_1, multiply_2_2},
    {0, multiply_4_1, multiply_4_2},
    {0, multiply_8_1},
#endif
};

/* y[outputs][width] = activation(weight x[inputs][width] + bias + residual[outputs][width]); width: multiple of 16. */
static void linear_forward(const Linear *linear, const float *x, float *y, const float *residual, long width) {
  for (int p = 0; p < linear->parts; p++) {
    const Part *part = linear->part + p;
    const int strip = part->rows == 8 ? STRIP8 : STRIP;
    for (long token = 0; token < width;) {
      const long left = (width - token) / LANES;
      const int vectors = left < strip ? (int)left : strip;
      Multiply *multiply = MULTIPLIERS[__builtin_ctz(part->rows)][vectors];
      multiply(part, linear, x + token, y + token, residual ? residual + token : 0, width);
      token += (long)vectors * LANES;
    }
  }
}
