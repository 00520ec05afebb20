/* One pass over a weight and its gradient: state = decay * state + sum over a block's rows |w * g| / divisor.

   Adds in the order of the torch path in saliency_kernels.py, without contraction, so that both give the
   same bits. w, g: [blocks, rows, columns]; state: [blocks, columns]. */

#include <math.h>
#include <string.h>

#define STRETCH 512

void hydraprune_products(const float *w, const float *g, float *state, long blocks, long rows, long columns,
                         float decay, float divisor, int fresh, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long block = 0; block < blocks; block++) {
    const float *w0 = w + block * rows * columns;
    const float *g0 = g + block * rows * columns;
    float *s0 = state + block * columns;
    for (long start = 0; start < columns; start += STRETCH) {
      const long n = columns - start < STRETCH ? columns - start : STRETCH;
      float sum[STRETCH];
      for (long i = 0; i < n; i++) sum[i] = fabsf(w0[start + i] * g0[start + i]);
      for (long row = 1; row < rows; row++) {
        const float *wr = w0 + row * columns + start;
        const float *gr = g0 + row * columns + start;
        for (long i = 0; i < n; i++) sum[i] += fabsf(wr[i] * gr[i]);
      }
      float *s = s0 + start;
      if (fresh)
        for (long i = 0; i < n; i++) s[i] = sum[i] / divisor;
      else
        for (long i = 0; i < n; i++) s[i] = s[i] * decay + sum[i] / divisor;
    }
  }
}
