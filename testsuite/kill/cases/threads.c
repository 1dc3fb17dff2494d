/* Four threads store, each in its own words and all in one list under a lock, while every one of them commits; nothing may be
 * lost.   threads FILE write ROUNDS | check ROUNDS */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS = 4, LENGTH = 8 << 20, NODES = 60000 };

struct node {
  struct node *next;
  uint64_t owner, round;
};

struct heap {
  uint64_t own[THREADS][8];      /* a line each */
  uint64_t shared_line[THREADS]; /* one line for all */
  struct node *first;
  uint64_t count;
  struct node nodes[NODES];
};

static struct heap *h;
static uint64_t rounds;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *work(void *argument) {
  uint64_t me = (uint64_t)(uintptr_t)argument;
  for (uint64_t i = 1; i <= rounds; i++) {
    for (int w = 0; w < 8; w++) h->own[me][w] = i * 10 + (uint64_t)w;
    __atomic_store_n(&h->shared_line[me], i, __ATOMIC_RELEASE);
    pthread_mutex_lock(&lock);
    struct node *n = &h->nodes[h->count++];
    n->owner = me;
    n->round = i;
    n->next = h->first;
    h->first = n;
    pthread_mutex_unlock(&lock);
    if (i % 7 == me && msync(h, LENGTH, MS_SYNC)) {
      perror("msync");
      exit(1);
    }
  }
  return NULL;
}

static void expect(int condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "threads: %s\n", what);
    exit(1);
  }
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  rounds = strtoull(argv[3], NULL, 10);
  expect(rounds * THREADS <= NODES && sizeof(struct heap) <= LENGTH, "too many rounds");
  int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, LENGTH)) return 3;
  h = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (h == MAP_FAILED) return 3;
  if (strcmp(argv[2], "write") == 0) {
    pthread_t thread[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, work, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    expect(msync(h, LENGTH, MS_SYNC) == 0, "the last msync failed");
    puts("written");
    fflush(stdout);
    raise(9); /* what was committed must be there although nobody unmaps */
  }
  uint64_t seen[THREADS] = {0}, count = 0;
  for (struct node *n = h->first; n; n = n->next) {
    expect(n->owner < THREADS, "a node without an owner");
    seen[n->owner] += n->round;
    count++;
  }
  expect(count == rounds * THREADS && count == h->count, "nodes are missing");
  for (int t = 0; t < THREADS; t++) {
    expect(seen[t] == rounds * (rounds + 1) / 2, "a round is missing");
    expect(h->shared_line[t] == rounds, "a word of the shared line is old");
    for (int w = 0; w < 8; w++) expect(h->own[t][w] == rounds * 10 + (uint64_t)w, "an own word is old");
  }
  puts("complete");
  return 0;
}
