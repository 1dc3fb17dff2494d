/* A client of words.c that passes what no honest one would. Each line says how it was answered. */
#include <stdio.h>
#include <string.h>
#include <vernal_rpc.h>

struct query {
  char *prefix;
  uint32_t limit;
};

static vn_rpc_conn *conn;

static void ask(const char *what, struct query *q) {
  vn_rpc_reply *reply = vn_rpc_call_type(conn, 1, vn_rpc_object(q), VN_RPC_BYTES, 10000);
  printf("%s: %d\n", what, reply ? 0 : vernal_last_error_code());
  vn_rpc_release(reply);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  conn = vn_rpc_connect(argv[1], NULL);
  if (!conn) return fprintf(stderr, "%s\n", vernal_last_error()), 1;
  vn_pool *heap = vn_rpc_heap(conn);
  struct query *q = vn_new(heap, struct query);
  char *text = vn_new_bytes(heap, 16);
  if (!q || !text) return fprintf(stderr, "%s\n", vernal_last_error()), 1;
  static char outside[] = "be";
  q->limit = 10;
  q->prefix = (char *)8;
  ask("a wild pointer", q);
  q->prefix = outside;
  ask("memory of the client", q);
  q->prefix = (char *)(void *)q + (1 << 20);
  ask("free memory", q);
  memset(text, 'b', 16);
  q->prefix = text;
  ask("a text without end", q);
  vn_rpc_reply *reply = vn_rpc_call_type(conn, 1, vn_rpc_bytes("be", 3), VN_RPC_BYTES, 10000);
  printf("bytes for an object: %d\n", reply ? 0 : vernal_last_error_code());
  reply = vn_rpc_call_type(conn, 1, vn_rpc_object(text), VN_RPC_BYTES, 10000);
  printf("an object without type: %d\n", reply ? 0 : vernal_last_error_code());
  reply = vn_rpc_call_type(conn, 1, vn_rpc_object(outside), VN_RPC_BYTES, 10000);
  printf("no object: %d\n", reply ? 0 : vernal_last_error_code());
  reply = vn_rpc_call_type(conn, 77, vn_rpc_bytes(NULL, 0), VN_RPC_BYTES, 10000);
  printf("no method: %d\n", reply ? 0 : vernal_last_error_code());
  text[8] = 0;
  q->prefix = text;
  /* The reply is an object, and this client has asked for bytes. */
  ask("an honest one", q);
  vn_rpc_disconnect(conn);
  return 0;
}
