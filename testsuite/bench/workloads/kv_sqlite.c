/* kv_sqlite.c - the key-value workloads on SQLite: write-ahead log, synchronous=FULL (each commit is synced), prepared
 * statements, a page cache that holds the whole database. */
#include "value.h"
#include <sqlite3.h>
#include <stdio.h>

static sqlite3 *db;
static sqlite3_stmt *st_begin, *st_commit, *st_get, *st_put, *st_del, *st_scan;

static void must(int rc, const char *what) {
  if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW)
    bench_fail(what, db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
}

static sqlite3_stmt *prepare(const char *sql) {
  sqlite3_stmt *st;
  must(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL), sql);
  return st;
}

static void run(sqlite3_stmt *st, const char *what) {
  must(sqlite3_step(st), what);
  must(sqlite3_reset(st), what);
}

void system_open(const char *path, uint64_t bytes) {
  (void)bytes;
  must(sqlite3_open(path, &db), path);
  must(sqlite3_exec(db,
                    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-262144;"
                    "CREATE TABLE kv(k INTEGER PRIMARY KEY, v BLOB NOT NULL);",
                    NULL, NULL, NULL),
       "creating the table");
  st_begin = prepare("BEGIN IMMEDIATE");
  st_commit = prepare("COMMIT");
  st_get = prepare("SELECT v FROM kv WHERE k=?1");
  st_put = prepare("INSERT INTO kv(k,v) VALUES(?1,?2) ON CONFLICT(k) DO UPDATE SET v=excluded.v");
  st_del = prepare("DELETE FROM kv WHERE k=?1");
  st_scan = prepare("SELECT v FROM kv WHERE k>=?1 AND k<?2 ORDER BY k");
}

void system_begin(void) { run(st_begin, "BEGIN"); }
void system_commit(void) { run(st_commit, "COMMIT"); }

static void put(uint64_t key, const struct value *v) {
  sqlite3_bind_int64(st_put, 1, (sqlite3_int64)key);
  sqlite3_bind_blob(st_put, 2, v, sizeof *v, SQLITE_STATIC);
  run(st_put, "INSERT");
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  struct value v;
  switch (op->kind) {
  case OP_READ:
    sqlite3_bind_int64(st_get, 1, (sqlite3_int64)op->key);
    if (sqlite3_step(st_get) == SQLITE_ROW)
      value_read(sqlite3_column_blob(st_get, 0), sum);
    must(sqlite3_reset(st_get), "SELECT");
    return 1;
  case OP_RMW:
    sqlite3_bind_int64(st_get, 1, (sqlite3_int64)op->key);
    if (sqlite3_step(st_get) != SQLITE_ROW)
      return -1;
    memcpy(&v, sqlite3_column_blob(st_get, 0), sizeof v);
    must(sqlite3_reset(st_get), "SELECT");
    value_read(&v, sum);
    value_change(&v, op->arg);
    put(op->key, &v);
    return 1;
  case OP_SCAN:
    sqlite3_bind_int64(st_scan, 1, (sqlite3_int64)op->key);
    sqlite3_bind_int64(st_scan, 2, (sqlite3_int64)(op->key + op->arg));
    while (sqlite3_step(st_scan) == SQLITE_ROW)
      value_read(sqlite3_column_blob(st_scan, 0), sum);
    must(sqlite3_reset(st_scan), "SELECT");
    return 1;
  case OP_UPDATE:
  case OP_INSERT:
  case OP_REPLACE:
    value_make(&v, op->key, op->arg);
    put(op->key, &v);
    if (op->kind == OP_REPLACE) {
      sqlite3_bind_int64(st_del, 1, (sqlite3_int64)op->arg);
      run(st_del, "DELETE");
    }
    return 1;
  default:
    return -1;
  }
}

void system_check(uint64_t *hash, uint64_t *entries) {
  sqlite3_stmt *all = prepare("SELECT k,v FROM kv");
  while (sqlite3_step(all) == SQLITE_ROW) {
    struct value v;
    memcpy(&v, sqlite3_column_blob(all, 1), sizeof v);
    *hash += entry_hash((uint64_t)sqlite3_column_int64(all, 0), &v);
    ++*entries;
  }
  must(sqlite3_finalize(all), "SELECT");
}

void system_close(void) {
  sqlite3_stmt *all[] = {st_begin, st_commit, st_get, st_put, st_del, st_scan};
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
    sqlite3_finalize(all[i]);
  must(sqlite3_close(db), "sqlite3_close");
}

uint64_t cxl_misses(void) { return 0; }
