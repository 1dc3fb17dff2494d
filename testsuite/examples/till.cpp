// A service in C++: prices of a list of goods. Arguments and replies are vectors and strings that both sides read in place.
//
//   vernal-c++ -std=c++17 -O2 till.cpp -o till
//   ./till serve demo/till &
//   ./till buy demo/till bolts=12 "a very long name of something small"=3
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vernal_rpc.hpp>

struct item {
  vn::string name;
  std::uint64_t count = 0;
};
struct basket {
  vn::vector<item> items;
};
struct line {
  vn::string text;
  std::uint64_t cents = 0;
};
struct receipt {
  vn::vector<line> lines;
  std::uint64_t total = 0;
};

constexpr vn::rpc::method<basket, receipt> buy{1};
constexpr vn::rpc::method<basket, receipt> close_shop{2};

static int serve(const char *name) {
  vn::rpc::channel till(name);
  if (!till) return std::fprintf(stderr, "%s\n", till.error().text().c_str()), 1;
  auto served = till.serve(buy, [](const basket &b, vn::rpc::call &call) -> vn::rpc::own<receipt> {
    if (b.items.empty()) {
      call.fail(1, "the basket is empty");
      return {};
    }
    auto r = call.make<receipt>();
    if (!r) return {};
    for (const item &i : b.items) {
      line &l = r->lines.emplace_back();
      l.text.assign(i.name.begin(), i.name.end());
      l.text += " x " + std::to_string(i.count);
      l.cents = 25 * i.count + i.name.size();
      r->total += l.cents;
    }
    return r;
  });
  served.or_die();
  till.serve(close_shop, [&till](const basket &, vn::rpc::call &) -> vn::rpc::own<receipt> {
        till.shutdown();
        return {};
      })
      .or_die();
  std::puts("ready");
  std::fflush(stdout);
  till.run().or_die();
  return 0;
}

static int shop(const char *name, int count, char **goods) {
  auto till = vn::rpc::connect(name);
  if (!till) return std::fprintf(stderr, "%s\n", till.error().text().c_str()), 1;
  for (int round = 0; round < 3; round++) {
    auto b = till.make<basket>();
    if (!b) return std::fprintf(stderr, "%s\n", vernal_last_error()), 1;
    for (int i = 0; i < count; i++) {
      const char *equals = std::strrchr(goods[i], '=');
      item &it = b->items.emplace_back();
      it.name.assign(goods[i], equals ? static_cast<std::size_t>(equals - goods[i]) : std::strlen(goods[i]));
      it.count = equals ? std::strtoull(equals + 1, nullptr, 10) : 1;
    }
    // The last one does not wait at once.
    auto r = round < 2 ? till.call(buy, *b, 10000) : till.start(buy, *b, 10000).wait();
    if (!r) {
      std::printf("refused: %s (%u)\n", r.text().c_str(), r.code());
      return 0;
    }
    if (round < 2) continue;
    for (const line &l : r->lines) std::printf("%s: %llu\n", l.text.c_str(), static_cast<unsigned long long>(l.cents));
    std::printf("total %llu\n", static_cast<unsigned long long>(r->total));
  }
  return 0;
}

static int stop(const char *name) {
  auto till = vn::rpc::connect(name);
  if (!till) return std::fprintf(stderr, "%s\n", till.error().text().c_str()), 1;
  auto b = till.make<basket>();
  if (b) (void)till.call(close_shop, *b, 10000);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && !std::strcmp(argv[1], "serve")) return serve(argv[2]);
  if (argc >= 3 && !std::strcmp(argv[1], "buy")) return shop(argv[2], argc - 3, argv + 3);
  if (argc == 3 && !std::strcmp(argv[1], "stop")) return stop(argv[2]);
  std::fprintf(stderr, "till serve NAME | till buy NAME GOODS=COUNT... | till stop NAME\n");
  return 2;
}
