/* What the examples do not use of the C interface: streams, calls that nobody waits for, event loops, the heap of the channel, threads for
 * handlers. One process serves, another one calls; each prints what went wrong and ends with 1.
 *
 *   calls serve NAME THREADS
 *   calls use NAME
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vernal_rpc.h>

enum { STREAM = 1, LINGER, LINGERS, CANCELLED, TABLE, MEET, ENDLESS, STOP };
enum { PATIENCE = 60000, ITEMS = 500, WORDS = 300, CALLERS = 3 };

struct item {
  uint64_t number;
  struct item *self;
};
struct table {
  uint64_t count;
  struct item *items[WORDS];
};

static vn_rpc_channel *channel;
static struct table *shared;
static atomic_uint lingers, cancelled, met, released;
static unsigned threads;

static int complain(const char *what, int line) {
  fprintf(stderr, "calls.c:%d: %s: %s (%d)\n", line, what, vernal_last_error(), vernal_last_error_code());
  return 1;
}
#define MUST(condition) \
  do { \
    if (!(condition)) exit(complain(#condition, __LINE__)); \
  } while (0)

static void nap(void) {
  struct timespec ms = {0, 1000000};
  nanosleep(&ms, NULL);
}

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- Server ---- */

static uint64_t number(const vn_rpc_call *call) {
  size_t len;
  uint64_t n = 0;
  const void *bytes = vn_rpc_argument_bytes(call, &len);
  if (bytes && len == sizeof n) memcpy(&n, bytes, sizeof n);
  return n;
}

static void release(void *object, void *unused) {
  (void)unused;
  vn_free(object);
  atomic_fetch_add(&released, 1);
}

/* As many objects as asked for, one item each. */
static int stream(vn_rpc_call *call, void *arg) {
  (void)arg;
  uint64_t count = number(call);
  for (uint64_t n = 0; n < count; n++) {
    struct item *i = vn_new(vn_rpc_reply_heap(call), struct item);
    if (!i) return vernal_last_error_code();
    i->number = n;
    i->self = i;
    int sent = vn_rpc_set_object(call, i, release, NULL);
    if (sent == 0) sent = vn_rpc_send_item(call);
    if (sent < 0) return sent;
  }
  return 0;
}

/* Items until nobody takes them. */
static int endless(vn_rpc_call *call, void *arg) {
  (void)arg;
  for (;;) {
    uint64_t n = 7;
    int sent = vn_rpc_set_bytes(call, &n, sizeof n);
    if (sent == 0) sent = vn_rpc_send_item(call);
    if (sent < 0) break;
  }
  atomic_fetch_add(&cancelled, 1);
  return 0;
}

static int linger(vn_rpc_call *call, void *arg) {
  (void)arg;
  atomic_fetch_add(&lingers, 1);
  uint64_t until = now_ms() + PATIENCE;
  while (!vn_rpc_is_cancelled(call) && now_ms() < until) nap();
  atomic_fetch_add(&cancelled, 1);
  return 0;
}

static int count_of(vn_rpc_call *call, void *arg) {
  uint64_t n = atomic_load((atomic_uint *)arg);
  return vn_rpc_set_bytes(call, &n, sizeof n);
}

static int table(vn_rpc_call *call, void *arg) {
  (void)arg;
  return vn_rpc_set_shared(call, shared);
}

/* Returns when as many calls are here at once as there are threads. */
static int meet(vn_rpc_call *call, void *arg) {
  (void)arg;
  atomic_fetch_add(&met, 1);
  uint64_t until = now_ms() + PATIENCE;
  while (atomic_load(&met) < threads) {
    if (now_ms() > until) return vn_rpc_fail(call, 5, "the others do not come"), 5;
    nap();
  }
  return vn_rpc_set_bytes(call, "met", 3);
}

static int stop(vn_rpc_call *call, void *arg) {
  (void)call;
  (void)arg;
  vn_rpc_shutdown(channel, 1000);
  return 0;
}

static int serve(const char *name, unsigned count) {
  threads = count;
  struct vn_rpc_options options = {.size = sizeof options, .threads = threads};
  MUST(channel = vn_rpc_open(name, &options));
  vn_pool *heap = vn_rpc_shared_heap(channel);
  MUST(heap && (shared = vn_new(heap, struct table)));
  for (uint64_t i = 0; i < WORDS; i++) {
    MUST(shared->items[i] = vn_new(heap, struct item));
    shared->items[i]->number = i * i;
    shared->items[i]->self = shared->items[i];
  }
  shared->count = WORDS;
  MUST(vn_rpc_serve_type(channel, STREAM, VN_RPC_BYTES, vn_type_of(struct item), stream, NULL) == 0);
  MUST(vn_rpc_serve_type(channel, ENDLESS, VN_RPC_BYTES, VN_RPC_BYTES, endless, NULL) == 0);
  MUST(vn_rpc_serve_type(channel, LINGER, VN_RPC_BYTES, VN_RPC_BYTES, linger, NULL) == 0);
  MUST(vn_rpc_serve_type(channel, LINGERS, VN_RPC_BYTES, VN_RPC_BYTES, count_of, &lingers) == 0);
  MUST(vn_rpc_serve_type(channel, CANCELLED, VN_RPC_BYTES, VN_RPC_BYTES, count_of, &cancelled) == 0);
  MUST(vn_rpc_serve_type(channel, TABLE, VN_RPC_BYTES, vn_type_of(struct table), table, NULL) == 0);
  MUST(vn_rpc_serve_type(channel, MEET, VN_RPC_BYTES, VN_RPC_BYTES, meet, NULL) == 0);
  MUST(vn_rpc_serve_type(channel, STOP, VN_RPC_BYTES, VN_RPC_BYTES, stop, NULL) == 0);
  puts("ready");
  fflush(stdout);
  MUST(vn_rpc_run(channel) == 0);
  vn_rpc_close(channel);
  /* Whatever the client held, it holds no more. */
  MUST(atomic_load(&released) == ITEMS);
  return 0;
}

/* ---- Client ---- */

static void streams(const vn_rpc_conn *conn) {
  uint64_t count = ITEMS;
  vn_rpc_stream *s = vn_rpc_stream_type(conn, STREAM, vn_rpc_bytes(&count, sizeof count), vn_type_of(struct item), PATIENCE);
  MUST(s);
  uint64_t seen = 0;
  for (vn_rpc_reply *item; (item = vn_rpc_next(s)); seen++) {
    const struct item *i = vn_rpc_reply_object(item);
    MUST(i && i->number == seen && i->self == i && vn_rpc_reply_passed(item) == VN_RPC_PASSED_COPIED);
    vn_rpc_release(item);
  }
  MUST(vernal_last_error_code() == 0 && seen == ITEMS);
  vn_rpc_stream_close(s);
  /* One that is given up: its handler hears of it. */
  MUST(s = vn_rpc_stream_type(conn, ENDLESS, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, PATIENCE));
  for (int i = 0; i < 100; i++) {
    vn_rpc_reply *item = vn_rpc_next(s);
    MUST(item);
    vn_rpc_release(item);
  }
  vn_rpc_stream_close(s);
}

static uint64_t asked(const vn_rpc_conn *conn, uint32_t method) {
  vn_rpc_reply *reply = vn_rpc_call_type(conn, method, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, PATIENCE);
  MUST(reply);
  size_t len;
  uint64_t n = 0;
  const void *bytes = vn_rpc_reply_bytes(reply, &len);
  MUST(bytes && len == sizeof n);
  memcpy(&n, bytes, sizeof n);
  vn_rpc_release(reply);
  return n;
}

static void wake(void *arg) { atomic_fetch_add((atomic_uint *)arg, 1); }

static void event_loops(const vn_rpc_conn *conn) {
  static atomic_uint woken;
  vn_rpc_pending *pending = vn_rpc_start_type(conn, CANCELLED, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, PATIENCE);
  MUST(pending);
  vn_rpc_reply *reply = NULL;
  uint64_t until = now_ms() + PATIENCE;
  for (;;) {
    unsigned before = atomic_load(&woken);
    int there = vn_rpc_poll(pending, wake, &woken, &reply);
    MUST(there >= 0);
    if (there == 1) break;
    while (atomic_load(&woken) == before) {
      MUST(now_ms() < until);
      nap();
    }
  }
  MUST(reply);
  vn_rpc_release(reply);
  vn_rpc_cancel(pending);
  /* Without a loop. */
  MUST(pending = vn_rpc_start_type(conn, CANCELLED, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, PATIENCE));
  while (!vn_rpc_is_ready(pending)) {
    MUST(now_ms() < until);
    nap();
  }
  MUST(reply = vn_rpc_wait(pending));
  vn_rpc_release(reply);
}

/* Waits until the server counts so many, or more. */
static void comes_to(const vn_rpc_conn *conn, uint32_t method, uint64_t count) {
  uint64_t until = now_ms() + PATIENCE;
  while (asked(conn, method) < count) {
    MUST(now_ms() < until);
    nap();
  }
}

/* A call that is given up: its handler hears of it, and so it does of one whose time is over. A call that is given up, or over, before its
 * handler begins has none. */
static void given_up(const vn_rpc_conn *conn, uint64_t streams_given_up) {
  vn_rpc_pending *pending = vn_rpc_start_type(conn, LINGER, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, PATIENCE);
  MUST(pending && !vn_rpc_is_ready(pending));
  comes_to(conn, LINGERS, 1);
  vn_rpc_cancel(pending);
  comes_to(conn, CANCELLED, streams_given_up + 1);
  for (unsigned ms = 20; asked(conn, LINGERS) == 1; ms *= 2) {
    MUST(ms < PATIENCE);
    MUST(!vn_rpc_call_type(conn, LINGER, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, ms));
    MUST(vernal_last_error_code() == VERNAL_EDEADLINE);
  }
  comes_to(conn, CANCELLED, streams_given_up + 2);
}

static void shared_heap(const vn_rpc_conn *conn) {
  vn_rpc_reply *reply = vn_rpc_call(conn, TABLE, vn_rpc_bytes(NULL, 0), struct table, PATIENCE);
  MUST(reply);
  const struct table *t = vn_rpc_reply_object(reply);
  MUST(t && t->count == WORDS);
  for (uint64_t i = 0; i < WORDS; i++) MUST(t->items[i]->number == i * i && t->items[i]->self == t->items[i]);
  vn_rpc_release(reply);
}

/* Handlers that wait for each other: they run at once. */
static void threads_at_once(const vn_rpc_conn *conn) {
  vn_rpc_pending *calls[CALLERS];
  for (int i = 0; i < CALLERS; i++)
    MUST(calls[i] = vn_rpc_start_type(conn, MEET, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, PATIENCE));
  for (int i = 0; i < CALLERS; i++) {
    vn_rpc_reply *reply = vn_rpc_wait(calls[i]);
    MUST(reply);
    vn_rpc_release(reply);
  }
}

static int use(const char *name) {
  vn_rpc_conn *conn = vn_rpc_connect(name, NULL);
  MUST(conn && vn_rpc_is_open(conn) == 1);
  streams(conn);
  event_loops(conn);
  shared_heap(conn);
  threads_at_once(conn);
  given_up(conn, 1);
  vn_rpc_reply *reply = vn_rpc_call_type(conn, STOP, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, PATIENCE);
  MUST(reply);
  vn_rpc_release(reply);
  vn_rpc_disconnect(conn);
  puts("all is well");
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 4 && !strcmp(argv[1], "serve")) return serve(argv[2], (unsigned)atoi(argv[3]));
  if (argc == 3 && !strcmp(argv[1], "use")) return use(argv[2]);
  fprintf(stderr, "calls serve NAME THREADS | calls use NAME\n");
  return 2;
}
