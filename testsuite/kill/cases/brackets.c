/* Two threads change pairs of words that must be equal, inside op brackets, while a third commits: no committed state may hold half
 * an operation.   brackets FILE write | check */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vernal.h"

enum { PAIRS = 64, LENGTH = 1 << 20 };

/* The two halves of a pair lie on different pages. */
struct heap {
  uint64_t left[PAIRS * 8];
  uint64_t gap[512];
  uint64_t right[PAIRS * 8];
};

static struct heap *h;
static volatile uint64_t rounds[2];

static void *work(void *argument) {
  uint64_t me = (uint64_t)(uintptr_t)argument;
  for (uint64_t i = 1;; i++) {
    uint64_t pair = (i * 7 + me) % (PAIRS / 2) * 2 + me; /* each thread has its own pairs */
    vernal_op_begin();
    h->left[pair * 8] = i;
    for (volatile int pause = 0; pause < 50; pause++) {
    }
    h->right[pair * 8] = i;
    vernal_op_end();
    rounds[me] = i;
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, LENGTH)) return 3;
  h = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (h == MAP_FAILED) return 3;
  if (strcmp(argv[2], "write") == 0) {
    pthread_t thread[2];
    for (uintptr_t i = 0; i < 2; i++) pthread_create(&thread[i], NULL, work, (void *)i);
    for (uint64_t commits = 1;; commits++) {
      if (msync(h, LENGTH, MS_SYNC)) {
        perror("msync");
        return 1;
      }
      if (commits % 50 == 0 && rounds[0] > 100 && rounds[1] > 100) puts("committed"), fflush(stdout);
    }
  }
  uint64_t changed = 0;
  for (int pair = 0; pair < PAIRS; pair++) {
    if (h->left[pair * 8] != h->right[pair * 8]) {
      fprintf(stderr, "brackets: pair %d is torn: %llu and %llu\n", pair, (unsigned long long)h->left[pair * 8],
              (unsigned long long)h->right[pair * 8]);
      return 1;
    }
    changed += h->left[pair * 8] != 0;
  }
  printf("whole, %llu pairs changed\n", (unsigned long long)changed);
  return munmap(h, LENGTH) ? 1 : 0;
}
