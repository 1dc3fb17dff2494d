/* A doubly linked list: insert at either end, delete or change anywhere. */
#include "workload.h"

struct node {
  struct node *next, *prev;
  uint64_t key, value;
};

struct list {
  struct node head; /* of a ring */
  uint64_t count;
};

static void create(struct root *r) {
  struct list *l = take(r, sizeof *l);
  l->head.next = l->head.prev = &l->head;
  l->count = 0;
  r->data = l;
}

static struct node *at(struct list *l, uint64_t index) {
  struct node *n = l->head.next;
  while (index--) n = n->next;
  return n;
}

static void insert_after(struct root *r, struct node *where, uint64_t key, uint64_t value) {
  struct node *n = take(r, sizeof *n);
  n->key = key;
  n->value = value;
  n->prev = where;
  n->next = where->next;
  n->next->prev = n;
  where->next = n;
  ((struct list *)r->data)->count++;
}

static void apply(struct root *r, uint64_t n) {
  struct list *l = r->data;
  uint64_t kind = draw(r, n, 0) % 8, where = draw(r, n, 1), value = draw(r, n, 2);
  if (l->count == 0 || kind < 2) {
    insert_after(r, &l->head, n, value);
  } else if (kind < 4) {
    insert_after(r, l->head.prev, n, value);
  } else if (kind < 6) {
    at(l, where % l->count)->value = value;
  } else {
    struct node *gone = at(l, where % l->count);
    gone->prev->next = gone->next;
    gone->next->prev = gone->prev;
    l->count--;
    give(r, gone, sizeof *gone);
  }
}

static void dump(const struct root *r) {
  const struct list *l = r->data;
  uint64_t count = 0;
  for (const struct node *n = l->head.next; n != &l->head; n = n->next) {
    HOLDS(n->next->prev == n && n->prev->next == n);
    HOLDS(++count <= l->count);
    printf("%llu %llu\n", (unsigned long long)n->key, (unsigned long long)n->value);
  }
  HOLDS(count == l->count);
}
