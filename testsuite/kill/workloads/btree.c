/* A B-tree of order 8: insert, change and delete, with splits, borrows and merges. */
#include "workload.h"

enum { T = 4, MAX = 2 * T - 1, KEYS = 96 };

struct node {
  uint32_t count, leaf;
  uint64_t key[MAX], value[MAX];
  struct node *child[MAX + 1];
};

struct tree {
  struct node *top;
  uint64_t count;
};

static struct node *node(struct root *r, uint32_t leaf) {
  struct node *n = take(r, sizeof *n);
  memset(n, 0, sizeof *n);
  n->leaf = leaf;
  return n;
}

static void create(struct root *r) {
  struct tree *t = take(r, sizeof *t);
  t->top = node(r, 1);
  t->count = 0;
  r->data = t;
}

static uint32_t position(const struct node *n, uint64_t key) {
  uint32_t i = 0;
  while (i < n->count && n->key[i] < key) i++;
  return i;
}

static int has(const struct node *n, uint32_t i, uint64_t key) { return i < n->count && n->key[i] == key; }

/* Makes room for, or closes, `by` entries at i. */
static void shift(struct node *n, uint32_t i, int by) {
  size_t rest = n->count - i;
  if (by > 0) {
    memmove(&n->key[i + 1], &n->key[i], rest * sizeof n->key[0]);
    memmove(&n->value[i + 1], &n->value[i], rest * sizeof n->value[0]);
    n->count++;
  } else {
    memmove(&n->key[i], &n->key[i + 1], (rest - 1) * sizeof n->key[0]);
    memmove(&n->value[i], &n->value[i + 1], (rest - 1) * sizeof n->value[0]);
    n->count--;
  }
}

static void put(struct node *n, uint32_t i, uint64_t key, uint64_t value) {
  n->key[i] = key;
  n->value[i] = value;
}

static void split(struct root *r, struct node *up, uint32_t i) {
  struct node *left = up->child[i], *right = node(r, left->leaf);
  right->count = T - 1;
  memcpy(right->key, left->key + T, sizeof left->key[0] * (T - 1));
  memcpy(right->value, left->value + T, sizeof left->value[0] * (T - 1));
  if (!left->leaf) memcpy(right->child, left->child + T, sizeof left->child[0] * T);
  left->count = T - 1;
  memmove(&up->child[i + 2], &up->child[i + 1], (up->count - i) * sizeof up->child[0]);
  up->child[i + 1] = right;
  shift(up, i, 1);
  put(up, i, left->key[T - 1], left->value[T - 1]);
}

static void insert(struct root *r, uint64_t key, uint64_t value) {
  struct tree *t = r->data;
  if (t->top->count == MAX) {
    struct node *up = node(r, 0);
    up->child[0] = t->top;
    t->top = up;
    split(r, up, 0);
  }
  struct node *n = t->top;
  for (;;) {
    uint32_t i = position(n, key);
    if (has(n, i, key)) {
      n->value[i] = value;
      return;
    }
    if (n->leaf) {
      shift(n, i, 1);
      put(n, i, key, value);
      t->count++;
      return;
    }
    if (n->child[i]->count == MAX) {
      split(r, n, i);
      continue; /* the middle key has come up: look again */
    }
    n = n->child[i];
  }
}

/* Joins child i, the key at i and child i + 1. */
static void merge(struct root *r, struct node *n, uint32_t i) {
  struct node *left = n->child[i], *right = n->child[i + 1];
  put(left, left->count, n->key[i], n->value[i]);
  memcpy(left->key + left->count + 1, right->key, right->count * sizeof right->key[0]);
  memcpy(left->value + left->count + 1, right->value, right->count * sizeof right->value[0]);
  if (!left->leaf) memcpy(left->child + left->count + 1, right->child, (right->count + 1) * sizeof right->child[0]);
  left->count += right->count + 1;
  memmove(&n->child[i + 1], &n->child[i + 2], (n->count - i - 1) * sizeof n->child[0]);
  shift(n, i, -1);
  give(r, right, sizeof *right);
}

/* Gives child i at least T keys; returns the index of the child that now covers its keys. */
static uint32_t fill(struct root *r, struct node *n, uint32_t i) {
  struct node *c = n->child[i];
  if (c->count >= T) return i;
  if (i > 0 && n->child[i - 1]->count >= T) {
    struct node *from = n->child[i - 1];
    if (!c->leaf) {
      memmove(&c->child[1], &c->child[0], (c->count + 1) * sizeof c->child[0]);
      c->child[0] = from->child[from->count];
    }
    shift(c, 0, 1);
    put(c, 0, n->key[i - 1], n->value[i - 1]);
    put(n, i - 1, from->key[from->count - 1], from->value[from->count - 1]);
    from->count--;
    return i;
  }
  if (i < n->count && n->child[i + 1]->count >= T) {
    struct node *from = n->child[i + 1];
    put(c, c->count, n->key[i], n->value[i]);
    if (!c->leaf) {
      c->child[c->count + 1] = from->child[0];
      memmove(&from->child[0], &from->child[1], from->count * sizeof from->child[0]);
    }
    c->count++;
    put(n, i, from->key[0], from->value[0]);
    shift(from, 0, -1);
    return i;
  }
  if (i == n->count) i--;
  merge(r, n, i);
  return i;
}

static void erase(struct root *r, struct node *n, uint64_t key) {
  for (;;) {
    uint32_t i = position(n, key);
    if (has(n, i, key)) {
      if (n->leaf) {
        shift(n, i, -1);
        return;
      }
      struct node *left = n->child[i], *right = n->child[i + 1];
      if (left->count >= T) {
        while (!left->leaf) left = left->child[left->count];
        put(n, i, left->key[left->count - 1], left->value[left->count - 1]);
        key = n->key[i];
        n = n->child[fill(r, n, i)];
      } else if (right->count >= T) {
        while (!right->leaf) right = right->child[0];
        put(n, i, right->key[0], right->value[0]);
        key = n->key[i];
        n = n->child[i + 1];
      } else {
        merge(r, n, i);
        n = n->child[i];
      }
      continue;
    }
    if (n->leaf) return;
    n = n->child[fill(r, n, i)];
  }
}

static int contains(const struct root *r, uint64_t key) {
  const struct node *n = ((const struct tree *)r->data)->top;
  for (;;) {
    uint32_t i = position(n, key);
    if (has(n, i, key)) return 1;
    if (n->leaf) return 0;
    n = n->child[i];
  }
}

static void apply(struct root *r, uint64_t n) {
  struct tree *t = r->data;
  uint64_t kind = draw(r, n, 0) % 8, key = draw(r, n, 1) % KEYS, value = draw(r, n, 2);
  if (kind < 5) {
    insert(r, key, value);
  } else if (contains(r, key)) {
    erase(r, t->top, key);
    t->count--;
    if (t->top->count == 0 && !t->top->leaf) {
      struct node *gone = t->top;
      t->top = gone->child[0];
      give(r, gone, sizeof *gone);
    }
  }
}

static uint64_t walk(const struct node *n, uint64_t low, uint64_t high, int top, unsigned depth, unsigned *leaves) {
  uint64_t count = n->count;
  HOLDS(n->count <= MAX && (top || n->count >= T - 1));
  for (uint32_t i = 0; i <= n->count; i++) {
    uint64_t from = i ? n->key[i - 1] + 1 : low, to = i < n->count ? n->key[i] : high;
    HOLDS(from <= to);
    if (!n->leaf) count += walk(n->child[i], from, to, 0, depth + 1, leaves);
    if (i < n->count) printf("%llu %llu\n", (unsigned long long)n->key[i], (unsigned long long)n->value[i]);
  }
  if (n->leaf) {
    HOLDS(*leaves == 0 || *leaves == depth + 1); /* all leaves at one depth */
    *leaves = depth + 1;
  }
  return count;
}

static void dump(const struct root *r) {
  const struct tree *t = r->data;
  unsigned leaves = 0;
  HOLDS(walk(t->top, 0, KEYS, 1, 0, &leaves) == t->count);
}
