// kv_kyoto.cc - the key-value workloads on Kyoto Cabinet's HashDB, the whole file inside its memory map.
//
// -DKYOTO_WAL: each batch is one of Kyoto's own transactions (write-ahead log, hard synchronisation).
// Without it:  Kyoto's log is off and each batch ends with one msync of its map. Compiled by clang that is the row without
//              crash consistency; Kyoto and this file compiled by vernal-c++, unchanged, are the row with Vernal's.
extern "C" {
#include "value.h"
}
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <kchashdb.h>
#include <string>
#include <sys/mman.h>

static kyotocabinet::HashDB db;
static bool writing;

static void must(bool ok, const char *what) {
  if (!ok)
    bench_fail(what, db.error().message());
}

#ifndef KYOTO_WAL
static void *map_addr;
static size_t map_len;

// Kyoto does not tell where its map is; the kernel does.
static void find_map(const std::string &path, size_t len) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[4352], name[4097];
  while (maps && fgets(line, sizeof line, maps)) {
    uintptr_t from, to;
    name[0] = 0;
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %4096s", &from, &to, name) >= 2 && path == name &&
        !map_addr) {
      map_addr = reinterpret_cast<void *>(from);
      map_len = len;
    }
  }
  if (maps)
    fclose(maps);
  if (!map_addr)
    bench_fail(path.c_str(), "Kyoto Cabinet has not mapped its file");
}
#endif

extern "C" {

void system_open(const char *path, uint64_t bytes) {
  const std::string file = std::string(path) + ".kch";
  must(db.tune_buckets(1 << 17), "tune_buckets");
  must(db.tune_map(static_cast<int64_t>(bytes)), "tune_map");
  must(db.open(file, kyotocabinet::HashDB::OWRITER | kyotocabinet::HashDB::OCREATE | kyotocabinet::HashDB::OTRUNCATE),
       "opening the database");
#ifndef KYOTO_WAL
  find_map(file, bytes);
#endif
}

void system_begin(void) {
  writing = true;
#ifdef KYOTO_WAL
  must(db.begin_transaction(!bench_loading), "begin_transaction");
#endif
}

void system_commit(void) {
  writing = false;
#ifdef KYOTO_WAL
  must(db.end_transaction(true), "end_transaction");
#else
  // The file may be shorter than the map: what lies beyond its end has nothing to synchronise.
  int64_t used = db.size();
  size_t len = static_cast<size_t>(used) < map_len ? static_cast<size_t>(used) : map_len;
  len = (len + 4095) & ~static_cast<size_t>(4095);
  if (msync(map_addr, len, MS_SYNC) != 0)
    bench_fail("msync", strerror(errno));
#endif
}

static bool get(uint64_t key, struct value *v) {
  return db.get(reinterpret_cast<const char *>(&key), sizeof key, reinterpret_cast<char *>(v), sizeof *v) ==
         static_cast<int32_t>(sizeof *v);
}

static void put(uint64_t key, const struct value *v) {
  must(db.set(reinterpret_cast<const char *>(&key), sizeof key, reinterpret_cast<const char *>(v), sizeof *v), "set");
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  struct value v;
  switch (op->kind) {
  case OP_READ:
    if (get(op->key, &v))
      value_read(&v, sum);
    return 1;
  case OP_RMW:
    if (!get(op->key, &v))
      return -1;
    value_read(&v, sum);
    value_change(&v, op->arg);
    put(op->key, &v);
    return 1;
  case OP_SCAN:
    for (uint64_t i = 0; i < op->arg; i++)
      if (get(op->key + i, &v))
        value_read(&v, sum);
    return 1;
  case OP_UPDATE:
  case OP_INSERT:
  case OP_REPLACE:
    value_make(&v, op->key, op->arg);
    put(op->key, &v);
    if (op->kind == OP_REPLACE)
      must(db.remove(reinterpret_cast<const char *>(&op->arg), sizeof op->arg), "remove");
    return 1;
  default:
    return -1;
  }
}

void system_check(uint64_t *hash, uint64_t *entries) {
  kyotocabinet::DB::Cursor *cursor = db.cursor();
  cursor->jump();
  size_t key_len, value_len;
  const char *data;
  while (char *at = cursor->get(&key_len, &data, &value_len, true)) {
    uint64_t key;
    struct value v;
    memcpy(&key, at, sizeof key);
    memcpy(&v, data, sizeof v);
    *hash += entry_hash(key, &v);
    ++*entries;
    delete[] at;
  }
  delete cursor;
}

void system_close(void) { must(db.close(), "closing the database"); }

uint64_t cxl_misses(void) { return 0; }
}
