/* Handlers that believe what they read, in a sandbox; and a client that uses them, honestly and not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vernal_rpc.h>

enum { SUM = 1, COPY, LOADED, HIDDEN, CHANGE, CHANGED, HANG };

struct node {
  struct node *next;
  uint64_t value;
};

static uint64_t loaded, changed;
static const uint64_t *hidden;

static int sum(vn_rpc_call *call, void *arg) {
  uint64_t total = 0;
  (void)arg;
  for (const struct node *n = vn_rpc_argument(call); n; n = n->next) total += n->value;
  return vn_rpc_set_bytes(call, &total, sizeof total);
}

static void release(void *object, void *arg) {
  (void)arg;
  for (struct node *n = object, *next; n; n = next) {
    next = n->next;
    vn_free(n);
  }
}

static int copy(vn_rpc_call *call, void *arg) {
  struct node *first = NULL, **to = &first;
  (void)arg;
  for (const struct node *n = vn_rpc_argument(call); n; n = n->next) {
    struct node *made = vn_new(vn_rpc_reply_heap(call), struct node);
    if (!made) return vernal_last_error_code();
    made->value = n->value;
    *to = made;
    to = &made->next;
  }
  return vn_rpc_set_object(call, first, release, NULL);
}

/* Answers with the number that `arg` points to. */
static int tell(vn_rpc_call *call, void *arg) { return vn_rpc_set_bytes(call, arg, sizeof(uint64_t)); }

static int tell_hidden(vn_rpc_call *call, void *arg) {
  (void)arg;
  uint64_t value = *(const volatile uint64_t *)hidden;
  return vn_rpc_set_bytes(call, &value, sizeof value);
}

static int change(vn_rpc_call *call, void *arg) {
  (void)call, (void)arg;
  changed = 1;
  return 0;
}

static int hang(vn_rpc_call *call, void *arg) {
  (void)call, (void)arg;
  for (;;) changed++;
}

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, vernal_last_error());
  return 1;
}

static int serve(const char *name) {
  struct vn_rpc_options options = {
      .size = sizeof options, .flags = VN_RPC_PLAIN, .sandbox = VN_RPC_SANDBOX_PROCESS, .sandbox_ms = 60000};
  vn_rpc_channel *channel = vn_rpc_open(name, &options);
  if (!channel) return failed("open");
  uint64_t *page = aligned_alloc(4096, 4096);
  if (!page || vn_rpc_hide(page, 4096) < 0) return failed("hide");
  *page = 42;
  hidden = page;
  if (vn_rpc_hide(page, 100) >= 0) return failed("a part of a page was hidden");
  if (vn_rpc_serve_type(channel, SUM, vn_type_of(struct node), VN_RPC_BYTES, sum, NULL) < 0 ||
      vn_rpc_serve(channel, COPY, struct node, struct node, copy, NULL) < 0 ||
      vn_rpc_serve_type(channel, LOADED, VN_RPC_BYTES, VN_RPC_BYTES, tell, &loaded) < 0 ||
      vn_rpc_serve_type(channel, HIDDEN, VN_RPC_BYTES, VN_RPC_BYTES, tell_hidden, NULL) < 0 ||
      vn_rpc_serve_type(channel, CHANGE, VN_RPC_BYTES, VN_RPC_BYTES, change, NULL) < 0 ||
      vn_rpc_serve_type(channel, CHANGED, VN_RPC_BYTES, VN_RPC_BYTES, tell, &changed) < 0 ||
      vn_rpc_serve_type(channel, HANG, VN_RPC_BYTES, VN_RPC_BYTES, hang, NULL) < 0)
    return failed("serve");
  if (vn_rpc_prefork(channel) < 0) return failed("prefork");
  if (vn_rpc_prefork(channel) >= 0) return failed("two sandboxes");
  loaded = 7;
  puts("ready");
  fflush(stdout);
  return vn_rpc_run(channel) < 0 ? failed("run") : 0;
}

static vn_rpc_conn *conn;

static void ask(const char *what, uint32_t method, vn_rpc_arg arg, const struct vn_type *type, uint32_t timeout_ms) {
  vn_rpc_reply *reply = vn_rpc_call_type(conn, method, arg, type, timeout_ms);
  long long value = reply ? 0 : vernal_last_error_code();
  if (reply && type) {
    for (const struct node *n = vn_rpc_reply_object(reply); n; n = n->next) value += (long long)n->value;
  } else if (reply) {
    size_t len;
    const void *bytes = vn_rpc_reply_bytes(reply, &len);
    if (len == sizeof value) memcpy(&value, bytes, len);
  }
  printf("%s: %lld\n", what, value);
  vn_rpc_release(reply);
}

static int try_all(const char *name) {
  conn = vn_rpc_connect(name, NULL);
  if (!conn) return failed("connect");
  struct node *first = NULL;
  for (uint64_t n = 1; n <= 3; n++) {
    struct node *made = vn_new(vn_rpc_heap(conn), struct node);
    if (!made) return failed("a node");
    made->value = n;
    made->next = first;
    first = made;
  }
  vn_rpc_arg none = vn_rpc_bytes(NULL, 0);
  ask("a list", SUM, vn_rpc_object(first), VN_RPC_BYTES, 60000);
  struct node *next = first->next;
  first->next = (struct node *)8;
  ask("a wild pointer", SUM, vn_rpc_object(first), VN_RPC_BYTES, 60000);
  first->next = next;
  ask("a list again", SUM, vn_rpc_object(first), VN_RPC_BYTES, 60000);
  ask("a copy", COPY, vn_rpc_object(first), vn_type_of(struct node), 60000);
  ask("what was loaded since", LOADED, none, VN_RPC_BYTES, 60000);
  ask("what was hidden", HIDDEN, none, VN_RPC_BYTES, 60000);
  vn_rpc_release(vn_rpc_call_type(conn, CHANGE, none, VN_RPC_BYTES, 60000));
  /* The helper has it, and the server has it not: it is gone with the helper. */
  ask("what a handler has changed", CHANGED, none, VN_RPC_BYTES, 60000);
  ask("a loop", HANG, none, VN_RPC_BYTES, 300);
  ask("what is left of it", CHANGED, none, VN_RPC_BYTES, 60000);
  ask("a list at last", SUM, vn_rpc_object(first), VN_RPC_BYTES, 60000);
  vn_rpc_disconnect(conn);
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  return strcmp(argv[1], "serve") == 0 ? serve(argv[2]) : try_all(argv[2]);
}
