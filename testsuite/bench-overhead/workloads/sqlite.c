/* SQLite in memory: inserts, an index, updates, joins, aggregates, text functions, deletes. */
#include "sqlite3.h"
#include "measure.h"

static sqlite3 *db;
static void run(const char *sql) {
  char *err = 0;
  if (sqlite3_exec(db, sql, 0, 0, &err)) {
    fprintf(stderr, "%s: %s\n", sql, err);
    exit(1);
  }
}
static uint64_t query(const char *sql) {
  sqlite3_stmt *s;
  uint64_t h = 1;
  if (sqlite3_prepare_v2(db, sql, -1, &s, 0)) {
    fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(db));
    exit(1);
  }
  while (sqlite3_step(s) == SQLITE_ROW)
    for (int c = 0; c < sqlite3_column_count(s); c++)
      h = mix(h, (uint64_t)sqlite3_column_int64(s, c));
  sqlite3_finalize(s);
  return h;
}

static uint64_t work(int scale) {
  uint64_t h = 0, x = 88172645463325252u;
  if (sqlite3_open(":memory:", &db))
    exit(1);
  run("CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v TEXT, r REAL);"
      "CREATE TABLE u(k INTEGER PRIMARY KEY, n INTEGER)");
  run("BEGIN");
  sqlite3_stmt *s;
  sqlite3_prepare_v2(db, "INSERT INTO t(k, v, r) VALUES(?, ?, ?)", -1, &s, 0);
  for (int i = 0; i < 6000 * scale; i++) {
    char text[64];
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    int n = snprintf(text, sizeof text, "value %llu of %d", (unsigned long long)(x % 100000), i);
    sqlite3_bind_int64(s, 1, (sqlite3_int64)(x % 5000));
    sqlite3_bind_text(s, 2, text, n, SQLITE_TRANSIENT);
    sqlite3_bind_double(s, 3, (double)i / 3);
    sqlite3_step(s);
    sqlite3_reset(s);
  }
  sqlite3_finalize(s);
  run("COMMIT; CREATE INDEX ik ON t(k); INSERT INTO u SELECT k, count(*) FROM t GROUP BY k");
  h = mix(h, query("SELECT sum(n), max(n), count(*) FROM u"));
  h = mix(h, query("SELECT t.id, u.n FROM t JOIN u ON t.k = u.k WHERE u.n > 1 ORDER BY t.r DESC LIMIT 2000"));
  run("UPDATE t SET v = upper(v) || '!' WHERE k % 3 = 0; UPDATE u SET n = n + 1");
  h = mix(h, query("SELECT length(v), k, substr(v, 3, 4) LIKE '%lu%' FROM t WHERE v LIKE '%99%' ORDER BY v"));
  for (int i = 0; i < 1500 * scale; i++) {
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT count(*), sum(id), max(v) FROM t WHERE k = %d", i % 5000);
    h = mix(h, query(sql));
  }
  run("DELETE FROM t WHERE k % 2 = 0; REINDEX ik");
  h = mix(h, query("SELECT count(*), sum(k), avg(r) FROM t"));
  sqlite3_close(db);
  return h;
}
