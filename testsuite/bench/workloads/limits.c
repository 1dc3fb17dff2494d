/* limits.c - what no commit can go below, and what opening costs: the physical limits that results are compared with.
 *
 *   measure fence LINES          non-temporal stores of LINES lines to tmpfs and one fence, many times
 *   measure flush 4096           writes of 4 KiB with O_DIRECT and O_DSYNC beside the data file
 *   measure open 0 PATH          maps the file PATH of 1 GiB and reads its first word; SUM is the growth of resident memory in bytes
 *   measure release 0 PATH       unmaps it
 */
#include "backend.h"
#include "micro.h"
#include <emmintrin.h>
#include <stdio.h>
#include <stdlib.h>

#define LOG_BYTES (4u << 20)
#define FENCES 20000
#define FLUSHES 50
#define OPEN_BYTES (1ull << 30)

static const char *data_path;
static void *mapped;

void system_open(const char *path, uint64_t bytes) {
  (void)bytes;
  data_path = path;
}

static void fence(uint64_t lines, struct measured *out) {
  int fd = open(data_path, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, LOG_BYTES) != 0)
    bench_fail(data_path, strerror(errno));
  char *log = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (log == MAP_FAILED)
    bench_fail("mmap", strerror(errno));
  const __m128i word = _mm_set1_epi8(7);
  uint64_t at = 0, start = micro_now();
  for (int i = 0; i < FENCES; i++) {
    for (uint64_t l = 0; l < lines; l++, at = (at + 64) % LOG_BYTES)
      for (int w = 0; w < 4; w++)
        _mm_stream_si128((__m128i *)(log + at) + w, word);
    _mm_sfence();
  }
  out->ns = micro_now() - start;
  out->units = FENCES;
  munmap(log, LOG_BYTES);
  close(fd);
  unlink(data_path);
}

static void flush(const char *path, struct measured *out) {
  int fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_DSYNC, 0600);
  void *page = NULL;
  if (fd < 0 || posix_memalign(&page, 4096, 4096) != 0 || posix_fallocate(fd, 0, FLUSHES * 4096) != 0)
    bench_fail(path, strerror(errno));
  memset(page, 1, 4096);
  for (int i = 0; i < FLUSHES; i++) /* its blocks are written once, as a journal's are */
    if (pwrite(fd, page, 4096, i * 4096) != 4096)
      bench_fail(path, strerror(errno));
  uint64_t start = micro_now();
  for (int i = 0; i < FLUSHES; i++)
    if (pwrite(fd, page, 4096, i * 4096) != 4096)
      bench_fail(path, strerror(errno));
  out->ns = micro_now() - start;
  out->units = FLUSHES;
  free(page);
  close(fd);
  unlink(path);
}

static uint64_t resident(void) {
  unsigned long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f) {
    if (fscanf(f, "%*u %lu", &pages) != 1)
      pages = 0;
    fclose(f);
  }
  return pages * 4096;
}

static void map(const char *path, struct measured *out) {
  uint64_t before = resident(), start = micro_now();
  int fd = open(path, O_RDWR);
  mapped = fd < 0 ? MAP_FAILED : mmap(NULL, OPEN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED)
    bench_fail(path, strerror(errno));
  volatile uint64_t first = *(volatile uint64_t *)mapped;
  (void)first;
  out->ns = micro_now() - start;
  out->units = 1;
  out->sum = resident() - before;
  close(fd);
}

int micro_measure(const char *name, uint64_t count, const char *argument, struct measured *out) {
  if (strcmp(name, "fence") == 0)
    fence(count, out);
  else if (strcmp(name, "flush") == 0)
    flush(argument, out);
  else if (strcmp(name, "open") == 0)
    map(argument, out);
  else if (strcmp(name, "release") == 0) {
    if (munmap(mapped, OPEN_BYTES) != 0)
      bench_fail("munmap", strerror(errno));
  } else
    return -1;
  return 0;
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  (void)op, (void)sum;
  return -1;
}

void system_check(uint64_t *hash, uint64_t *entries) { *hash = *entries = 0; }
