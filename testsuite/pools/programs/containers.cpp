// containers.cpp - every container of the C++ library in a pool, and the same operations on a volatile twin.
//
//   containers POOL run STEPS   makes steps until STEPS are done, one transaction each; prints the number of each
//   containers POOL digest      prints the steps that the pool has seen, and a digest of everything in it
//   containers - twin STEPS     prints the digest of the twin after 0, 1, ... STEPS steps
//
// A step depends on its number alone. Some steps begin with a transaction that fails: by an exception, by vn::cancel, or in
// an inner one. The twin knows nothing of those. With -DRESOURCE some containers are std::pmr ones, whose memory has no
// types; such a pool cannot be moved.
#include <vernal.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <stdexcept>

// Where a family's objects come from.
struct in_pool {
  template <class T>
  using alloc = vn::allocator<T>;
  static vn::pool *pool;
  template <class T, class... A>
  static T *make(A &&...a) { return vn::make<T>(*pool, std::forward<A>(a)...); }
  template <class T>
  static void destroy(T *p) { vn::destroy(p); }
};
vn::pool *in_pool::pool;

struct in_memory {
  template <class T>
  using alloc = std::allocator<T>;
  template <class T, class... A>
  static T *make(A &&...a) { return new T(std::forward<A>(a)...); }
  template <class T>
  static void destroy(T *p) { delete p; }
};

struct random_numbers {
  uint64_t state;
  uint64_t operator()() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return (*this)() % n; }
};

struct digest {
  uint64_t value = 0xcbf29ce484222325u;
  void add(const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) value = (value ^ static_cast<const unsigned char *>(p)[i]) * 0x100000001b3u;
  }
  void add(uint64_t n) { add(&n, sizeof n); }
  void add(std::string_view text) {
    add(text.size());
    add(text.data(), text.size());
  }
};

// Polymorphic objects: their vtable pointers are this process' and are set anew in the next one.
struct shape {
  virtual ~shape() = default;
  virtual uint64_t area() const = 0;
  shape *next = nullptr;
};
struct named {
  virtual ~named() = default;
  virtual uint64_t name() const { return 1; }
  uint64_t tag = 5;
};
struct square : shape {
  uint64_t side;
  explicit square(uint64_t s) : side(s) {}
  uint64_t area() const override { return side * side; }
};
struct box : named, shape {  // the shape is not at its start
  uint64_t a, b;
  box(uint64_t x, uint64_t y) : a(x), b(y) {}
  uint64_t area() const override { return a * b; }
  uint64_t name() const override { return tag * 2; }
};

struct text_hash {
  template <class S>
  size_t operator()(const S &s) const { return std::hash<std::string_view>()(std::string_view(s.data(), s.size())); }
};

template <class F>
struct model {
  template <class T>
  using alloc = typename F::template alloc<T>;
  using text = std::basic_string<char, std::char_traits<char>, alloc<char>>;
  template <class T>
  using vector = std::vector<T, alloc<T>>;
  template <class K, class V>
  using map = std::map<K, V, std::less<>, alloc<std::pair<const K, V>>>;

  struct record {
    text name;
    vector<uint32_t> values;
    double weight = 0;
    bool flag = false;
  };

  uint64_t steps = 0;
  map<text, vector<text>> index;
  map<int, map<int, text>> nested;
  std::multimap<int, text, std::less<>, alloc<std::pair<const int, text>>> many;
  std::set<text, std::less<>, alloc<text>> names;
  std::multiset<int, std::less<>, alloc<int>> bag;
  std::unordered_map<text, uint64_t, text_hash, std::equal_to<>, alloc<std::pair<const text, uint64_t>>> hashed;
  std::unordered_set<long, std::hash<long>, std::equal_to<>, alloc<long>> seen;
  std::list<record, alloc<record>> records;
  std::forward_list<text, alloc<text>> forward;
  std::deque<text, alloc<text>> queue;
  vector<bool> bits;
  text log;
  shape *shapes = nullptr;
#ifdef RESOURCE
  // The twin's lies in memory and is the default one.
  std::conditional_t<std::is_same_v<F, in_pool>, vn::memory_resource, int> resource;
  std::pmr::memory_resource *from() {
    if constexpr (std::is_same_v<F, in_pool>)
      return &resource;
    else
      return std::pmr::get_default_resource();
  }
  std::pmr::map<int, std::pmr::string> pmr_map{from()};
  std::pmr::vector<std::pmr::string> pmr_strings{from()};
#endif

  // Short ones lie in the string itself, long ones in memory of their own.
  static text word(random_numbers &r) {
    uint64_t n = r.below(400);
    text t(r.below(2) ? "w" : "a word that is too long for the place inside a string: ");
    char digits[24];
    std::snprintf(digits, sizeof digits, "%llu", static_cast<unsigned long long>(n));
    t += digits;
    return t;
  }

  void change(uint64_t seed) {
    random_numbers r{seed};
    for (uint64_t count = 1 + r.below(4); count > 0; count--) one(r);
  }

  void one(random_numbers &r) {
    switch (r.below(15)) {
      case 0: {
        auto &v = index[word(r)];
        v.push_back(word(r));
        if (v.size() > 6) v.erase(v.begin(), v.begin() + 3);
        break;
      }
      case 1: {
        auto at = index.lower_bound(word(r));
        if (at != index.end()) index.erase(at);
        break;
      }
      case 2: {
        int outer = int(r.below(12)), inner = int(r.below(12));
        auto &m = nested[outer];
        if (!m.emplace(inner, word(r)).second) m.erase(inner);
        if (m.size() > 9) nested.erase(outer);
        break;
      }
      case 3: many.emplace(int(r.below(40)), word(r)); break;
      case 4: many.erase(int(r.below(40))); break;
      case 5:
        if (auto [at, fresh] = names.insert(word(r)); !fresh) names.erase(at);
        break;
      case 6: {
        bag.insert(int(r.below(50)));
        auto at = bag.find(int(r.below(50)));
        if (at != bag.end()) bag.erase(at);
        break;
      }
      case 7: hashed[word(r)] += r.below(1000); break;
      case 8:
        hashed.erase(word(r));
        if (r.below(20) == 0) hashed.rehash(hashed.size() * 2);
        break;
      case 9: {
        long n = long(r.below(500));
        if (!seen.insert(n).second) seen.erase(n);
        break;
      }
      case 10: {
        record made;
        made.name = word(r);
        for (uint64_t n = r.below(9); n > 0; n--) made.values.push_back(uint32_t(r()));
        made.weight = double(r.below(1000)) / 8;
        made.flag = r.below(2) == 0;
        records.push_back(std::move(made));
        if (records.size() > 40) records.erase(records.begin(), std::next(records.begin(), 15));
        if (r.below(8) == 0) records.sort([](const record &a, const record &b) { return a.name < b.name; });
        if (r.below(8) == 0) records.reverse();
        break;
      }
      case 11:
        forward.push_front(word(r));
        if (r.below(12) == 0) forward.clear();
        if (r.below(6) == 0) forward.sort();
        break;
      case 12:
        queue.push_back(word(r));
        if (r.below(3) == 0) queue.push_front(word(r));
        while (queue.size() > 60) queue.pop_front();
        break;
      case 13:
        bits.push_back(r.below(2) != 0);
        if (bits.size() > 900) bits.erase(bits.begin(), bits.begin() + 333);
        if (!bits.empty()) bits[r.below(bits.size())].flip();
        log += word(r);
        if (log.size() > 3000) log.erase(0, 1111);
        break;
      default: {
        shape *made = r.below(2) ? static_cast<shape *>(F::template make<square>(r.below(100)))
                                 : static_cast<shape *>(F::template make<box>(r.below(100), r.below(100)));
        if (made == nullptr) throw std::bad_alloc();
        made->next = shapes;
        shapes = made;
        if (r.below(4) == 0) {
          shape *gone = shapes->next;
          if (gone != nullptr) {
            shapes->next = gone->next;
            F::destroy(gone);
          }
        }
      }
    }
#ifdef RESOURCE
    pmr_map[int(r.below(80))] = word(r);
    pmr_map.erase(int(r.below(80)));
    pmr_strings.emplace_back(word(r));
    if (pmr_strings.size() > 30) pmr_strings.erase(pmr_strings.begin(), pmr_strings.begin() + 10);
#endif
  }

  uint64_t sum() const {
    digest d;
    d.add(steps);
    for (auto &[key, values] : index) {
      d.add(key);
      for (auto &v : values) d.add(v);
    }
    for (auto &[outer, inner] : nested) {
      d.add(uint64_t(outer));
      for (auto &[key, value] : inner) {
        d.add(uint64_t(key));
        d.add(value);
      }
    }
    for (auto &[key, value] : many) {
      d.add(uint64_t(key));
      d.add(value);
    }
    for (auto &n : names) d.add(n);
    for (int n : bag) d.add(uint64_t(n));
    uint64_t unordered = hashed.size() * 3 + seen.size();
    for (auto &[key, value] : hashed) {
      digest one;
      one.add(key);
      one.add(value);
      unordered += one.value;
      if (hashed.find(key) == hashed.end()) unordered = 0;  // the buckets are part of the state, too
    }
    for (long n : seen) unordered += uint64_t(n) * 0x9e3779b97f4a7c15u;
    d.add(unordered);
    for (auto &one : records) {
      d.add(one.name);
      for (uint32_t v : one.values) d.add(v);
      d.add(&one.weight, sizeof one.weight);
      d.add(one.flag);
    }
    for (auto at = records.rbegin(); at != records.rend(); ++at) d.add(at->values.size());
    for (auto &t : forward) d.add(t);
    for (auto &t : queue) d.add(t);
    for (bool b : bits) d.add(b);
    d.add(log);
    for (const shape *s = shapes; s != nullptr; s = s->next) {
      d.add(s->area());
      if (auto *n = dynamic_cast<const named *>(s)) d.add(n->name());
    }
#ifdef RESOURCE
    for (auto &[key, value] : pmr_map) {
      d.add(uint64_t(key));
      d.add(value);
    }
    for (auto &t : pmr_strings) d.add(t);
#endif
    return d.value;
  }
};

struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] static void fail(const char *what, const std::string &why) {
  std::fprintf(stderr, "containers: %s: %s\n", what, why.c_str());
  std::exit(1);
}

// A transaction that fails: nothing of it may stay.
static void fail_on_purpose(vn::pool &pool, model<in_pool> &m, uint64_t seed) {
  uint64_t before = m.sum();
  vn::status result;
  try {
    result = vn::tx(pool, [&] {
      m.steps += 1000;
      m.change(seed);
      switch (seed % 3) {
        case 0: vn::cancel(); break;
        case 1: throw failure("on purpose");
        default:
          result = vn::tx(pool, [&] {
            m.change(seed + 1);
            vn::cancel();
          });
          m.change(seed + 2);
      }
    });
    if (result.code() != VERNAL_EABORTED) fail("a failed transaction", "it returned " + std::to_string(result.code()) + " " + result.text());
  } catch (const failure &) {
    if (seed % 3 != 1) fail("a failed transaction", "it threw");
  }
  if (m.sum() != before) fail("a failed transaction", "it left something");
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  std::string name = argv[1], command = argv[2];
  uint64_t limit = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0;
  if (command == "twin") {
    model<in_memory> twin;
    for (;; twin.change(twin.steps)) {
      std::printf("%016llx\n", static_cast<unsigned long long>(twin.sum()));
      if (twin.steps++ == limit) return 0;
    }
  }
  vn::pool pool(name, vn::create);
  if (!pool) fail(name.c_str(), pool.error().text());
  in_pool::pool = &pool;
  auto *m = vn::root<model<in_pool>>(pool);
  if (m == nullptr) fail(name.c_str(), vernal_last_error());
  if (command == "digest") {
    std::printf("%llu %016llx\n", static_cast<unsigned long long>(m->steps), static_cast<unsigned long long>(m->sum()));
    return 0;
  }
  while (m->steps < limit) {
    uint64_t step = m->steps + 1;
    if (step % 7 == 0) fail_on_purpose(pool, *m, step * 31);
    vn::status done = vn::tx(pool, [&] {
      m->steps = step;
      m->change(step);
    });
    if (!done) fail("a transaction", done.text());
    std::printf("%llu\n", static_cast<unsigned long long>(step));
    std::fflush(stdout);
  }
  if (vn::status closed = pool.close(); !closed) fail("closing", closed.text());
  return 0;
}
