/* micro.h - how the harness and the small measurements of `bench puddles` talk: one line asks for one measurement.
 *
 *   measure NAME COUNT [ARGUMENT]\n  ->  ok NANOSECONDS UNITS SUM 0\n
 *
 * NANOSECONDS of doing COUNT of NAME; UNITS is what to divide them by; SUM folds the result and must be equal between
 * systems. What a measurement needs it makes before its clock starts. */
#ifndef BENCH_MICRO_H
#define BENCH_MICRO_H
#include <stdint.h>
#include <time.h>

struct measured {
  uint64_t ns;
  uint64_t units;
  uint64_t sum;
};

/* Implemented by each program; returns 0, or -1 for a name that it does not know. */
int micro_measure(const char *name, uint64_t count, const char *argument, struct measured *out);

static inline uint64_t micro_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#endif
