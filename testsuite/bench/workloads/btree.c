/* btree.c - a B-tree of order 8 (up to 7 keys and 8 children per node) with 8-byte keys and values, as in the thesis.
 *
 * Insertion splits full nodes and deletion refills minimal ones on the way down, so each operation is one pass. Under PMDK a
 * node is logged as a whole before it is changed, which is how PMDK's own tree examples do it. */
#include "backend.h"

#define ORDER 8
#define MAX_KEYS (ORDER - 1)
#define MIN_KEYS (ORDER / 2 - 1)

DECLARE_OBJECT(tree_node, 1);

struct item {
  uint64_t key;
  uint64_t value;
};

struct tree_node {
  uint64_t count;
  struct item items[MAX_KEYS];
  REF(tree_node) child[ORDER]; /* all null in a leaf */
};

struct tree {
  REF(tree_node) root;
};

static struct tree *tree;

void system_open(const char *path, uint64_t bytes) {
  backend_open(path, bytes);
  tree = ROOT(tree);
}

static REF(tree_node) new_node(void) {
  REF(tree_node) n = NEW(tree_node);
  memset(MUT(n), 0, sizeof(struct tree_node));
  return n;
}

static int is_leaf(const struct tree_node *n) { return IS_NULL(n->child[0]); }

/* The position of the first item whose key is not below `key`. */
static unsigned lower_bound(const struct tree_node *n, uint64_t key) {
  unsigned i = 0;
  while (i < n->count && n->items[i].key < key)
    i++;
  return i;
}

static void set_root(REF(tree_node) root) {
  LOG_RANGE(&tree->root, sizeof tree->root);
  tree->root = root;
}

/* Makes room for item `at` and the child to its right. */
static void open_gap(struct tree_node *n, unsigned at) {
  memmove(&n->items[at + 1], &n->items[at], (n->count - at) * sizeof n->items[0]);
  if (!is_leaf(n))
    memmove(&n->child[at + 2], &n->child[at + 1], (n->count - at) * sizeof n->child[0]);
  n->count++;
}

/* Removes item `at` and the child to its right. */
static void close_gap(struct tree_node *n, unsigned at) {
  n->count--;
  memmove(&n->items[at], &n->items[at + 1], (n->count - at) * sizeof n->items[0]);
  if (!is_leaf(n))
    memmove(&n->child[at + 1], &n->child[at + 2], (n->count - at) * sizeof n->child[0]);
}

/* Splits the full child `at` of `parent`, which is not full; both are logged here. */
static void split_child(REF(tree_node) parent, unsigned at) {
  REF(tree_node) left_ref = GET(parent)->child[at];
  REF(tree_node) right_ref = new_node();
  LOG(parent);
  LOG(left_ref);
  struct tree_node *p = MUT(parent), *left = MUT(left_ref), *right = MUT(right_ref);
  unsigned middle = MAX_KEYS / 2;
  right->count = MAX_KEYS - middle - 1;
  memcpy(right->items, &left->items[middle + 1], right->count * sizeof right->items[0]);
  if (!is_leaf(left))
    memcpy(right->child, &left->child[middle + 1], (right->count + 1) * sizeof right->child[0]);
  left->count = middle;
  open_gap(p, at);
  p->items[at] = left->items[middle];
  p->child[at + 1] = right_ref;
}

static void insert(uint64_t key, uint64_t value) {
  if (IS_NULL(tree->root))
    set_root(new_node());
  if (GET(tree->root)->count == MAX_KEYS) {
    REF(tree_node) up = new_node();
    MUT(up)->child[0] = tree->root;
    split_child(up, 0);
    set_root(up);
  }
  REF(tree_node) at = tree->root;
  for (;;) {
    const struct tree_node *n = GET(at);
    unsigned i = lower_bound(n, key);
    if (i < n->count && n->items[i].key == key) {
      LOG_RANGE(&MUT(at)->items[i], sizeof n->items[i]);
      MUT(at)->items[i].value = value;
      return;
    }
    if (is_leaf(n)) {
      LOG(at);
      struct tree_node *leaf = MUT(at);
      open_gap(leaf, i);
      leaf->items[i] = (struct item){key, value};
      return;
    }
    if (GET(n->child[i])->count == MAX_KEYS) {
      split_child(at, i);
      n = GET(at);
      if (n->items[i].key < key)
        i++;
      else if (n->items[i].key == key)
        continue; /* the median moved up: found at the top of the loop */
    }
    at = GET(at)->child[i];
  }
}

/* Joins child `at`, the separator and child `at + 1` of `parent` into child `at`. */
static void merge_children(REF(tree_node) parent, unsigned at) {
  REF(tree_node) left_ref = GET(parent)->child[at];
  REF(tree_node) right_ref = GET(parent)->child[at + 1];
  LOG(parent);
  LOG(left_ref);
  struct tree_node *p = MUT(parent), *left = MUT(left_ref);
  const struct tree_node *right = GET(right_ref);
  left->items[left->count] = p->items[at];
  memcpy(&left->items[left->count + 1], right->items, right->count * sizeof right->items[0]);
  if (!is_leaf(left))
    memcpy(&left->child[left->count + 1], right->child, (right->count + 1) * sizeof right->child[0]);
  left->count += right->count + 1;
  close_gap(p, at);
  DISPOSE(right_ref);
}

/* Gives child `at` of `parent` one item more than the minimum; returns the position where its keys are now. */
static unsigned refill_child(REF(tree_node) parent, unsigned at) {
  const struct tree_node *p = GET(parent);
  REF(tree_node) child_ref = p->child[at];
  if (at > 0 && GET(p->child[at - 1])->count > MIN_KEYS) {
    REF(tree_node) left_ref = p->child[at - 1];
    LOG_FIELD(parent, items[at - 1]);
    LOG(child_ref);
    LOG(left_ref);
    struct tree_node *c = MUT(child_ref), *left = MUT(left_ref);
    memmove(&c->items[1], c->items, c->count * sizeof c->items[0]);
    if (!is_leaf(c)) {
      memmove(&c->child[1], c->child, (c->count + 1) * sizeof c->child[0]);
      c->child[0] = left->child[left->count];
    }
    c->items[0] = p->items[at - 1];
    c->count++;
    left->count--;
    MUT(parent)->items[at - 1] = left->items[left->count];
    return at;
  }
  if (at < p->count && GET(p->child[at + 1])->count > MIN_KEYS) {
    REF(tree_node) right_ref = p->child[at + 1];
    LOG_FIELD(parent, items[at]);
    LOG(child_ref);
    LOG(right_ref);
    struct tree_node *c = MUT(child_ref), *right = MUT(right_ref);
    c->items[c->count] = p->items[at];
    if (!is_leaf(c))
      c->child[c->count + 1] = right->child[0];
    c->count++;
    MUT(parent)->items[at] = right->items[0];
    right->count--;
    memmove(right->items, &right->items[1], right->count * sizeof right->items[0]);
    if (!is_leaf(right))
      memmove(right->child, &right->child[1], (right->count + 1) * sizeof right->child[0]);
    return at;
  }
  if (at == p->count)
    at--;
  merge_children(parent, at);
  return at;
}

/* Removes and returns the largest (`last`) or smallest item below `at`, which has more than the minimum of items. */
static struct item take_extreme(REF(tree_node) at, int last) {
  while (!is_leaf(GET(at))) {
    unsigned i = last ? (unsigned)GET(at)->count : 0;
    if (GET(GET(at)->child[i])->count == MIN_KEYS)
      i = refill_child(at, i);
    at = GET(at)->child[i];
  }
  LOG(at);
  struct tree_node *leaf = MUT(at);
  unsigned i = last ? (unsigned)leaf->count - 1 : 0;
  struct item item = leaf->items[i];
  close_gap(leaf, i);
  return item;
}

static void shrink_root(void) {
  REF(tree_node) root = tree->root;
  if (GET(root)->count == 0 && !is_leaf(GET(root))) {
    set_root(GET(root)->child[0]);
    DISPOSE(root);
  }
}

/* Removes `key` and returns its value, or 0 when it is not there. */
static uint64_t delete(uint64_t key) {
  uint64_t value = 0;
  REF(tree_node) at = tree->root;
  while (!IS_NULL(at)) {
    const struct tree_node *n = GET(at);
    unsigned i = lower_bound(n, key);
    int here = i < n->count && n->items[i].key == key;
    if (here)
      value = n->items[i].value;
    if (is_leaf(n)) {
      if (here) {
        LOG(at);
        close_gap(MUT(at), i);
      }
      break;
    }
    if (here && GET(n->child[i])->count > MIN_KEYS) {
      struct item item = take_extreme(n->child[i], 1);
      LOG_FIELD(at, items[i]);
      MUT(at)->items[i] = item;
      break;
    }
    if (here && GET(n->child[i + 1])->count > MIN_KEYS) {
      struct item item = take_extreme(n->child[i + 1], 0);
      LOG_FIELD(at, items[i]);
      MUT(at)->items[i] = item;
      break;
    }
    if (here)
      merge_children(at, i); /* the key moved into the merged child */
    else if (GET(n->child[i])->count == MIN_KEYS)
      i = refill_child(at, i);
    at = GET(at)->child[i];
  }
  if (!IS_NULL(tree->root))
    shrink_root();
  return value;
}

static int64_t visit(REF(tree_node) at, uint64_t *sum) {
  const struct tree_node *n = GET(at);
  int64_t visited = (int64_t)n->count;
  int leaf = is_leaf(n);
  for (unsigned i = 0; i < n->count; i++) {
    if (!leaf)
      visited += visit(n->child[i], sum);
    *sum = *sum * 31 + (n->items[i].key ^ n->items[i].value);
  }
  if (!leaf)
    visited += visit(n->child[n->count], sum);
  return visited;
}

int64_t system_apply(const struct op *op, uint64_t *sum) {
  switch (op->kind) {
  case OP_INSERT:
    insert(op->key, op->arg);
    return 1;
  case OP_DELETE:
    *sum += delete(op->key);
    return 1;
  case OP_TRAVERSE:
    return IS_NULL(tree->root) ? 0 : visit(tree->root, sum);
  default:
    return -1;
  }
}

void system_check(uint64_t *hash, uint64_t *entries) {
  if (!IS_NULL(tree->root))
    *entries = (uint64_t)visit(tree->root, hash);
}
