// arena.hpp - memory for C++ containers inside a mapped file, for the examples.
//
// A file is mapped where it was mapped before, so that containers in it keep their pointers. `arena::allocate` hands out its
// memory; freed pieces go to a list per size. Plain mmap and msync: Vernal is not mentioned.
#pragma once
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

class arena {
 public:
  // Maps `path`, which is created with `size` bytes if need be.
  static arena &open(const char *path, std::size_t size) {
    int fd = ::open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct stat status;
    if (fd < 0 || ::fstat(fd, &status) != 0 || (status.st_size == 0 && ::ftruncate(fd, size) != 0)) fail(path);
    if (status.st_size != 0 && std::size_t(status.st_size) != size) throw std::runtime_error(std::string(path) + ": wrong size");
    void *place = reinterpret_cast<void *>(0x210000000000);
    void *memory = ::mmap(place, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    if (memory == MAP_FAILED) fail(path);
    auto *a = static_cast<arena *>(memory);
    if (a->self_ == nullptr) {
      a->self_ = a;
      a->size_ = size;
      a->used_ = sizeof(arena);
    }
    if (a->self_ != a) throw std::runtime_error(std::string(path) + ": was made for another address");
    current_ = a;
    return *a;
  }

  static arena &current() { return *current_; }

  // The file's root object, made when there is none.
  template <class T>
  T &root() {
    if (root_ == nullptr) root_ = new (allocate(sizeof(T))) T();
    return *static_cast<T *>(root_);
  }

  void *allocate(std::size_t size) {
    std::size_t index = class_of(size);
    if (index < classes && free_[index] != nullptr) {
      link *piece = free_[index];
      free_[index] = piece->next;
      return piece;
    }
    std::size_t bytes = index < classes ? (index + 1) * unit : (size + unit - 1) / unit * unit;
    if (bytes > size_ - used_) throw std::bad_alloc();
    void *piece = reinterpret_cast<char *>(this) + used_;
    used_ += bytes;
    return piece;
  }

  void release(void *piece, std::size_t size) noexcept {
    std::size_t index = class_of(size);
    if (index >= classes) return;  // large pieces are not used again
    auto *p = static_cast<link *>(piece);
    p->next = free_[index];
    free_[index] = p;
  }

  void save() {
    if (::msync(this, size_, MS_SYNC) != 0) fail("msync");
  }

 private:
  struct link {
    link *next;
  };
  static constexpr std::size_t unit = 16, classes = 64;
  static std::size_t class_of(std::size_t size) { return size == 0 ? 0 : (size - 1) / unit; }
  [[noreturn]] static void fail(const char *what) { throw std::runtime_error(std::string(what) + ": " + std::strerror(errno)); }

  static inline arena *current_ = nullptr;

  arena *self_;
  std::size_t size_, used_;
  void *root_;
  link *free_[classes];
};

// An allocator without state: there is one arena.
template <class T>
struct in_arena {
  using value_type = T;
  in_arena() = default;
  template <class U>
  in_arena(const in_arena<U> &) noexcept {}
  T *allocate(std::size_t n) { return static_cast<T *>(arena::current().allocate(n * sizeof(T))); }
  void deallocate(T *p, std::size_t n) noexcept { arena::current().release(p, n * sizeof(T)); }
  template <class U>
  bool operator==(const in_arena<U> &) const noexcept { return true; }
  template <class U>
  bool operator!=(const in_arena<U> &) const noexcept { return false; }
};
