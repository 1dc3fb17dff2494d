/* Runs work(scale), prints its CPU time in nanoseconds (the work waits for nothing, but the machine may be busy) and a
 * checksum. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static uint64_t work(int scale);
static inline uint64_t mix(uint64_t h, uint64_t v) { h = (h ^ v) * 0x9e3779b97f4a7c15u; return h ^ h >> 29; }
int main(int argc, char **argv) {
  int scale = argc > 1 ? atoi(argv[1]) : 1;
  struct timespec a, b;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
  uint64_t sum = work(scale);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
  printf("%lld %016llx\n", (b.tv_sec - a.tv_sec) * 1000000000ll + (b.tv_nsec - a.tv_nsec), (unsigned long long)sum);
  return 0;
}
