/* vernal.h - failure-atomic mapped files for programs compiled with vernal-cc.
 *
 * A program needs none of this: with VERNAL_PATHS set, mmap/msync/munmap/mremap/ftruncate on matching files are
 * failure-atomic. This header is the explicit interface to the same runtime.
 *
 * Thread-safety: every function may be called from any thread. Inside a signal handler only vernal_op_* are allowed;
 * vernal_commit there returns VERNAL_EBUSY when it interrupted a commit.
 * Errors: functions return 0 (or a pointer / ticket) on success and a negative vernal_error on failure, or NULL; the
 * text for the calling thread's last failure is vernal_last_error(), its code vernal_last_error_code().
 */
#ifndef VERNAL_H
#define VERNAL_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define VERNAL_VERSION_MAJOR 0
#define VERNAL_VERSION_MINOR 1

typedef enum vernal_error {
  VERNAL_OK = 0,
  VERNAL_EINVAL = -1,   /* an argument is wrong; the message names it */
  VERNAL_EIO = -2,      /* the medium failed: the mapping is read-only from now on, the last commit stays readable */
  VERNAL_ENOSPC = -3,   /* no space for this commit: nothing was changed, free space and commit again */
  VERNAL_EBUSY = -4,    /* the file is mapped by another process, or a commit is already running in this thread */
  VERNAL_EADDR = -5,    /* the file's home address is taken; the message names by what */
  VERNAL_EFORMAT = -6,  /* metadata or journal are damaged, or from a newer version */
  VERNAL_EPERM = -7,    /* no permission, or a forked child used its parent's mapping */
  VERNAL_ENOENT = -8,   /* no such file or mapping */
  VERNAL_EROFS = -9     /* the mapping has failed earlier or the medium is read-only */
} vernal_error;

/* Flags of vernal_map. */
#define VERNAL_CREATE 1u /* create the file when it does not exist */

/* Maps `path` at its home address, recovering it first if its last writer died. `len` is the length in bytes (0: the
 * file's own length; a larger value grows the file, with zeros, durably at the next commit). Returns the address, the
 * same in every run. `flags` is 0 or VERNAL_CREATE. */
void *vernal_map(const char *path, size_t len, unsigned flags);
/* Commits what is uncommitted and unmaps the file. The file and its journal are left clean. */
int vernal_unmap(void *addr);
/* Unmaps the file and forgets what is uncommitted. */
int vernal_unmap_discard(void *addr);
/* Changes the length in bytes of the mapping at `addr`, in place; durable at the next commit. */
int vernal_resize(void *addr, size_t len);
/* Length in bytes of the mapping that holds `addr`; 0 if there is none. */
size_t vernal_length(const void *addr);

/* Makes every update of every mapped file that happened before this call durable, all or nothing. One device flush or
 * one store fence. */
int vernal_commit(void);
/* Makes the updates atomic now and durable later: returns a ticket (> 0) for vernal_wait, or a negative error. A later
 * vernal_commit covers all earlier tickets. */
int64_t vernal_commit_async(void);
int vernal_wait(int64_t ticket);
/* Takes every mapped file back to its last commit. No other thread may be writing to them. */
int vernal_abort(void);

/* Brackets of an operation: a commit by another thread waits until no thread is inside one, so that it sees either all
 * or nothing of it. They nest. */
void vernal_op_begin(void);
void vernal_op_end(void);

/* The message for the last failure of the calling thread; never NULL. */
const char *vernal_last_error(void);

/* The vernal_error of that failure; 0 when the thread has had none. For functions that return NULL. */
int vernal_last_error_code(void);

/* Counters since the process started. */
typedef struct vernal_stats {
  uint64_t commits;      /* commits that wrote a record */
  uint64_t empty;        /* commits that found nothing to write */
  uint64_t grouped;      /* commits that another thread's commit served */
  uint64_t lines;        /* dirty lines looked at */
  uint64_t lines_changed;/* dirty lines that differed from home */
  uint64_t bytes;        /* journal bytes written */
  uint64_t flushes;      /* device flushes or store fences on the commit path */
  uint64_t checkpoints;  /* journal recycles */
  uint64_t audit_missed; /* bytes that VERNAL_AUDIT found written without a mark */
} vernal_stats;
void vernal_get_stats(vernal_stats *out);

/* For code that Vernal's compiler has not seen (assembly, other languages): says that `len` bytes at `addr` were written.
 * Call it after the write and before the next commit. */
void vernal_mark(const void *addr, size_t len);

#ifdef __cplusplus
}
#endif
#endif
