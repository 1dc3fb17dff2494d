/* backend_pool.h - the systems `pool` and `direct` of backend.h: the same structures in a pool, through vernal_pool.h. */
#ifndef BENCH_BACKEND_POOL_H
#define BENCH_BACKEND_POOL_H
#include <vernal.h>
#include <vernal_pool.h>

static vn_pool *backend_pool;

#define DECLARE_OBJECT(name, number) struct name
#define REF(name) struct name *
#define NULL_REF(name) ((struct name *)NULL)
#define IS_NULL(ref) ((ref) == NULL)
#define SAME(a, b) ((a) == (b))
#define GET(ref) (ref)
#define MUT(ref) (ref)
#define NEW(name) ((struct name *)backend_check(vn_new(backend_pool, struct name)))
#define NEW_BYTES(name, bytes) \
  ((struct name *)backend_check(vn_new_array(backend_pool, struct name, ((bytes) + sizeof(struct name) - 1) / sizeof(struct name))))
#define DISPOSE(ref) backend_result("vn_free", (vn_free(ref), 0))
#define DISPOSE_BYTES(ref, bytes) DISPOSE(ref)
#define ROOT(name) ((struct name *)backend_check(vn_root(backend_pool, struct name)))
#ifdef BACKEND_DIRECT
#define LOG_RANGE(pointer, bytes) backend_result("vn_tx_add", vn_tx_add(pointer, bytes))
#else
#define LOG_RANGE(pointer, bytes) ((void)0) /* the compiler knows */
#endif
#define LOG(ref) LOG_RANGE(ref, sizeof *(ref))
#define LOG_FIELD(ref, field) LOG_RANGE(&(ref)->field, sizeof(ref)->field)

static inline void *backend_check(void *p) {
  if (!p)
    bench_fail("allocating in the pool", vernal_last_error());
  return p;
}

static inline void backend_result(const char *what, int result) {
  if (result != 0)
    bench_fail(what, vernal_last_error());
}

static void backend_open(const char *path, uint64_t bytes) {
  (void)bytes; /* a pool grows as it needs */
#ifdef BACKEND_DIRECT
  backend_pool = vn_pool_open(path, VN_CREATE | VN_DIRECT);
#else
  backend_pool = vn_pool_open(path, VN_CREATE);
#endif
  if (!backend_pool)
    bench_fail(path, vernal_last_error());
}

void system_begin(void) { backend_result("vn_tx_begin", vn_tx_begin()); }

void system_commit(void) { backend_result("vn_tx_commit", vn_tx_commit()); }

void system_close(void) {
  if (backend_pool)
    backend_result("vn_pool_close", vn_pool_close(backend_pool));
}

#endif
