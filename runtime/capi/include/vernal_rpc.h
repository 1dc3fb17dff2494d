/* vernal_rpc.h - remote procedure calls that pass pointers, for programs compiled with vernal-cc.
 *
 * A server opens a channel and serves methods; a client connects and calls. Arguments and replies are objects of heaps that
 * both sides see at the same addresses, and that one side may write: what a pointer means needs no translation. A receiver
 * that does not trust its peer (the default) gets a graph that was verified: every pointer in it leads to an object of the
 * type that it is declared with, every length stays inside its object, every C string ends.
 *
 * Thread-safety: connections and channels may be used by any thread; calls, replies, streams and pending calls by one at a
 * time. None of this may be called from a signal handler, or in a child of fork.
 * Errors: NULL or a negative value below; the text is vernal_last_error(), the number vernal_last_error_code().
 */
#ifndef VERNAL_RPC_H
#define VERNAL_RPC_H
#include "vernal_pool.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Further values of vernal_error. */
#define VERNAL_EDIED (-20)       /* the peer's process has ended: connect again */
#define VERNAL_ECLOSED (-21)     /* this side has closed the connection */
#define VERNAL_EDEADLINE (-22)   /* the call took too long */
#define VERNAL_EREMOTE (-23)     /* the call failed on the other side; vn_rpc_remote_code() has its own number, if it has one */
#define VERNAL_EUNVERIFIED (-24) /* what the peer passed is not a sound graph of the expected type */
#define VERNAL_EPROTOCOL (-25)   /* the peer broke the protocol; the connection is closed */
#define VERNAL_EREGISTRY (-26)   /* puddled refused, or does not run */

typedef struct vn_rpc_channel vn_rpc_channel; /* what a server has open */
typedef struct vn_rpc_call vn_rpc_call;       /* a call, for its handler */
typedef struct vn_rpc_conn vn_rpc_conn;       /* a client's connection */
typedef struct vn_rpc_pending vn_rpc_pending; /* a call that is under way */
typedef struct vn_rpc_stream vn_rpc_stream;   /* a reply in many items */
typedef struct vn_rpc_reply vn_rpc_reply;     /* a reply, or an item of a stream; keeps its object alive */

/* Flags of options. */
#define VN_RPC_PLAIN 1u /* use the peer's pointers unchecked: only between processes that could harm each other anyway */
#define VN_RPC_SPIN 2u  /* poll without end: for a core of its own */
#define VN_RPC_BLOCK 4u /* sleep at once: for sides that share a core, or are called rarely */

/* How a channel is opened or a connection made. NULL, or 0 in a field: the usual value. */
struct vn_rpc_options {
  uint32_t size; /* sizeof(struct vn_rpc_options) */
  uint32_t flags;
  uint32_t mode;        /* channels: who may connect, as the mode of a file; both bits of a class; usually 0666 */
  uint32_t threads;     /* channels: threads that run handlers; 0: the thread that polls does, which suits short ones */
  uint32_t slots;       /* calls under way at once; a power of two, usually 256 */
  uint32_t timeout_ms;  /* connections: how long connecting may take, usually 10 s */
  uint64_t max_bytes;   /* of one graph that a peer passes */
  uint64_t max_objects; /* likewise */
  uint32_t sandbox;       /* channels: where handlers run; 0: in the server */
  uint32_t sandbox_ms;    /* how long a call may take in a sandbox, usually 1 s; then its helper is killed, and the caller gets an error */
  uint64_t sandbox_bytes; /* memory that a handler may take there, usually 256 MiB */
};
/* Each client's handlers run in a process of its own, which can reach next to nothing: what an argument does to a handler ends
 * that process, or stays in it. Handlers see the server's memory as it was at vn_rpc_prefork, cannot change it, open nothing,
 * and reply with bytes, objects of vn_rpc_reply_heap or streams of these. With VN_RPC_PLAIN they read the client's memory in
 * place. For clients on this host. docs/trust.md says what it closes. */
#define VN_RPC_SANDBOX_PROCESS 1u

/* The type T as libvernal knows it: what a method takes and gives. For the compiler it is an allocation, which is never made. */
#define vn_type_of(T) ((const struct vn_type *)(const void *)vn_new((vn_pool *)~(uintptr_t)0, T))
/* A method takes or gives plain bytes. */
#define VN_RPC_BYTES ((const struct vn_type *)0)

/* What is passed: an object of the heap that this side passes objects from, or at most 4096 plain bytes. */
typedef struct {
  const void *object;
  const void *bytes;
  size_t len;
} vn_rpc_arg;
static inline vn_rpc_arg vn_rpc_object(const void *object) {
  vn_rpc_arg arg = {object, 0, 0};
  return arg;
}
static inline vn_rpc_arg vn_rpc_bytes(const void *bytes, size_t len) {
  vn_rpc_arg arg = {0, bytes, len};
  return arg;
}

/* How something got here. */
#define VN_RPC_PASSED_INLINE 0 /* plain bytes */
#define VN_RPC_PASSED_COPIED 1 /* copied and verified on the way */
#define VN_RPC_PASSED_PLAIN 2  /* in place, unchecked: VN_RPC_PLAIN */

/* ---- Servers ---- */

/* Opens the channel `name`: parts of letters, digits, '.', '_' and '-', with '/' between them. One server has a name at a time. */
vn_rpc_channel *vn_rpc_open(const char *name, const struct vn_rpc_options *options);
/* Returns 0, a code of the application (> 0), or a vernal_error. `call` is valid until it returns. No C++ exception may leave
 * it. */
typedef int (*vn_rpc_handler)(vn_rpc_call *call, void *arg);
/* Serves a method that takes `argument` and gives `reply`: vn_type_of(T) or VN_RPC_BYTES. */
int vn_rpc_serve_type(vn_rpc_channel *channel, uint32_t method, const struct vn_type *argument, const struct vn_type *reply,
                      vn_rpc_handler handler, void *arg);
#define vn_rpc_serve(channel, method, Argument, Reply, handler, arg) \
  vn_rpc_serve_type((channel), (method), vn_type_of(Argument), vn_type_of(Reply), (handler), (arg))
/* The same, for languages that own what `arg` points to: drop(arg) is called once, when no thread runs the handler and none will;
 * also if this fails. */
int vn_rpc_serve_owned(vn_rpc_channel *channel, uint32_t method, const struct vn_type *argument, const struct vn_type *reply,
                       vn_rpc_handler handler, void *arg, void (*drop)(void *arg));
/* Takes clients over TCP, too, at `at`: "127.0.0.1:7000", port 0 for any. What they connect to is written to `address`, if it is
 * not NULL. With a token of 1 to 256 bytes nobody connects without it. The channel's mode does not apply: see docs/trust.md. */
int vn_rpc_listen_tcp(vn_rpc_channel *channel, const char *at, const void *token, size_t token_len, char *address, size_t room);
/* Makes the sandbox of a channel that was opened with one; vn_rpc_run does if nobody has. Call it when all methods are served, before
 * other threads run and before keys and other people's data are loaded: what is there already is in the sandbox, too. */
int vn_rpc_prefork(vn_rpc_channel *channel);
/* Keeps whole pages out of sandboxes that are made from now on, and of all other children. Who touches them there ends. */
int vn_rpc_hide(const void *memory, size_t len);
/* Serves clients on this thread, until vn_rpc_shutdown. */
int vn_rpc_run(vn_rpc_channel *channel);
/* From any thread or handler: new calls are refused, those that run may end within `grace_ms`; then vn_rpc_run returns. */
void vn_rpc_shutdown(vn_rpc_channel *channel, uint32_t grace_ms);
/* After vn_rpc_run has returned. */
void vn_rpc_close(vn_rpc_channel *channel);
/* The heap that all clients of the channel may read. What a client may be reading must not be freed. */
vn_pool *vn_rpc_shared_heap(vn_rpc_channel *channel);

/* In a handler. The argument is const, and gone when the handler returns: vn_copy keeps what is to stay. */
const void *vn_rpc_argument(const vn_rpc_call *call);
const void *vn_rpc_argument_bytes(const vn_rpc_call *call, size_t *len);
int vn_rpc_argument_passed(const vn_rpc_call *call);
int64_t vn_rpc_caller_uid(const vn_rpc_call *call); /* as the kernel says; -1: on another host */
int64_t vn_rpc_caller_gid(const vn_rpc_call *call);
int64_t vn_rpc_caller_pid(const vn_rpc_call *call);
int64_t vn_rpc_time_left(const vn_rpc_call *call);  /* nanoseconds until the caller gives up; -1: it has no deadline */
int vn_rpc_is_cancelled(vn_rpc_call *call);         /* nobody waits for the reply any more */
/* The heap that objects of replies to this client come from. */
vn_pool *vn_rpc_reply_heap(const vn_rpc_call *call);
/* The reply; the last one counts. An object of the reply heap: release(object, arg) is called once, when the client needs it
 * no more or is gone; NULL: vn_free, for an object that owns no others. From then on nobody reads it. */
int vn_rpc_set_object(vn_rpc_call *call, void *object, void (*release)(void *object, void *arg), void *arg);
int vn_rpc_set_shared(vn_rpc_call *call, const void *object); /* of the shared heap: it stays */
int vn_rpc_set_bytes(vn_rpc_call *call, const void *bytes, size_t len);
/* Sends what was set as an item of a stream, and waits while the client has enough before it. The stream ends when the handler
 * returns 0 without having set anything more. */
int vn_rpc_send_item(vn_rpc_call *call);
/* The answer is a stream, also if no item is sent: a handler that returns 0 and has done neither answers with no bytes. */
void vn_rpc_is_stream(vn_rpc_call *call);
/* Fails the call with a code of the application and a text. */
int vn_rpc_fail(vn_rpc_call *call, uint32_t code, const char *text);
/* What kind of failure a call ended with. */
#define VN_RPC_UNKNOWN_METHOD 1
#define VN_RPC_BAD_ARGUMENT 2
#define VN_RPC_CANCELLED 4
#define VN_RPC_SHUTTING_DOWN 5
#define VN_RPC_BUSY 6
#define VN_RPC_INTERNAL 7
#define VN_RPC_APPLICATION 8 /* it has a code of the application */
/* Fails the call with one of these but the last, and a text. */
int vn_rpc_fail_as(vn_rpc_call *call, uint32_t kind, const char *text);

/* ---- Clients ---- */

/* Connects to the server that has the name, or to tcp://host:port/name on another host. */
vn_rpc_conn *vn_rpc_connect(const char *name, const struct vn_rpc_options *options);
/* The same, to a server that listens with a token. */
vn_rpc_conn *vn_rpc_connect_with_token(const char *name, const void *token, size_t token_len, const struct vn_rpc_options *options);
/* Who serves, as the kernel says; -1: on another host. */
int64_t vn_rpc_server_uid(const vn_rpc_conn *conn);
int64_t vn_rpc_server_gid(const vn_rpc_conn *conn);
int64_t vn_rpc_server_pid(const vn_rpc_conn *conn);
/* Ends the connection when its last reply, stream and pending call is released, too. */
void vn_rpc_disconnect(vn_rpc_conn *conn);
int vn_rpc_is_open(const vn_rpc_conn *conn);
/* The heap that arguments come from. It goes with the connection. What was passed must stay as it is until the reply is there. */
vn_pool *vn_rpc_heap(const vn_rpc_conn *conn);

/* Calls a method and waits for its reply, of type `reply`. timeout_ms 0: as long as the server lives. */
vn_rpc_reply *vn_rpc_call_type(const vn_rpc_conn *conn, uint32_t method, vn_rpc_arg arg, const struct vn_type *reply, uint32_t timeout_ms);
#define vn_rpc_call(conn, method, arg, Reply, timeout_ms) \
  vn_rpc_call_type((conn), (method), (arg), vn_type_of(Reply), (timeout_ms))
const void *vn_rpc_reply_object(const vn_rpc_reply *reply); /* NULL: it is bytes */
const void *vn_rpc_reply_bytes(const vn_rpc_reply *reply, size_t *len);
int vn_rpc_reply_passed(const vn_rpc_reply *reply);
/* Nothing of the reply is read any more. NULL is allowed. */
void vn_rpc_release(vn_rpc_reply *reply);
/* The number that the handler failed with; 0: the last failure of this thread was another one. */
uint32_t vn_rpc_remote_code(void);
/* What kind it was, VN_RPC_UNKNOWN_METHOD to VN_RPC_APPLICATION, and its text, until the next failure. */
uint32_t vn_rpc_remote_kind(void);
const char *vn_rpc_remote_text(void);

/* Calls and does not wait; as many calls as there are slots may be under way. */
vn_rpc_pending *vn_rpc_start_type(const vn_rpc_conn *conn, uint32_t method, vn_rpc_arg arg, const struct vn_type *reply, uint32_t timeout_ms);
#define vn_rpc_start(conn, method, arg, Reply, timeout_ms) \
  vn_rpc_start_type((conn), (method), (arg), vn_type_of(Reply), (timeout_ms))
vn_rpc_reply *vn_rpc_wait(vn_rpc_pending *pending); /* frees it */
int vn_rpc_is_ready(const vn_rpc_pending *pending);
void vn_rpc_cancel(vn_rpc_pending *pending); /* frees it; the server is told */
/* For event loops. 1: `*reply` is there. 0: not yet, wake(arg) is called once when it may be. Negative: it failed. After 1 or an
 * error only vn_rpc_cancel is left. */
int vn_rpc_poll(vn_rpc_pending *pending, void (*wake)(void *arg), void *arg, vn_rpc_reply **reply);
/* The same, for languages that own what `arg` points to: drop(arg) is called once, when nothing will call wake(arg) any more. That
 * may be after vn_rpc_cancel. */
int vn_rpc_poll_owned(vn_rpc_pending *pending, void (*wake)(void *arg), void (*drop)(void *arg), void *arg, vn_rpc_reply **reply);

/* A method that answers with a stream. */
vn_rpc_stream *vn_rpc_stream_type(const vn_rpc_conn *conn, uint32_t method, vn_rpc_arg arg, const struct vn_type *item, uint32_t timeout_ms);
/* The next item. NULL with vernal_last_error_code() 0: the stream has ended well. */
vn_rpc_reply *vn_rpc_next(vn_rpc_stream *stream);
/* The next item, without waiting, as vn_rpc_poll_owned; 2: the stream has ended well. */
int vn_rpc_poll_next(vn_rpc_stream *stream, void (*wake)(void *arg), void (*drop)(void *arg), void *arg, vn_rpc_reply **reply);
void vn_rpc_stream_close(vn_rpc_stream *stream);

#ifdef __cplusplus
}
#endif
#endif
