// The lines that the harness exchanges with a server and a client: see src/worker.rs.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace worker {

using Clock = std::chrono::steady_clock;

inline uint64_t ns(Clock::duration d) { return std::chrono::duration_cast<std::chrono::nanoseconds>(d).count(); }

// The payload: see src/payload.rs.
inline uint64_t seed_of(uint64_t seed, uint64_t thread, uint64_t call) {
  return seed + (thread << 40) + call * 0x2545f4914f6cdd1dull;
}
inline void fill(char *at, size_t size, uint64_t word) {
  for (size_t i = 0; i + 8 <= size; i += 8, word += 0x9e3779b97f4a7c15ull) memcpy(at + i, &word, 8);
}
inline void answer(const char *from, char *to, size_t size) {
  for (size_t i = 0; i + 8 <= size; i += 8) {
    uint64_t word;
    memcpy(&word, from + i, 8);
    word = (word ^ (word >> 9)) + 1;
    memcpy(to + i, &word, 8);
  }
}
inline uint64_t sum(const char *at, size_t size) {
  uint64_t sum = 0;
  for (size_t i = 0; i + 8 <= size; i += 8) {
    uint64_t word;
    memcpy(&word, at + i, 8);
    sum += word;
  }
  return sum;
}

struct Caller {
  virtual ~Caller() = default;
  virtual uint64_t call(size_t size, uint64_t seed) = 0;
  virtual uint64_t insert(std::string_view document) = 0;
  virtual uint64_t search(const std::string &field, int64_t value, bool whole) = 0;
};

inline void say(const std::string &line) {
  fputs((line + "\n").c_str(), stdout);
  fflush(stdout);
}

inline std::string timed(Clock::duration time, uint64_t units, uint64_t sum) {
  std::ostringstream out;
  out << "ok " << ns(time) << ' ' << units << ' ' << sum;
  return out.str();
}

inline void server(const std::atomic<uint64_t> &calls) {
  say("ok");
  std::string line;
  while (std::getline(std::cin, line))
    if (line == "calls") say("ok " + std::to_string(calls.load()));
  _Exit(0);
}

struct Source {
  std::string bytes;
  std::vector<std::string_view> documents;

  void open(const std::string &path) {
    FILE *file = fopen(path.c_str(), "rb");
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    char part[1 << 16];
    for (size_t n; (n = fread(part, 1, sizeof part, file)) > 0;) bytes.append(part, n);
    fclose(file);
    for (size_t at = 0; at + 4 <= bytes.size();) {
      uint32_t length;
      memcpy(&length, bytes.data() + at, 4);
      if (bytes.size() - at - 4 < length) throw std::runtime_error(path + ": ends early");
      documents.emplace_back(bytes.data() + at + 4, length);
      at += 4 + length;
    }
  }
};

inline int64_t query_value(uint64_t seed, uint64_t i, uint64_t distinct) {
  uint64_t x = (seed + i) * 0x9e3779b97f4a7c15ull;
  x = ((x << 31) | (x >> 33)) * 0xbf58476d1ce4e5b9ull;
  return (x >> 16) % std::max<uint64_t>(distinct, 1);
}

// Holds threads until all are there.
class Barrier {
  std::mutex mutex;
  std::condition_variable all;
  uint64_t missing;

public:
  explicit Barrier(uint64_t count) : missing(count) {}
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    if (--missing == 0) all.notify_all();
    all.wait(lock, [&] { return missing == 0; });
  }
};

template <class Connect> std::string many(size_t size, uint64_t warm, uint64_t count, uint64_t seed, uint64_t threads, Connect connect) {
  Barrier barrier(threads);
  std::mutex mutex;
  Clock::time_point first = Clock::time_point::max(), last = Clock::time_point::min();
  uint64_t sum = 0;
  std::vector<std::thread> running;
  for (uint64_t thread = 0; thread < threads; thread++)
    running.emplace_back([&, thread] {
      std::unique_ptr<Caller> caller = connect();
      uint64_t own = 0;
      for (uint64_t i = 0; i < warm; i++) own += caller->call(size, seed_of(seed, thread, i));
      barrier.wait();
      auto start = Clock::now();
      for (uint64_t i = warm; i < warm + count; i++) own += caller->call(size, seed_of(seed, thread, i));
      auto end = Clock::now();
      std::lock_guard<std::mutex> lock(mutex);
      first = std::min(first, start);
      last = std::max(last, end);
      sum += own;
    });
  for (auto &thread : running) thread.join();
  return timed(last - first, count * threads, sum);
}

inline std::string load(Caller &caller, size_t size, uint64_t rate, uint64_t count, uint64_t seed, bool spin) {
  std::vector<uint64_t> latencies;
  latencies.reserve(count);
  uint64_t random = seed | 1, sum = 0;
  double due = 0;
  auto start = Clock::now();
  for (uint64_t i = 0; i < count; i++) {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    double uniform = double((random >> 11) + 1) / double(1ull << 53);
    due += -std::log(uniform) * 1e9 / double(rate);
    auto at = start + std::chrono::nanoseconds(uint64_t(due));
    while (Clock::now() < at)
      if (!spin) std::this_thread::sleep_until(at);
    sum += caller.call(size, seed_of(seed, 0, i));
    latencies.push_back(ns(Clock::now() - at));
  }
  auto time = Clock::now() - start;
  std::sort(latencies.begin(), latencies.end());
  std::ostringstream out;
  out << timed(time, count, sum);
  for (size_t per_mille : {500, 990, 999, 1000})
    out << ' ' << (latencies.empty() ? 0 : latencies[std::min(latencies.size() * per_mille / 1000, latencies.size() - 1)]);
  return out.str();
}

template <class Connect> void client(Connect connect) {
  std::unique_ptr<Caller> caller = connect();
  Source source;
  say("ok");
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string what;
    words >> what;
    if (what == "run") {
      uint64_t size, warm, count, seed, threads;
      words >> size >> warm >> count >> seed >> threads;
      if (threads > 1) {
        say(many(size, warm, count, seed, threads, connect));
        continue;
      }
      uint64_t sum = 0;
      for (uint64_t i = 0; i < warm; i++) sum += caller->call(size, seed_of(seed, 0, i));
      auto start = Clock::now();
      for (uint64_t i = warm; i < warm + count; i++) sum += caller->call(size, seed_of(seed, 0, i));
      say(timed(Clock::now() - start, count, sum));
    } else if (what == "load") {
      uint64_t size, rate, count, seed, spin;
      words >> size >> rate >> count >> seed >> spin;
      say(load(*caller, size, rate, count, seed, spin));
    } else if (what == "open") {
      std::string path;
      words >> path;
      source.open(path);
      say("ok " + std::to_string(source.documents.size()));
    } else if (what == "insert") {
      uint64_t first, count, sum = 0;
      words >> first >> count;
      auto start = Clock::now();
      for (uint64_t id = first; id < first + count; id++) sum += caller->insert(source.documents.at(id));
      say(timed(Clock::now() - start, count, sum));
    } else if (what == "search") {
      std::string field, depth;
      uint64_t distinct, warm, count, seed, sum = 0;
      words >> field >> distinct >> depth >> warm >> count >> seed;
      auto start = Clock::now();
      for (uint64_t i = 0; i < warm + count; i++) {
        if (i == warm) start = Clock::now();
        sum += caller->search(field, query_value(seed, i, distinct), depth == "whole");
      }
      say(timed(Clock::now() - start, count, sum));
    } else {
      throw std::runtime_error("unknown command " + line);
    }
  }
}

} // namespace worker
