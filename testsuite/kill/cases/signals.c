/* A timer interrupts a program that stores and commits; the handler stores and commits too, which may only fail with EBUSY, when
 * it interrupted a commit.   signals FILE write | check */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

enum { LENGTH = 1 << 16, ENOUGH = 300 };

static volatile uint64_t *h;
static volatile sig_atomic_t handled, committed, busy, wrong;

static void on_timer(int number) {
  (void)number;
  int saved = errno;
  handled++;
  h[512] = h[512] + 1;
  if (msync((void *)h, LENGTH, MS_SYNC) == 0) {
    committed++;
  } else if (errno == EBUSY) {
    busy++;
  } else {
    wrong = errno;
  }
  errno = saved;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, LENGTH)) return 3;
  h = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (h == MAP_FAILED) return 3;
  if (strcmp(argv[2], "write") == 0) {
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 300}, {0, 300}};
    if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &every, NULL)) return 3;
    while (handled < ENOUGH && !wrong) {
      h[0] = h[0] + 1;
      if (msync((void *)h, LENGTH, MS_SYNC) && errno != EBUSY) {
        perror("msync");
        return 1;
      }
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    if (wrong) {
      fprintf(stderr, "signals: msync in a handler: %s\n", strerror(wrong));
      return 1;
    }
    if (msync((void *)h, LENGTH, MS_SYNC)) return 1;
    printf("%llu %llu\n", (unsigned long long)h[0], (unsigned long long)h[512]);
    fflush(stdout);
    raise(SIGKILL);
  }
  printf("%llu %llu\n", (unsigned long long)h[0], (unsigned long long)h[512]);
  return 0;
}
