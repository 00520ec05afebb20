/* Random bits by counter: those of a value depend on a key and on its index alone, so that any order of computation, and
   the backward pass, find the same ones.

   A mixer of 32 bits (xorshift and multiplication, constants of C. Wellons' search for low bias), into which the other
   half of the key goes midway. */

#pragma once

#include <stdint.h>

#define MIX_FIRST 0x7feb352du
#define MIX_SECOND 0x846ca68bu

/* Which values are dropped: those whose upper 16 bits are below `levels`; the others are scaled. */
typedef struct {
  uint32_t key[2];
  int32_t levels; /* 0: nothing is dropped */
  float scale;
} Dropout;

static inline uint32_t random_bits(const Dropout *dropout, uint32_t index) {
  uint32_t x = index + dropout->key[0];
  x ^= x >> 16;
  x *= MIX_FIRST;
  x ^= dropout->key[1];
  x ^= x >> 15;
  x *= MIX_SECOND;
  return x ^ (x >> 16);
}

static inline int is_kept(const Dropout *dropout, uint32_t index) {
  return (int32_t)(random_bits(dropout, index) >> 16) >= dropout->levels;
}
