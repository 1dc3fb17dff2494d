/* primitives.c - what a transaction, a logged range and an allocation cost: the thesis' table 3.3. */
#include "backend.h"
#include "micro.h"
#include <stdlib.h>

#define CELLS 4096
#define PAGES 64
#define KEPT 4096

DECLARE_OBJECT(cell, 1);
DECLARE_OBJECT(page, 2);
DECLARE_OBJECT(board, 3);

struct cell {
  uint64_t value;
};

struct page {
  uint64_t word[512];
};

struct board {
  uint64_t cell[CELLS];
  struct page page[PAGES];
};

struct primitives {
  REF(board) board;
};

static struct board *board;

void system_open(const char *path, uint64_t bytes) {
  backend_open(path, bytes);
  struct primitives *root = ROOT(primitives);
  if (IS_NULL(root->board)) {
    system_begin();
    LOG_RANGE(&root->board, sizeof root->board);
    REF(board) b = NEW(board);
    memset(MUT(b), 0, sizeof(struct board));
    root->board = b;
    system_commit();
  }
  board = MUT(root->board);
}

static void nop(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    system_begin();
    system_commit();
  }
}

static void add_8(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    uint64_t *p = &board->cell[mix64(i) % CELLS];
    system_begin();
    LOG_RANGE(p, sizeof *p);
    *p += i | 1;
    system_commit();
  }
}

static void add_4k(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    struct page *p = &board->page[mix64(i) % PAGES];
    system_begin();
    LOG_RANGE(p, sizeof *p);
    for (int w = 0; w < 512; w++)
      p->word[w] += i | 1;
    system_commit();
  }
}

/* Allocations in a transaction each; freed, untimed, when KEPT are alive. */
#define ALLOCATE(name, type)                                  \
  static uint64_t name(uint64_t count) {                      \
    static REF(type) kept[KEPT];                              \
    uint64_t ns = 0;                                          \
    for (uint64_t done = 0; done < count;) {                  \
      uint64_t n = count - done < KEPT ? count - done : KEPT; \
      uint64_t start = micro_now();                           \
      for (uint64_t i = 0; i < n; i++) {                      \
        system_begin();                                       \
        kept[i] = NEW(type);                                  \
        system_commit();                                      \
      }                                                       \
      ns += micro_now() - start;                              \
      for (uint64_t i = 0; i < n; i++) {                      \
        system_begin();                                       \
        DISPOSE(kept[i]);                                     \
        system_commit();                                      \
      }                                                       \
      done += n;                                              \
    }                                                         \
    return ns;                                                \
  }                                                           \
  static void name##_free(uint64_t count) {                   \
    for (uint64_t i = 0; i < count; i++) {                    \
      system_begin();                                         \
      REF(type) p = NEW(type);                                \
      DISPOSE(p);                                             \
      system_commit();                                        \
    }                                                         \
  }

ALLOCATE(allocate_8, cell)
ALLOCATE(allocate_4k, page)

int micro_measure(const char *name, uint64_t count, const char *argument, struct measured *out) {
  (void)argument;
  static const struct {
    const char *name;
    void (*run)(uint64_t);
  } plain[] = {{"tx-nop", nop},
               {"tx-add-8", add_8},
               {"tx-add-4k", add_4k},
               {"tx-alloc-free-8", allocate_8_free},
               {"tx-alloc-free-4k", allocate_4k_free}};
  out->units = count;
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (strcmp(name, plain[i].name) == 0) {
      uint64_t start = micro_now();
      plain[i].run(count);
      out->ns = micro_now() - start;
      for (int c = 0; c < CELLS; c++)
        out->sum = mix64(out->sum + board->cell[c]);
      for (int p = 0; p < PAGES; p++)
        out->sum = mix64(out->sum + board->page[p].word[p]);
      return 0;
    }
  if (strcmp(name, "tx-alloc-8") == 0)
    out->ns = allocate_8(count);
  else if (strcmp(name, "tx-alloc-4k") == 0)
    out->ns = allocate_4k(count);
  else
    return -1;
  return 0;
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  (void)op, (void)sum;
  return -1;
}

void system_check(uint64_t *hash, uint64_t *entries) { *hash = *entries = 0; }
