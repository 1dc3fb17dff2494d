// vernal_rpc.hpp - remote procedure calls that pass pointers from C++17: a header over vernal_rpc.h, for programs compiled with
// vernal-c++.
//
//   struct query { vn::string word; };                              constexpr vn::rpc::method<query, answer> find{1};
//   vn::rpc::channel shop("shop/stock");                            auto shop = vn::rpc::connect("shop/stock");
//   shop.serve(find, [](const query &q, vn::rpc::call &c) {         auto q = shop.make<query>();
//     auto a = c.make<answer>();                                    q->word = "bolts";
//     a->lines.push_back(...);                                      auto a = shop.call(find, *q);
//     return a; });                                                 if (!a) std::puts(a.text().c_str());
//   shop.run();                                                     else for (auto &line : a->lines) ...
//
// Containers are those of vernal.hpp, whose allocator finds the heap of the object that they lie in. A receiver that verifies
// takes std::vector, std::string, pairs, tuples, arrays and pointers; not maps, lists and hash tables, whose inner links nobody
// has checked: pass those with VN_RPC_PLAIN. Errors are values.
#ifndef VERNAL_RPC_HPP
#define VERNAL_RPC_HPP
#include <vernal.hpp>
#include <vernal_rpc.h>

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace vn::rpc {

/// A method: its number, what it takes and what it gives.
template <class Argument, class Reply>
struct method {
  std::uint32_t number;
};

/// The type T as libvernal knows it.
template <class T>
const vn_type *type() {
  return vn_type_of(T);
}

namespace detail {
/// Destroys and frees an object of a heap, and what it owns there.
template <class T>
struct destroy {
  void operator()(T *object) const noexcept {
    if (object == nullptr) return;
    object->~T();
    vn_free(object);
  }
};

template <class T, class... Args>
T *make_in(vn_pool *heap, Args &&...args) {
  if (heap == nullptr) return nullptr;
  T *place = vn_new(heap, T);
  if (place == nullptr) return nullptr;
  return ::new (static_cast<void *>(place)) T(std::forward<Args>(args)...);
}

template <class T>
void release(void *object, void *) {
  destroy<T>{}(static_cast<T *>(object));
}
}  // namespace detail

/// An object of a heap that this side writes; destroyed with this. Null when there was no room: vernal_last_error() says why.
template <class T>
using own = std::unique_ptr<T, detail::destroy<T>>;

/// A call, for its handler.
class call {
 public:
  explicit call(vn_rpc_call *handle) noexcept : handle_(handle) {}
  /// A new object in the heap that replies come from.
  template <class T, class... Args>
  own<T> make(Args &&...args) const {
    return own<T>(detail::make_in<T>(vn_rpc_reply_heap(handle_), std::forward<Args>(args)...));
  }
  /// Fails the call; return an empty reply after it.
  void fail(std::uint32_t code, const std::string &text) const { vn_rpc_fail(handle_, code, text.c_str()); }
  /// Whether nobody waits for the reply any more.
  bool cancelled() const { return vn_rpc_is_cancelled(handle_) != 0; }
  /// The caller's user, as the kernel says; -1 on another host.
  std::int64_t uid() const { return vn_rpc_caller_uid(handle_); }
  /// How the argument got here: VN_RPC_PASSED_...
  int passed() const { return vn_rpc_argument_passed(handle_); }
  vn_rpc_call *handle() const noexcept { return handle_; }

 private:
  vn_rpc_call *handle_;
};

/// A reply of type T, or why there is none. The object is const, and stays until this is destroyed.
template <class T>
class reply {
 public:
  explicit reply(vn_rpc_reply *handle) : handle_(handle), status_(handle != nullptr ? 0 : vernal_last_error_code()) {
    if (handle == nullptr) code_ = vn_rpc_remote_code();
  }
  /// Whether there is an object: not after a failure, nor when the handler replied with nothing.
  explicit operator bool() const noexcept { return get() != nullptr; }
  const T *get() const noexcept { return handle_ ? static_cast<const T *>(vn_rpc_reply_object(handle_.get())) : nullptr; }
  const T &operator*() const noexcept { return *get(); }
  const T *operator->() const noexcept { return get(); }
  /// How it ended: a vernal_error and its text.
  const vn::status &error() const noexcept { return status_; }
  const std::string &text() const noexcept { return status_.text(); }
  /// The number that the handler failed with; 0: something else went wrong.
  std::uint32_t code() const noexcept { return code_; }
  /// How it got here: VN_RPC_PASSED_...
  int passed() const noexcept { return handle_ ? vn_rpc_reply_passed(handle_.get()) : -1; }

 private:
  struct let_go {
    void operator()(vn_rpc_reply *r) const noexcept { vn_rpc_release(r); }
  };
  std::unique_ptr<vn_rpc_reply, let_go> handle_;
  vn::status status_;
  std::uint32_t code_ = 0;
};

/// A call that is under way; given up when it is destroyed.
template <class T>
class pending {
 public:
  explicit pending(vn_rpc_pending *handle) noexcept : handle_(handle) {}
  /// Waits for the reply.
  reply<T> wait() { return reply<T>(handle_ ? vn_rpc_wait(handle_.release()) : nullptr); }
  bool ready() const { return !handle_ || vn_rpc_is_ready(handle_.get()) != 0; }

 private:
  struct give_up {
    void operator()(vn_rpc_pending *p) const noexcept { vn_rpc_cancel(p); }
  };
  std::unique_ptr<vn_rpc_pending, give_up> handle_;
};

/// A connection; ended when it is destroyed, and no reply of it is held any more.
class connection {
 public:
  explicit connection(vn_rpc_conn *handle) : handle_(handle), status_(handle != nullptr ? 0 : vernal_last_error_code()) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }
  /// Why there is none.
  const vn::status &error() const noexcept { return status_; }
  bool open() const { return handle_ && vn_rpc_is_open(handle_.get()) != 0; }

  /// A new object in the heap that arguments come from.
  template <class T, class... Args>
  own<T> make(Args &&...args) const {
    return own<T>(detail::make_in<T>(vn_rpc_heap(handle_.get()), std::forward<Args>(args)...));
  }

  /// Calls a method and waits. `argument` lies in this connection's heap, and stays as it is meanwhile.
  template <class Argument, class Reply>
  reply<Reply> call(method<Argument, Reply> m, const Argument &argument, std::uint32_t timeout_ms = 0) const {
    return reply<Reply>(vn_rpc_call_type(handle_.get(), m.number, vn_rpc_object(&argument), type<Reply>(), timeout_ms));
  }
  /// The same without waiting.
  template <class Argument, class Reply>
  pending<Reply> start(method<Argument, Reply> m, const Argument &argument, std::uint32_t timeout_ms = 0) const {
    return pending<Reply>(vn_rpc_start_type(handle_.get(), m.number, vn_rpc_object(&argument), type<Reply>(), timeout_ms));
  }
  vn_rpc_conn *handle() const noexcept { return handle_.get(); }

 private:
  struct end {
    void operator()(vn_rpc_conn *c) const noexcept { vn_rpc_disconnect(c); }
  };
  std::unique_ptr<vn_rpc_conn, end> handle_;
  vn::status status_;
};

/// Connects to the server that has the name, or to tcp://host:port/name; there with a token, if the server listens with one.
inline connection connect(const std::string &name, const vn_rpc_options *options = nullptr, const std::string &token = {}) {
  return connection(vn_rpc_connect_with_token(name.c_str(), token.data(), token.size(), options));
}

/// A channel that this program serves.
class channel {
 public:
  explicit channel(const std::string &name, const vn_rpc_options *options = nullptr)
      : handle_(vn_rpc_open(name.c_str(), options)), status_(handle_ ? 0 : vernal_last_error_code()) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }
  /// Why it is not open.
  const vn::status &error() const noexcept { return status_; }

  /// Serves a method: handler(const Argument &, vn::rpc::call &) returns an own<Reply>, empty after call.fail().
  template <class Argument, class Reply, class Handler>
  vn::status serve(method<Argument, Reply> m, Handler handler) {
    static_assert(std::is_invocable_r_v<own<Reply>, Handler &, const Argument &, rpc::call &>,
                  "a handler takes (const Argument &, vn::rpc::call &) and returns vn::rpc::own<Reply>");
    auto kept = std::make_unique<Handler>(std::move(handler));
    // A handler that does not return in time may run when the channel is gone.
    auto drop = [](void *arg) { delete static_cast<Handler *>(arg); };
    auto entry = [](vn_rpc_call *handle, void *arg) -> int {
      rpc::call c(handle);
#if defined(__cpp_exceptions)
      try {
#endif
        own<Reply> answer = (*static_cast<Handler *>(arg))(*static_cast<const Argument *>(vn_rpc_argument(handle)), c);
        if (!answer) return 0;
        Reply *object = answer.release();
        int set = vn_rpc_set_object(handle, object, &detail::release<Reply>, nullptr);
        if (set < 0) detail::destroy<Reply>{}(object);
        return set;
#if defined(__cpp_exceptions)
      } catch (const std::exception &e) {
        vn_rpc_fail_as(handle, VN_RPC_INTERNAL, e.what());
        return VERNAL_EINVAL;
      } catch (...) {
        vn_rpc_fail_as(handle, VN_RPC_INTERNAL, "the handler threw something");
        return VERNAL_EINVAL;
      }
#endif
    };
    return vn::status(vn_rpc_serve_owned(handle_.get(), m.number, type<Argument>(), type<Reply>(), entry, kept.release(), drop));
  }

  /// Takes clients over TCP, too, at "127.0.0.1:0" for example: what they connect to. Empty: vernal_last_error() says why.
  std::string listen_tcp(const std::string &at, const std::string &token = {}) {
    char address[512] = "";
    vn_rpc_listen_tcp(handle_.get(), at.c_str(), token.data(), token.size(), address, sizeof address);
    return address;
  }

  /// Makes the sandbox of a channel that was opened with options.sandbox: when all methods are served, before secrets are loaded.
  vn::status prefork() { return vn::status(vn_rpc_prefork(handle_.get())); }
  /// Serves clients on this thread, until shutdown().
  vn::status run() { return vn::status(vn_rpc_run(handle_.get())); }
  /// From any thread or handler: run() returns when what runs has ended, or after this time.
  void shutdown(std::uint32_t grace_ms = 1000) { vn_rpc_shutdown(handle_.get(), grace_ms); }
  vn_rpc_channel *handle() const noexcept { return handle_.get(); }

 private:
  struct close {
    void operator()(vn_rpc_channel *c) const noexcept { vn_rpc_close(c); }
  };
  std::unique_ptr<vn_rpc_channel, close> handle_;
  vn::status status_;
};

}  // namespace vn::rpc
#endif
