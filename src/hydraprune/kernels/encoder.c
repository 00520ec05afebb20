/* A whole encoder on a batch of texts. */

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

#include "tile_amx.h"
#include "tile_bf16.h"
#include "tile_single.h"

enum status { DONE, NO_MEMORY, WRONG_ID, WRONG_TYPE, TOO_LONG, NO_PRECISION };

/* Tokens of the examples that are computed together, for each thread that computes them. */
#define CHUNK 256

/* The layers in one precision. */
typedef struct {
  long linear_bytes, attention_bytes; /* as in Batch */
  int32_t unit;                       /* tokens that a tile is a multiple of */
  void (*project)(const Batch *, int layer, int which, const Tile *, Scratch *);
  void (*finish)(const Batch *, int layer, const Tile *, Scratch *);
  void (*finish_first)(const Batch *, int layer, const FirstTokens *, Scratch *);
} Precision;

static const Precision SINGLE = {sizeof(float),  sizeof(float), UNIT,
                                 project_single, finish_single, finish_first_single};
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
static const Precision NARROW = {sizeof(bf16),   sizeof(bf16),  2 * UNIT,
                                 project_narrow, finish_narrow, finish_first_narrow};
#endif
#ifdef HAS_AMX
static const Precision AMX = {sizeof(float), sizeof(bf16), UNIT, project_amx, finish_amx, finish_first_amx};
#endif

/* What is computed of a batch, by several threads. */
typedef void Run(const Batch *, const Precision *, float *output, Scratch *);

/* Embedding and the first layers. A tile attends to the keys of others: those of all tiles are there before one goes
   on. */
static void run_layers(const Batch *batch, const Precision *precision, int layers, Scratch *scratch) {
  const int32_t tiles = batch->layout.tiles;
#pragma omp for schedule(dynamic)
  for (int32_t i = 0; i < tiles; i++) embed_tile(batch, batch->layout.tile + i, scratch);
  for (int layer = 0; layer < layers; layer++) {
#pragma omp for schedule(dynamic)
    for (int32_t i = 0; i < tiles; i++) precision->project(batch, layer, 0, batch->layout.tile + i, scratch);
#pragma omp for schedule(dynamic)
    for (int32_t i = 0; i < tiles; i++) precision->finish(batch, layer, batch->layout.tile + i, scratch);
  }
}

/* output[examples][tokens][hidden] */
static void run_all(const Batch *batch, const Precision *precision, float *output, Scratch *scratch) {
  run_layers(batch, precision, batch->encoder->layers, scratch);
#pragma omp for schedule(dynamic)
  for (int32_t i = 0; i < batch->layout.tiles; i++) write_tile(batch, batch->layout.tile + i, output);
}

/* output[examples][hidden], of the first tokens. */
static void run_first(const Batch *batch, const Precision *precision, float *output, Scratch *scratch) {
  const int last = batch->encoder->layers - 1;
  run_layers(batch, precision, last, scratch);
  if (last >= 0) {
#pragma omp for schedule(dynamic)
    for (int32_t i = 0; i < batch->layout.tiles; i++) precision->project(batch, last, 1, batch->layout.tile + i, scratch);
  }
#pragma omp for schedule(dynamic)
  for (int32_t i = 0; i < first_tiles(batch); i++) {
    const FirstTokens first = gather_first(batch, i, precision->unit);
    if (last >= 0) precision->finish_first(batch, last, &first, scratch);
    write_first(batch, &first, output);
  }
}

static enum status check(const Encoder *encoder, const Inputs *inputs, long examples, int32_t *length) {
  for (long e = 0; e < examples; e++) {
    const int64_t *id = inputs->ids + e * inputs->tokens;
    length[e] = length_of(inputs->mask ? inputs->mask + e * inputs->tokens : 0, inputs->tokens);
    for (int32_t i = 0; i < length[e]; i++) {
      if (id[i] < 0 || id[i] >= encoder->words) return WRONG_ID;
    }
    if (inputs->types) {
      const int64_t *type = inputs->types + e * inputs->tokens;
      for (int32_t i = 0; i < length[e]; i++) {
        if (type[i] < 0 || type[i] >= encoder->types) return WRONG_TYPE;
      }
    }
    if (length[e] > encoder->longest) return TOO_LONG;
  }
  return DONE;
}

static enum status encode_chunk(const Encoder *encoder, const Precision *precision, Run *run, const Inputs *inputs,
                                const int32_t *length, int32_t examples, float *output, int threads) {
  Batch batch = {.encoder = encoder,
                 .inputs = inputs,
                 .length = length,
                 .examples = examples,
                 .rows = widest(encoder, 1),
                 .linear_bytes = precision->linear_bytes,
                 .attention_bytes = precision->attention_bytes};
  if (!lay_out(&batch.layout, length, examples, precision->unit, threads)) return NO_MEMORY;
  if (batch.layout.tiles < threads) threads = batch.layout.tiles;
  batch.scratch = malloc(threads * sizeof(Scratch));
  const size_t bytes = batch.scratch ? (size_t)distribute(&batch, 0, threads) : 0;
  char *memory = bytes ? aligned_alloc(64, bytes) : 0;
  if (memory) {
    distribute(&batch, memory, threads);
    place_tokens(&batch);
#pragma omp parallel num_threads(threads) if (threads > 1)
    run(&batch, precision, output, batch.scratch + omp_get_thread_num());
  }
  free(memory);
  free(batch.scratch);
  free_layout(&batch.layout);
  return memory ? DONE : NO_MEMORY;
}

/* The first example of each of `parts` parts with about as many tokens, and the end: first[parts + 1]. */
static void divide(const int32_t *length, int32_t examples, long total, int32_t parts, int32_t *first) {
  long sum = 0;
  int32_t part = 0;
  first[part++] = 0;
  for (int32_t e = 0; e < examples; e++) {
    /* An example belongs to the part that its middle lies in. */
    const long middle = sum + length[e] / 2;
    while (part < parts && middle * parts >= part * total) first[part++] = e;
    sum += length[e];
  }
  while (part <= parts) first[part++] = examples;
}

/* `row`: floats of the output for an example. */
static void encode(const Encoder *encoder, const Precision *precision, Run *run, long row, const Inputs *batch,
                   long examples, float *output, int threads, int32_t *status) {
  int32_t *length = malloc((examples + 1) * sizeof(int32_t));
  *status = length ? check(encoder, batch, examples, length) : NO_MEMORY;
  long total = 0;
  for (long e = 0; e < examples && *status == DONE; e++) total += length[e];
  /* Threads compute examples of their own, since they need not wait for each other, or few examples together. */
  const int own = threads > 1 && examples >= 2 * threads, together = own ? 1 : threads;
  long parts = (total + CHUNK * together - 1) / (CHUNK * together);
  if (own) parts = (parts + threads - 1) / threads * threads;
  if (parts < 1) parts = 1;
  int32_t *first = malloc((parts + 1) * sizeof(int32_t)), failed = DONE;
  if (!first) *status = NO_MEMORY;
  if (*status == DONE) {
    divide(length, (int32_t)examples, total, (int32_t)parts, first);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (own) reduction(| : failed)
    for (long part = 0; part < parts; part++) {
      const long from = first[part], skipped = from * batch->tokens;
      const Inputs inputs = {batch->ids + skipped, batch->types ? batch->types + skipped : 0,
                             batch->mask ? batch->mask + skipped : 0, batch->tokens};
      if (from == first[part + 1] || failed) continue;
      failed = encode_chunk(encoder, precision, run, &inputs, length + from, first[part + 1] - (int32_t)from,
                            output + from * row, together);
    }
    *status = failed;
  }
  free(first);
  free(length);
}

/* Precisions of the weights and of attention; the last needs AMX. */
enum precision { ALL_SINGLE, ALL_NARROW, NARROW_ATTENTION };

/* NULL where this processor has none of it, or an encoder has heads of other sizes. */
static const Precision *precision_of(enum precision wanted, const Encoder *encoder) {
  if (wanted == ALL_SINGLE) return &SINGLE;
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
  if (wanted == ALL_NARROW) return &NARROW;
#endif
#ifdef HAS_AMX
  if (wanted == NARROW_ATTENTION && amx_fits(encoder) && amx_is_allowed()) return &AMX;
#endif
  (void)encoder;
  return 0;
}

/* The last hidden state of a batch: output[examples][tokens][hidden], which stays as it is behind the last token that
   an example's mask keeps. `status` gets DONE, or why nothing was computed. */
void hydraprune_encode(const Encoder *encoder, int wanted, const int64_t *ids, const int64_t *types,
                       const int64_t *mask, long examples, long tokens, float *output, int threads, int32_t *status) {
  const Inputs inputs = {ids, types, mask, tokens};
  const Precision *precision = precision_of(wanted, encoder);
  *status = NO_PRECISION;
  if (precision)
    encode(encoder, precision, run_all, tokens * encoder->hidden, &inputs, examples, output, threads, status);
}

/* The same for first tokens alone: output[examples][hidden]. */
void hydraprune_encode_first(const Encoder *encoder, int wanted, const int64_t *ids, const int64_t *types,
                             const int64_t *mask, long examples, long tokens, float *output, int threads,
                             int32_t *status) {
  const Inputs inputs = {ids, types, mask, tokens};
  const Precision *precision = precision_of(wanted, encoder);
  *status = NO_PRECISION;
  if (precision) encode(encoder, precision, run_first, encoder->hidden, &inputs, examples, output, threads, status);
}

/* One layer alone, for tests and for models that are accelerated layer by layer: y = activation(weight x + bias), both
   token by token. */
void hydraprune_linear(const Linear *linear, const float *x, float *y, long tokens, int threads, int32_t *status) {
  const long tiles = (tokens + TILE - 1) / TILE, inputs = linear->inputs, outputs = linear->outputs;
  int failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : failed)
  {
    float *from = aligned_alloc(64, (inputs + outputs) * TILE * sizeof(float) + 64 * UNIT);
    float *to = from + inputs * TILE;
    failed = !from;
#pragma omp for schedule(static)
    for (long t = 0; t < tiles; t++) {
      const long first = t * TILE, left = tokens - first < TILE ? tokens - first : TILE;
      const long width = (left + UNIT - 1) / UNIT * UNIT;
      if (!from) continue;
      for (long unit = 0; unit < left; unit += UNIT) {
        const long here = left - unit < UNIT ? left - unit : UNIT;
        if (here == UNIT) {
          transpose_in(x + (first + unit) * inputs, inputs, from + unit, width, inputs);
        } else {
          for (long f = 0; f < inputs; f++) {
            for (long i = 0; i < UNIT; i++)
              from[f * width + unit + i] = i < here ? x[(first + unit + i) * inputs + f] : 0.0f;
          }
        }
      }
      linear_forward(linear, from, to, 0, width);
      for (long unit = 0; unit < left; unit += UNIT)
        transpose_out(to + unit, width, y + (first + unit) * outputs, outputs, outputs,
                      (int)(left - unit < UNIT ? left - unit : UNIT));
    }
    free(from);
  }
  *status = failed ? NO_MEMORY : DONE;
}

/* The same as within an encoder, in one thread: x[tiles][inputs][width], y[tiles][outputs][width]; width: multiple of
   16. */
void hydraprune_linear_tiles(const Linear *linear, const float *x, float *y, long tiles, long width) {
  for (long i = 0; i < tiles; i++)
    linear_forward(linear, x + i * linear->inputs * width, y + i * linear->outputs * width, 0, width);
}

/* What the code was compiled for: floats in a vector, whether it has products in bfloat16, and whether this process may
   use AMX. */
void hydraprune_target(int32_t *lanes, int32_t *bfloat16, int32_t *amx) {
  *lanes = LANES;
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
  *bfloat16 = 1;
#else
  *bfloat16 = 0;
#endif
#ifdef HAS_AMX
  *amx = amx_is_allowed();
#else
  *amx = 0;
#endif
}
