// Exceptions pass through code that stores: what was stored before the throw counts, and containers of the C++ library in the file
// stay whole.   exceptions FILE write | check
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <new>
#include <stdexcept>
#include <string>

constexpr std::size_t LENGTH = 4 << 20;

struct Heap {
  void *map, *list;
  char *next, *end;
};

static Heap *heap;

template <class T>
struct InFile {
  using value_type = T;
  InFile() = default;
  template <class U>
  InFile(const InFile<U> &) {}
  T *allocate(std::size_t n) {
    std::size_t size = (n * sizeof(T) + 15) / 16 * 16;
    if (static_cast<std::size_t>(heap->end - heap->next) < size) throw std::bad_alloc();
    T *p = reinterpret_cast<T *>(heap->next);
    heap->next += size;
    return p;
  }
  void deallocate(T *, std::size_t) {}
  bool operator==(const InFile &) const { return true; }
  bool operator!=(const InFile &) const { return false; }
};

using String = std::basic_string<char, std::char_traits<char>, InFile<char>>;
using Map = std::map<int, String, std::less<int>, InFile<std::pair<const int, String>>>;
using List = std::list<int, InFile<int>>;

static void change(Map &map, List &list, int i) {
  map[i * 37 % 101] = String(static_cast<std::size_t>(i % 60), static_cast<char>('a' + i % 26));
  list.push_front(i);
  if (i % 3 == 0) throw std::runtime_error("every third");
  list.push_back(-i);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, LENGTH)) return 3;
  void *at = mmap(nullptr, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return 3;
  heap = static_cast<Heap *>(at);
  if (std::strcmp(argv[2], "write") == 0) {
    heap->next = reinterpret_cast<char *>(heap + 1);
    heap->end = static_cast<char *>(at) + LENGTH;
    Map *map = new (InFile<Map>().allocate(1)) Map;
    List *list = new (InFile<List>().allocate(1)) List;
    heap->map = map;
    heap->list = list;
    for (int i = 1; i <= 200; i++) {
      try {
        change(*map, *list, i);
        if (i % 20 == 7) map->erase(map->begin());
      } catch (const std::runtime_error &) {
        if (i % 2 == 0 && !list->empty()) list->reverse();
      }
      if (msync(at, LENGTH, MS_SYNC)) return 1;
    }
    // Thrown through frames that hold uncommitted stores, and not caught: the process dies with the last commit in place.
    std::printf("%zu %zu\n", map->size(), list->size());
    std::fflush(stdout);
    raise(SIGKILL);
  }
  Map &map = *static_cast<Map *>(heap->map);
  List &list = *static_cast<List *>(heap->list);
  std::size_t entries = 0, sum = 0;
  int last = -1;
  for (const auto &[key, text] : map) {
    if (key <= last) return 1;
    for (char c : text) {
      if (c != text[0]) return 1;
    }
    last = key;
    entries++;
    sum += text.size();
  }
  std::size_t items = 0;
  for (auto i = list.rbegin(); i != list.rend(); ++i) items++;
  std::printf("%zu %zu\n", entries, items);
  return sum == 0;
}
