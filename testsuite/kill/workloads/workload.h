/* What the kill workloads share: a heap inside the mapped file, the operations' random numbers, and the protocol with the
 * campaign that kills them.
 *
 *   PROGRAM FILE run SEED OPS   does operations until OPS are done; for each prints "B n" before and "C n" after its msync
 *   PROGRAM FILE dump           checks the structure's own invariants and prints "done n" and its contents
 *
 * The program knows nothing of Vernal. Operation n depends on SEED and n alone, so that the campaign's own model (in Rust)
 * knows the state after each n.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CLASSES = 64, MAGIC = 0x6b696c6c };

struct block {
  struct block *next;
};

/* At the start of the file. */
struct root {
  uint64_t magic;
  uint64_t seed;
  uint64_t done;              /* operations that this state contains */
  char *next;                 /* the heap's first unused byte */
  char *end;
  struct block *free[CLASSES]; /* by size in units of 16 bytes */
  void *data;                 /* the workload's own structure */
};

/* What each workload defines. */
static void create(struct root *r);
static void apply(struct root *r, uint64_t n);
static void dump(const struct root *r);

static _Noreturn void die(const char *what) {
  fprintf(stderr, "workload: %s: %s\n", what, errno ? strerror(errno) : "the structure is broken");
  exit(1);
}

#define HOLDS(condition) \
  do {                   \
    if (!(condition)) {  \
      errno = 0;         \
      die(#condition);   \
    }                    \
  } while (0)

/* The `index`-th random number of operation n. SplitMix64, as in the model. */
static uint64_t draw(const struct root *r, uint64_t n, uint64_t index) {
  uint64_t z = r->seed + (n * 8 + index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static void *take(struct root *r, size_t size) {
  size_t units = (size + 15) / 16;
  if (units < CLASSES && r->free[units]) {
    struct block *b = r->free[units];
    r->free[units] = b->next;
    return b;
  }
  HOLDS((size_t)(r->end - r->next) >= units * 16);
  void *p = r->next;
  r->next += units * 16;
  return p;
}

static void give(struct root *r, void *p, size_t size) {
  size_t units = (size + 15) / 16;
  if (units >= CLASSES) return;
  struct block *b = p;
  b->next = r->free[units];
  r->free[units] = b;
}

static void say(const char *tag, uint64_t n) {
  char line[32];
  int len = snprintf(line, sizeof line, "%s %llu\n", tag, (unsigned long long)n);
  if (write(1, line, (size_t)len) != len) die("write");
}

int main(int argc, char **argv) {
  const size_t length = 4u << 20;
  if (argc < 3) {
    fprintf(stderr, "usage: %s FILE run SEED OPS | dump\n", argv[0]);
    return 2;
  }
  int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
  if (fd < 0) die(argv[1]);
  struct stat st;
  if (fstat(fd, &st)) die("fstat");
  if ((size_t)st.st_size < length && ftruncate(fd, (off_t)length)) die("ftruncate");
  struct root *r = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (r == MAP_FAILED) die("mmap");
  if (strcmp(argv[2], "dump") == 0) {
    printf("done %llu\n", (unsigned long long)r->done);
    if (r->magic == MAGIC) {
      HOLDS(r->next >= (char *)(r + 1) && r->next <= r->end);
      HOLDS(r->end == (char *)r + length);
      dump(r);
    } else {
      HOLDS(r->magic == 0 && r->done == 0);
    }
    puts("end");
    return munmap(r, length) ? 1 : 0;
  }
  if (argc < 5) return 2;
  uint64_t ops = strtoull(argv[4], NULL, 10);
  if (r->magic != MAGIC) {
    r->magic = MAGIC;
    r->seed = strtoull(argv[3], NULL, 10);
    r->next = (char *)(r + 1);
    r->end = (char *)r + length;
    create(r);
  }
  while (r->done < ops) {
    uint64_t n = r->done + 1;
    apply(r, n);
    r->done = n;
    say("B", n);
    if (msync(r, length, MS_SYNC)) die("msync");
    say("C", n);
  }
  if (munmap(r, length)) die("munmap");
  say("end", ops);
  return 0;
}
#endif
