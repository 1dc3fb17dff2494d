/* aggregate.c - the thesis' sensor network (3.4.3): many copies of one structure were changed by as many nodes, and are
 * aggregated into one. The copies are pools of the same origin, so they want the same addresses.
 *
 *   node PATH      (measure node VARIABLES PATH)    makes the structure that is copied to the nodes
 *   change         (measure change NODE PATH)       what a node does to its copy, in transactions
 *   aggregate      (measure aggregate NODES DIR)    timed, without opening and closing the home node's own pool: it takes
 *                                                   DIR/0 .. DIR/NODES-1 into one structure
 *
 * PMDK cannot open two copies at once and its pointers name their pool, so it opens each copy, allocates its variables
 * again in the home pool, and closes it. A pool of Vernal is opened beside the others, its pointers are rewritten when they
 * are touched, and its list is linked to the home structure as it is. Both end with one list of all variables, which is
 * then summed up, also within the time. */
#include "backend.h"
#include "micro.h"
#include <stdio.h>
#include <stdlib.h>

DECLARE_OBJECT(variable, 1);

struct variable {
  uint64_t id;
  uint64_t value;
  REF(variable) next;
};

struct state {
  REF(variable) first;
  REF(variable) last;
  uint64_t count;
};

static const char *home_path;

void system_open(const char *path, uint64_t bytes) {
  (void)bytes;
  home_path = path;
}

#ifdef BACKEND_PMDK
static void pool_close(void) {
  pmemobj_close(backend_pool);
  backend_pool = NULL;
}
#else
static void pool_close(void) {
  backend_result("vn_pool_close", vn_pool_close(backend_pool));
  backend_pool = NULL;
}
#endif

static void make(const char *path, uint64_t variables) {
  backend_open(path, 8 << 20);
  struct state *s = ROOT(state);
  system_begin();
  LOG_RANGE(s, sizeof *s);
  for (uint64_t i = 0; i < variables; i++) {
    REF(variable) v = NEW(variable);
    MUT(v)->id = i;
    MUT(v)->value = 0;
    MUT(v)->next = NULL_REF(variable);
    if (IS_NULL(s->first))
      s->first = v;
    else {
      LOG_FIELD(s->last, next);
      MUT(s->last)->next = v;
    }
    s->last = v;
    s->count++;
  }
  system_commit();
  pool_close();
}

static void change(const char *path, uint64_t node) {
  backend_open(path, 8 << 20);
  struct state *s = ROOT(state);
  for (REF(variable) v = s->first; !IS_NULL(v); v = GET(v)->next) {
    system_begin();
    LOG_FIELD(v, value);
    MUT(v)->value += mix64(node * 1000003 + GET(v)->id);
    system_commit();
  }
  pool_close();
}

static void total(const struct state *s, struct measured *out) {
  for (REF(variable) v = s->first; !IS_NULL(v); v = GET(v)->next) {
    out->sum += GET(v)->value;
    out->units++;
  }
}

#ifdef BACKEND_PMDK

static void aggregate(uint64_t nodes, const char *dir, struct measured *out) {
  backend_open(home_path, 128 << 20);
  PMEMobjpool *home = backend_pool;
  struct state *all = ROOT(state);
  char path[4200];
  uint64_t start = micro_now();
  for (uint64_t n = 0; n < nodes; n++) {
    snprintf(path, sizeof path, "%s/%" PRIu64, dir, n);
    backend_open(path, 0);
    struct state *s = ROOT(state);
    PMEMobjpool *node = backend_pool;
    backend_pool = home;
    system_begin();
    LOG_RANGE(all, sizeof *all);
    for (REF(variable) v = s->first; !IS_NULL(v); v = GET(v)->next) {
      REF(variable) copy = NEW(variable);
      MUT(copy)->id = GET(v)->id;
      MUT(copy)->value = GET(v)->value;
      MUT(copy)->next = NULL_REF(variable);
      if (IS_NULL(all->first))
        all->first = copy;
      else {
        LOG_FIELD(all->last, next);
        MUT(all->last)->next = copy;
      }
      all->last = copy;
      all->count++;
    }
    system_commit();
    pmemobj_close(node);
  }
  total(all, out);
  out->ns = micro_now() - start;
  backend_pool = home;
  pool_close();
}

#else

static void aggregate(uint64_t nodes, const char *dir, struct measured *out) {
  backend_open(home_path, 0);
  vn_pool *home = backend_pool;
  struct state *all = ROOT(state);
  vn_pool **node = calloc(nodes, sizeof *node);
  char path[4200];
  if (!node)
    bench_fail("aggregate", "out of memory");
  uint64_t start = micro_now();
  for (uint64_t n = 0; n < nodes; n++) { /* pools are opened outside of transactions */
    snprintf(path, sizeof path, "%s/%" PRIu64, dir, n);
    node[n] = vn_pool_open(path, 0);
    if (!node[n])
      bench_fail(path, vernal_last_error());
  }
  system_begin();
  for (uint64_t n = 0; n < nodes; n++) {
    backend_pool = node[n];
    struct state *s = ROOT(state);
    if (!all->first)
      all->first = s->first;
    else
      all->last->next = s->first;
    all->last = s->last;
    all->count += s->count;
  }
  system_commit();
  total(all, out);
  for (uint64_t n = 0; n < nodes; n++) {
    backend_pool = node[n];
    pool_close();
  }
  out->ns = micro_now() - start;
  backend_pool = home;
  pool_close();
  free(node);
}

#endif

int micro_measure(const char *name, uint64_t count, const char *argument, struct measured *out) {
  if (strcmp(name, "node") == 0)
    make(argument, count);
  else if (strcmp(name, "change") == 0)
    change(argument, count);
  else if (strcmp(name, "aggregate") == 0)
    aggregate(count, argument, out);
  else
    return -1;
  return 0;
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  (void)op, (void)sum;
  return -1;
}

void system_check(uint64_t *hash, uint64_t *entries) { *hash = *entries = 0; }
