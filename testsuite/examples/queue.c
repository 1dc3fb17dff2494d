/* queue.c - a queue of jobs in a pool: a linked list with ordinary pointers, changed in transactions.
 *
 *   vernal-cc -O2 queue.c -o queue
 *
 *   queue POOL add TEXT     take     list     check
 *   queue POOL stress MOVES        random moves, one transaction each; prints the number of each
 *   queue POOL same OTHER          opens both, side by side, and compares them job by job
 *
 * POOL is a directory ("./jobs.pool"), or the name of a pool of puddled. Exit status: 0 fine, 1 nothing to take, 2 wrong
 * use or an error, 3 the pool is inconsistent.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vernal_pool.h>

struct job {
  struct job *next;
  unsigned long number;
  char text[]; /* allocated behind the job */
};

/* The root object: all zeros is an empty queue. */
struct queue {
  struct job *first, *last;
  unsigned long added, taken;
};

static int fail(const char *what) {
  fprintf(stderr, "queue: %s: %s\n", what, vernal_last_error());
  exit(2);
}

static void add(vn_pool *pool, struct queue *q, const char *text) {
  struct job *job = vn_new_flex(pool, struct job, strlen(text) + 1);
  if (!job) fail("no room for the job");
  strcpy(job->text, text);
  job->number = ++q->added;
  if (q->last)
    q->last->next = job;
  else
    q->first = job;
  q->last = job;
}

static void take(struct queue *q) {
  struct job *job = q->first;
  q->first = job->next;
  if (!q->first) q->last = NULL;
  q->taken++;
  vn_free(job);
}

static int consistent(const struct queue *q) {
  unsigned long number = q->taken;
  const struct job *last = NULL;
  for (const struct job *job = q->first; job; last = job, job = job->next)
    if (job->number != ++number || vn_usable_size(job) <= sizeof *job + strlen(job->text)) return 0;
  return number == q->added && last == q->last;
}

/* Two copies of one pool in one process: each has its own addresses, and its pointers lead into itself. */
static int same(const struct queue *a, const char *name) {
  vn_pool *other = vn_pool_open(name, 0);
  if (!other) fail(name);
  const struct queue *b = vn_root(other, struct queue);
  if (!b) fail("the other root");
  int equal = consistent(a) && consistent(b) && a->added == b->added && a->taken == b->taken;
  const struct job *x = a->first, *y = b->first;
  for (; equal && x && y; x = x->next, y = y->next) equal = x != y && x->number == y->number && strcmp(x->text, y->text) == 0;
  printf("%s: move %lu, %p and %p\n", equal && !x && !y ? "the same" : "different", a->added + a->taken, (void *)a, (void *)b);
  if (vn_pool_close(other) != 0) fail("close");
  return equal && !x && !y ? 0 : 3;
}

int main(int argc, char **argv) {
  const char *command = argc > 2 ? argv[2] : "";
  vn_pool *pool = argc > 1 ? vn_pool_open(argv[1], VN_CREATE) : NULL;
  if (!pool) fail(argc > 1 ? argv[1] : "no pool is named");
  struct queue *q = vn_root(pool, struct queue);
  if (!q) fail("the root");
  int result = 0;
  if (strcmp(command, "add") == 0 && argc == 4) {
    VN_TX { add(pool, q, argv[3]); }
    if (vn_tx_result() != 0) fail("add");
  } else if (strcmp(command, "take") == 0) {
    VN_TX {
      if (q->first) {
        printf("%s\n", q->first->text);
        take(q);
      } else {
        result = 1;
      }
    }
    if (vn_tx_result() != 0) fail("take");
  } else if (strcmp(command, "list") == 0) {
    for (const struct job *job = q->first; job; job = job->next) printf("%lu %s\n", job->number, job->text);
  } else if (strcmp(command, "check") == 0) {
    if (!consistent(q)) {
      puts("inconsistent: the numbers have a gap");
      return 3;
    }
    printf("consistent: %lu taken, move %lu\n", q->taken, q->added + q->taken);
  } else if (strcmp(command, "same") == 0 && argc == 4) {
    result = same(q, argv[3]);
  } else if (strcmp(command, "stress") == 0 && argc == 4) {
    for (long n = atol(argv[3]); n > 0; n--) {
      unsigned long move = q->added + q->taken + 1;
      /* Every fifth transaction changes its mind: nothing of it stays. */
      if (move % 5 == 0) {
        VN_TX {
          while (q->first) take(q);
          vn_tx_abort();
        }
        if (vn_tx_result() != VERNAL_EABORTED) fail("abort");
      }
      VN_TX {
        char text[64];
        snprintf(text, sizeof text, "%*lu", (int)(move % 60), move);
        if (q->first && move * 2654435761u % 7 < 3)
          take(q);
        else
          add(pool, q, text);
      }
      if (vn_tx_result() != 0) fail("stress");
      printf("%lu\n", move);
      fflush(stdout);
    }
  } else {
    fputs("use: queue POOL add TEXT, or take|list|check, or stress MOVES, or same OTHER\n", stderr);
    return 2;
  }
  if (vn_pool_close(pool) != 0) fail("close");
  return result;
}
