// stock.cpp - articles and their places in standard containers that lie in a pool.
//
//   vernal-c++ -std=c++17 -O2 stock.cpp -o stock
//
//   stock POOL put ARTICLE COUNT PLACE     take ARTICLE COUNT     list     check
//   stock POOL stress MOVES                random moves, one transaction each; prints the number of each
//
// Exit status: 0 fine, 1 not in stock, 2 wrong use or an error, 3 the pool is inconsistent.
#include <vernal.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

struct article {
  long count = 0;
  vn::set<vn::string> places;
};

// The root object. The sum over the articles is kept beside them: that is what `check` verifies.
struct stock {
  vn::map<vn::string, article> articles;
  vn::unordered_map<vn::string, long> moves;
  long total = 0;
  unsigned long changes = 0;

  void put(std::string_view name, long count, std::string_view place) {
    auto at = articles.find(name);
    if (at == articles.end()) at = articles.try_emplace(vn::string(name)).first;
    at->second.count += count;
    at->second.places.emplace(place);
    note(name, count);
  }

  // Changes before it knows that there is not enough: the transaction takes that back.
  void take(std::string_view name, long count) {
    auto at = articles.find(name);
    note(name, -count);
    if (at == articles.end() || at->second.count < count) return vn::cancel();
    at->second.count -= count;
    if (at->second.count == 0) articles.erase(at);
  }

  void note(std::string_view name, long count) {
    moves[vn::string(name)]++;
    total += count;
    changes++;
  }

  bool consistent() const {
    long sum = 0;
    for (auto &[name, a] : articles) {
      if (a.count <= 0 || a.places.empty()) return false;
      sum += a.count;
    }
    unsigned long noted = 0;
    for (auto &[name, n] : moves) noted += static_cast<unsigned long>(n);
    return sum == total && noted == changes;
  }
};

int main(int argc, char **argv) {
  std::string command = argc > 2 ? argv[2] : "";
  vn::pool pool(argc > 1 ? argv[1] : "", vn::create);
  if (!pool) return std::fprintf(stderr, "stock: %s\n", pool.error().text().c_str()), 2;
  stock *all = vn::root<stock>(pool);
  if (all == nullptr) return std::fprintf(stderr, "stock: %s\n", vernal_last_error()), 2;
  if (command == "put" && argc == 6) {
    vn::tx(pool, [&] { all->put(argv[3], std::atol(argv[4]), argv[5]); }).or_die();
  } else if (command == "take" && argc == 5) {
    vn::status done = vn::tx(pool, [&] { all->take(argv[3], std::atol(argv[4])); });
    if (done.code() == VERNAL_EABORTED) return std::fprintf(stderr, "%s: not enough in stock\n", argv[3]), 1;
    done.or_die();
  } else if (command == "list") {
    for (auto &[name, a] : all->articles) {
      std::printf("%s %ld:", name.c_str(), a.count);
      for (auto &place : a.places) std::printf(" %s", place.c_str());
      std::puts("");
    }
  } else if (command == "check") {
    if (!all->consistent()) return std::puts("inconsistent: the total is not the sum"), 3;
    std::printf("consistent: %zu articles, change %lu\n", all->articles.size(), all->changes);
  } else if (command == "stress" && argc == 4) {
    for (long n = std::atol(argv[3]); n > 0;) {
      unsigned long move = all->changes + 1, random = (move * 31 + static_cast<unsigned long>(n)) * 2654435761u >> 3;
      std::string name = "article with a name that needs memory of its own: " + std::to_string(random % 97);
      vn::status done = vn::tx(pool, [&] {
        if (random % 5 < 2)
          all->take(name, long(random % 9) + 1);
        else
          all->put(name, long(random % 9) + 1, std::to_string(random % 11));
      });
      n--;
      if (done.code() == VERNAL_EABORTED) continue;
      done.or_die();
      std::printf("%lu\n", move);
      std::fflush(stdout);
    }
  } else {
    std::fputs("use: stock POOL put ARTICLE COUNT PLACE, or take ARTICLE COUNT, or list|check, or stress MOVES\n", stderr);
    return 2;
  }
  if (vn::status closed = pool.close(); !closed) return std::fprintf(stderr, "stock: %s\n", closed.text().c_str()), 2;
  return 0;
}
