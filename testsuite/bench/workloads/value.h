/* value.h - the 100-byte values of the key-value workloads. Every word differs between any two versions of a value, so
 * that no system can save work by noticing that bytes did not change. */
#ifndef BENCH_VALUE_H
#define BENCH_VALUE_H
#include "protocol.h"
#include <string.h>

#define VALUE_BYTES 100
#define VALUE_WORDS 12

struct value {
  uint8_t bytes[VALUE_BYTES];
};

static inline void value_make(struct value *v, uint64_t key, uint64_t version) {
  uint64_t x = mix64(key * 0x9e3779b97f4a7c15u + version);
  for (int i = 0; i < VALUE_WORDS; i++, x += 0x2545f4914f6cdd1du)
    memcpy(v->bytes + 8 * i, &x, 8);
  memcpy(v->bytes + 8 * VALUE_WORDS, &x, 4);
}

static inline void value_change(struct value *v, uint64_t by) {
  for (int i = 0; i < VALUE_WORDS; i++) {
    uint64_t w;
    memcpy(&w, v->bytes + 8 * i, 8);
    w += by | 1;
    memcpy(v->bytes + 8 * i, &w, 8);
  }
  uint32_t tail;
  memcpy(&tail, v->bytes + 8 * VALUE_WORDS, 4);
  tail += (uint32_t)by | 1;
  memcpy(v->bytes + 8 * VALUE_WORDS, &tail, 4);
}

static inline uint64_t value_hash(const struct value *v) {
  uint64_t h = 0, w;
  for (int i = 0; i < VALUE_WORDS; i++) {
    memcpy(&w, v->bytes + 8 * i, 8);
    h = mix64(h + w);
  }
  return h;
}

/* What a reader does with a value: takes a whole copy, and adds one word of it to `sum`. */
static inline void value_read(const void *from, uint64_t *sum) {
  struct value copy;
  memcpy(&copy, from, sizeof copy);
  __asm__ volatile("" : : "r"(&copy) : "memory"); /* the whole copy is used */
  uint64_t w;
  memcpy(&w, copy.bytes, 8);
  *sum += w;
}

/* The share of one entry in the order-independent hash of a key-value store. */
static inline uint64_t entry_hash(uint64_t key, const struct value *v) {
  return mix64(key ^ value_hash(v));
}

#endif
