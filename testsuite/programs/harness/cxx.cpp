// cxx.cpp - every container of the C++ library, in the mapped file: with an allocator, through std::pmr, and as plain
// std::map, std::string, ... whose `operator new` takes its memory from the file. Streams and conversions write into it too.
#include "persist.h"

#include <algorithm>
#include <bitset>
#include <charconv>
#include <deque>
#include <forward_list>
#include <fstream>
#include <functional>
#include <iostream>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <numeric>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

// While set, `operator new` takes from the file.
static thread_local int in_file = 0;
struct use_file {
  use_file() { in_file++; }
  ~use_file() { in_file--; }
};

static bool is_in_file(void *p) {
  return persist != nullptr && p >= static_cast<void *>(persist) && p < static_cast<void *>(persist->heap.end);
}

void *operator new(std::size_t size) {
  void *p = in_file > 0 ? heap_alloc(&persist->heap, size) : std::malloc(size ? size : 1);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void *p) noexcept {
  if (is_in_file(p))
    heap_free(&persist->heap, p);
  else
    std::free(p);
}
void operator delete(void *p, std::size_t) noexcept { operator delete(p); }

template <class T>
struct in_heap {
  using value_type = T;
  in_heap() = default;
  template <class U>
  in_heap(const in_heap<U> &) noexcept {}
  T *allocate(std::size_t n) {
    void *p = heap_alloc(&persist->heap, n * sizeof(T));
    if (p == nullptr) throw std::bad_alloc();
    return static_cast<T *>(p);
  }
  void deallocate(T *p, std::size_t) noexcept { heap_free(&persist->heap, p); }
  template <class U>
  bool operator==(const in_heap<U> &) const noexcept { return true; }
  template <class U>
  bool operator!=(const in_heap<U> &) const noexcept { return false; }
};

using text = std::basic_string<char, std::char_traits<char>, in_heap<char>>;

struct shape {
  virtual ~shape() = default;
  virtual long area() const = 0;
};
struct square : shape {
  long side;
  explicit square(long s) : side(s) {}
  long area() const override { return side * side; }
};
struct box : shape {
  long a, b;
  box(long x, long y) : a(x), b(y) {}
  long area() const override { return a * b; }
};

struct conversions {
  char chars[64], line[64], word[32];
  double real, parsed;
  float small;
  long number;
  unsigned flags;
  unsigned short narrow;
  bool truth;
  void *pointer;
  std::string whole_line, token;
};

struct root {
  // With an allocator.
  std::map<text, std::vector<long, in_heap<long>>, std::less<>,
           in_heap<std::pair<const text, std::vector<long, in_heap<long>>>>> index;
  std::unordered_map<long, text, std::hash<long>, std::equal_to<>, in_heap<std::pair<const long, text>>> names;
  // Plain ones.
  std::set<int> set;
  std::multiset<int> bag;
  std::map<std::string, int> counts;
  std::list<std::string> list, other;
  std::forward_list<int> forward;
  std::deque<long> deque;
  std::vector<std::string> strings;
  std::vector<bool> bits;
  std::unordered_set<std::string> seen;
  std::unordered_multimap<int, int> multi;
  std::priority_queue<long> queue;
  std::bitset<257> bitset;
  std::array<std::tuple<int, std::string, double>, 8> tuples;
  std::variant<int, std::string, std::vector<int>> variant;
  std::optional<std::string> maybe;
  std::vector<std::unique_ptr<shape>> shapes;
  std::shared_ptr<std::string> shared[4];
  std::mt19937_64 random{42};
  std::wstring wide;
  conversions text_fields;
  unsigned char blob[3000];
};

static root &all() { return *static_cast<root *>(persist->root); }

void program_start() {
  use_file file;
  persist->root = new root();
}

void program_resume() {}

static void convert(conversions &c, uint64_t n) {
  auto end = std::to_chars(c.chars, c.chars + sizeof c.chars - 1, n / 7.0).ptr;
  *end = 0;
  std::from_chars(c.chars, end, c.parsed);
  std::snprintf(c.line, sizeof c.line, "%08llx %s", static_cast<unsigned long long>(mix(n)), c.chars);
  std::istringstream in(std::to_string(n) + " 12 3.25 1.5 0x7f 1 77 word" + std::to_string(n) + " token\nthe rest of the line " +
                        std::to_string(n) + "\nsecond line\n0123456789abcdef");
  in >> c.number >> c.flags >> c.real >> c.small >> c.pointer >> c.truth >> c.narrow;
  in.width(sizeof c.word);
  in >> c.word;
  {
    use_file file;
    in >> c.token;
    in.ignore(100, '\n');
    std::getline(in, c.whole_line);
  }
  in.getline(c.line, sizeof c.line);
  in.read(c.chars + 40, 8);
}

void program_step(uint64_t n) {
  root &r = all();
  uint64_t x = mix(n);
  std::string key = "key" + std::to_string(x % 200);

  auto &row = r.index[text(("row " + std::to_string(x % 97)).c_str())];
  row.push_back(long(n));
  if (row.size() > 20) row.erase(row.begin(), row.begin() + 7);
  if (x % 11 == 0) r.index.erase(r.index.begin());
  r.names[long(x % 500)] = text(x % 60, char('a' + x % 26));
  if (x % 5 == 0) r.names.erase(long(x / 3 % 500));

  {
    use_file file;
    r.set.insert(int(x % 1000));
    r.set.erase(int(x / 1000 % 1000));
    r.bag.insert(int(x % 50));
    if (r.bag.size() > 300) r.bag.erase(r.bag.begin(), std::next(r.bag.begin(), 100));
    r.counts[key]++;
    r.counts[key + " with a name too long for the small buffer"] += int(n);
    if (auto node = r.counts.extract("key" + std::to_string(x / 7 % 200))) {
      node.key() += "'";
      r.counts.insert(std::move(node));
    }
    if (r.counts.size() > 400) r.counts.clear();
    r.list.push_back(key);
    r.list.emplace_front(x % 40, 'z');
    if (n % 3 == 0) r.other.splice(r.other.begin(), r.list, std::next(r.list.begin()), r.list.end());
    if (n % 5 == 0) r.list.swap(r.other);
    if (n % 7 == 0) r.list.reverse(), r.other.sort();
    if (n % 13 == 0) r.list.merge(r.other), r.list.unique();
    while (r.list.size() > 100) r.list.pop_back();
    while (r.other.size() > 100) r.other.pop_front();
    r.forward.push_front(int(n));
    if (n % 30 == 0) r.forward.reverse(), r.forward.remove_if([](int v) { return v % 3 == 0; });
    r.deque.push_back(long(x));
    r.deque.push_front(long(n));
    if (r.deque.size() > 400) r.deque.erase(r.deque.begin() + 100, r.deque.begin() + 300);
    r.strings.insert(r.strings.begin() + long(x % (r.strings.size() + 1)), key);
    r.strings[x / 9 % r.strings.size()].append(key).replace(0, 2, "<>").insert(1, "-");
    if (r.strings.size() > 150) r.strings.erase(r.strings.begin() + 30, r.strings.end()), r.strings.shrink_to_fit();
    if (n % 17 == 0) std::sort(r.strings.begin(), r.strings.end());
    if (n % 19 == 0) std::stable_sort(r.strings.begin(), r.strings.end(), std::greater<>());
    r.bits.push_back(x & 1);
    if (r.bits.size() > 1000) r.bits.erase(r.bits.begin(), r.bits.begin() + 333);
    r.bits.flip();
    r.seen.insert(key + key);
    if (r.seen.size() > 120) r.seen.clear(), r.seen.rehash(0);
    r.multi.emplace(int(x % 40), int(n));
    if (r.multi.size() > 500) r.multi.erase(int(x % 40));
    r.queue.push(long(x % 10007));
    if (r.queue.size() > 200) r.queue.pop(), r.queue.pop();
    r.bitset.flip(x % 257);
    if (n % 29 == 0) r.bitset <<= 5;
    r.tuples[x % 8] = {int(n), key, double(n) / 3};
    std::swap(r.tuples[0], r.tuples[x % 8]);
    switch (x % 3) {
      case 0: r.variant = int(n); break;
      case 1: r.variant = key; break;
      default: r.variant = std::vector<int>(x % 9, int(n));
    }
    if (x % 2) r.maybe = key + "?"; else r.maybe.reset();
    if (x % 2) r.shapes.push_back(std::make_unique<square>(long(x % 100)));
    else r.shapes.push_back(std::make_unique<box>(long(x % 100), 3));
    if (r.shapes.size() > 60) r.shapes.erase(r.shapes.begin() + 10, r.shapes.begin() + 40);
    r.shared[x % 4] = x % 3 ? std::make_shared<std::string>(key) : r.shared[(x + 1) % 4];
    r.wide += wchar_t(L'a' + x % 26);
    if (r.wide.size() > 90) r.wide.erase(0, 50);
  }
  for (int i = 0; i < 50; i++) r.blob[r.random() % sizeof r.blob] += static_cast<unsigned char>(r.random());
  memmove(r.blob + x % 500, r.blob + x / 500 % 500, 700);
  std::rotate(r.blob + 1000, r.blob + 1000 + x % 400, r.blob + 1400);
  std::fill_n(r.blob + 1500 + x % 300, x % 90, static_cast<unsigned char>(n));
  std::reverse(r.blob + 2000, r.blob + 2000 + x % 900);
  convert(r.text_fields, n);
}

struct hasher {
  uint64_t value = 0;
  void operator()(const void *p, std::size_t n) { value = digest_bytes(value, p, n); }
  void operator()(const std::string &s) { (*this)(s.data(), s.size()); }
  void operator()(const text &s) { (*this)(s.data(), s.size()); }
  void operator()(long v) { value = mix(value ^ uint64_t(v)); }
};

uint64_t program_digest() {
  root &r = all();
  hasher h;
  for (auto &[k, v] : r.index) { h(k); for (long l : v) h(l); }
  uint64_t unordered = 0;
  for (auto &[k, v] : r.names) { hasher one; one(k), one(v); unordered += one.value; }
  for (auto &s : r.seen) { hasher one; one(s); unordered += one.value; }
  for (auto &[k, v] : r.multi) { hasher one; one(k), one(v); unordered += one.value; }
  h(long(unordered));
  for (int v : r.set) h(v);
  for (int v : r.bag) h(v);
  for (auto &[k, v] : r.counts) h(k), h(v);
  for (auto &s : r.list) h(s);
  for (auto &s : r.other) h(s);
  for (int v : r.forward) h(v);
  for (long v : r.deque) h(v);
  for (auto &s : r.strings) h(s);
  for (bool b : r.bits) h(b);
  auto queue = r.queue;
  for (; !queue.empty(); queue.pop()) h(queue.top());
  h(r.bitset.to_string());
  for (auto &[a, b, c] : r.tuples) h(a), h(b), h(long(c * 3));
  h(long(r.variant.index()));
  if (r.maybe) h(*r.maybe);
  for (auto &s : r.shapes) h(s->area());
  for (auto &s : r.shared) if (s) h(*s), h(s.use_count());
  auto random = r.random;
  h(long(random()));
  for (wchar_t c : r.wide) h(c);
  const conversions &c = r.text_fields;
  h(std::string(c.chars)), h(std::string(c.line)), h(std::string(c.word)), h(c.whole_line), h(c.token);
  h(c.number), h(c.flags), h(c.narrow), h(c.truth), h(long(c.real * 4)), h(long(c.small * 4)), h(long(c.parsed)), h(reinterpret_cast<long>(c.pointer));
  h(r.blob, sizeof r.blob);
  return h.value;
}
