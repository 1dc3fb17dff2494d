/* kv.c - a hash table whose buckets are vectors, with 100-byte values: PMDK's key-value example, as in the thesis. */
#include "backend.h"
#include "value.h"

#define BUCKETS (1u << 17)
#define FIRST_CAPACITY 4

DECLARE_OBJECT(value, 1);
DECLARE_OBJECT(bucket_slots, 2);
DECLARE_OBJECT(table, 3);

struct slot {
  uint64_t key;
  REF(value) value;
};

struct bucket_slots {
  struct slot slot[1]; /* as many as the bucket's capacity */
};

struct bucket {
  uint32_t count;
  uint32_t capacity;
  REF(bucket_slots) slots;
};

struct table {
  struct bucket bucket[BUCKETS];
};

struct kv {
  REF(table) table;
};

static struct table *table;

void system_open(const char *path, uint64_t bytes) {
  backend_open(path, bytes);
  struct kv *kv = ROOT(kv);
  if (IS_NULL(kv->table)) {
    system_begin();
    LOG_RANGE(&kv->table, sizeof kv->table);
    REF(table) t = NEW(table);
    memset(MUT(t), 0, sizeof(struct table));
    kv->table = t;
    system_commit();
  }
  table = MUT(kv->table);
}

static struct bucket *bucket_of(uint64_t key) { return &table->bucket[mix64(key) & (BUCKETS - 1)]; }

static struct slot *find(struct bucket *b, uint64_t key) {
  if (b->count == 0)
    return NULL;
  struct slot *s = MUT(b->slots)->slot;
  for (uint32_t i = 0; i < b->count; i++)
    if (s[i].key == key)
      return &s[i];
  return NULL;
}

static void overwrite(struct slot *s, const struct value *v) {
  struct value *to = MUT(s->value);
  LOG_RANGE(to, sizeof *to);
  *to = *v;
}

static void grow(struct bucket *b) {
  uint32_t capacity = b->capacity ? 2 * b->capacity : FIRST_CAPACITY;
  REF(bucket_slots) bigger = NEW_BYTES(bucket_slots, capacity * sizeof(struct slot));
  if (b->capacity) {
    memcpy(MUT(bigger), GET(b->slots), b->count * sizeof(struct slot));
    DISPOSE_BYTES(b->slots, b->capacity * sizeof(struct slot));
  }
  b->slots = bigger;
  b->capacity = capacity;
}

static void insert(uint64_t key, const struct value *v) {
  struct bucket *b = bucket_of(key);
  struct slot *s = find(b, key);
  if (s) {
    overwrite(s, v);
    return;
  }
  LOG_RANGE(b, sizeof *b);
  if (b->count == b->capacity)
    grow(b);
  s = &MUT(b->slots)->slot[b->count];
  LOG_RANGE(s, sizeof *s);
  s->key = key;
  s->value = NEW(value);
  *MUT(s->value) = *v;
  b->count++;
}

static void delete(uint64_t key) {
  struct bucket *b = bucket_of(key);
  struct slot *s = find(b, key);
  if (!s)
    return;
  DISPOSE(s->value);
  LOG_RANGE(b, sizeof *b);
  LOG_RANGE(s, sizeof *s);
  b->count--;
  *s = MUT(b->slots)->slot[b->count];
}

static void read_key(uint64_t key, uint64_t *sum) {
  struct slot *s = find(bucket_of(key), key);
  if (s)
    value_read(GET(s->value), sum);
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  struct value v;
  struct slot *s;
  switch (op->kind) {
  case OP_READ:
    read_key(op->key, sum);
    return 1;
  case OP_UPDATE:
    s = find(bucket_of(op->key), op->key);
    if (!s)
      return -1;
    value_make(&v, op->key, op->arg);
    overwrite(s, &v);
    return 1;
  case OP_RMW:
    s = find(bucket_of(op->key), op->key);
    if (!s)
      return -1;
    v = *GET(s->value);
    value_read(&v, sum);
    value_change(&v, op->arg);
    overwrite(s, &v);
    return 1;
  case OP_SCAN:
    for (uint64_t i = 0; i < op->arg; i++)
      read_key(op->key + i, sum);
    return 1;
  case OP_REPLACE:
    value_make(&v, op->key, op->arg);
    insert(op->key, &v);
    delete(op->arg);
    return 1;
  case OP_INSERT:
    value_make(&v, op->key, op->arg);
    insert(op->key, &v);
    return 1;
  case OP_DELETE:
    delete(op->key);
    return 1;
  default:
    return -1;
  }
}

void system_check(uint64_t *hash, uint64_t *entries) {
  for (uint32_t i = 0; i < BUCKETS; i++) {
    struct bucket *b = &table->bucket[i];
    for (uint32_t j = 0; j < b->count; j++, ++*entries)
      *hash += entry_hash(GET(b->slots)->slot[j].key, GET(GET(b->slots)->slot[j].value));
  }
}
