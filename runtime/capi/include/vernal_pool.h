/* vernal_pool.h - pools of typed, persistent, relocatable objects for programs compiled with vernal-cc.
 *
 * A pool is opened, its objects are reached by ordinary pointers, and inside a transaction plain assignments are enough.
 * Thread-safety: every function may be called from any thread, none from a signal handler.
 * Errors: NULL or a negative vernal_error of vernal.h; the text is vernal_last_error().
 */
#ifndef VERNAL_POOL_H
#define VERNAL_POOL_H
#include <stddef.h>
#include <stdint.h>
#include "vernal.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Further values of vernal_error. */
#define VERNAL_ECONFLICT (-10)   /* rolled back together with an abort in another thread: run the transaction again */
#define VERNAL_ETYPE (-11)       /* a type is unknown, refused, or differs from the one in the pool */
#define VERNAL_EABORTED (-12)    /* the transaction was aborted */
#define VERNAL_EQUARANTINE (-13) /* puddled holds the pool back; `vernal pool accept` releases it */
#define VERNAL_EACCES (-14)      /* the pool may not be used this way */

typedef struct vn_pool vn_pool;
struct vn_type;

/* Flags of vn_pool_open. */
#define VN_CREATE 1u   /* make the pool when there is none */
#define VN_DIRECT 2u   /* a new pool is changed in place (byte-addressable media); see the how-to on direct pools */
#define VN_READONLY 4u /* read a committed image; no other process writes to it meanwhile */
#define VN_EXCL 8u     /* with VN_CREATE: fail when the pool exists */

/* Opens a pool, recovering it first if its last writer died. A name with a '/' is the directory of an embedded pool, any
 * other one a pool of puddled. The same pool may be opened once per process. */
vn_pool *vn_pool_open(const char *name, unsigned flags);
/* Commits what is uncommitted and closes the pool; its objects are gone from memory. An error inside a transaction. */
int vn_pool_close(vn_pool *pool);
/* The pool that holds `obj`; NULL when none does. */
vn_pool *vn_pool_of(const void *obj);

/* Under vernal-cc these carry the type of the object: the compiler fills in the last argument. */
#if defined(__has_declspec_attribute)
#if __has_declspec_attribute(allocator)
#define VN_ALLOCATOR_ __declspec(allocator)
#endif
#endif
#ifndef VN_ALLOCATOR_
#define VN_ALLOCATOR_
#endif
VN_ALLOCATOR_ void *__vn_new(vn_pool *pool, size_t bytes, const struct vn_type *type);
VN_ALLOCATOR_ void *__vn_root(vn_pool *pool, size_t bytes, const struct vn_type *type);
/* The same for callers that bring the type themselves. */
void *__vn_new_typed(vn_pool *pool, size_t bytes, const struct vn_type *type);
void *__vn_root_typed(vn_pool *pool, size_t bytes, const struct vn_type *type);
/* Bytes without any pointer: text, numbers, pixels. */
void *vn_new_bytes(vn_pool *pool, size_t bytes);

/* `count` elements of `each` bytes after `head`; SIZE_MAX, which no pool can hold, when that overflows. */
static inline size_t vn_size_(size_t head, size_t count, size_t each) {
  size_t body;
  return __builtin_mul_overflow(count, each, &body) || __builtin_add_overflow(head, body, &body) ? SIZE_MAX : body;
}

/* Annotations, for members whose types do not say where pointers are: declarations beside the member, without a place in
 * the object. In C they stand behind all members that are initialised by position.
 *   struct value { int kind; union { long number; char *text; } u; uintptr_t link; VN_ACTIVE(text); VN_TAGGED(link); };
 * VN_ACTIVE(m): a union here that has a member `m` holds that one, or something that is no address in the pool.
 * VN_OPAQUE(m): `m` holds no pointer into the pool.  VN_TAGGED(m): `m` is a pointer whose low three bits may be set. */
#ifdef __cplusplus
#define VN_NOTE_(what, member) static const char vernal_##what##_##member
#else
#define VN_NOTE_(what, member) __extension__ char vernal_##what##_##member[0]
#endif
#define VN_ACTIVE(member) VN_NOTE_(active, member)
#define VN_OPAQUE(member) VN_NOTE_(opaque, member)
#define VN_TAGGED(member) VN_NOTE_(tagged, member)

/* A zeroed object; an array; an object with `extra` bytes of flexible array behind it. */
#define vn_new(pool, T) VN_TYPED_(T, __vn_new((pool), sizeof(T), 0))
#define vn_new_array(pool, T, n) VN_TYPED_(T, __vn_new((pool), vn_size_(0, (n), sizeof(T)), 0))
#define vn_new_flex(pool, T, extra) VN_TYPED_(T, __vn_new((pool), vn_size_(sizeof(T), (extra), 1), 0))
/* A statement, because clang takes the type from the last cast of a call: a caller's cast of the result must not count. */
#define VN_TYPED_(T, call) (__extension__({ T *vn_typed_ = (T *)call; vn_typed_; }))
/* Frees an object of any open pool; NULL is allowed. Anything else is an error, reported by vernal_last_error(). */
int vn_free(void *obj);
/* Changes the size of an object; it may move. New bytes are zero. */
void *vn_realloc(void *obj, size_t bytes);
/* Copies `object`, which lies in another pool or the same one, and everything that can be reached from it inside its pool, into
 * the pool `to`, in the open transaction. What is shared or goes round in a circle does so in the copy; pointers out of the
 * object's pool are kept as they are. Returns the copy of `object`, or NULL: then nothing was copied. */
void *vn_copy(vn_pool *to, const void *object);
/* Bytes that the object has; 0 when there is no object at `obj`. */
size_t vn_usable_size(const void *obj);

/* The root object, allocated zeroed at first. */
#define vn_root(pool, T) VN_TYPED_(T, __vn_root((pool), sizeof(T), 0))
void *vn_get_root(vn_pool *pool);
int vn_set_root(vn_pool *pool, void *obj);

/* Transactions. They nest, and span every open pool; the outermost commit makes all of it durable with one flush. An abort
 * at any level rolls the whole transaction back when the outermost level ends. */
int vn_tx_begin(void);
int vn_tx_commit(void);
int vn_tx_abort(void);
/* Commits atomically now and durably later: a ticket for vernal_wait(), 0 at an inner level, or a negative error. */
int64_t vn_tx_commit_async(void);
int vn_tx_depth(void);
/* How the last transaction of this thread ended: 0, or a vernal_error. */
int vn_tx_result(void);

/* VN_TX { ... } runs the block once, in a transaction. Leaving it in any way commits it, unless vn_tx_abort() was called
 * inside. vn_tx_result() tells how it ended; on VERNAL_ECONFLICT run it again. */
int __vn_tx_enter(void);
void __vn_tx_leave(int *entered);
#define VN_TX \
  for (int vn_tx_entered_ __attribute__((cleanup(__vn_tx_leave))) = __vn_tx_enter(), vn_tx_once_ = vn_tx_entered_; \
       vn_tx_once_; vn_tx_once_ = 0)

/* Before a change of [p, p + n): a direct pool logs the old bytes. Buffered pools know of stores already. */
int vn_tx_add(const void *p, size_t n);
#define VN_TX_ADD(p) vn_tx_add((p), sizeof *(p))
/* Changes [p, p + n) to `value`: a direct pool logs the new bytes and applies them at commit. */
int vn_tx_set(void *p, const void *value, size_t n);
#define VN_TX_SET(lvalue, value) \
  __extension__({ \
    __typeof__(lvalue) vn_tx_value_ = (value); \
    vn_tx_set(&(lvalue), &vn_tx_value_, sizeof vn_tx_value_); \
  })
/* Calls fn(arg) after a rollback of the running transaction, last registered first: for what lies outside of pools. */
int vn_tx_on_abort(void (*fn)(void *), void *arg);

/* Before the pool is opened: objects of the type `type_name` whose layout in the pool differs from the program's are
 * moved to new ones, which fn fills from the old ones. */
int vn_migrate(const char *type_name, void (*fn)(const void *old_obj, size_t old_size, void *new_obj, void *arg), void *arg);

/* For compiled code: the types of a module. */
void __vernal_register_types(const struct vn_type *const *start, const struct vn_type *const *stop);

/* For languages that promise more of a type's values than its descriptor says: what verifying demands besides. */
#define VN_DEMAND_NOT_NULL 0 /* the pointer at `offset` is never null */
#define VN_DEMAND_ONE_OF 1   /* the integer of `size` bytes at `offset` is one of `values` */
#define VN_DEMAND_TARGET 2   /* the pointer at `offset` leads to the type with the id `values[0]`, whatever else has its name */
struct vn_demand {
  uint64_t offset;
  uint32_t size;
  uint32_t kind;
  size_t count; /* of values */
  const uint64_t *values;
};
int __vernal_demand(const struct vn_type *type, const struct vn_demand *demands, size_t count);

#ifdef __cplusplus
}
#endif
#endif
