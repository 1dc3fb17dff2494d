/* ledger.c - what the guest runs until its power is cut: one transaction after the other on a pool.
 *
 *   ledger POOL stress [direct]     prints the number of each transaction when it is durable, without end
 *   ledger POOL check [direct]      recomputes everything from the number of the last one; prints it
 *
 * Exit status: 0 fine, 2 an error, 3 the pool is not what some number of transactions makes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vernal_pool.h>

enum { SLOTS = 199, NOTES = 64 };

struct note {
  uint64_t number;
  uint64_t length; /* of words */
  uint64_t words[];
};

struct ledger {
  uint64_t number; /* transactions so far */
  uint64_t sum;
  uint64_t slots[SLOTS];
  struct note *notes[NOTES];
};

static uint64_t mix(uint64_t n) {
  n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
  n = (n ^ n >> 27) * 0x94d049bb133111ebu;
  return n ^ n >> 31;
}

static uint64_t length_of(uint64_t n) { return 1 + mix(n) % (n % 37 == 0 ? 5000 : 40); }

static int fail(const char *what) {
  fprintf(stderr, "ledger: %s: %s\n", what, vernal_last_error());
  exit(2);
}

/* Transaction n: a few slots, a note in place of an older one, and the number. */
static void enter(vn_pool *pool, struct ledger *l, uint64_t n) {
  for (uint64_t i = 0; i <= n % 5; i++) {
    uint64_t *slot = &l->slots[(n * 7 + i * 31) % SLOTS];
    if (vn_tx_add(slot, sizeof *slot) != 0) fail("slot");
    *slot = mix(n * 8 + i);
  }
  uint64_t length = length_of(n);
  struct note *note = vn_new_flex(pool, struct note, length * sizeof(uint64_t));
  if (!note) fail("no room");
  note->number = n;
  note->length = length;
  for (uint64_t i = 0; i < length; i++) note->words[i] = mix(n + i);
  struct note **place = &l->notes[n % NOTES];
  if (vn_tx_add(place, sizeof *place) != 0 || vn_tx_add(l, 16) != 0) fail("place");
  if (*place) vn_free(*place);
  *place = note;
  l->number = n;
  l->sum += mix(n);
}

static int differs(const char *what, uint64_t at, uint64_t number) {
  printf("broken: %s %lu after transaction %lu\n", what, (unsigned long)at, (unsigned long)number);
  return 3;
}

static int check(const struct ledger *l) {
  uint64_t slots[SLOTS] = {0}, sum = 0;
  for (uint64_t n = 1; n <= l->number; n++) {
    for (uint64_t i = 0; i <= n % 5; i++) slots[(n * 7 + i * 31) % SLOTS] = mix(n * 8 + i);
    sum += mix(n);
  }
  if (sum != l->sum) return differs("sum", 0, l->number);
  for (uint64_t i = 0; i < SLOTS; i++)
    if (slots[i] != l->slots[i]) return differs("slot", i, l->number);
  for (uint64_t i = 0; i < NOTES; i++) {
    /* The last n with this remainder. */
    uint64_t n = l->number < i ? 0 : l->number - (l->number - i) % NOTES;
    const struct note *note = l->notes[i];
    if (!note != (n == 0)) return differs("note", i, l->number);
    if (!note) continue;
    if (note->number != n || note->length != length_of(n) || vn_usable_size(note) < sizeof *note + note->length * 8)
      return differs("head of note", i, l->number);
    for (uint64_t k = 0; k < note->length; k++)
      if (note->words[k] != mix(n + k)) return differs("word of note", i, l->number);
  }
  printf("consistent: %lu\n", (unsigned long)l->number);
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fputs("use: ledger POOL stress|check [direct]\n", stderr);
    return 2;
  }
  vn_pool *pool = vn_pool_open(argv[1], VN_CREATE | (argc > 3 ? VN_DIRECT : 0));
  if (!pool) fail(argv[1]);
  struct ledger *l = vn_root(pool, struct ledger);
  if (!l) fail("the root");
  int result = 0;
  if (strcmp(argv[2], "check") == 0) {
    result = check(l);
  } else {
    for (uint64_t n = l->number + 1;; n++) {
      /* Some change their mind first. */
      if (n % 11 == 0) {
        VN_TX {
          enter(pool, l, n);
          vn_tx_abort();
        }
      }
      VN_TX { enter(pool, l, n); }
      if (vn_tx_result() != 0) fail("commit");
      printf("%lu\n", (unsigned long)n);
      fflush(stdout);
    }
  }
  if (vn_pool_close(pool) != 0) fail("close");
  return result;
}
