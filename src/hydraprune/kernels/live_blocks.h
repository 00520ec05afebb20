/* The gradients of a linear layer of which only live blocks are kept: 4 weights of one input column, in 4 output rows.
   Activations lie tile by tile, x[tile][feature][TILE]; a tile's last tokens may be none, whose gradients are 0. */

#pragma once

#include "block_rows.h"
#include "tiles.h"

/* Rows of a block in training. */
#define ROWS 4
/* Vectors of a tile. */
#define VECTORS (TILE / LANES)

/* values[block][ROWS] from the weight [outputs][inputs], whose blocks these are. */
KERNEL void gather_values(const Linear *linear, const float *weight, int32_t group) {
  const Part *part = linear->part;
  const float *row = weight + (long)group * ROWS * linear->inputs;
  float *value = (float *)part->value;
  for (int32_t block = part->start[group]; block < part->start[group + 1]; block++) {
    for (int r = 0; r < ROWS; r++) value[(long)block * ROWS + r] = row[(long)r * linear->inputs + part->column[block]];
  }
}

/* Adds weight' dy to dx, both [features][TILE], for one strip of STRIP vectors. */
KERNEL void input_gradient_strip(const Linear *linear, const float *dy, float *dx) {
  const Part *part = linear->part;
  const float *values = part->value;
  for (int32_t group = 0; group < part->groups; group++) {
    const int32_t end = part->start[group + 1];
    vec given[ROWS][STRIP];
    UNROLL for (int r = 0; r < ROWS; r++) {
      UNROLL for (int v = 0; v < STRIP; v++) given[r][v] = load(dy + (group * ROWS + r) * TILE + v * LANES);
    }
    for (int32_t block = part->start[group]; block < end; block++) {
      float *to = dx + (long)part->column[block] * TILE;
      const float *value = values + (long)block * ROWS;
      vec sum[STRIP];
      UNROLL for (int v = 0; v < STRIP; v++) sum[v] = load(to + v * LANES);
      UNROLL for (int r = 0; r < ROWS; r++) {
        const vec weight = splat(value[r]);
        UNROLL for (int v = 0; v < STRIP; v++) sum[v] += weight * given[r][v];
        KEEP(weight);
      }
      UNROLL for (int v = 0; v < STRIP; v++) store(to + v * LANES, sum[v]);
      UNROLL for (int r = 0; r < ROWS; r++) {
        UNROLL for (int v = 0; v < STRIP; v++) KEEP(given[r][v]);
      }
    }
  }
}

static void add_input_gradient(const Linear *linear, const float *dy, float *dx) {
  for (int v = 0; v < VECTORS; v += STRIP) input_gradient_strip(linear, dy + v * LANES, dx + v * LANES);
}

#if defined(__AVX512F__)
/* The sums of 16 vectors. */
INLINE vec totals(vec *x) {
  __m512 a[16];
  UNROLL for (int i = 0; i < 8; i++) {
    const __m512 low = _mm512_unpacklo_ps((__m512)x[2 * i], (__m512)x[2 * i + 1]);
    const __m512 high = _mm512_unpackhi_ps((__m512)x[2 * i], (__m512)x[2 * i + 1]);
    a[i] = _mm512_add_ps(low, high); /* lanes 0, 2: of the first; 1, 3: of the second, in each quarter */
  }
  UNROLL for (int i = 0; i < 4; i++) {
    const __m512d one = (__m512d)a[2 * i], two = (__m512d)a[2 * i + 1];
    a[i] = _mm512_add_ps((__m512)_mm512_unpacklo_pd(one, two), (__m512)_mm512_unpackhi_pd(one, two));
  }
  /* Each quarter of a[i] now has the sums of quarters of vectors 4 i to 4 i + 3. */
  const __m512 b = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x88), _mm512_shuffle_f32x4(a[0], a[1], 0xdd));
  const __m512 c = _mm512_add_ps(_mm512_shuffle_f32x4(a[2], a[3], 0x88), _mm512_shuffle_f32x4(a[2], a[3], 0xdd));
  return (vec)_mm512_add_ps(_mm512_shuffle_f32x4(b, c, 0x88), _mm512_shuffle_f32x4(b, c, 0xdd));
}
#endif

/* One matrix of tiles. */
typedef struct {
  const float *at;
  long features;
} Tiles;

/* Columns whose weight gradients are summed side by side: as many sums as there are registers for. */
#define COLUMNS (SUMS / ROWS)

/* The products of a group's rows of dy with COLUMNS rows of x, summed over some tiles: sums[COLUMNS][ROWS]. */
KERNEL void outer_sums(const float *dy, long dy_tile, const float *const *x, long x_tile, long tiles, float *sums) {
  vec sum[COLUMNS * ROWS];
  UNROLL for (int i = 0; i < COLUMNS * ROWS; i++) sum[i] = splat(0.0f);
  for (long t = 0; t < tiles; t++) {
    for (int v = 0; v < TILE; v += LANES) {
      vec given[ROWS];
      UNROLL for (int r = 0; r < ROWS; r++) given[r] = load(dy + t * dy_tile + r * TILE + v);
      UNROLL for (int c = 0; c < COLUMNS; c++) {
        const vec tokens = load(x[c] + t * x_tile + v);
        __builtin_prefetch(x[c] + (t + 1) * x_tile + v); /* columns lie far apart: no processor foresees them */
        UNROLL for (int r = 0; r < ROWS; r++) sum[c * ROWS + r] += tokens * given[r];
        KEEP(tokens);
      }
      UNROLL for (int r = 0; r < ROWS; r++) KEEP(given[r]);
    }
  }
#if defined(__AVX512F__)
  store(sums, totals(sum));
#else
  for (int i = 0; i < COLUMNS * ROWS; i++) sums[i] = total(sum[i]);
#endif
}

/* Adds to the gradients of a group's live blocks, slope[block][ROWS], and of its biases what some tiles of dy and x
   give. */
KERNEL void add_weight_gradient(const Linear *linear, int32_t group, const Tiles *dy, const Tiles *x, long first,
                                long tiles, float *slope, float *bias) {
  const Part *part = linear->part;
  const long dy_tile = dy->features * TILE, x_tile = x->features * TILE;
  const float *rows = dy->at + first * dy_tile + (long)group * ROWS * TILE, *from = x->at + first * x_tile;
  const int32_t end = part->start[group + 1];
  for (int32_t block = part->start[group]; block < end; block += COLUMNS) {
    const int columns = end - block < COLUMNS ? end - block : COLUMNS;
    const float *column[COLUMNS];
    float sums[COLUMNS * ROWS], *to = slope + (long)block * ROWS;
    /* Where there are too few, the last one again. */
    for (int c = 0; c < COLUMNS; c++) column[c] = from + (long)part->column[c < columns ? block + c : end - 1] * TILE;
    for (int c = 0; c < COLUMNS && block + COLUMNS + c < end; c++) {
      const float *next = from + (long)part->column[block + COLUMNS + c] * TILE;
      for (int v = 0; v < TILE; v += 16) __builtin_prefetch(next + v);
    }
    outer_sums(rows, dy_tile, column, x_tile, tiles, sums);
    for (int i = 0; i < columns * ROWS; i++) to[i] += sums[i];
  }
  for (int r = 0; bias && r < ROWS; r++) {
    vec sum = splat(0.0f);
    for (long t = 0; t < tiles; t++) {
      for (int v = 0; v < TILE; v += LANES) sum += load(rows + t * dy_tile + r * TILE + v);
    }
    bias[group * ROWS + r] += total(sum);
  }
}

/* Writes the gradients of a group's live blocks to where they belong in gradient[outputs][inputs]. */
KERNEL void scatter_gradient(const Linear *linear, int32_t group, const float *slope, float *gradient) {
  const Part *part = linear->part;
  for (int r = 0; r < ROWS; r++) {
    float *row = gradient + ((long)group * ROWS + r) * linear->inputs;
    for (int32_t block = part->start[group]; block < part->start[group + 1]; block++)
      row[part->column[block]] = slope[(long)block * ROWS + r];
  }
}
