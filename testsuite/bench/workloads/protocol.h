/* protocol.h - how the harness and a workload process talk.
 *
 * The harness writes one command line to standard input, for `run` followed by the operations themselves, and the process
 * answers with one line on standard output. The operations come from the harness, so every system executes the same
 * sequence; the process generates nothing but values, which it derives from the operation (see value.h).
 *
 *   run WARM COUNT BATCH\n  + (WARM + COUNT) operations   ->  ok NANOSECONDS UNITS SUM MISSES\n
 *   load COUNT BATCH\n    + COUNT operations            ->  ok 0 UNITS SUM 0\n
 *   check\n                                               ->  ok HASH ENTRIES\n
 *
 * A load is not measured: a system may give up durability, not consistency, to be faster.
 * WARM operations run untimed before the COUNT timed ones. UNITS is what nanoseconds are divided by: elements visited for
 * a traversal, operations otherwise. SUM folds everything that was read, HASH the final state: both must be equal between
 * systems. MISSES are the misses of the emulated CXL device's cache in the timed part.
 */
#ifndef BENCH_PROTOCOL_H
#define BENCH_PROTOCOL_H
#include <stdint.h>

enum op_kind {
  OP_INSERT = 0,   /* list: append value `arg`; btree, kv: insert `key` with a value derived from `arg` */
  OP_DELETE = 1,   /* list: remove the head; btree, kv: remove `key` */
  OP_TRAVERSE = 2, /* list, btree: visit every element */
  OP_READ = 3,     /* kv: read the value of `key` */
  OP_UPDATE = 4,   /* kv: overwrite the value of `key` with one derived from `arg` */
  OP_RMW = 5,      /* kv: read the value of `key`, change every word of it by `arg`, write it back */
  OP_SCAN = 6,     /* kv: read the values of `arg` consecutive keys from `key` on */
  OP_REPLACE = 7   /* kv: insert `key`, remove the oldest key, which is `arg` */
};

struct op {
  uint64_t key;
  uint64_t arg;
  uint64_t kind;
};

static inline int op_updates(uint64_t kind) {
  return kind == OP_INSERT || kind == OP_DELETE || kind == OP_UPDATE || kind == OP_RMW || kind == OP_REPLACE;
}

/* The finalizer of splitmix64: spreads keys over buckets and folds states into checksums. */
static inline uint64_t mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/* What a system implements; kinds it does not know are a protocol error, reported by the return value -1. */
void system_open(const char *path, uint64_t bytes);
void system_begin(void);  /* before the first update of a batch */
void system_commit(void); /* after the last operation of a batch that updated something */
int64_t system_apply(const struct op *op, uint64_t *sum); /* returns the units of work done */
void system_check(uint64_t *hash, uint64_t *entries);
void system_close(void);
uint64_t cxl_misses(void); /* backends without an emulated device return 0 */

/* Whether operations belong to a load. */
extern int bench_loading;

void bench_fail(const char *what, const char *detail) __attribute__((noreturn));

#endif
