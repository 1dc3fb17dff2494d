/* A service in C: words that begin with a prefix, as a list of objects that the client reads in place.
 *
 *   vernal-cc -O2 words.c -o words
 *   ./words serve demo/words alpha beta beacon &
 *   ./words ask demo/words be
 */
#include <stdio.h>
#include <string.h>
#include <vernal_rpc.h>

enum { FIND = 1, STOP = 2 };

struct query {
  char *prefix;
  uint32_t limit;
};
struct entry {
  struct entry *next;
  char *word;
};
struct answer {
  uint32_t count;
  struct entry *first;
};

struct words {
  vn_rpc_channel *channel;
  char **list;
  int count;
};

static char *text(vn_pool *heap, const char *from) {
  char *to = vn_new_bytes(heap, strlen(from) + 1);
  return to ? strcpy(to, from) : NULL;
}

/* The client needs an answer no more. */
static void release(void *object, void *unused) {
  (void)unused;
  struct answer *a = object;
  for (struct entry *e = a->first, *next; e; e = next) {
    next = e->next;
    vn_free(e->word);
    vn_free(e);
  }
  vn_free(a);
}

static int find(vn_rpc_call *call, void *arg) {
  const struct words *words = arg;
  const struct query *q = vn_rpc_argument(call);
  if (!q->prefix || !*q->prefix) {
    vn_rpc_fail(call, 22, "a prefix has at least one character");
    return 22;
  }
  vn_pool *heap = vn_rpc_reply_heap(call);
  struct answer *a = heap ? vn_new(heap, struct answer) : NULL;
  if (!a) return vernal_last_error_code();
  for (int i = words->count; i-- > 0;) {
    if (strncmp(words->list[i], q->prefix, strlen(q->prefix)) != 0 || a->count == q->limit) continue;
    struct entry *e = vn_new(heap, struct entry);
    if (e) e->word = text(heap, words->list[i]);
    if (!e || !e->word) {
      release(a, NULL);
      vn_free(e);
      return vernal_last_error_code();
    }
    e->next = a->first;
    a->first = e;
    a->count++;
  }
  return vn_rpc_set_object(call, a, release, NULL);
}

static int stop(vn_rpc_call *call, void *arg) {
  const struct words *words = arg;
  (void)call;
  vn_rpc_shutdown(words->channel, 1000);
  return 0;
}

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, vernal_last_error());
  return 1;
}

static int serve(const char *name, char **list, int count) {
  struct words words = {vn_rpc_open(name, NULL), list, count};
  if (!words.channel) return failed("open");
  if (vn_rpc_serve(words.channel, FIND, struct query, struct answer, find, &words) < 0 ||
      vn_rpc_serve_type(words.channel, STOP, VN_RPC_BYTES, VN_RPC_BYTES, stop, &words) < 0)
    return failed("serve");
  puts("ready");
  fflush(stdout);
  int ran = vn_rpc_run(words.channel);
  vn_rpc_close(words.channel);
  return ran < 0 ? failed("run") : 0;
}

static int ask(const char *name, const char *prefix) {
  vn_rpc_conn *conn = vn_rpc_connect(name, NULL);
  if (!conn) return failed("connect");
  vn_pool *heap = vn_rpc_heap(conn);
  struct query *q = heap ? vn_new(heap, struct query) : NULL;
  if (!q || !(q->prefix = text(heap, prefix))) return failed("query");
  q->limit = 100;
  vn_rpc_reply *reply = vn_rpc_call(conn, FIND, vn_rpc_object(q), struct answer, 10000);
  if (!reply) {
    printf("refused: %s (%u)\n", vernal_last_error(), vn_rpc_remote_code());
    vn_rpc_disconnect(conn);
    return 0;
  }
  const struct answer *a = vn_rpc_reply_object(reply);
  printf("%u:", a->count);
  for (const struct entry *e = a->first; e; e = e->next) printf(" %s", e->word);
  printf("\n");
  vn_rpc_release(reply);
  vn_rpc_disconnect(conn);
  return 0;
}

static int end(const char *name) {
  vn_rpc_conn *conn = vn_rpc_connect(name, NULL);
  if (!conn) return failed("connect");
  vn_rpc_reply *reply = vn_rpc_call_type(conn, STOP, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, 10000);
  if (!reply) return failed("stop");
  vn_rpc_release(reply);
  vn_rpc_disconnect(conn);
  return 0;
}

int main(int argc, char **argv) {
  if (argc >= 3 && !strcmp(argv[1], "serve")) return serve(argv[2], argv + 3, argc - 3);
  if (argc == 4 && !strcmp(argv[1], "ask")) return ask(argv[2], argv[3]);
  if (argc == 3 && !strcmp(argv[1], "stop")) return end(argv[2]);
  fprintf(stderr, "words serve NAME WORD... | words ask NAME PREFIX | words stop NAME\n");
  return 2;
}
