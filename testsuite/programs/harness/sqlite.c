/* sqlite.c - an in-memory SQLite database in the mapped file: its pages (sqlite3_deserialize) live on from run to run, and
 * everything else that SQLite allocates lies in the same file, in a scratch heap that each run begins anew. */
#include "persist.h"

#include "sqlite3.h"

struct state {
  unsigned char *image; /* the database */
  sqlite3_int64 size, room;
};

static struct heap *scratch;
static sqlite3 *db;

static void *memory_alloc(int size) { return heap_alloc(scratch, (size_t)size); }
static void memory_free(void *memory) { heap_free(scratch, memory); }
static void *memory_realloc(void *memory, int size) { return heap_realloc(scratch, memory, (size_t)size); }
static int memory_size(void *memory) { return memory == NULL ? 0 : (int)heap_size(memory); }
static int memory_roundup(int size) { return (size + 7) & ~7; }
static int memory_init(void *unused) { return (void)unused, SQLITE_OK; }
static void memory_shutdown(void *unused) { (void)unused; }

static const sqlite3_mem_methods methods = {memory_alloc,   memory_free, memory_realloc,  memory_size,
                                            memory_roundup, memory_init, memory_shutdown, NULL};

static void must(int status) {
  if (status == SQLITE_OK || status == SQLITE_ROW || status == SQLITE_DONE) return;
  fprintf(stderr, "sqlite: %s\n", db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(status));
  exit(2);
}

static void execute(const char *sql) {
  char *message = NULL;
  if (sqlite3_exec(db, sql, NULL, NULL, &message) == SQLITE_OK) return;
  fprintf(stderr, "sqlite: %s: %s\n", message, sql);
  exit(2);
}

static void open_database(struct state *state) {
  char *middle = (char *)persist + PERSIST_SIZE / 2;
  scratch = (struct heap *)middle;
  heap_init(scratch, scratch + 1, middle + PERSIST_SIZE / 2);
  must(sqlite3_config(SQLITE_CONFIG_MALLOC, &methods));
  must(sqlite3_initialize());
  must(sqlite3_open(":memory:", &db));
  must(sqlite3_deserialize(db, "main", state->image, state->size, state->room, 0));
  /* What a transaction has written so far is thrown away by going back to the last msync. */
  execute("PRAGMA journal_mode=MEMORY; PRAGMA cache_size=200;");
}

/* The size of the image is kept by SQLite while it is open. */
static void remember_size(void) {
  struct state *state = (struct state *)persist->root;
  sqlite3_int64 size = 0;
  unsigned char *image = sqlite3_serialize(db, "main", &size, SQLITE_SERIALIZE_NOCOPY);
  if (image != state->image) die("sqlite moved its image");
  state->size = size;
}

void program_start(void) {
  persist->heap.end = (char *)persist + PERSIST_SIZE / 2;
  struct state *state = (struct state *)heap_alloc(&persist->heap, sizeof *state);
  state->room = 16 << 20;
  state->size = 0;
  state->image = (unsigned char *)heap_alloc(&persist->heap, (size_t)state->room);
  if (state->image == NULL) die("heap");
  persist->root = state;
  open_database(state);
  execute("PRAGMA page_size=1024; CREATE TABLE account(id INTEGER PRIMARY KEY, owner TEXT, balance INTEGER, note TEXT);"
          "CREATE TABLE entry(id INTEGER PRIMARY KEY, source INTEGER, target INTEGER, amount INTEGER, memo TEXT);"
          "CREATE INDEX entry_target ON entry(target, amount); CREATE INDEX account_owner ON account(owner);"
          "CREATE TRIGGER moved AFTER INSERT ON entry BEGIN"
          "  UPDATE account SET balance = balance - new.amount WHERE id = new.source;"
          "  UPDATE account SET balance = balance + new.amount WHERE id = new.target; END;"
          "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
          "  INSERT INTO account SELECT i, 'owner ' || (i * 7919 % 100), 1000, hex(i * 123456789) FROM n;");
  remember_size();
}

void program_resume(void) { open_database((struct state *)persist->root); }

void program_step(uint64_t number) {
  char sql[512];
  uint64_t r = mix(number);
  snprintf(sql, sizeof sql,
           "BEGIN;"
           "INSERT INTO entry(source, target, amount, memo) VALUES(%d, %d, %d, printf('%%.*c', %d, 'x') || %" PRIu64 ");"
           "UPDATE account SET note = substr(note || '%c', -30) WHERE owner = 'owner %d';"
           "DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE target = %d AND amount < 40 LIMIT 3);"
           "%s;",
           (int)(r % 100) + 1, (int)(r / 100 % 100) + 1, (int)(r / 10000 % 100), (int)(r / 1000000 % 120), number,
           (char)('a' + r % 26), (int)(r % 100), (int)(r / 7 % 100) + 1, number % 7 == 3 ? "ROLLBACK" : "COMMIT");
  execute(sql);
  if (number % 50 == 49) execute("VACUUM");
  remember_size();
}

uint64_t program_digest(void) {
  uint64_t digest = 0;
  sqlite3_stmt *statement;
  static const char *const queries[] = {"PRAGMA integrity_check", "SELECT * FROM account ORDER BY id",
                                        "SELECT e.*, a.owner FROM entry e JOIN account a ON a.id = e.target ORDER BY e.id",
                                        "SELECT sum(balance) FROM account"};
  for (unsigned q = 0; q < sizeof queries / sizeof *queries; q++) {
    must(sqlite3_prepare_v2(db, queries[q], -1, &statement, NULL));
    int status;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW)
      for (int i = 0; i < sqlite3_column_count(statement); i++) {
        const char *text = (const char *)sqlite3_column_text(statement, i);
        if (q == 0 && strcmp(text, "ok") != 0) die("integrity_check");
        digest = digest_bytes(digest, text, text == NULL ? 0 : strlen(text));
      }
    must(status);
    must(sqlite3_finalize(statement));
  }
  return digest;
}
