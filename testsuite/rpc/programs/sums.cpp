// sums: a list of numbers is summed, by a server in C++ and by one in Rust, whose types have the same names.
//
//   sums serve CHANNEL TOKEN    sums ask ADDRESS
#include <vernal_rpc.hpp>

#include <cstdio>
#include <stdexcept>
#include <string>

struct node {
  node *next;
  std::uint64_t value;
};

struct total {
  std::uint64_t sum;
  std::uint64_t count;
};

constexpr vn::rpc::method<node, total> sum{20};

static int serve(const std::string &name, const std::string &token) {
  vn::rpc::channel sums(name);
  if (!sums) return std::fprintf(stderr, "%s\n", sums.error().text().c_str()), 1;
  auto served = sums.serve(sum, [](const node &first, vn::rpc::call &c) -> vn::rpc::own<total> {
    auto t = c.make<total>();
    for (const node *n = &first; n != nullptr; n = n->next) {
      if (++t->count > 1000) throw std::length_error("a list without end");
      t->sum += n->value;
    }
    return t;
  });
  if (!served) return std::fprintf(stderr, "%s\n", served.text().c_str()), 1;
  std::string address = sums.listen_tcp("127.0.0.1:0", token);
  if (address.empty()) return std::fprintf(stderr, "%s\n", vernal_last_error()), 1;
  std::printf("ready\n%s\n", address.c_str());
  std::fflush(stdout);
  return sums.run() ? 0 : 1;
}

static int ask(const std::string &address) {
  auto conn = vn::rpc::connect(address);
  if (!conn) return std::fprintf(stderr, "%s\n", conn.error().text().c_str()), 1;
  auto last = conn.make<node>();
  last->value = 40;
  auto first = conn.make<node>();
  first->next = last.get();
  first->value = 2;
  auto t = conn.call(sum, *first);
  if (!t) return std::fprintf(stderr, "%s\n", t.text().c_str()), 1;
  std::printf("%llu of %llu\n", static_cast<unsigned long long>(t->sum), static_cast<unsigned long long>(t->count));
  return 0;
}

int main(int argc, char **argv) {
  std::string command = argc > 2 ? argv[1] : "";
  if (command == "serve" && argc == 4) return serve(argv[2], argv[3]);
  if (command == "ask" && argc == 3) return ask(argv[2]);
  return 2;
}
