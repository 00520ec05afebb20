/* Products in bfloat16, summed in single precision: processors with AVX-512 BF16.

   One instruction multiplies pairs: two neighbouring values of one vector with two of another. A linear layer pairs two
   live columns of the same group of rows, whose tokens are interleaved on the way into the registers; attention pairs
   two features of a head, and two keys. */

#pragma once

#include "block_rows.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)

typedef uint16_t bf16;

/* The sums of interleaved tokens 0-3, 8-11, 16-19, 24-27 and of the others, in the order of the tokens. */
INLINE void ordered(__m512 low, __m512 high, __m512 *first, __m512 *second) {
  const __m512i a = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i b = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  *first = _mm512_permutex2var_ps(low, a, high);
  *second = _mm512_permutex2var_ps(low, b, high);
}

INLINE void store_narrow(bf16 *to, __m512 first, __m512 second) {
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

/* One strip of `halves` times 32 tokens. The result is single precision where there is a residual, else bfloat16. */
INLINE void multiply_pairs(const int rows, const int halves, const int narrow, const Part *part, const Linear *linear,
                           const bf16 *x, void *y, const float *residual, long ld) {
  const uint32_t *values = part->value;
  for (int32_t group = 0; group < part->groups; group++) {
    const int32_t *row = part->row + (long)group * rows;
    __m512 sum[8][4];
    UNROLL for (int r = 0; r < rows; r++) {
      UNROLL for (int v = 0; v < 2 * halves; v++) sum[r][v] = _mm512_set1_ps(linear->bias[row[r]]);
    }
    const int32_t end = part->start[group + 1];
    for (int32_t block = part->start[group]; block < end; block++) {
      const bf16 *a = x + part->column[2 * (long)block] * ld, *b = x + part->column[2 * (long)block + 1] * ld;
      const uint32_t *value = values + (long)block * rows;
      __m512i tokens[4];
      UNROLL for (int h = 0; h < halves; h++) {
        const __m512i left = _mm512_loadu_si512(a + 32 * h), right = _mm512_loadu_si512(b + 32 * h);
        tokens[2 * h] = _mm512_unpacklo_epi16(left, right);
        tokens[2 * h + 1] = _mm512_unpackhi_epi16(left, right);
      }
      UNROLL for (int r = 0; r < rows; r++) {
        __m512i weight = _mm512_set1_epi32((int)value[r]);
        __asm__("" : "+v"(weight)); /* one broadcast into a register, not one for each product */
        UNROLL for (int v = 0; v < 2 * halves; v++)
          sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)tokens[v], (__m512bh)weight);
      }
    }
    vec buffer[8 * 4];
    UNROLL for (int r = 0; r < rows; r++) {
      UNROLL for (int h = 0; h < halves; h++) {
        __m512 first, second;
        ordered(sum[r][2 * h], sum[r][2 * h + 1], &first, &second);
        const long at = row[r] * ld + 32 * h;
        if (!narrow) {
          store((float *)y + at, (vec)first + load(residual + at));
          store((float *)y + at + 16, (vec)second + load(residual + at + 16));
        } else if (linear->activation) {
          buffer[2 * (r * halves + h)] = (vec)first, buffer[2 * (r * halves + h) + 1] = (vec)second;
        } else {
          store_narrow((bf16 *)y + at, first, second);
        }
      }
    }
    if (narrow && linear->activation) {
      activate(linear->activation, buffer, 2 * rows * halves);
      UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int h = 0; h < halves; h++)
          store_narrow((bf16 *)y + row[r] * ld + 32 * h, (__m512)buffer[2 * (r * halves + h)],
                       (__m512)buffer[2 * (r * halves + h) + 1]);
      }
    }
  }
}

typedef void MultiplyPairs(const Part *, const Linear *, const bf16 *, void *, const float *, long);

#define MULTIPLY_PAIRS(ROWS, HALVES)                                                                                \
  KERNEL void narrow_##ROWS##_##HALVES(const Part *part, const Linear *linear, const bf16 *x, void *y,              \
                                       const float *residual, long ld) {                                            \
    multiply_pairs(ROWS, HALVES, 1, part, linear, x, y, residual, ld);                                              \
  }                                                                                                                 \
  KERNEL void wide_##ROWS##_##HALVES(const Part *part, const Linear *linear, const bf16 *x, void *y,                \
                                     const float *residual, long ld) {                                              \
    multiply_pairs(ROWS, HALVES, 0, part, linear, x, y, residual, ld);                                              \
  }

MULTIPLY_PAIRS(1, 1)
MULTIPLY_PAIRS(2, 1)
MULTIPLY_PAIRS(4, 1)
MULTIPLY_PAIRS(8, 1)
MULTIPLY_PAIRS(1, 2)
MULTIPLY_PAIRS(2, 2)
MULTIPLY_PAIRS(4, 2)

/* By the precision of the result, the logarithm of the rows, and the halves. */
static MultiplyPairs *const PAIR_MULTIPLIERS[2][4][3] = {
    {{0, wide_1_1, wide_1_2}, {0, wide_2_1, wide_2_2}, {0, wide_4_1, wide_4_2}, {0, wide_8_1}},
    {{0, narrow_1_1, narrow_1_2}, {0, narrow_2_1, narrow_2_2}, {0, narrow_4_1, narrow_4_2}, {0, narrow_8_1}},
};

/* y[outputs][width] = activation(weight x[inputs][width] + bias) in bfloat16, or, with a residual, their sum in single
   precision; width: multiple of 32. */
static void linear_pairs_forward(const Linear *linear, const bf16 *x, void *y, const float *residual, long width) {
  for (int p = 0; p < linear->parts; p++) {
    const Part *part = linear->part + p;
    for (long token = 0; token < width;) {
      const int halves = part->rows < 8 && width - token >= 64 ? 2 : 1;
      void *to = residual ? (void *)((float *)y + token) : (void *)((bf16 *)y + token);
      MultiplyPairs *multiply = PAIR_MULTIPLIERS[!residual][__builtin_ctz(part->rows)][halves];
      multiply(part, linear, x + token, to, residual ? residual + token : 0, width);
      token += 32 * halves;
    }
  }
}

/* Rows of `width` floats as bfloat16. */
static void narrow_rows(const float *x, bf16 *y, long floats) {
  for (long i = 0; i < floats; i += 32) store_narrow(y + i, _mm512_loadu_ps(x + i), _mm512_loadu_ps(x + i + 16));
}

/* Rows 2i and 2i + 1 become one of pairs, [width][2], in place; width: 32 or 64. */
static void interleave_rows(bf16 *x, long rows, long width) {
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                       5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  for (long row = 0; row < rows; row += 2, x += 2 * width) {
    const int two = width == 64;
    const __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(x + width);
    const __m512i c = two ? _mm512_loadu_si512(x + 32) : a, d = two ? _mm512_loadu_si512(x + width + 32) : b;
    _mm512_storeu_si512(x, _mm512_permutex2var_epi16(a, low, b));
    _mm512_storeu_si512(x + 32, _mm512_permutex2var_epi16(a, high, b));
    if (two) {
      _mm512_storeu_si512(x + 64, _mm512_permutex2var_epi16(c, low, d));
      _mm512_storeu_si512(x + 96, _mm512_permutex2var_epi16(c, high, d));
    }
  }
}

#endif
