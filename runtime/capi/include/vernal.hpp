// vernal.hpp - pools of persistent objects from C++17: a header over vernal_pool.h, for programs compiled with vernal-c++.
//
//   vn::pool pool("./stock", vn::create);
//   auto *stock = vn::root<std::map<long, long, std::less<>, vn::allocator<std::pair<const long, long>>>>(pool);
//   vn::tx(pool, [&] { (*stock)[7] += 1; });
//
// Standard containers live in a pool with native pointers when their allocator is vn::allocator: vn::map, vn::string and
// the others below are short names for that. Errors are values (vn::status); only what the standard demands is thrown:
// std::bad_alloc by an allocator. Everything works with -fno-exceptions, where a failing allocator ends the program.
#ifndef VERNAL_HPP
#define VERNAL_HPP
#include <vernal_pool.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <forward_list>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace vn {

/// How an operation ended: true when it worked, else a vernal_error and its text.
class [[nodiscard]] status {
 public:
  status() = default;
  /// The calling thread's last failure, if `code` is one.
  explicit status(int code) : code_(code), text_(code < 0 ? vernal_last_error() : "") {}
  explicit operator bool() const noexcept { return code_ >= 0; }
  int code() const noexcept { return code_; }
  const std::string &text() const noexcept { return text_; }
  /// For callers that have nothing to do about a failure: prints it and ends the program.
  void or_die() const {
    if (code_ >= 0) return;
    std::fprintf(stderr, "%s\n", text_.c_str());
    std::abort();
  }

 private:
  int code_ = 0;
  std::string text_;
};

inline constexpr unsigned create = VN_CREATE;
inline constexpr unsigned direct = VN_DIRECT;
inline constexpr unsigned read_only = VN_READONLY;
inline constexpr unsigned exclusive = VN_EXCL;

namespace detail {
// The pool that containers take which are not in a pool themselves: of this thread, else of the process.
inline thread_local vn_pool *thread_pool = nullptr;
inline vn_pool *first_pool = nullptr;
inline vn_pool *current() noexcept { return thread_pool != nullptr ? thread_pool : first_pool; }

// Set by vn::cancel.
inline thread_local bool cancelled = false;

class bad_alloc : public std::bad_alloc {
 public:
  explicit bad_alloc(const char *text) { std::snprintf(text_, sizeof text_, "%s", text); }
  const char *what() const noexcept override { return text_; }

 private:
  char text_[240];
};

[[noreturn]] inline void no_memory(const char *text) {
#if defined(__cpp_exceptions)
  throw bad_alloc(text);
#else
  std::fprintf(stderr, "%s\n", text);
  std::abort();
#endif
}

inline bool aligned(const void *p, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(p) % alignment == 0;
}

// The address of the whole object, as the allocator knows it.
template <class T>
void *whole(T *object) {
  if constexpr (std::is_polymorphic_v<T>)
    return dynamic_cast<void *>(object);
  else
    return const_cast<std::remove_cv_t<T> *>(object);
}

// Runs `make` and frees `place` when it throws.
template <class Make>
void construct(void *place, Make &&make) {
#if defined(__cpp_exceptions)
  try {
    make();
  } catch (...) {
    vn_free(place);
    throw;
  }
#else
  (void)place;
  make();
#endif
}
}  // namespace detail

/// An open pool; closed when it goes out of scope. The first one that a process opens is the one that containers outside of
/// any pool take (vn::pool_scope and vn::tx choose another).
class pool {
 public:
  pool() = default;
  /// Opens `name`: with a '/' the directory of an embedded pool, else a pool of puddled. Test it with `if (!pool)`.
  explicit pool(const char *name, unsigned flags = 0) : handle_(vn_pool_open(name, flags)) {
    if (handle_ == nullptr)
      error_ = status(vernal_last_error_code());
    else if (detail::first_pool == nullptr)
      detail::first_pool = handle_;
  }
  explicit pool(const std::string &name, unsigned flags = 0) : pool(name.c_str(), flags) {}
  pool(pool &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)), error_(std::move(other.error_)) {}
  pool &operator=(pool &&other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(error_, other.error_);
    return *this;
  }
  pool(const pool &) = delete;
  pool &operator=(const pool &) = delete;
  ~pool() { (void)close(); }

  explicit operator bool() const noexcept { return handle_ != nullptr; }
  /// Why it could not be opened.
  const status &error() const noexcept { return error_; }
  vn_pool *handle() const noexcept { return handle_; }
  /// Whether `object` lies in it.
  bool holds(const void *object) const noexcept { return handle_ != nullptr && vn_pool_of(object) == handle_; }

  /// Commits and closes. Fails inside a transaction; the pool is then still open.
  status close() {
    if (handle_ == nullptr) return status();
    status result(vn_pool_close(handle_));
    if (result) {
      if (detail::first_pool == handle_) detail::first_pool = nullptr;
      if (detail::thread_pool == handle_) detail::thread_pool = nullptr;
      handle_ = nullptr;
    }
    return result;
  }

 private:
  vn_pool *handle_ = nullptr;
  status error_;
};

/// While it lives, containers that this thread makes outside of any pool take their memory from `pool`.
class pool_scope {
 public:
  explicit pool_scope(const pool &p) noexcept : before_(std::exchange(detail::thread_pool, p.handle())) {}
  ~pool_scope() { detail::thread_pool = before_; }
  pool_scope(const pool_scope &) = delete;
  pool_scope &operator=(const pool_scope &) = delete;

 private:
  vn_pool *before_;
};

/// A copy of `object` and of everything that it reaches inside its pool, in the pool `to`, in the open transaction: see
/// vn_copy. Null when that fails; vernal_last_error() says why.
template <class T>
T *copy(const pool &to, const T *object) {
  const auto *first = static_cast<const char *>(detail::whole(const_cast<T *>(object)));
  auto *made = static_cast<char *>(vn_copy(to.handle(), first));
  if (made == nullptr) return nullptr;
  return reinterpret_cast<T *>(made + (reinterpret_cast<const char *>(object) - first));
}

/// A new T in the pool; null when there is no space (vernal_last_error() says why). What the constructor throws goes through.
template <class T, class... Arguments>
[[nodiscard]] T *make(const pool &p, Arguments &&...arguments) {
  T *place = vn_new(p.handle(), T);
  if (place == nullptr) return nullptr;
  detail::construct(place, [&] { ::new (static_cast<void *>(place)) T(std::forward<Arguments>(arguments)...); });
  return place;
}

/// `count` new Ts in one piece, value-initialised.
template <class T>
[[nodiscard]] T *make_array(const pool &p, std::size_t count) {
  T *place = vn_new_array(p.handle(), T, count);
  if (place == nullptr) return nullptr;
  detail::construct(place, [&] { std::uninitialized_value_construct_n(place, count); });
  return place;
}

/// Ends the life of an object that vn::make made, and frees it. Null is allowed.
template <class T>
void destroy(T *object) {
  if (object == nullptr) return;
  void *whole = detail::whole(object);
  object->~T();
  vn_free(whole);
}

template <class T>
void destroy_array(T *first, std::size_t count) {
  if (first == nullptr) return;
  std::destroy_n(first, count);
  vn_free(first);
}

/// The transaction of this thread is rolled back when it ends.
inline void cancel() noexcept { detail::cancelled = true; }

namespace detail {
// What happens when the closure has returned or thrown: `depth` is what it ran in.
inline status finish(int depth, bool failed) {
  bool cancel = std::exchange(cancelled, false) || failed;
  // vn_tx_abort() inside the closure has ended this level already.
  if (vn_tx_depth() < depth) return status(VERNAL_EABORTED);
  if (cancel) {
    (void)vn_tx_abort();
    return status(VERNAL_EABORTED);
  }
  return status(vn_tx_commit());
}
}  // namespace detail

/// Runs `body` as a transaction: durable when this returns, and rolled back when `body` throws (the exception goes through)
/// or calls vn::cancel(). An abort in another thread can take it along; `body` is then run again, so it must not rely on what
/// it changed outside of pools. Inside another transaction of the thread it is part of that one: rolling it back rolls back
/// the whole, when the outermost ends.
template <class Body>
status tx(Body &&body) {
  constexpr int retries = 1000;
  for (int attempt = 0;; attempt++) {
    if (int code = vn_tx_begin(); code != 0) return status(code);
    int depth = vn_tx_depth();
#if defined(__cpp_exceptions)
    try {
      body();
    } catch (...) {
      (void)detail::finish(depth, true);
      throw;
    }
#else
    body();
#endif
    status result = detail::finish(depth, false);
    if (result.code() != VERNAL_ECONFLICT || depth > 1 || attempt == retries) return result;
  }
}

/// The same, and containers that `body` makes outside of pools take their memory from `p`.
template <class Body>
status tx(const pool &p, Body &&body) {
  pool_scope scope(p);
  return tx(std::forward<Body>(body));
}

/// The pool's root object, made from `arguments` in a transaction when there is none. Null when that fails, or when the root
/// is of another type or layout: vernal_last_error() says which.
template <class T, class... Arguments>
[[nodiscard]] T *root(const pool &p, Arguments &&...arguments) {
  if (!p) return nullptr;
  if (vn_get_root(p.handle()) != nullptr) return vn_root(p.handle(), T);
  T *made = nullptr;
  status result = tx(p, [&] {
    made = vn_new(p.handle(), T);
    // It is the root before it is constructed: allocators in it refer to their pool by its root.
    if (made == nullptr || vn_set_root(p.handle(), made) != 0) {
      made = nullptr;
      cancel();
      return;
    }
    ::new (static_cast<void *>(made)) T(std::forward<Arguments>(arguments)...);
  });
  return result ? made : nullptr;
}

/// Takes memory from a pool, for standard containers.
///
/// It lies in the containers, so that it must survive like them: it holds no vn_pool, which means nothing in another run, but
/// the address of the pool's root, an ordinary pointer that is relocated like any other. Made without arguments it takes the
/// pool that it lies in itself; outside of pools the one of the running vn::tx(pool, ...) or vn::pool_scope, else the first
/// one that the process opened. So elements of containers, which are made in the container's nodes, take its pool.
template <class T>
class allocator {
 public:
  using value_type = T;
  // A container's memory and its allocator stay in one pool: contents move between pools one by one.
  using propagate_on_container_copy_assignment = std::false_type;
  using propagate_on_container_move_assignment = std::false_type;
  using propagate_on_container_swap = std::false_type;
  using is_always_equal = std::false_type;

  allocator() noexcept {
    if (vn_pool *p = by_place()) root_ = vn_get_root(p);
  }
  allocator(const pool &p) noexcept : root_(p ? vn_get_root(p.handle()) : nullptr) {}
  template <class U>
  allocator(const allocator<U> &other) noexcept : root_(other.root_) {}

  [[nodiscard]] T *allocate(std::size_t count) {
    vn_pool *p = get();
    if (p == nullptr) detail::no_memory("a container that is in no pool needs an open one: vn::pool_scope or vn::tx(pool, ...) chooses it");
    T *memory = vn_new_array(p, T, count);
    if (memory == nullptr) detail::no_memory(vernal_last_error());
    if (alignof(T) > alignof(std::max_align_t) && !detail::aligned(memory, alignof(T))) {
      vn_free(memory);
      detail::no_memory("the pool does not align objects to what this type needs");
    }
    return memory;
  }
  void deallocate(T *memory, std::size_t) noexcept { vn_free(memory); }

  /// The pool that it takes from.
  vn_pool *get() const noexcept { return root_ != nullptr ? vn_pool_of(root_) : by_place(); }

  template <class U>
  bool operator==(const allocator<U> &other) const noexcept {
    return root_ == other.root_ ? root_ != nullptr || get() == other.get() : get() == other.get();
  }
  template <class U>
  bool operator!=(const allocator<U> &other) const noexcept { return !(*this == other); }

 private:
  template <class U>
  friend class allocator;
  vn_pool *by_place() const noexcept {
    vn_pool *p = vn_pool_of(this);
    return p != nullptr ? p : detail::current();
  }

  // Null in a pool that has no root yet: the pool is then found by the place each time.
  const void *root_ = nullptr;
};

/// The same without state, for programs with one open pool at a time: containers are as small as with std::allocator. It takes
/// from the current pool, which has to be the one that the container is in.
template <class T>
class single_pool_allocator {
 public:
  using value_type = T;
  using is_always_equal = std::true_type;

  single_pool_allocator() = default;
  template <class U>
  single_pool_allocator(const single_pool_allocator<U> &) noexcept {}

  [[nodiscard]] T *allocate(std::size_t count) {
    vn_pool *p = detail::current();
    if (p == nullptr) detail::no_memory("no pool is open to take memory from");
    T *memory = vn_new_array(p, T, count);
    if (memory == nullptr) detail::no_memory(vernal_last_error());
    return memory;
  }
  void deallocate(T *memory, std::size_t) noexcept { vn_free(memory); }

  template <class U>
  bool operator==(const single_pool_allocator<U> &) const noexcept { return true; }
  template <class U>
  bool operator!=(const single_pool_allocator<U> &) const noexcept { return false; }
};

/// A std::pmr resource that lies in the pool it takes from, so that the pointers which std::pmr containers keep to it stay
/// valid; its vtable pointer is set anew when the pool is opened. Make it a member of the root, or an object of its own.
///
/// A resource is asked for bytes and never told what for: memory that comes from one has no types. Such containers survive
/// restarts, but the pointers in them cannot be rewritten, so that the pool must stay at its address: no clone, no export.
/// `vernal pool check` names pointers in memory without type. Use vn::allocator where the pool is to travel.
class memory_resource final : public std::pmr::memory_resource {
 public:
  memory_resource() = default;
  memory_resource(const memory_resource &) = delete;
  memory_resource &operator=(const memory_resource &) = delete;

 private:
  void *do_allocate(std::size_t bytes, std::size_t alignment) override {
    vn_pool *p = vn_pool_of(this);
    if (p == nullptr) detail::no_memory("a vn::memory_resource has to lie in a pool itself");
    void *memory = vn_new_bytes(p, bytes == 0 ? 1 : bytes);
    if (memory == nullptr) detail::no_memory(vernal_last_error());
    if (!detail::aligned(memory, alignment)) {
      vn_free(memory);
      detail::no_memory("the pool does not align objects to what was asked for");
    }
    return memory;
  }
  void do_deallocate(void *memory, std::size_t, std::size_t) override { vn_free(memory); }
  bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override { return this == &other; }
};

template <class C>
using basic_string = std::basic_string<C, std::char_traits<C>, allocator<C>>;
using string = basic_string<char>;
using wstring = basic_string<wchar_t>;
template <class T>
using vector = std::vector<T, allocator<T>>;
template <class T>
using deque = std::deque<T, allocator<T>>;
template <class T>
using list = std::list<T, allocator<T>>;
template <class T>
using forward_list = std::forward_list<T, allocator<T>>;
template <class K, class V, class Less = std::less<>>
using map = std::map<K, V, Less, allocator<std::pair<const K, V>>>;
template <class K, class V, class Less = std::less<>>
using multimap = std::multimap<K, V, Less, allocator<std::pair<const K, V>>>;
template <class K, class Less = std::less<>>
using set = std::set<K, Less, allocator<K>>;
template <class K, class Less = std::less<>>
using multiset = std::multiset<K, Less, allocator<K>>;

/// Hashes strings of any allocator by their text.
template <class K>
struct hash : std::hash<K> {};
template <class C>
struct hash<basic_string<C>> {
  std::size_t operator()(std::basic_string_view<C> text) const noexcept { return std::hash<std::basic_string_view<C>>()(text); }
};

template <class K, class V, class Hash = hash<K>, class Equal = std::equal_to<>>
using unordered_map = std::unordered_map<K, V, Hash, Equal, allocator<std::pair<const K, V>>>;
template <class K, class V, class Hash = hash<K>, class Equal = std::equal_to<>>
using unordered_multimap = std::unordered_multimap<K, V, Hash, Equal, allocator<std::pair<const K, V>>>;
template <class K, class Hash = hash<K>, class Equal = std::equal_to<>>
using unordered_set = std::unordered_set<K, Hash, Equal, allocator<K>>;
template <class K, class Hash = hash<K>, class Equal = std::equal_to<>>
using unordered_multiset = std::unordered_multiset<K, Hash, Equal, allocator<K>>;

}  // namespace vn
#endif
