/* Four threads write and commit as fast as they can, for ever; what a thread was told is durable must be there after a kill.
 *
 *   races FILE write   thread t writes round r to each word of its own line and to its word of a line that all share, syncs, and says
 *                      "t r"
 *   races FILE dump    prints for each thread: t, the eight words of its line, its word of the shared line
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS = 4, LENGTH = 1 << 20 };

struct heap {
  uint64_t own[THREADS][8];
  uint64_t shared[8];
};

static struct heap *h;

static void *work(void *argument) {
  uint64_t me = (uint64_t)(uintptr_t)argument;
  for (uint64_t round = h->own[me][0] + 1;; round++) {
    volatile uint64_t *own = h->own[me];
    for (int w = 0; w < 8; w++) own[w] = round;
    *(volatile uint64_t *)&h->shared[me] = round;
    if (msync(h, LENGTH, MS_SYNC)) {
      perror("msync");
      _exit(1);
    }
    char line[48];
    int length = snprintf(line, sizeof line, "%llu %llu\n", (unsigned long long)me, (unsigned long long)round);
    if (write(1, line, (size_t)length) != length) _exit(1);
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
    pthread_t thread[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, work, (void *)i);
    pthread_join(thread[0], NULL);
  }
  for (int t = 0; t < THREADS; t++) {
    printf("%d", t);
    for (int w = 0; w < 8; w++) printf(" %llu", (unsigned long long)h->own[t][w]);
    printf(" %llu\n", (unsigned long long)h->shared[t]);
  }
  return 0;
}
