/* A hash table that grows, with values of changing length written by library calls. */
#include "workload.h"

enum { KEYS = 128, LONGEST = 200 };

struct entry {
  struct entry *next;
  uint64_t key;
  uint32_t length, room;
  char value[];
};

struct table {
  struct entry **bucket;
  uint64_t buckets, count;
};

static void create(struct root *r) {
  struct table *t = take(r, sizeof *t);
  t->buckets = 4;
  t->count = 0;
  t->bucket = take(r, t->buckets * sizeof *t->bucket);
  memset(t->bucket, 0, t->buckets * sizeof *t->bucket);
  r->data = t;
}

static struct entry **find(struct table *t, uint64_t key) {
  struct entry **p = &t->bucket[key * 0x9e3779b97f4a7c15u % t->buckets];
  while (*p && (*p)->key != key) p = &(*p)->next;
  return p;
}

static void grow(struct root *r, struct table *t) {
  uint64_t old = t->buckets;
  struct entry **from = t->bucket;
  t->buckets = old * 2;
  t->bucket = take(r, t->buckets * sizeof *t->bucket);
  memset(t->bucket, 0, t->buckets * sizeof *t->bucket);
  for (uint64_t i = 0; i < old; i++) {
    for (struct entry *e = from[i], *next; e; e = next) {
      next = e->next;
      struct entry **p = find(t, e->key);
      e->next = *p;
      *p = e;
    }
  }
  give(r, from, old * sizeof *from);
}

/* A value: "KEY.N." and then one letter repeated; written in three ways. */
static void fill(struct entry *e, uint64_t n, uint64_t pattern, uint32_t length) {
  int head = snprintf(e->value, e->room, "%llu.%llu.", (unsigned long long)e->key, (unsigned long long)n);
  char letter = (char)('a' + pattern % 26), piece[8];
  memset(piece, letter, sizeof piece);
  uint32_t at = (uint32_t)head;
  if (pattern & 32) {
    for (; at + sizeof piece <= length; at += sizeof piece) memcpy(e->value + at, piece, sizeof piece);
  }
  if (at < length) memset(e->value + at, letter, length - at);
  e->length = length;
}

static void apply(struct root *r, uint64_t n) {
  struct table *t = r->data;
  uint64_t kind = draw(r, n, 0) % 8, key = draw(r, n, 1) % KEYS, pattern = draw(r, n, 2);
  uint32_t length = 48 + (uint32_t)(draw(r, n, 3) % (LONGEST - 48));
  struct entry **p = find(t, key), *old = *p;
  if (old && (kind >= 6 || old->room < length + 1)) {
    *p = old->next;
    give(r, old, sizeof *old + old->room);
    t->count--;
    old = NULL;
  }
  if (kind >= 6) return;
  if (!old) {
    if (t->count >= t->buckets) grow(r, t);
    uint32_t room = (length + 1 + 15) / 16 * 16;
    struct entry *e = take(r, sizeof *e + room);
    e->key = key;
    e->room = room;
    p = find(t, key);
    e->next = *p;
    *p = e;
    t->count++;
    old = e;
  }
  fill(old, n, pattern, length);
}

static void dump(const struct root *r) {
  const struct table *t = r->data;
  uint64_t count = 0;
  for (uint64_t i = 0; i < t->buckets; i++) {
    for (const struct entry *e = t->bucket[i]; e; e = e->next) {
      HOLDS(++count <= t->count);
      HOLDS(e->length < e->room && e->room <= LONGEST + 16);
      printf("%llu %.*s\n", (unsigned long long)e->key, (int)e->length, e->value);
    }
  }
  HOLDS(count == t->count);
}
