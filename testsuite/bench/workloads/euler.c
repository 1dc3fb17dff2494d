/* euler.c - the thesis' figure 3.12: threads compute Euler's formula over an array, each its own part, one small
 * transaction after the other. */
#include "backend.h"
#include "micro.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#define NUMBERS (1u << 18)
#define PER_TX 64
#define MAX_THREADS 64

DECLARE_OBJECT(numbers, 1);

struct numbers {
  double x[NUMBERS];
};

struct euler {
  REF(numbers) numbers;
};

static struct numbers *numbers;

void system_open(const char *path, uint64_t bytes) {
  backend_open(path, bytes);
  struct euler *root = ROOT(euler);
  if (IS_NULL(root->numbers)) {
    system_begin();
    LOG_RANGE(&root->numbers, sizeof root->numbers);
    root->numbers = NEW(numbers);
    for (uint32_t i = 0; i < NUMBERS; i++)
      MUT(root->numbers)->x[i] = i;
    system_commit();
  }
  numbers = MUT(root->numbers);
}

struct part {
  pthread_barrier_t *start;
  uint32_t from, to;
  uint64_t began, ended; /* by the threads' own clocks: the one that waits for them may not be running */
};

/* |e^(ix)| of x, plus x: the value changes by one in every round. */
static void step(double *x) { *x += hypot(cos(*x), sin(*x)); }

static void *work(void *argument) {
  struct part *p = argument;
  pthread_barrier_wait(p->start);
  p->began = micro_now();
  for (uint32_t i = p->from; i < p->to; i += PER_TX) {
    uint32_t n = p->to - i < PER_TX ? p->to - i : PER_TX;
    system_begin();
    LOG_RANGE(&numbers->x[i], n * sizeof(double));
    for (uint32_t j = i; j < i + n; j++)
      step(&numbers->x[j]);
    system_commit();
  }
  p->ended = micro_now();
  return NULL;
}

int micro_measure(const char *name, uint64_t count, const char *argument, struct measured *out) {
  (void)argument;
  if (strcmp(name, "euler") != 0 || count == 0 || count > MAX_THREADS)
    return -1;
  pthread_barrier_t start;
  pthread_barrier_init(&start, NULL, (unsigned)count + 1);
  pthread_t thread[MAX_THREADS];
  struct part part[MAX_THREADS];
  for (uint64_t t = 0; t < count; t++) {
    part[t] = (struct part){&start, (uint32_t)(NUMBERS / PER_TX * t / count * PER_TX),
                            (uint32_t)(NUMBERS / PER_TX * (t + 1) / count * PER_TX), 0, 0};
    if (pthread_create(&thread[t], NULL, work, &part[t]) != 0)
      bench_fail("pthread_create", strerror(errno));
  }
  pthread_barrier_wait(&start);
  uint64_t began = UINT64_MAX, ended = 0;
  for (uint64_t t = 0; t < count; t++) {
    pthread_join(thread[t], NULL);
    began = part[t].began < began ? part[t].began : began;
    ended = part[t].ended > ended ? part[t].ended : ended;
  }
  out->ns = ended - began;
  pthread_barrier_destroy(&start);
  out->units = NUMBERS / PER_TX;
  for (uint32_t i = 0; i < NUMBERS; i++)
    out->sum = mix64(out->sum + (uint64_t)llround(numbers->x[i]));
  return 0;
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  (void)op, (void)sum;
  return -1;
}

void system_check(uint64_t *hash, uint64_t *entries) { *hash = *entries = 0; }
