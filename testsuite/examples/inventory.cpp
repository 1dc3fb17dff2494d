// inventory.cpp - a stock of articles in std::map, std::list and std::string, all inside a mapped file.
//
//   vernal-c++ -O2 inventory.cpp -o inventory     then: VERNAL_PATHS=FILE ./inventory FILE ...
//
//   inventory FILE put ARTICLE COUNT     take ARTICLE COUNT     list     history     check
//   inventory FILE stress MOVES          random moves, one msync each; prints the number of the last durable one
//
// Exit status: 0 fine, 1 not in stock, 2 wrong use or an error, 3 the file is inconsistent.
#include "arena.hpp"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <list>
#include <map>
#include <random>

using text = std::basic_string<char, std::char_traits<char>, in_arena<char>>;

struct move {
  text article;
  long count;
};

// What lies in the file. The stock is the sum of the history: that is what `check` verifies.
struct inventory {
  std::map<text, long, std::less<>, in_arena<std::pair<const text, long>>> stock;
  std::list<move, in_arena<move>> history;
  unsigned long moves = 0;

  bool change(const char *article, long count) {
    auto at = stock.try_emplace(text(article), 0).first;
    if (at->second + count < 0) {
      if (at->second == 0) stock.erase(at);
      return false;
    }
    at->second += count;
    if (at->second == 0) stock.erase(at);
    history.push_back({text(article), count});
    if (history.size() > 2000) {  // the oldest moves become one per article
      std::map<text, long, std::less<>, in_arena<std::pair<const text, long>>> sums;
      for (int i = 0; i < 1000; i++) {
        sums[history.front().article] += history.front().count;
        history.pop_front();
      }
      for (auto &sum : sums)
        if (sum.second != 0) history.push_front({sum.first, sum.second});
    }
    moves++;
    return true;
  }

  bool consistent() const {
    std::map<std::string, long> expected;
    for (auto &m : history) expected[m.article.c_str()] += m.count;
    for (auto i = expected.begin(); i != expected.end();) i = i->second == 0 ? expected.erase(i) : std::next(i);
    if (expected.size() != stock.size()) return false;
    auto s = stock.begin();
    for (auto &e : expected) {
      if (s->first != e.first.c_str() || s->second != e.second) return false;
      ++s;
    }
    return true;
  }
};

static int run(int argc, char **argv) {
  std::string command = argc > 2 ? argv[2] : "";
  arena &file = arena::open(argc > 1 ? argv[1] : "", 32 << 20);
  auto &all = file.root<inventory>();
  if (command == "list") {
    for (auto &s : all.stock) std::printf("%s %ld\n", s.first.c_str(), s.second);
  } else if (command == "history") {
    for (auto &m : all.history) std::printf("%+ld %s\n", m.count, m.article.c_str());
  } else if (command == "check") {
    if (!all.consistent()) {
      std::puts("inconsistent: the stock is not the sum of the history");
      return 3;
    }
    std::printf("consistent: %zu articles, %lu moves\n", all.stock.size(), all.moves);
  } else if (command == "stress" && argc == 4) {
    std::mt19937 random(unsigned(all.moves));
    for (long n = std::atol(argv[3]); n > 0; n--) {
      std::string article = "article with a number that makes its name long: " + std::to_string(random() % 300);
      all.change(article.c_str(), long(random() % 100) - 45);
      file.save();
      std::printf("%lu\n", all.moves);
      std::fflush(stdout);
    }
  } else if ((command == "put" || command == "take") && argc == 5) {
    long count = std::atol(argv[4]);
    if (!all.change(argv[3], command == "put" ? count : -count)) {
      std::fprintf(stderr, "%s: not enough in stock\n", argv[3]);
      return 1;
    }
    file.save();
  } else {
    std::fputs("use: inventory FILE put|take ARTICLE COUNT, or list|history|check, or stress MOVES\n", stderr);
    return 2;
  }
  return 0;
}

int main(int argc, char **argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception &e) {
    std::fprintf(stderr, "inventory: %s\n", e.what());
    return 2;
  }
}
