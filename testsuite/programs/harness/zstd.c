/* zstd.c - a compression stream that survives its process: contexts, windows and output live in the mapped file, and a new
 * process goes on in the middle of the stream. A second stream decompresses what the first has written. */
#define ZSTD_STATIC_LINKING_ONLY
#define PERSIST_SIZE ((size_t)256 << 20)
#include "persist.h"

#include "zstd.h"

enum { CHUNK = 6000, ROOM = 8 << 20 };

struct state {
  ZSTD_CCtx *compressor;
  ZSTD_DCtx *decompressor;
  uint64_t raw;           /* bytes compressed */
  size_t written, read;   /* compressed bytes, and how many of them were decompressed */
  uint64_t raw_digest, back_digest;
  unsigned char input[CHUNK], output[CHUNK + 4096];
  unsigned char stream[ROOM];
};

static void *allocate(void *heap, size_t size) { return heap_alloc((struct heap *)heap, size); }
static void release(void *heap, void *memory) { heap_free((struct heap *)heap, memory); }

static size_t must(size_t result) {
  if (!ZSTD_isError(result)) return result;
  fprintf(stderr, "zstd: %s\n", ZSTD_getErrorName(result));
  exit(2);
}

void program_start(void) {
  struct state *state = (struct state *)heap_alloc(&persist->heap, sizeof *state);
  if (state == NULL) die("heap");
  memset(state, 0, sizeof *state);
  persist->root = state;
  ZSTD_customMem memory = {allocate, release, &persist->heap};
  state->compressor = ZSTD_createCCtx_advanced(memory);
  state->decompressor = ZSTD_createDCtx_advanced(memory);
  if (state->compressor == NULL || state->decompressor == NULL) die("zstd");
}

/* The contexts hold addresses of functions and tables; they are where they were: the program is linked without -pie. */
void program_resume(void) {}

static void fill(unsigned char *bytes, uint64_t number) {
  static const char *const words[] = {"puddle", "pool", "pointer", "journal", "commit", "shadow", "barrier", "seal", " ", "\n"};
  size_t at = 0;
  for (uint64_t i = 0; at < CHUNK; i++) {
    uint64_t r = mix(number * 4096 + i);
    if (r % 64 == 0) {
      for (int k = 0; k < 40 && at < CHUNK; k++) bytes[at++] = (unsigned char)mix(r + (uint64_t)k);
    } else {
      for (const char *w = words[r / 64 % 10]; *w && at < CHUNK; w++) bytes[at++] = (unsigned char)*w;
    }
  }
}

void program_step(uint64_t number) {
  struct state *state = (struct state *)persist->root;
  fill(state->input, number);
  /* A frame of 8 chunks for each level and each strategy; then the next. */
  int first = number % 8 == 0, last = number % 8 == 7;
  if (first) {
    must(ZSTD_CCtx_reset(state->compressor, ZSTD_reset_session_and_parameters));
    must(ZSTD_CCtx_setParameter(state->compressor, ZSTD_c_compressionLevel, (int)(number / 8 % 16) - 1));
    must(ZSTD_CCtx_setParameter(state->compressor, ZSTD_c_windowLog, 17));
    must(ZSTD_CCtx_setParameter(state->compressor, ZSTD_c_checksumFlag, 1));
    must(ZSTD_CCtx_setParameter(state->compressor, ZSTD_c_enableLongDistanceMatching, number / 8 % 5 == 4 ? ZSTD_ps_enable : ZSTD_ps_disable));
  }
  if (state->written > ROOM - 2 * CHUNK) {
    memmove(state->stream, state->stream + state->read, state->written - state->read);
    state->written -= state->read;
    state->read = 0;
  }
  ZSTD_inBuffer in = {state->input, CHUNK, 0};
  ZSTD_outBuffer out = {state->stream, ROOM, state->written};
  while (must(ZSTD_compressStream2(state->compressor, &out, &in, last ? ZSTD_e_end : ZSTD_e_flush)) != 0 || in.pos < in.size) {}
  state->written = out.pos;
  state->raw += CHUNK;
  state->raw_digest = digest_bytes(state->raw_digest, state->input, CHUNK);

  ZSTD_inBuffer back = {state->stream, state->written, state->read};
  ZSTD_outBuffer plain = {state->output, sizeof state->output, 0};
  while (back.pos < back.size) must(ZSTD_decompressStream(state->decompressor, &plain, &back));
  /* What is flushed comes out at once. */
  must(ZSTD_decompressStream(state->decompressor, &plain, &back));
  state->read = back.pos;
  if (plain.pos != CHUNK || memcmp(state->output, state->input, CHUNK) != 0) die("the stream does not decompress to its input");
  state->back_digest = digest_bytes(state->back_digest, state->output, plain.pos);
}

uint64_t program_digest(void) {
  struct state *state = (struct state *)persist->root;
  if (state->raw_digest != state->back_digest) die("the streams differ");
  uint64_t digest = digest_bytes(state->raw_digest, state->stream, state->written);
  return mix(digest ^ state->raw ^ state->read);
}
