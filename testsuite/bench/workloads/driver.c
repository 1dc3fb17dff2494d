/* driver.c - the main program of every workload process: the protocol of protocol.h, the clock, and the batches. */
#define _GNU_SOURCE
#include "protocol.h"
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int bench_loading;

void bench_fail(const char *what, const char *detail) {
  fprintf(stderr, "%s: %s\n", what, detail);
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t run_ops(const struct op *ops, uint64_t count, uint64_t batch, uint64_t *sum) {
  uint64_t units = 0, in_batch = 0;
  int open = 0;
  for (uint64_t i = 0; i < count; i++) {
    if (!open && op_updates(ops[i].kind)) {
      system_begin();
      open = 1;
    }
    int64_t n = system_apply(&ops[i], sum);
    if (n < 0)
      bench_fail("workload", "operation not known to this structure");
    units += (uint64_t)n;
    if (++in_batch == batch) {
      if (open)
        system_commit();
      open = 0;
      in_batch = 0;
    }
  }
  if (open)
    system_commit();
  return units;
}

static void run(uint64_t warm, uint64_t count, uint64_t batch) {
  static struct op *ops;
  static uint64_t capacity;
  if (batch == 0 || warm > (1u << 28) || count > (1u << 28))
    bench_fail("run", "count or batch out of range");
  if (warm + count > capacity) {
    capacity = warm + count;
    ops = realloc(ops, capacity * sizeof *ops);
    if (!ops)
      bench_fail("run", "out of memory for the operations");
  }
  if (fread(ops, sizeof *ops, warm + count, stdin) != warm + count)
    bench_fail("run", "the harness closed the pipe inside a command");
  uint64_t sum = 0;
  run_ops(ops, warm, batch, &sum);
  uint64_t misses = cxl_misses();
  uint64_t start = now_ns();
  uint64_t units = run_ops(ops + warm, count, batch, &sum);
  uint64_t ns = now_ns() - start;
  printf("ok %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", ns, units, sum, cxl_misses() - misses);
}

static void pin(const char *cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((unsigned)atoi(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    fprintf(stderr, "not pinned to CPU %s: %s\n", cpu, strerror(errno));
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: %s DATA-FILE BYTES CPU (started by `cargo xtask bench persist`)\n", argv[0]);
    return 2;
  }
  pin(argv[3]);
  system_open(argv[1], strtoull(argv[2], NULL, 10));
  printf("ok\n");
  fflush(stdout);
  char line[128];
  while (fgets(line, sizeof line, stdin)) {
    uint64_t warm, count, batch;
    bench_loading = sscanf(line, "load %" SCNu64 " %" SCNu64, &count, &batch) == 2;
    if (bench_loading) {
      run(0, count, batch);
    } else if (sscanf(line, "run %" SCNu64 " %" SCNu64 " %" SCNu64, &warm, &count, &batch) == 3) {
      run(warm, count, batch);
    } else if (strcmp(line, "check\n") == 0) {
      uint64_t hash = 0, entries = 0;
      system_check(&hash, &entries);
      printf("ok %" PRIu64 " %" PRIu64 "\n", hash, entries);
    } else {
      bench_fail("unknown command", line);
    }
    fflush(stdout);
  }
  system_close();
  return 0;
}
