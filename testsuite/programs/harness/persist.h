/* persist.h - what every program of the suite is made of: a mapped file with a heap, and a main that steps, commits,
 * restarts and prints digests. Plain mmap and msync; nothing in here knows of Vernal.
 *
 *   PROGRAM FILE run STEPS     steps until STEPS have been made in all, with an msync after each; prints each number then
 *   PROGRAM FILE digest        prints how many steps the file has seen and a digest of its content
 *   PROGRAM - twin STEPS       makes the same steps in anonymous memory; prints the digest before the first and after each
 *
 * A program defines the functions declared below. One step must be a function of its number and of the content.
 */
#ifndef PERSIST_H
#define PERSIST_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef PERSIST_SIZE
#define PERSIST_SIZE ((size_t)64 << 20)
#endif

/* Memory handed out from a range; freed pieces go to a list per size class. */
struct heap {
  char *fresh, *end;
  void *free[128];
};

struct persist {
  uint64_t magic;
  struct persist *self; /* where the file must be mapped */
  uint64_t steps;
  void *root; /* the program's own */
  struct heap heap;
};

static struct persist *persist;

#ifdef __cplusplus
extern "C" {
#endif
void program_start(void);   /* the heap is new: make the content */
void program_resume(void);  /* the file was mapped again by a new process */
void program_step(uint64_t number);
uint64_t program_digest(void);
#ifdef __cplusplus
}
#endif

__attribute__((noreturn, unused)) static void die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "failed");
  exit(2);
}

/* ---- the heap ---- */

struct piece {
  size_t size; /* usable bytes; the class follows from it */
  size_t pad;  /* keeps what follows aligned to 16 */
};

/* Four classes for each doubling: 16, 32, 48, 64, 80, 96, 112, 128, 160, ... */
static unsigned heap_class(size_t size, size_t *rounded) {
  if (size < 16) size = 16;
  if (size > (size_t)1 << 30) {
    *rounded = SIZE_MAX;
    return 127;
  }
  unsigned top = 63 - (unsigned)__builtin_clzll(size - 1 | 32);
  size_t step = (size_t)1 << (top > 5 ? top - 2 : 4);
  *rounded = (size + step - 1) / step * step;
  return top > 5 ? 4 * (top - 5) + (unsigned)((*rounded - ((size_t)1 << top)) / step) : (unsigned)(*rounded / 16);
}

__attribute__((unused)) static void heap_init(struct heap *heap, void *from, void *to) {
  memset(heap, 0, sizeof *heap);
  heap->fresh = (char *)(((uintptr_t)from + 15) & ~(uintptr_t)15);
  heap->end = (char *)to;
}

__attribute__((unused, noinline)) static void *heap_alloc(struct heap *heap, size_t size) {
  size_t rounded;
  unsigned index = heap_class(size, &rounded);
  struct piece *piece = (struct piece *)heap->free[index];
  if (piece != NULL) {
    heap->free[index] = *(void **)(piece + 1);
    return piece + 1;
  }
  if (rounded > (size_t)(heap->end - heap->fresh) || (size_t)(heap->end - heap->fresh) - rounded < sizeof *piece) return NULL;
  piece = (struct piece *)heap->fresh;
  heap->fresh += sizeof *piece + rounded;
  piece->size = rounded;
  return piece + 1;
}

__attribute__((unused)) static size_t heap_size(void *memory) { return ((struct piece *)memory)[-1].size; }

__attribute__((unused, noinline)) static void heap_free(struct heap *heap, void *memory) {
  if (memory == NULL) return;
  size_t rounded;
  unsigned index = heap_class(heap_size(memory), &rounded);
  *(void **)memory = heap->free[index];
  heap->free[index] = (struct piece *)memory - 1;
}

__attribute__((unused, noinline)) static void *heap_realloc(struct heap *heap, void *memory, size_t size) {
  if (memory == NULL) return heap_alloc(heap, size);
  size_t old = heap_size(memory);
  if (size <= old && size > old / 2) return memory;
  void *fresh = heap_alloc(heap, size);
  if (fresh == NULL) return NULL;
  memcpy(fresh, memory, old < size ? old : size);
  heap_free(heap, memory);
  return fresh;
}

/* ---- numbers ---- */

__attribute__((unused)) static uint64_t mix(uint64_t x) {
  x += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

__attribute__((unused)) static uint64_t digest_bytes(uint64_t digest, const void *bytes, size_t length) {
  const unsigned char *b = (const unsigned char *)bytes;
  for (size_t i = 0; i < length; i++) digest = (digest ^ b[i]) * UINT64_C(0x100000001b3);
  return mix(digest + length);
}

/* ---- main ---- */

#ifndef PERSIST_OWN_STORE
#define PERSIST_MAGIC UINT64_C(0x74736973726570)

static void persist_open(const char *path) {
  void *place = (void *)0x230000000000;
  void *memory;
  if (strcmp(path, "-") == 0) {
    memory = mmap(place, PERSIST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  } else {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) die(path);
    if (status.st_size == 0 && ftruncate(fd, PERSIST_SIZE) != 0) die(path);
    memory = mmap(place, PERSIST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
  }
  if (memory == MAP_FAILED) die(path);
  persist = (struct persist *)memory;
  if (persist->magic == 0) {
    persist->self = persist;
    heap_init(&persist->heap, persist + 1, (char *)persist + PERSIST_SIZE);
    program_start();
    persist->magic = PERSIST_MAGIC;
    if (msync(persist, PERSIST_SIZE, MS_SYNC) != 0) die("msync");
  } else {
    if (persist->magic != PERSIST_MAGIC || persist->self != persist) die("the file is torn or at another address");
    program_resume();
  }
}

static uint64_t persist_steps(void) { return persist->steps; }

static void persist_step(void) {
  program_step(persist->steps);
  persist->steps++;
}

static void persist_save(void) {
  if (msync(persist, PERSIST_SIZE, MS_SYNC) != 0) die("msync");
}
#else
/* The program brings its own store: these, too. */
static void persist_open(const char *path);
static uint64_t persist_steps(void);
static void persist_step(void);
static void persist_save(void);
#endif

int main(int argc, char **argv) {
  if (argc < 3) die("use: PROGRAM FILE run STEPS | digest | twin STEPS");
  uint64_t steps = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
  persist_open(argv[1]);
  if (strcmp(argv[2], "run") == 0) {
    while (persist_steps() < steps) {
      persist_step();
      persist_save();
      char line[32];
      int length = snprintf(line, sizeof line, "%" PRIu64 "\n", persist_steps());
      if (write(1, line, (size_t)length) != length) die("standard output");
    }
  } else if (strcmp(argv[2], "digest") == 0) {
    uint64_t seen = persist_steps();
    printf("%" PRIu64 " %016" PRIx64 "\n", seen, program_digest());
  } else if (strcmp(argv[2], "twin") == 0) {
    printf("%016" PRIx64 "\n", program_digest());
    while (persist_steps() < steps) {
      persist_step();
      printf("%016" PRIx64 "\n", program_digest());
    }
  } else {
    die("no such command");
  }
  return 0;
}
#endif
