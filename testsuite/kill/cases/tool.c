/* Does what its arguments say, one command after the other, and prints what each call returned. The tests in cases/ are
 * written in this language, so that each reads as a story.
 *
 *   map F LEN [ADDR]     open or create F, make it at least LEN long, map it shared; at ADDR with MAP_FIXED if given
 *   set F OFF VALUE      store 8 bytes        get F OFF              print them
 *   fill F OFF LEN BYTE  memset               sum F OFF LEN          print the sum of the bytes
 *   sync F [OFF LEN]     msync(MS_SYNC)       async F                msync(MS_ASYNC)
 *   truncate F LEN       ftruncate            remap F LEN            mremap
 *   unmap F              munmap               pointer F OFF TO       store the address of TO at OFF
 *   follow F OFF         print the word that the pointer at OFF points to
 *   child F              fork; the child stores, syncs and says what it got; the parent waits
 *   handler F OFF VALUE  a signal handler stores and syncs
 *   jump F OFF VALUE     stores, then leaves by longjmp
 *   abort                vernal_abort         kill                   SIGKILL to itself
 *   hang                 say so, and wait to be killed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct file {
  const char *name;
  char *at;
  size_t length;
  int fd;
};

static struct file files[8];
static jmp_buf back;
static struct {
  struct file *f;
  uint64_t offset, value;
  int result, error;
} in_handler;

static struct file *find(const char *name) {
  for (struct file *f = files; f < files + 8; f++) {
    if (f->name && strcmp(f->name, name) == 0) return f;
  }
  fprintf(stderr, "tool: %s is not mapped\n", name);
  exit(3);
}

/* The explicit interface, found at run time: this program is also built by plain clang, for page mode. */
static const char *last_error(void) {
  const char *(*f)(void) = (const char *(*)(void))dlsym(RTLD_DEFAULT, "vernal_last_error");
  return f ? f() : "";
}

static int take_back(void) {
  int (*f)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "vernal_abort");
  return f ? f() : -1;
}

static void said(const char *what, int result) {
  if (result == 0) {
    printf("%s ok\n", what);
  } else {
    int error = errno;
    printf("%s %s: %s\n", what, strerrorname_np(error), last_error());
  }
  fflush(stdout);
}

static volatile uint64_t *word(struct file *f, const char *offset) {
  return (volatile uint64_t *)(f->at + strtoull(offset, NULL, 0));
}

static int sync_all(struct file *f, int flags) { return msync(f->at, f->length, flags); }

static void map(const char *name, size_t length, const char *address) {
  struct file *f = files;
  while (f->name) f++;
  int fd = open(name, O_RDWR | O_CREAT, 0600);
  if (fd < 0 && errno == EACCES) fd = open(name, O_RDONLY);
  struct stat st;
  if (fd < 0 || fstat(fd, &st)) {
    said("open", -1);
    exit(3);
  }
  if ((size_t)st.st_size < length && ftruncate(fd, (off_t)length)) {
    said("truncate", -1);
    exit(3);
  }
  void *hint = address ? (void *)strtoull(address, NULL, 0) : NULL;
  void *at = mmap(hint, length, PROT_READ | PROT_WRITE, MAP_SHARED | (hint ? MAP_FIXED : 0), fd, 0);
  said("map", at == MAP_FAILED ? -1 : 0);
  if (at == MAP_FAILED) exit(4);
  *f = (struct file){name, at, length, fd};
}

static void child(struct file *f) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    *(volatile uint64_t *)f->at = 666;
    said("child sync", sync_all(f, MS_SYNC));
    _exit(0);
  }
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid) exit(3);
  printf("child ended %d\n", status);
}

static void on_signal(int number) {
  (void)number;
  int saved = errno;
  *(volatile uint64_t *)(in_handler.f->at + in_handler.offset) = in_handler.value;
  in_handler.result = sync_all(in_handler.f, MS_SYNC);
  in_handler.error = errno;
  errno = saved;
}

static void jump(struct file *f, const char *offset, const char *value) {
  if (setjmp(back) == 0) {
    *word(f, offset) = strtoull(value, NULL, 0);
    longjmp(back, 1);
  }
  puts("jumped");
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (char **a = argv + 1; a < argv + argc;) {
    const char *command = *a++;
    long left = argv + argc - a;
#define IS(text, count) (strcmp(command, text) == 0 && left >= (count))
    if (IS("map", 2)) {
      const char *address = left > 2 && strncmp(a[2], "0x", 2) == 0 ? a[2] : NULL;
      map(a[0], strtoull(a[1], NULL, 0), address);
      a += address ? 3 : 2;
    } else if (IS("set", 3)) {
      *word(find(a[0]), a[1]) = strtoull(a[2], NULL, 0);
      a += 3;
    } else if (IS("get", 2)) {
      printf("%s[%s] = %llu\n", strrchr(a[0], '/') ? strrchr(a[0], '/') + 1 : a[0], a[1], (unsigned long long)*word(find(a[0]), a[1]));
      a += 2;
    } else if (IS("pointer", 3)) {
      *word(find(a[0]), a[1]) = (uint64_t)(uintptr_t)word(find(a[0]), a[2]);
      a += 3;
    } else if (IS("follow", 2)) {
      printf("-> %llu\n", (unsigned long long)*(volatile uint64_t *)(uintptr_t)*word(find(a[0]), a[1]));
      a += 2;
    } else if (IS("fill", 4)) {
      memset(find(a[0])->at + strtoull(a[1], NULL, 0), (int)strtol(a[3], NULL, 0), strtoull(a[2], NULL, 0));
      a += 4;
    } else if (IS("sum", 3)) {
      uint64_t sum = 0;
      const unsigned char *p = (unsigned char *)find(a[0])->at + strtoull(a[1], NULL, 0);
      for (size_t i = strtoull(a[2], NULL, 0); i--;) sum += *p++;
      printf("sum %llu\n", (unsigned long long)sum);
      a += 3;
    } else if (IS("sync", 3) && a[1][0] >= '0' && a[1][0] <= '9') {
      said("sync", msync(find(a[0])->at + strtoull(a[1], NULL, 0), strtoull(a[2], NULL, 0), MS_SYNC));
      a += 3;
    } else if (IS("sync", 1)) {
      said("sync", sync_all(find(a[0]), MS_SYNC));
      a += 1;
    } else if (IS("async", 1)) {
      said("async", sync_all(find(a[0]), MS_ASYNC));
      a += 1;
    } else if (IS("truncate", 2)) {
      struct file *f = find(a[0]);
      int result = ftruncate(f->fd, (off_t)strtoull(a[1], NULL, 0));
      said("truncate", result);
      a += 2;
    } else if (IS("remap", 2)) {
      struct file *f = find(a[0]);
      size_t length = strtoull(a[1], NULL, 0);
      void *at = mremap(f->at, f->length, length, MREMAP_MAYMOVE);
      said("remap", at == MAP_FAILED ? -1 : 0);
      if (at != MAP_FAILED) {
        if (at != f->at) puts("moved");
        f->at = at;
        f->length = length;
      }
      a += 2;
    } else if (IS("unmap", 1)) {
      struct file *f = find(a[0]);
      said("unmap", munmap(f->at, f->length));
      close(f->fd);
      f->name = NULL;
      a += 1;
    } else if (IS("child", 1)) {
      child(find(a[0]));
      a += 1;
    } else if (IS("handler", 3)) {
      in_handler.f = find(a[0]);
      in_handler.offset = strtoull(a[1], NULL, 0);
      in_handler.value = strtoull(a[2], NULL, 0);
      signal(SIGUSR1, on_signal);
      raise(SIGUSR1);
      errno = in_handler.error;
      said("handler sync", in_handler.result);
      a += 3;
    } else if (IS("jump", 3)) {
      jump(find(a[0]), a[1], a[2]);
      a += 3;
    } else if (IS("abort", 0)) {
      said("abort", take_back());
    } else if (IS("kill", 0)) {
      raise(SIGKILL);
    } else if (IS("hang", 0)) {
      puts("hanging");
      for (;;) pause();
    } else {
      fprintf(stderr, "tool: %s: no such command, or too few arguments\n", command);
      return 2;
    }
  }
  return 0;
}
