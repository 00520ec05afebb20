/* The steps of a layer in training other than its products, on tiles x[feature][TILE]: normalisation, dropout and
   activation, forward and backward. */

#pragma once

#include "live_blocks.h"
#include "random_bits.h"
#include "encoder.h"

typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE uvec usplat(uint32_t x) { return x - (uvec){0}; }

/* All bits of the lanes that are kept; see random_bits.h. */
INLINE ivec kept(const Dropout *dropout, uvec index) {
  uvec x = index + usplat(dropout->key[0]);
  x ^= x >> 16;
  x *= usplat(MIX_FIRST);
  x ^= usplat(dropout->key[1]);
  x ^= x >> 15;
  x *= usplat(MIX_SECOND);
  return (ivec)(x >> 16) >= dropout->levels;
}

INLINE vec drop(const Dropout *dropout, uvec index, vec x) {
  return choose(kept(dropout, index), x * splat(dropout->scale), splat(0.0f));
}

/* y = x after dropout, [features][TILE]; `place`: of each token among all tokens of the batch. */
KERNEL void drop_features(const Dropout *dropout, const uint32_t *place, long features, const float *x, float *y) {
  for (int v = 0; v < TILE; v += LANES) {
    const uvec first = *(const uvec *)(place + v) * usplat((uint32_t)features);
    for (long f = 0; f < features; f++)
      store(y + f * TILE + v, drop(dropout, first + usplat((uint32_t)f), load(x + f * TILE + v)));
  }
}

/* Layer normalisation of each token; mean[TILE] and scale[TILE], the inverse of the deviation, are kept. */
static void norm_tile(const Norm *norm, float epsilon, long features, const float *x, float *y, float *mean,
                      float *scale) {
  for (int v = 0; v < TILE; v += LANES) {
    vec sum = splat(0.0f), squares = splat(0.0f);
    for (long f = 0; f < features; f++) sum += load(x + f * TILE + v);
    const vec middle = sum * splat(1.0f / features);
    for (long f = 0; f < features; f++) {
      const vec difference = load(x + f * TILE + v) - middle;
      squares += difference * difference;
    }
    float lanes[LANES];
    store(lanes, squares * splat(1.0f / features) + splat(epsilon));
    for (int i = 0; i < LANES; i++) lanes[i] = isinf(lanes[i]) ? NAN : 1.0f / sqrtf(lanes[i]);
    const vec factor = load(lanes);
    store(mean + v, middle);
    store(scale + v, factor);
    for (long f = 0; f < features; f++)
      store(y + f * TILE + v,
            (load(x + f * TILE + v) - middle) * factor * splat(norm->weight[f]) + splat(norm->bias[f]));
  }
}

/* dx, from x and what `norm_tile` kept; dx may be dy. */
static void norm_tile_backward(const Norm *norm, long features, const float *x, const float *mean, const float *scale,
                               const float *dy, float *dx) {
  for (int v = 0; v < TILE; v += LANES) {
    const vec middle = load(mean + v), factor = load(scale + v);
    vec sum = splat(0.0f), product = splat(0.0f);
    for (long f = 0; f < features; f++) {
      const vec given = load(dy + f * TILE + v) * splat(norm->weight[f]);
      sum += given;
      product += given * (load(x + f * TILE + v) - middle);
    }
    sum *= splat(1.0f / features);
    product *= factor * factor * splat(1.0f / features);
    for (long f = 0; f < features; f++) {
      const vec given = load(dy + f * TILE + v) * splat(norm->weight[f]);
      store(dx + f * TILE + v, factor * (given - sum - (load(x + f * TILE + v) - middle) * product));
    }
  }
}

/* The gradients of a normalisation's weight and bias for one feature. */
static void norm_gradient(const Tiles *x, const float *mean, const float *scale, const Tiles *dy, long feature,
                          long tiles, float *weight, float *bias) {
  vec product = splat(0.0f), sum = splat(0.0f);
  for (long t = 0; t < tiles; t++) {
    const long row = (t * x->features + feature) * TILE;
    for (int v = 0; v < TILE; v += LANES) {
      const vec given = load(dy->at + row + v);
      sum += given;
      product += given * (load(x->at + row + v) - load(mean + t * TILE + v)) * load(scale + t * TILE + v);
    }
  }
  if (weight) weight[feature] = total(product);
  if (bias) bias[feature] = total(sum);
}

/* The normal distribution function and density: Abramowitz and Stegun 7.1.26, error 1.5e-7. */
INLINE void normal(vec x, vec *below, vec *density) {
  const vec a = larger(x, -x);
  const vec e = exponential(larger(splat(-0.5f) * a * a, splat(-100.0f)));
  const vec t = reciprocal(splat(1.0f) + splat(0.3275911f * 0.70710678f) * a);
  vec p = splat(1.061405429f);
  p = p * t + splat(-1.453152027f);
  p = p * t + splat(1.421413741f);
  p = p * t + splat(-0.284496736f);
  p = p * t + splat(0.254829592f);
  const vec tail = splat(0.5f) * p * t * e;
  *below = choose(x < splat(0.0f), tail, splat(1.0f) - tail);
  *density = splat(0.39894228f) * e;
}

/* y = dy * the derivative of the activation at x, `n` floats. */
KERNEL void activation_backward(enum activation activation, const float *x, const float *dy, float *y, long n) {
  for (long i = 0; i < n; i += LANES) {
    const vec at = load(x + i), given = load(dy + i);
    vec slope = splat(1.0f);
    if (activation == GELU) {
      vec below, density;
      normal(at, &below, &density);
      slope = below + at * density;
    } else if (activation == GELU_TANH) {
      /* x s(2 z) with z = sqrt(2 / pi) (x + 0.044715 x^3) and s the logistic function. */
      const vec c = larger(smaller(at, splat(12.0f)), splat(-12.0f));
      const vec z = splat(-1.59576912f) * (c + splat(0.044715f) * c * c * c);
      const vec s = reciprocal(splat(1.0f) + exponential(smaller(z, splat(87.0f))));
      slope = s + c * s * (splat(1.0f) - s) * splat(1.59576912f) * (splat(1.0f) + splat(0.134145f) * c * c);
    } else if (activation == RELU) {
      slope = choose(at > splat(0.0f), splat(1.0f), splat(0.0f));
    }
    store(y + i, given * slope);
  }
}
