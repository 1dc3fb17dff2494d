/* backend.h - what differs between the systems that run the data-structure workloads, so that each structure is written
 * once.
 *
 * Compiled with -DBACKEND_PMDK the macros are libpmemobj's own: typed fat pointers, transactions, explicit logging. Without
 * it they are a plain program over a mapped file with native pointers: LOG does nothing, because nothing is annotated.
 * That plain program is three systems: with -DBACKEND_VOLATILE the mapping is anonymous memory and a commit does
 * nothing; compiled by clang it is the plain msync program; compiled by vernal-cc, from the same text, it is Vernal's.
 * With -DBACKEND_POOL objects live in a pool: native pointers, typed allocation, transactions; -DBACKEND_DIRECT as well
 * makes it a direct pool, whose changes are logged where PMDK's are.
 */
#ifndef BENCH_BACKEND_H
#define BENCH_BACKEND_H
#define _GNU_SOURCE
#include "cxl.h"
#include "protocol.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef BACKEND_PMDK

#include <libpmemobj.h>

static PMEMobjpool *backend_pool;

#define DECLARE_OBJECT(name, number) TOID_DECLARE(struct name, number)
#define REF(name) TOID(struct name)
#define NULL_REF(name) TOID_NULL(struct name)
#define IS_NULL(ref) TOID_IS_NULL(ref)
#define SAME(a, b) TOID_EQUALS(a, b)
#define GET(ref) D_RO(ref)
#define MUT(ref) D_RW(ref)
#define NEW(name) TX_NEW(struct name)
#define NEW_BYTES(name, bytes) TX_ALLOC(struct name, bytes)
#define DISPOSE(ref) TX_FREE(ref)
#define DISPOSE_BYTES(ref, bytes) TX_FREE(ref)
#define LOG(ref) TX_ADD(ref)
#define LOG_FIELD(ref, field) TX_ADD_FIELD(ref, field)
#define LOG_RANGE(pointer, bytes) pmemobj_tx_add_range_direct(pointer, bytes)
#define ROOT(name) ((struct name *)pmemobj_direct(pmemobj_root(backend_pool, sizeof(struct name))))

static void backend_open(const char *path, uint64_t bytes) {
  /* A pool that exists was loaded on faster media and copied here: see the harness. */
  if (access(path, F_OK) == 0)
    backend_pool = pmemobj_open(path, "vernal-bench");
  else
    backend_pool = pmemobj_create(path, "vernal-bench", bytes, 0600);
  if (!backend_pool)
    bench_fail(path, pmemobj_errormsg());
  cxl_attach(backend_pool, bytes);
}

void system_begin(void) {
  if (pmemobj_tx_begin(backend_pool, NULL, TX_PARAM_NONE) != 0)
    bench_fail("pmemobj_tx_begin", pmemobj_errormsg());
}

void system_commit(void) {
  if (pmemobj_tx_stage() != TX_STAGE_WORK)
    bench_fail("the transaction was aborted", pmemobj_errormsg());
  pmemobj_tx_commit();
  if (pmemobj_tx_end() != 0)
    bench_fail("pmemobj_tx_end", pmemobj_errormsg());
}

void system_close(void) {
  if (backend_pool)
    pmemobj_close(backend_pool);
}

#elif defined BACKEND_POOL

#include "backend_pool.h"

#else

#include "arena.h"

static struct arena *backend_arena;

#define DECLARE_OBJECT(name, number) struct name
#define REF(name) struct name *
#define NULL_REF(name) ((struct name *)NULL)
#define IS_NULL(ref) ((ref) == NULL)
#define SAME(a, b) ((a) == (b))
#define GET(ref) (ref)
#define MUT(ref) (ref)
#define NEW(name) ((struct name *)arena_alloc(backend_arena, sizeof(struct name)))
#define NEW_BYTES(name, bytes) ((struct name *)arena_alloc(backend_arena, bytes))
#define DISPOSE(ref) arena_free(backend_arena, ref, sizeof *(ref))
#define DISPOSE_BYTES(ref, bytes) arena_free(backend_arena, ref, bytes)
#define LOG(ref) ((void)0)
#define LOG_FIELD(ref, field) ((void)0)
#define LOG_RANGE(pointer, bytes) ((void)0)
#define ROOT(name) ((struct name *)arena_root(backend_arena, sizeof(struct name)))

static uint64_t backend_bytes;

static void backend_open(const char *path, uint64_t bytes) {
#ifdef BACKEND_VOLATILE
  (void)path;
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#else
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  if (fd < 0)
    bench_fail(path, strerror(errno));
  int e = posix_fallocate(fd, 0, (off_t)bytes);
  if (e != 0)
    bench_fail(path, strerror(e));
  if (fsync(fd) != 0)
    bench_fail(path, strerror(errno));
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
#endif
  if (p == MAP_FAILED)
    bench_fail("mmap", strerror(errno));
  backend_bytes = bytes;
#if !defined BACKEND_VOLATILE
  cxl_attach(p, bytes);
#endif
  backend_arena = p;
  arena_init(backend_arena, bytes);
}

void system_begin(void) {}

void system_commit(void) {
#ifndef BACKEND_VOLATILE
  if (msync(backend_arena, backend_bytes, MS_SYNC) != 0)
    bench_fail("msync", strerror(errno));
#endif
}

void system_close(void) {
  if (backend_arena && munmap(backend_arena, backend_bytes) != 0)
    bench_fail("munmap", strerror(errno));
}

#endif
#endif
