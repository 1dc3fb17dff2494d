/* phonebook.c - a phone book that lives in a mapped file: a balanced tree of people, a list of numbers for each, and a list
 * of people by who was called last, all linked by ordinary pointers.
 *
 *   cc -O2 phonebook.c -o phonebook            a crash in the middle of a change leaves it torn
 *   vernal-cc -O2 phonebook.c -o phonebook     with VERNAL_PATHS=FILE, a crash leaves the state of the last msync
 *
 * Nothing in here knows of Vernal: it maps a file, changes it in place and calls msync.
 *
 *   phonebook FILE add NAME NUMBER     add a number
 *   phonebook FILE find NAME           print a person's numbers
 *   phonebook FILE call NAME           count a call: the person becomes the most recent one
 *   phonebook FILE remove NAME         remove a person
 *   phonebook FILE list                print everything, in order
 *   phonebook FILE recent [COUNT]      print who was called last
 *   phonebook FILE check [replay]      verify every link and count; with `replay` also that the content is that of the
 *                                      last complete batch of `stress`
 *   phonebook FILE stress [BATCHES [SEED [OPS]]]
 *                                      make BATCHES (0: without end) batches of OPS changes, the same for the same SEED, with one
 *                                      msync for each; prints "batch N" when batch N is durable; goes on where it was
 *
 * Exit status: 0 fine, 1 no such person, 2 wrong use or an error, 3 the file is inconsistent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  BOOK_SIZE = 16 << 20, /* length of the file */
  NAME_SIZE = 48,
  NUMBER_SIZE = 24,
  MAX_HEIGHT = 64,      /* more than any balanced tree that fits */
  STRESS_NAMES = 4096
};
#define MAGIC UINT64_C(0x6b6f6f62656e6f68)
/* Where a new file asks to be mapped. Its pointers are good there only, so later runs ask for the same place. */
#define WANTED_ADDRESS ((void *)0x200000000000)

struct number {
  struct number *next;
  char text[NUMBER_SIZE];
};

struct person {
  struct person *left, *right;    /* the tree, by name */
  struct person *newer, *older;   /* the list, by last call */
  struct number *numbers;
  uint64_t number_count, calls;
  int64_t height;
  char name[NAME_SIZE];
};

struct book {
  uint64_t magic;
  struct book *self; /* where the file must be mapped */
  struct person *root, *newest, *oldest;
  uint64_t person_count, number_count, call_count;
  /* The allocator: what was never used, and what was freed. */
  char *fresh, *end;
  struct person *free_people; /* linked by `left` */
  struct number *free_numbers;
  uint64_t free_person_count, free_number_count;
  /* The stress run: `ops` changes have been made from `seed`, `batch` of them between two msyncs. */
  uint64_t seed, ops, batch;
};

static const char *program = "phonebook";

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s: ", program);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(2);
}

/* ---- the allocator ---- */

static void *take_fresh(struct book *book, size_t size) {
  if ((size_t)(book->end - book->fresh) < size) return NULL;
  void *memory = book->fresh;
  book->fresh += size;
  return memory;
}

static struct person *new_person(struct book *book) {
  struct person *person = book->free_people;
  if (person == NULL) return take_fresh(book, sizeof *person);
  book->free_people = person->left;
  book->free_person_count--;
  return person;
}

static struct number *new_number(struct book *book) {
  struct number *number = book->free_numbers;
  if (number == NULL) return take_fresh(book, sizeof *number);
  book->free_numbers = number->next;
  book->free_number_count--;
  return number;
}

/* ---- the list of recent calls ---- */

static void recent_unlink(struct book *book, struct person *person) {
  *(person->newer ? &person->newer->older : &book->newest) = person->older;
  *(person->older ? &person->older->newer : &book->oldest) = person->newer;
}

static void recent_push(struct book *book, struct person *person) {
  person->newer = NULL;
  person->older = book->newest;
  *(book->newest ? &book->newest->newer : &book->oldest) = person;
  book->newest = person;
}

/* ---- the tree ---- */

static int64_t height(const struct person *person) { return person ? person->height : 0; }

static void update_height(struct person *person) {
  int64_t left = height(person->left), right = height(person->right);
  person->height = 1 + (left > right ? left : right);
}

static struct person *rotate_right(struct person *top) {
  struct person *up = top->left;
  top->left = up->right;
  up->right = top;
  update_height(top);
  update_height(up);
  return up;
}

static struct person *rotate_left(struct person *top) {
  struct person *up = top->right;
  top->right = up->left;
  up->left = top;
  update_height(top);
  update_height(up);
  return up;
}

static struct person *rebalance(struct person *top) {
  update_height(top);
  int64_t tilt = height(top->left) - height(top->right);
  if (tilt > 1) {
    if (height(top->left->left) < height(top->left->right)) top->left = rotate_left(top->left);
    return rotate_right(top);
  }
  if (tilt < -1) {
    if (height(top->right->right) < height(top->right->left)) top->right = rotate_right(top->right);
    return rotate_left(top);
  }
  return top;
}

static struct person *tree_insert(struct person *top, struct person *person) {
  if (top == NULL) return person;
  if (strcmp(person->name, top->name) < 0)
    top->left = tree_insert(top->left, person);
  else
    top->right = tree_insert(top->right, person);
  return rebalance(top);
}

/* Takes the first person out of the tree `top`. */
static struct person *tree_take_first(struct person *top, struct person **first) {
  if (top->left == NULL) {
    *first = top;
    return top->right;
  }
  top->left = tree_take_first(top->left, first);
  return rebalance(top);
}

static struct person *tree_remove(struct person *top, const struct person *person) {
  int order = strcmp(person->name, top->name);
  if (order < 0) {
    top->left = tree_remove(top->left, person);
  } else if (order > 0) {
    top->right = tree_remove(top->right, person);
  } else {
    if (top->right == NULL) return top->left;
    struct person *next = NULL;
    struct person *right = tree_take_first(top->right, &next);
    next->right = right;
    next->left = top->left;
    top = next;
  }
  return rebalance(top);
}

/* ---- the book ---- */

static struct person *book_find(const struct book *book, const char *name) {
  struct person *person = book->root;
  while (person != NULL) {
    int order = strcmp(name, person->name);
    if (order == 0) return person;
    person = order < 0 ? person->left : person->right;
  }
  return NULL;
}

static bool book_add(struct book *book, const char *name, const char *text) {
  struct number *number = new_number(book);
  if (number == NULL) return false;
  struct person *person = book_find(book, name);
  if (person == NULL) {
    person = new_person(book);
    if (person == NULL) {
      number->next = book->free_numbers;
      book->free_numbers = number;
      book->free_number_count++;
      return false;
    }
    memset(person, 0, sizeof *person);
    strcpy(person->name, name);
    person->height = 1;
    book->root = tree_insert(book->root, person);
    recent_push(book, person);
    book->person_count++;
  }
  strcpy(number->text, text);
  number->next = person->numbers;
  person->numbers = number;
  person->number_count++;
  book->number_count++;
  return true;
}

static void book_call(struct book *book, struct person *person) {
  person->calls++;
  book->call_count++;
  recent_unlink(book, person);
  recent_push(book, person);
}

static void book_remove(struct book *book, struct person *person) {
  book->root = tree_remove(book->root, person);
  recent_unlink(book, person);
  while (person->numbers != NULL) {
    struct number *number = person->numbers;
    person->numbers = number->next;
    number->next = book->free_numbers;
    book->free_numbers = number;
    book->free_number_count++;
    book->number_count--;
  }
  book->person_count--;
  book->call_count -= person->calls;
  person->left = book->free_people;
  book->free_people = person;
  book->free_person_count++;
}

static void book_init(struct book *book) {
  memset(book, 0, sizeof *book);
  book->self = book;
  book->fresh = (char *)(book + 1);
  book->end = (char *)book + BOOK_SIZE;
  book->magic = MAGIC;
}

/* Maps the file, where its pointers are good. */
static struct book *book_open(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) die("%s: %s", path, strerror(errno));
  if (status.st_size != 0 && status.st_size != BOOK_SIZE)
    die("%s: is %jd bytes long, a phone book has %d", path, (intmax_t)status.st_size, BOOK_SIZE);
  if (status.st_size == 0 && ftruncate(fd, BOOK_SIZE) != 0) die("%s: %s", path, strerror(errno));
  struct book *book = mmap(WANTED_ADDRESS, BOOK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (book == MAP_FAILED) die("%s: cannot map it: %s", path, strerror(errno));
  close(fd);
  if (book->magic == 0) {
    book_init(book);
    if (msync(book, BOOK_SIZE, MS_SYNC) != 0) die("%s: msync: %s", path, strerror(errno));
  }
  if (book->magic != MAGIC) die("%s: is no phone book", path);
  if (book->self != book)
    die("%s: holds pointers for address %p, but was mapped at %p", path, (void *)book->self, (void *)book);
  return book;
}

static void book_save(struct book *book, const char *path) {
  if (msync(book, BOOK_SIZE, MS_SYNC) != 0) die("%s: msync: %s", path, strerror(errno));
}

/* ---- verification: trusts nothing that it has not checked ---- */

struct check {
  const struct book *book;
  uint64_t people, numbers, calls;
  const char *last_name;
};

__attribute__((format(printf, 1, 2), noreturn)) static void inconsistent(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("inconsistent: ");
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
  exit(3);
}

static void check_place(const struct book *book, const void *object, size_t size, const char *what) {
  uintptr_t at = (uintptr_t)object, first = (uintptr_t)(book + 1), fresh = (uintptr_t)book->fresh;
  if (at < first || at % 8 != 0 || at > fresh || fresh - at < size) inconsistent("%s: a pointer leads to %p", what, object);
}

static int64_t check_tree(struct check *check, const struct person *person, int depth) {
  if (person == NULL) return 0;
  check_place(check->book, person, sizeof *person, "tree");
  if (depth > MAX_HEIGHT || check->people > BOOK_SIZE) inconsistent("tree: has a cycle");
  int64_t left = check_tree(check, person->left, depth + 1);
  if (memchr(person->name, 0, NAME_SIZE) == NULL) inconsistent("tree: a name has no end");
  if (check->last_name != NULL && strcmp(check->last_name, person->name) >= 0)
    inconsistent("tree: %s stands before %s", check->last_name, person->name);
  check->last_name = person->name;
  check->people++;
  check->calls += person->calls;
  uint64_t numbers = 0;
  for (const struct number *number = person->numbers; number != NULL; number = number->next) {
    check_place(check->book, number, sizeof *number, "numbers");
    if (++numbers > person->number_count || memchr(number->text, 0, NUMBER_SIZE) == NULL)
      inconsistent("%s: has more numbers than the %" PRIu64 " counted, or one without end", person->name,
                   person->number_count);
  }
  if (numbers != person->number_count)
    inconsistent("%s: %" PRIu64 " numbers, %" PRIu64 " counted", person->name, numbers, person->number_count);
  check->numbers += numbers;
  int64_t right = check_tree(check, person->right, depth + 1);
  int64_t expected = 1 + (left > right ? left : right);
  if (left - right > 1 || right - left > 1 || person->height != expected)
    inconsistent("%s: height %" PRId64 ", below it %" PRId64 " and %" PRId64, person->name, person->height, left, right);
  return expected;
}

static void check_book(const struct book *book) {
  if (book->end != (const char *)book + BOOK_SIZE || book->fresh > book->end || book->fresh < (const char *)(book + 1))
    inconsistent("allocator: fresh %p, end %p", (void *)book->fresh, (void *)book->end);
  struct check check = {.book = book};
  check_tree(&check, book->root, 0);
  if (check.people != book->person_count || check.numbers != book->number_count || check.calls != book->call_count)
    inconsistent("%" PRIu64 " people, %" PRIu64 " numbers, %" PRIu64 " calls, but %" PRIu64 ", %" PRIu64 ", %" PRIu64
                 " counted",
                 check.people, check.numbers, check.calls, book->person_count, book->number_count, book->call_count);

  uint64_t recent = 0;
  const struct person *newer = NULL;
  for (const struct person *person = book->newest; person != NULL; newer = person, person = person->older) {
    check_place(book, person, sizeof *person, "recent calls");
    if (person->newer != newer) inconsistent("recent calls: %.47s is linked one way only", person->name);
    if (++recent > check.people) inconsistent("recent calls: more than the %" PRIu64 " people", check.people);
    if (book_find(book, person->name) != person) inconsistent("recent calls: %.47s is not in the tree", person->name);
  }
  if (recent != check.people || book->oldest != newer)
    inconsistent("recent calls: %" PRIu64 " of %" PRIu64 " people", recent, check.people);

  uint64_t free_people = 0, free_numbers = 0;
  for (const struct person *person = book->free_people; person != NULL; person = person->left) {
    check_place(book, person, sizeof *person, "free people");
    if (++free_people > book->free_person_count) inconsistent("free people: more than counted");
  }
  for (const struct number *number = book->free_numbers; number != NULL; number = number->next) {
    check_place(book, number, sizeof *number, "free numbers");
    if (++free_numbers > book->free_number_count) inconsistent("free numbers: more than counted");
  }
  size_t used = (size_t)(book->fresh - (const char *)(book + 1));
  size_t accounted = (check.people + free_people) * sizeof(struct person) +
                     (check.numbers + free_numbers) * sizeof(struct number);
  if (free_people != book->free_person_count || free_numbers != book->free_number_count || used != accounted)
    inconsistent("allocator: %zu bytes handed out, %zu found", used, accounted);
  if (book->batch != 0 && book->ops % book->batch != 0)
    inconsistent("stress: %" PRIu64 " changes, which is no whole number of batches of %" PRIu64, book->ops, book->batch);
}

/* ---- the stress run ---- */

static uint64_t mix(uint64_t x) {
  x += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

/* Change number `book->ops`, a function of it, the seed and the content. */
static void stress_change(struct book *book) {
  uint64_t random = mix(book->seed ^ mix(book->ops));
  char name[NAME_SIZE], number[NUMBER_SIZE];
  snprintf(name, sizeof name, "person %04" PRIu64, mix(random) % STRESS_NAMES);
  struct person *person = book_find(book, name);
  switch (random % 8) {
    case 0:
    case 1:
      if (person != NULL) book_remove(book, person);
      break;
    case 2:
    case 3:
    case 4:
      if (person != NULL) {
        book_call(book, person);
        break;
      }
      /* fall through */
    default:
      snprintf(number, sizeof number, "+%" PRIu64, random % 1000000000);
      if (!book_add(book, name, number)) die("the book is full");
  }
  book->ops++;
}

static void stress(struct book *book, const char *path, uint64_t batches, uint64_t seed, uint64_t batch) {
  if (book->batch == 0) {
    if (book->person_count != 0) die("%s: holds entries that stress has not made; give it a file of its own", path);
    book->seed = seed;
    book->batch = batch;
  }
  for (uint64_t done = 0; batches == 0 || done < batches; done++) {
    for (uint64_t i = 0; i < book->batch; i++) stress_change(book);
    book_save(book, path);
    char line[32];
    int length = snprintf(line, sizeof line, "batch %" PRIu64 "\n", book->ops / book->batch);
    if (write(STDOUT_FILENO, line, (size_t)length) != length) die("standard output: %s", strerror(errno));
  }
}

/* Makes the same changes again in memory of its own and compares. */
static void check_replay(const struct book *book) {
  struct book *twin = mmap(NULL, BOOK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (twin == MAP_FAILED) die("no memory to replay in: %s", strerror(errno));
  book_init(twin);
  twin->seed = book->seed;
  twin->batch = book->batch;
  while (twin->ops < book->ops) stress_change(twin);
  if (twin->person_count != book->person_count) inconsistent("replay: another number of people");
  const struct person *b = twin->newest;
  for (const struct person *a = book->newest; a != NULL; a = a->older, b = b->older) {
    if (strcmp(a->name, b->name) != 0 || a->calls != b->calls || a->number_count != b->number_count)
      inconsistent("replay: %s where %s is expected", a->name, b->name);
    const struct number *m = b->numbers;
    for (const struct number *n = a->numbers; n != NULL; n = n->next, m = m->next)
      if (strcmp(n->text, m->text) != 0) inconsistent("replay: %s has number %s instead of %s", a->name, n->text, m->text);
  }
  munmap(twin, BOOK_SIZE);
}

/* ---- commands ---- */

static void print_person(const struct person *person) {
  printf("%s (%" PRIu64 " calls):", person->name, person->calls);
  for (const struct number *number = person->numbers; number != NULL; number = number->next) printf(" %s", number->text);
  printf("\n");
}

static void print_tree(const struct person *person) {
  if (person == NULL) return;
  print_tree(person->left);
  print_person(person);
  print_tree(person->right);
}

static uint64_t argument(int argc, char **argv, int index, uint64_t otherwise) {
  if (index >= argc) return otherwise;
  char *end;
  errno = 0;
  uint64_t value = strtoull(argv[index], &end, 0);
  if (errno != 0 || *end != 0 || end == argv[index]) die("%s: not a number", argv[index]);
  return value;
}

int main(int argc, char **argv) {
  if (argc < 3) die("use: phonebook FILE add|find|call|remove|list|recent|check|stress ...");
  const char *path = argv[1], *command = argv[2], *name = argc > 3 ? argv[3] : NULL;
  struct book *book = book_open(path);

  if (strcmp(command, "list") == 0) {
    print_tree(book->root);
  } else if (strcmp(command, "recent") == 0) {
    uint64_t count = argument(argc, argv, 3, 10);
    for (const struct person *person = book->newest; person != NULL && count-- > 0; person = person->older)
      print_person(person);
  } else if (strcmp(command, "check") == 0) {
    check_book(book);
    if (name != NULL && book->batch != 0) check_replay(book);
    printf("consistent: %" PRIu64 " people, %" PRIu64 " numbers, batch %" PRIu64 "\n", book->person_count,
           book->number_count, book->batch == 0 ? 0 : book->ops / book->batch);
  } else if (strcmp(command, "stress") == 0) {
    uint64_t batch = argument(argc, argv, 5, 32);
    if (batch == 0) die("OPS must not be 0");
    stress(book, path, argument(argc, argv, 3, 0), argument(argc, argv, 4, 1), batch);
  } else if (name == NULL) {
    die("%s: needs a NAME, or is no command", command);
  } else if (strlen(name) >= NAME_SIZE) {
    die("a name has at most %d bytes", NAME_SIZE - 1);
  } else if (strcmp(command, "add") == 0) {
    if (argc != 5 || strlen(argv[4]) >= NUMBER_SIZE) die("add needs a NAME and a NUMBER of at most %d bytes", NUMBER_SIZE - 1);
    if (!book_add(book, name, argv[4])) die("%s: is full", path);
    book_save(book, path);
  } else {
    struct person *person = book_find(book, name);
    if (person == NULL) {
      fprintf(stderr, "%s: %s is not in it\n", path, name);
      return 1;
    }
    if (strcmp(command, "find") == 0) {
      print_person(person);
    } else if (strcmp(command, "call") == 0) {
      book_call(book, person);
      book_save(book, path);
    } else if (strcmp(command, "remove") == 0) {
      book_remove(book, person);
      book_save(book, path);
    } else {
      die("%s: no such command", command);
    }
  }
  return 0;
}
