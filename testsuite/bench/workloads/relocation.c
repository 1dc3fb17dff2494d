/* relocation.c - what moving a pool costs: a clone is opened beside the pool that it was made from, so that it gets other
 * addresses, and its pointers are rewritten when they are touched.
 *
 *   measure list N PATH | array N PATH    makes a pool of N pointers: nodes of 16 bytes, or objects of 512 pointers
 *   measure original 0 PATH               opens the pool that has the addresses
 *   measure open 0 PATH                   timed: opens a pool and reads its first object
 *   measure walk N PATH                   timed: follows every pointer of the pool that `open` has opened
 *   measure transaction 0 PATH            opens a pool and begins a transaction that is never ended (the process is killed)
 *   measure close 0 -                     closes what is open
 */
#include "backend.h"
#include "micro.h"
#include <stdio.h>
#include <stdlib.h>

#define PER_OBJECT 512

DECLARE_OBJECT(node, 1);
DECLARE_OBJECT(block, 2);

struct node {
  struct node *next;
  uint64_t value;
};

struct block {
  struct node *to[PER_OBJECT];
};

struct graph {
  struct node *list;
  struct block *block[1 << 16]; /* as many as `blocks` */
  uint64_t blocks;
};

static vn_pool *original, *opened;
static struct graph *graph;

void system_open(const char *path, uint64_t bytes) { (void)path, (void)bytes; }

static vn_pool *open_pool(const char *path, unsigned flags) {
  vn_pool *pool = vn_pool_open(path, flags);
  if (!pool)
    bench_fail(path, vernal_last_error());
  return pool;
}

static struct graph *root_of(vn_pool *pool) { return backend_check(vn_root(pool, struct graph)); }

static void make(const char *path, uint64_t count, int array) {
  vn_pool *pool = open_pool(path, VN_CREATE);
  backend_pool = pool;
  struct graph *g = root_of(pool);
  for (uint64_t done = 0; done < count;) {
    system_begin();
    for (uint64_t i = 0; i < 1 << 16 && done < count; i++) {
      if (array) {
        struct block *b = NEW(block);
        if (!g->list)
          g->list = NEW(node);
        for (int j = 0; j < PER_OBJECT; j++)
          b->to[j] = g->list;
        g->block[g->blocks++] = b;
        done += PER_OBJECT;
      } else {
        struct node *n = NEW(node);
        n->value = done++;
        n->next = g->list;
        g->list = n;
      }
    }
    system_commit();
  }
  backend_result("vn_pool_close", vn_pool_close(pool));
  backend_pool = NULL;
}

static void walk(struct measured *out) {
  for (uint64_t b = 0; b < graph->blocks; b++)
    for (int j = 0; j < PER_OBJECT; j++)
      out->sum += graph->block[b]->to[j]->value + 1, out->units++;
  if (graph->blocks == 0)
    for (struct node *n = graph->list; n; n = n->next)
      out->sum += n->value, out->units++;
}

int micro_measure(const char *name, uint64_t count, const char *argument, struct measured *out) {
  uint64_t start = micro_now();
  if (strcmp(name, "list") == 0)
    make(argument, count, 0);
  else if (strcmp(name, "array") == 0)
    make(argument, count, 1);
  else if (strcmp(name, "original") == 0)
    original = open_pool(argument, 0);
  else if (strcmp(name, "open") == 0) {
    opened = open_pool(argument, 0);
    graph = root_of(opened);
    out->sum = graph->list ? graph->list->value : 0;
    out->units = 1;
  } else if (strcmp(name, "walk") == 0)
    walk(out);
  else if (strcmp(name, "transaction") == 0) {
    graph = root_of(open_pool(argument, 0));
    system_begin();
    for (struct node *n = graph->list; n; n = n->next)
      n->value++;
  } else if (strcmp(name, "close") == 0) {
    if (opened)
      backend_result("vn_pool_close", vn_pool_close(opened));
    if (original)
      backend_result("vn_pool_close", vn_pool_close(original));
    opened = original = NULL;
  } else
    return -1;
  out->ns = micro_now() - start;
  return 0;
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  (void)op, (void)sum;
  return -1;
}

void system_check(uint64_t *hash, uint64_t *entries) { *hash = *entries = 0; }
