/* A whole encoder on a batch of texts, in single precision. */

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

#include "attention.h"
#include "encoder.h"
#include "steps.h"

enum status { DONE, NO_MEMORY, WRONG_ID, WRONG_TYPE, TOO_LONG };

/* Examples that are computed together: as many as have this many tokens for each thread. */
#define CHUNK 256

/* What a thread needs while it computes a tile. */
typedef struct {
  float *sum;     /* [hidden or embedding][TILE]: before normalisation */
  float *context; /* [rows of the widest attention][TILE] */
  float *inner;   /* [widest feed-forward][TILE] */
  float *scores;  /* [keys][STRIP * LANES] */
  float *rows;    /* [UNIT][embedding] */
} Scratch;

/* What a batch needs. Queries, keys and values are kept twice: a tile computes those of the next layer while others
   still read those of this one. */
typedef struct {
  const Encoder *encoder;
  const Inputs *inputs;
  const int32_t *length; /* [examples] */
  Layout layout;
  long rows;            /* of the widest attention */
  float *mask;          /* [tokens] */
  float *hidden;        /* tile by tile, [hidden][width] */
  float *projected[2];  /* query, key, value: each tile by tile, [rows][width] */
  int32_t *position;    /* [tokens] */
  Scratch *scratch;     /* [threads] */
} Batch;

static float *projection(const Batch *batch, int layer, int which) {
  return batch->projected[layer & 1] + which * batch->rows * batch->layout.tokens;
}

static float *hidden_of(const Batch *batch, const Tile *tile) {
  return batch->hidden + (long)batch->encoder->hidden * tile->start;
}

static void embed_tile(const Batch *batch, const Tile *tile, Scratch *scratch) {
  const Encoder *encoder = batch->encoder;
  const long size = encoder->embedding;
  float *summed = encoder->projection ? scratch->sum : hidden_of(batch, tile);
  memset(summed, 0, size * tile->width * sizeof(float)); /* tokens of no example: zeros */
  for (int32_t s = tile->first_span; s < tile->first_span + tile->spans; s++) {
    const Span *span = batch->layout.span + s;
    const long example = span->example * batch->inputs->tokens;
    const int32_t *position = batch->position + tile->start + span->first;
    for (int32_t unit = 0; unit < span->count; unit += UNIT) {
      for (int32_t i = 0; i < UNIT; i++) {
        const int32_t place = span->position + unit + i;
        float *row = scratch->rows + i * size;
        if (place < batch->length[span->example]) {
          const long token = example + place;
          embed(encoder, batch->inputs->ids[token], batch->inputs->types ? batch->inputs->types[token] : 0,
                position[unit + i], row);
        } else {
          memset(row, 0, size * sizeof(float));
        }
      }
      transpose_in(scratch->rows, size, summed + span->first + unit, tile->width, size);
    }
  }
  norm_forward(&encoder->embedding_norm, encoder->epsilon, size, summed, summed, tile->width);
  if (encoder->projection) linear_forward(encoder->projection, summed, hidden_of(batch, tile), 0, tile->width);
}

static void project_tile(const Batch *batch, int layer, const Tile *tile) {
  const Layer *l = batch->encoder->layer + layer;
  const Linear *linear[3] = {&l->query, &l->key, &l->value};
  for (int which = 0; which < 3; which++)
    linear_forward(linear[which], hidden_of(batch, tile), projection(batch, layer, which) + batch->rows * tile->start,
                   0, tile->width);
}

static void attend_tile(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  const Encoder *encoder = batch->encoder;
  const Layer *l = encoder->layer + layer;
  const Layout *layout = &batch->layout;
  const float *query = projection(batch, layer, 0) + batch->rows * tile->start;
  for (int32_t s = tile->first_span; s < tile->first_span + tile->spans; s++) {
    const Span *span = layout->span + s;
    const Span *first = layout->span + layout->first_span[span->example];
    for (int32_t head = 0; head < l->heads; head++) {
      const long row = (long)head * l->head_size;
      const Keys keys = {
          .span = first,
          .spans = layout->first_span[span->example + 1] - layout->first_span[span->example],
          .tile = layout->tile,
          .key = projection(batch, layer, 1),
          .value = projection(batch, layer, 2),
          .rows = batch->rows,
          .row = row,
          .size = l->head_size,
          .mask = batch->mask + layout->tile[first->tile].start + first->first,
          .bias = encoder->relative ? encoder->relative + head * (2L * encoder->reach + 1) + encoder->reach : 0,
      };
      attention_forward(&keys, query + row * tile->width + span->first,
                        scratch->context + row * tile->width + span->first, tile->width, span->position, span->count,
                        scratch->scores);
    }
  }
}

static void finish_tile(const Batch *batch, int layer, const Tile *tile, Scratch *scratch) {
  const Encoder *encoder = batch->encoder;
  const Layer *l = encoder->layer + layer;
  float *hidden = hidden_of(batch, tile);
  attend_tile(batch, layer, tile, scratch);
  linear_forward(&l->attention_output, scratch->context, scratch->sum, hidden, tile->width);
  norm_forward(&l->attention_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, tile->width);
  linear_forward(&l->ffn_in, hidden, scratch->inner, 0, tile->width);
  linear_forward(&l->ffn_out, scratch->inner, scratch->sum, hidden, tile->width);
  norm_forward(&l->ffn_norm, encoder->epsilon, encoder->hidden, scratch->sum, hidden, tile->width);
}

/* output[example][token][hidden]: the last hidden state; tokens behind an example's last one stay as they are. */
static void write_tile(const Batch *batch, const Tile *tile, float *output) {
  const long hidden = batch->encoder->hidden;
  for (int32_t s = tile->first_span; s < tile->first_span + tile->spans; s++) {
    const Span *span = batch->layout.span + s;
    for (int32_t unit = 0; unit < span->count; unit += UNIT) {
      const int32_t place = span->position + unit, left = batch->length[span->example] - place;
      if (left <= 0) break;
      transpose_out(hidden_of(batch, tile) + span->first + unit, tile->width,
                    output + (span->example * batch->inputs->tokens + place) * hidden, hidden, hidden,
                    left < UNIT ? left : UNIT);
    }
  }
}

/* Positions and mask of every token of the layout. */
static void place_tokens(Batch *batch, int32_t examples) {
  for (int32_t i = 0; i < batch->layout.tokens; i++) batch->mask[i] = -1e30f;
  long start = 0;
  for (int32_t e = 0; e < examples; e++) {
    const int32_t length = batch->length[e];
    const int64_t *mask = batch->inputs->mask ? batch->inputs->mask + e * batch->inputs->tokens : 0;
    const int any = mask && mask[length - 1]; /* a mask that keeps nothing is none */
    positions_of(batch->encoder, batch->inputs->ids + e * batch->inputs->tokens, length, batch->position + start);
    for (int32_t i = 0; i < length; i++) batch->mask[start + i] = !any || mask[i] ? 0.0f : -1e30f;
    start += (length + UNIT - 1) / UNIT * UNIT;
  }
}

static long widest(const Encoder *encoder, int of_attention) {
  long rows = 1;
  for (int32_t i = 0; i < encoder->layers; i++) {
    const Layer *l = encoder->layer + i;
    const long own = of_attention ? l->query.outputs : l->ffn_in.outputs;
    if (own > rows) rows = own;
  }
  return rows;
}

/* Parts of one block of memory, each on a cache line of its own. */
static float *part(char **memory, long floats) {
  float *found = (float *)*memory;
  *memory += (floats * sizeof(float) + 63) / 64 * 64;
  return found;
}

/* With `memory` NULL, counts. */
static char *distribute(Batch *batch, char *memory, int threads) {
  const Encoder *encoder = batch->encoder;
  const long tokens = batch->layout.tokens, inner = widest(encoder, 0);
  const long sum = encoder->hidden > encoder->embedding ? encoder->hidden : encoder->embedding;
  batch->mask = part(&memory, tokens);
  batch->position = (int32_t *)part(&memory, tokens);
  batch->hidden = part(&memory, encoder->hidden * tokens);
  for (int i = 0; i < 2; i++) batch->projected[i] = part(&memory, 3 * batch->rows * tokens);
  for (int i = 0; i < threads; i++) {
    const Scratch scratch = {part(&memory, sum * TILE), part(&memory, batch->rows * TILE), part(&memory, inner * TILE),
                             part(&memory, (long)batch->layout.longest * STRIP * LANES),
                             part(&memory, UNIT * encoder->embedding)};
    batch->scratch[i] = scratch;
  }
  return memory;
}

static void run(const Batch *batch, float *output, int threads) {
  const int32_t tiles = batch->layout.tiles;
  const int layers = batch->encoder->layers;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Scratch *scratch = batch->scratch + omp_get_thread_num();
#pragma omp for schedule(dynamic)
    for (int32_t i = 0; i < tiles; i++) {
      embed_tile(batch, batch->layout.tile + i, scratch);
      if (layers) project_tile(batch, 0, batch->layout.tile + i);
    }
    for (int layer = 0; layer < layers; layer++) {
#pragma omp for schedule(dynamic)
      for (int32_t i = 0; i < tiles; i++) {
        finish_tile(batch, layer, batch->layout.tile + i, scratch);
        if (layer + 1 < layers)
          project_tile(batch, layer + 1, batch->layout.tile + i);
        else
          write_tile(batch, batch->layout.tile + i, output);
      }
    }
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

static enum status encode_chunk(const Encoder *encoder, const Inputs *inputs, const int32_t *length, int32_t examples,
                                float *output, int threads) {
  Batch batch = {.encoder = encoder, .inputs = inputs, .length = length, .rows = widest(encoder, 1)};
  if (!lay_out(&batch.layout, length, examples, UNIT, threads)) return NO_MEMORY;
  if (batch.layout.tiles < threads) threads = batch.layout.tiles;
  batch.scratch = malloc(threads * sizeof(Scratch));
  const size_t bytes = batch.scratch ? (size_t)distribute(&batch, 0, threads) : 0;
  char *memory = bytes ? aligned_alloc(64, bytes) : 0;
  if (memory) {
    distribute(&batch, memory, threads);
    place_tokens(&batch, examples);
    run(&batch, output, threads);
  }
  free(memory);
  free(batch.scratch);
  free_layout(&batch.layout);
  return memory ? DONE : NO_MEMORY;
}

/* The last hidden state of a batch: output[examples][tokens][hidden], which is 0 where it is not written.
   `status` gets DONE, or why nothing was computed. */
void hydraprune_encode(const Encoder *encoder, const int64_t *ids, const int64_t *types, const int64_t *mask,
                       long examples, long tokens, float *output, int threads, int32_t *status) {
  int32_t *length = malloc((examples + 1) * sizeof(int32_t));
  Inputs inputs = {ids, types, mask, tokens};
  *status = length ? check(encoder, &inputs, examples, length) : NO_MEMORY;
  for (long first = 0, next; first < examples && *status == DONE; first = next) {
    long sum = 0;
    for (next = first; next < examples && (next == first || sum + length[next] <= CHUNK * threads); next++)
      sum += length[next];
    const long skipped = first * tokens;
    inputs = (Inputs){ids + skipped, types ? types + skipped : 0, mask ? mask + skipped : 0, tokens};
    *status = encode_chunk(encoder, &inputs, length + first, (int32_t)(next - first),
                           output + skipped * encoder->hidden, threads);
  }
  free(length);
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
