/* list.c - the singly linked list of the thesis: append at the tail, remove at the head, visit all. */
#include "backend.h"

DECLARE_OBJECT(node, 1);

struct node {
  uint64_t value;
  REF(node) next;
};

struct list {
  REF(node) head;
  REF(node) tail;
};

static struct list *list;

void system_open(const char *path, uint64_t bytes) {
  backend_open(path, bytes);
  list = ROOT(list);
}

static void insert(uint64_t value) {
  REF(node) n = NEW(node);
  MUT(n)->value = value;
  MUT(n)->next = NULL_REF(node);
  if (IS_NULL(list->tail)) {
    LOG_RANGE(list, sizeof *list);
    list->head = n;
  } else {
    LOG_FIELD(list->tail, next);
    MUT(list->tail)->next = n;
    LOG_RANGE(&list->tail, sizeof list->tail);
  }
  list->tail = n;
}

static uint64_t delete(void) {
  REF(node) n = list->head;
  if (IS_NULL(n))
    return 0;
  uint64_t value = GET(n)->value;
  LOG_RANGE(&list->head, sizeof list->head);
  list->head = GET(n)->next;
  if (IS_NULL(list->head)) {
    LOG_RANGE(&list->tail, sizeof list->tail);
    list->tail = NULL_REF(node);
  }
  DISPOSE(n);
  return value;
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  switch (op->kind) {
  case OP_INSERT:
    insert(op->arg);
    return 1;
  case OP_DELETE:
    *sum += delete();
    return 1;
  case OP_TRAVERSE: {
    int64_t visited = 0;
    for (REF(node) n = list->head; !IS_NULL(n); n = GET(n)->next, visited++)
      *sum += GET(n)->value;
    return visited;
  }
  default:
    return -1;
  }
}

void system_check(uint64_t *hash, uint64_t *entries) {
  for (REF(node) n = list->head; !IS_NULL(n); n = GET(n)->next, ++*entries)
    *hash = mix64(*hash + GET(n)->value);
}
