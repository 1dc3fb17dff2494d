/* micro.c - the main program of the small measurements of `bench puddles`: the protocol of micro.h. */
#define _GNU_SOURCE
#include "micro.h"
#include "protocol.h"
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int bench_loading;

void bench_fail(const char *what, const char *detail) {
  fprintf(stderr, "%s: %s\n", what, detail);
  exit(1);
}

/* Pins to one CPU; "all" leaves the process where the system puts it. */
static void pin(const char *cpu) {
  cpu_set_t set;
  if (strcmp(cpu, "all") == 0)
    return;
  CPU_ZERO(&set);
  CPU_SET((unsigned)atoi(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    perror("not pinned");
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: %s DATA-FILE BYTES CPU (started by `cargo xtask bench puddles`)\n", argv[0]);
    return 2;
  }
  pin(argv[3]);
  system_open(argv[1], strtoull(argv[2], NULL, 10));
  printf("ok\n");
  fflush(stdout);
  char line[4096];
  while (fgets(line, sizeof line, stdin)) {
    char name[64], argument[3900] = "";
    uint64_t count;
    struct measured m = {0};
    if (sscanf(line, "measure %63s %" SCNu64 " %3899s", name, &count, argument) < 2)
      bench_fail("unknown command", line);
    if (micro_measure(name, count, argument, &m) != 0)
      bench_fail("unknown measurement", name);
    printf("ok %" PRIu64 " %" PRIu64 " %" PRIu64 " 0\n", m.ns, m.units, m.sum);
    fflush(stdout);
  }
  system_close();
  return 0;
}
