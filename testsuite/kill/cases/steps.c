/* A mark is interrupted at each of its instructions in turn (the processor's trap flag): by a signal handler, or by a whole other
 * thread, that stores to a line which is being marked, and commits. That commit must hold what they have stored, although the
 * byte of the line may be set already, so that they list nothing.   steps FILE handler | thread */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { LENGTH = 1 << 22, WORDS = 8, LINES = 5, TRAP_FLAG = 0x100, MANY = 5000 };
/* Where the committed image of a line is (vernal_abi::HOME_DISTANCE). */
static const uintptr_t HOME = (uintptr_t)1 << 40;

static void *mapped;
/* The lines of this round: others than before, because commits look again at lines of the commits before them. */
static volatile uint64_t *h;
static uint64_t round_number, line;
static volatile sig_atomic_t left, lost;
static _Atomic uint64_t asked, done;
static void (*interruption)(void);

static uint64_t home(size_t word) { return *(volatile uint64_t *)((uintptr_t)(h + word) + HOME); }

static void store_and_commit(void) {
  size_t word = line * WORDS + 1;
  h[word] = round_number;
  if (msync(mapped, LENGTH, MS_SYNC) || home(word) != round_number) lost = 1;
}

static void let_the_other_thread(void) {
  asked = round_number;
  while (done != round_number) {
  }
}

static void *other_thread(void *unused) {
  for (;;) {
    uint64_t round = asked;
    if (round == UINT64_MAX) return unused;
    if (round != done) {
      store_and_commit();
      done = round;
    }
  }
}

static void on_trap(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  if (--left != 0) return;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
  interruption();
}

__attribute__((noinline)) static void store_one(uint64_t value) { h[0] = value; }

__attribute__((noinline)) static void store_all(uint64_t value) {
  uint64_t words[LINES * WORDS];
  for (int i = 0; i < LINES * WORDS; i++) words[i] = value;
  memcpy((void *)h, words, sizeof words);
}

static int steps(void (*store)(uint64_t), uint64_t lines) {
  for (int at = 1; at < MANY; at++) {
    round_number++;
    h = (uint64_t *)mapped + round_number * LINES * WORDS;
    if (h + LINES * WORDS > (uint64_t *)mapped + LENGTH / sizeof *h) break;
    line = round_number % lines;
    left = at;
    /* Below the red zone. */
    __asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n orq %0, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp" ::"i"(TRAP_FLAG) : "memory", "cc");
    store(round_number);
    __asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n andq %0, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp" ::"i"(~TRAP_FLAG) : "memory", "cc");
    int interrupted = left <= 0;
    if (lost) {
      fprintf(stderr, "%llu lines, instruction %d: a commit does not hold what was stored before it\n", (unsigned long long)lines, at);
      return 0;
    }
    if (msync(mapped, LENGTH, MS_SYNC)) return 0;
    for (uint64_t i = 0; i < lines; i++) {
      if (home(i * WORDS) != round_number) {
        fprintf(stderr, "%llu lines, instruction %d: line %llu was not committed\n", (unsigned long long)lines, at, (unsigned long long)i);
        return 0;
      }
    }
    if (!interrupted) return at - 1;
  }
  fprintf(stderr, "the mark does not end\n");
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, LENGTH)) return 3;
  h = mapped = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return 3;
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  if (sigaction(SIGTRAP, &action, NULL)) return 3;
  /* The first mark of a thread, the first commit and the first call of memcpy do more. */
  store_one(1);
  store_all(1);
  if (msync(mapped, LENGTH, MS_SYNC)) return 3;
  pthread_t other;
  int threads = strcmp(argv[2], "thread") == 0;
  interruption = threads ? let_the_other_thread : store_and_commit;
  if (threads && pthread_create(&other, NULL, other_thread, NULL)) return 3;
  int one = steps(store_one, 1), all = one ? steps(store_all, LINES) : 0;
  if (threads) {
    asked = UINT64_MAX;
    pthread_join(other, NULL);
  }
  /* A store, its check and its mark are more than ten instructions, if traps come at all. */
  if (one < 10 || all < 10) return 1;
  printf("complete\n");
  return 0;
}
