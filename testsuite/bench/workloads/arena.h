/* arena.h - an ordinary allocator inside a mapped file: a bump pointer and one free list per size class. It knows nothing of
 * persistence; under Vernal its state is ordinary tracked memory. */
#ifndef BENCH_ARENA_H
#define BENCH_ARENA_H
#include "protocol.h"
#include <stddef.h>

#define ARENA_GRAIN 16
#define ARENA_SMALL 64 /* classes of 16, 32, … 1024 bytes; above, powers of two */
#define ARENA_CLASSES (ARENA_SMALL + 32)

struct arena_block {
  struct arena_block *next;
};

struct arena {
  char *next;
  char *end;
  void *root;
  struct arena_block *free[ARENA_CLASSES];
};

static inline size_t arena_class(size_t bytes, size_t *rounded) {
  if (bytes <= ARENA_GRAIN * ARENA_SMALL) {
    size_t n = (bytes + ARENA_GRAIN - 1) / ARENA_GRAIN;
    *rounded = n * ARENA_GRAIN;
    return n - 1;
  }
  unsigned log = 64 - (unsigned)__builtin_clzll(bytes - 1); /* 11 is the first power of two above the small classes */
  *rounded = (size_t)1 << log;
  return ARENA_SMALL + log - 11;
}

static inline void *arena_alloc(struct arena *a, size_t bytes) {
  size_t rounded, class = arena_class(bytes, &rounded);
  struct arena_block *b = a->free[class];
  if (b) {
    a->free[class] = b->next;
    return b;
  }
  if ((size_t)(a->end - a->next) < rounded)
    bench_fail("arena", "the mapped file is full: give the workload a larger one");
  void *p = a->next;
  a->next += rounded;
  return p;
}

static inline void arena_free(struct arena *a, void *p, size_t bytes) {
  size_t rounded, class = arena_class(bytes, &rounded);
  struct arena_block *b = p;
  b->next = a->free[class];
  a->free[class] = b;
}

static inline void arena_init(struct arena *a, size_t bytes) {
  *a = (struct arena){.next = (char *)a + ((sizeof *a + 63) & ~(size_t)63), .end = (char *)a + bytes};
}

static inline void *arena_root(struct arena *a, size_t bytes) {
  if (!a->root) {
    a->root = arena_alloc(a, bytes);
    __builtin_memset(a->root, 0, bytes);
  }
  return a->root;
}

#endif
