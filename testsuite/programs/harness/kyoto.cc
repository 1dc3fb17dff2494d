// kyoto.cc - Kyoto Cabinet's hash database without its own log: no transactions, no automatic synchronisation. Its file is
// mapped as a whole; `synchronize` ends in msync.
#define PERSIST_OWN_STORE
#include "persist.h"

#include <kchashdb.h>

#include <string>

static kyotocabinet::HashDB *db;
static uint64_t steps;

static void must(bool ok) {
  if (ok) return;
  fprintf(stderr, "kyoto: %s: %s\n", db->error().name(), db->error().message());
  exit(2);
}

static void persist_open(const char *path) {
  using kyotocabinet::HashDB;
  std::string name = path;
  if (name == "-") {
    name = "/dev/shm/vernal-programs-kyoto-" + std::to_string(getpid()) + ".kch";
    unlink(name.c_str());
  }
  db = new HashDB();
  must(db->tune_buckets(4001));
  must(db->tune_map(16 << 20));
  must(db->tune_alignment(4));
  must(db->tune_fbp(8));
  must(db->open(name, HashDB::OWRITER | HashDB::OCREATE | HashDB::ONOLOCK | HashDB::ONOREPAIR));
  if (strcmp(path, "-") == 0) unlink(name.c_str());
  std::string count;
  if (db->get("steps", &count)) steps = strtoull(count.c_str(), nullptr, 10);
}

static uint64_t persist_steps(void) { return steps; }

static void persist_step(void) {
  uint64_t x = mix(steps);
  for (int i = 0; i < 3; i++) {
    std::string key = "key" + std::to_string(mix(x + i) % 1500);
    std::string value(mix(x + i) / 1500 % 200, char('a' + (x + i) % 26));
    must(db->set(key, value + std::to_string(steps)));
  }
  std::string gone = "key" + std::to_string(x / 77 % 1500);
  if (!db->remove(gone) && db->error().code() != kyotocabinet::BasicDB::Error::NOREC) must(false);
  must(db->append("log", std::string(1, char('A' + x % 26))));
  steps++;
  must(db->set("steps", std::to_string(steps)));
}

static void persist_save(void) { must(db->synchronize(true)); }

uint64_t program_digest(void) {
  uint64_t sum = 0, records = 0;
  kyotocabinet::DB::Cursor *cursor = db->cursor();
  std::string key, value;
  if (cursor->jump())
    while (cursor->get(&key, &value, true)) {
      sum += digest_bytes(digest_bytes(0, key.data(), key.size()), value.data(), value.size());
      records++;
    }
  delete cursor;
  if (records != static_cast<uint64_t>(db->count())) die("the count differs from the records");
  return mix(sum ^ records);
}
