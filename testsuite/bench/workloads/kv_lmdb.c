/* kv_lmdb.c - the key-value workloads on LMDB, at its default durability: each commit is synced. */
#include "value.h"
#include <lmdb.h>
#include <stdlib.h>

static MDB_env *env;
static MDB_dbi dbi;
static MDB_txn *reader, *writer;

static void must(int rc, const char *what) {
  if (rc != 0)
    bench_fail(what, mdb_strerror(rc));
}

void system_open(const char *path, uint64_t bytes) {
  MDB_txn *txn;
  must(mdb_env_create(&env), "mdb_env_create");
  must(mdb_env_set_mapsize(env, bytes * 4), "mdb_env_set_mapsize");
  must(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), "mdb_env_open");
  must(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
  must(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi), "mdb_dbi_open");
  must(mdb_txn_commit(txn), "mdb_txn_commit");
  must(mdb_txn_begin(env, NULL, MDB_RDONLY, &reader), "mdb_txn_begin");
  mdb_txn_reset(reader);
}

void system_begin(void) { must(mdb_txn_begin(env, NULL, 0, &writer), "mdb_txn_begin"); }

void system_commit(void) {
  must(mdb_txn_commit(writer), "mdb_txn_commit");
  writer = NULL;
}

/* Reads go through the open write transaction, or else through the one reader, renewed for each operation. */
static MDB_txn *read_begin(void) {
  if (writer)
    return writer;
  must(mdb_txn_renew(reader), "mdb_txn_renew");
  return reader;
}

static void read_end(void) {
  if (!writer)
    mdb_txn_reset(reader);
}

static void put(uint64_t key, struct value *v) {
  MDB_val k = {sizeof key, &key}, d = {sizeof *v, v};
  must(mdb_put(writer, dbi, &k, &d, 0), "mdb_put");
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  uint64_t key = op->key;
  MDB_val k = {sizeof key, &key}, d;
  MDB_txn *txn;
  MDB_cursor *cursor;
  struct value v;
  switch (op->kind) {
  case OP_READ:
    txn = read_begin();
    if (mdb_get(txn, dbi, &k, &d) == 0)
      value_read(d.mv_data, sum);
    read_end();
    return 1;
  case OP_RMW:
    must(mdb_get(writer, dbi, &k, &d), "mdb_get");
    memcpy(&v, d.mv_data, sizeof v);
    value_read(&v, sum);
    value_change(&v, op->arg);
    put(op->key, &v);
    return 1;
  case OP_SCAN:
    txn = read_begin();
    must(mdb_cursor_open(txn, dbi, &cursor), "mdb_cursor_open");
    MDB_cursor_op step = MDB_SET_RANGE;
    for (uint64_t end = op->key + op->arg; mdb_cursor_get(cursor, &k, &d, step) == 0; step = MDB_NEXT) {
      memcpy(&key, k.mv_data, sizeof key);
      if (key >= end)
        break;
      value_read(d.mv_data, sum);
    }
    mdb_cursor_close(cursor);
    read_end();
    return 1;
  case OP_UPDATE:
  case OP_INSERT:
  case OP_REPLACE:
    value_make(&v, op->key, op->arg);
    put(op->key, &v);
    if (op->kind == OP_REPLACE) {
      key = op->arg;
      must(mdb_del(writer, dbi, &k, NULL), "mdb_del");
    }
    return 1;
  default:
    return -1;
  }
}

void system_check(uint64_t *hash, uint64_t *entries) {
  MDB_cursor *cursor;
  MDB_val k, d;
  must(mdb_cursor_open(read_begin(), dbi, &cursor), "mdb_cursor_open");
  while (mdb_cursor_get(cursor, &k, &d, MDB_NEXT) == 0) {
    uint64_t key;
    struct value v;
    memcpy(&key, k.mv_data, sizeof key);
    memcpy(&v, d.mv_data, sizeof v);
    *hash += entry_hash(key, &v);
    ++*entries;
  }
  mdb_cursor_close(cursor);
  read_end();
}

void system_close(void) {
  mdb_txn_abort(reader);
  mdb_env_close(env);
}

uint64_t cxl_misses(void) { return 0; }
