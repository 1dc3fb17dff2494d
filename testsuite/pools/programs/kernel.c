/* kernel.c - memory of a pool that has moved is given to the kernel before the program has touched it.
 *
 *   make POOL           makes the pool
 *   use POOL MOVED      opens the pool, and the copy MOVED beside it, which gets other addresses: every call must work with objects
 *                       that nobody has touched
 *   check POOL          what the calls have read is there
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <vernal.h>
#include <vernal_pool.h>

#define CALLS 12
#define LONG (3 << 20)

struct page {
  struct page *self; /* makes a page one that has to be rewritten */
  char text[4096 - 8];
};

struct table {
  struct page *page[CALLS];
  char *large; /* crosses chunks */
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

#define CHECK(call, expected)                  \
  do {                                         \
    if ((long long)(call) != (long long)(expected)) \
      fail(#call);                             \
  } while (0)

static vn_pool *open_pool(const char *path, unsigned flags) {
  vn_pool *pool = vn_pool_open(path, flags);
  if (!pool) {
    fprintf(stderr, "%s: %s\n", path, vernal_last_error());
    exit(1);
  }
  return pool;
}

static void make(const char *path) {
  vn_pool *pool = open_pool(path, VN_CREATE);
  vn_tx_begin();
  struct table *t = vn_root(pool, struct table);
  for (int i = 0; i < CALLS; i++) {
    /* The middle of a chunk of its own for each, so that none is touched with another. */
    t->page[i] = (struct page *)vn_new_array(pool, struct page, 512) + 256;
    t->page[i]->self = t->page[i];
    memset(t->page[i]->text, 'a' + i, sizeof t->page[i]->text);
  }
  t->large = vn_new_bytes(pool, LONG);
  memset(t->large, 'z', LONG);
  if (vn_tx_commit() || vn_pool_close(pool))
    fail(vernal_last_error());
}

static void use(const char *path, const char *moved) {
  vn_pool *original = open_pool(path, 0), *pool = open_pool(moved, 0);
  struct table *t = vn_root(pool, struct table);
  struct page *page[CALLS];
  memcpy(page, t->page, sizeof page);
  int both[2], in, out;
  char name[] = "/tmp/vernal-kernel-XXXXXX";
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, both), 0);
  in = out = mkstemp(name);
  if (in < 0)
    fail(name);
  unlink(name);
  const size_t n = sizeof page[0]->text;
  vn_tx_begin();
  CHECK(write(out, page[0]->text, n), n);
  CHECK(pwrite(out, page[1]->text, n, n), n);
  struct iovec from[2] = {{page[2]->text, 100}, {page[3]->text, 200}};
  CHECK(writev(both[0], from, 2), 300);
  struct iovec to[2] = {{page[4]->text, 100}, {page[5]->text, 200}};
  CHECK(readv(both[1], to, 2), 300);
  vernal_mark(page[4]->text, 100), vernal_mark(page[5]->text, 200);
  CHECK(send(both[0], page[6]->text, n, 0), n);
  struct iovec rest = {page[7]->text, n};
  struct msghdr message = {.msg_iov = &rest, .msg_iovlen = 1};
  CHECK(recvmsg(both[1], &message, MSG_WAITALL), n);
  vernal_mark(page[7]->text, n);
  CHECK(pread(in, page[8]->text, n, 0), n);
  CHECK(lseek(in, n, SEEK_SET), n);
  CHECK(read(in, page[9]->text, n), n);
  FILE *stream = fdopen(out, "r+");
  setvbuf(stream, NULL, _IONBF, 0);
  rewind(stream);
  CHECK(fwrite(page[10]->text, 1, n, stream), n);
  fflush(stream);
  CHECK(lseek(out, 0, SEEK_SET), 0);
  CHECK(fread(page[11]->text, 1, n, stream), n);
  CHECK(pwrite(out, t->large, LONG, 0), LONG);
  CHECK(vn_tx_commit(), 0);
  fclose(stream);
  if (vn_pool_close(pool) || vn_pool_close(original))
    fail(vernal_last_error());
}

static void check(const char *path) {
  vn_pool *pool = open_pool(path, 0);
  struct table *t = vn_root(pool, struct table);
  /* Which page's letter each page has now, at its beginning and at its end. */
  static const int first[CALLS] = {0, 1, 2, 3, 2, 3, 6, 6, 0, 1, 10, 10}, last[CALLS] = {0, 1, 2, 3, 4, 5, 6, 6, 0, 1, 10, 10};
  for (int i = 0; i < CALLS; i++) {
    struct page *p = t->page[i];
    if (p->self != p || p->text[0] != 'a' + first[i] || p->text[sizeof p->text - 1] != 'a' + last[i]) {
      fprintf(stderr, "page %d: %c, %c\n", i, p->text[0], p->text[sizeof p->text - 1]);
      exit(1);
    }
  }
  puts("every call had its memory");
  if (vn_pool_close(pool))
    fail(vernal_last_error());
}

int main(int argc, char **argv) {
  if (argc > 2 && strcmp(argv[1], "make") == 0)
    make(argv[2]);
  else if (argc > 3 && strcmp(argv[1], "use") == 0)
    use(argv[2], argv[3]);
  else if (argc > 2 && strcmp(argv[1], "check") == 0)
    check(argv[2]);
  else
    return 2;
  return 0;
}
