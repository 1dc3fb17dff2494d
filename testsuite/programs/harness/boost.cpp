// boost.cpp - Boost.Interprocess' managed_mapped_file, as its users write it. Its header and allocator, its containers and
// their offset pointers all lie in the file; `flush` is its msync.
#define PERSIST_OWN_STORE
#include "persist.h"

#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/containers/flat_map.hpp>
#include <boost/interprocess/containers/list.hpp>
#include <boost/interprocess/containers/map.hpp>
#include <boost/interprocess/containers/set.hpp>
#include <boost/interprocess/containers/string.hpp>
#include <boost/interprocess/containers/vector.hpp>
#include <boost/interprocess/managed_mapped_file.hpp>
#include <boost/interprocess/smart_ptr/unique_ptr.hpp>
#include <boost/unordered_map.hpp>
#include <memory>

namespace bip = boost::interprocess;
using manager = bip::managed_mapped_file::segment_manager;
template <class T>
using in_file = bip::allocator<T, manager>;
using text = bip::basic_string<char, std::char_traits<char>, in_file<char>>;
using numbers = bip::vector<long, in_file<long>>;
using index_map = bip::map<text, numbers, std::less<text>, in_file<std::pair<const text, numbers>>>;
using text_list = bip::list<text, in_file<text>>;
using number_set = bip::set<int, std::less<int>, in_file<int>>;
using flat = bip::flat_map<int, long, std::less<int>, in_file<std::pair<int, long>>>;
using hashed = boost::unordered_map<int, text, boost::hash<int>, std::equal_to<int>, in_file<std::pair<const int, text>>>;

struct root {
  uint64_t steps = 0;
  index_map index;
  text_list list;
  number_set set;
  flat sorted;
  hashed names;
  explicit root(manager *m)
      : index(std::less<text>(), m), list(m), set(std::less<int>(), m), sorted(std::less<int>(), m),
        names(16, boost::hash<int>(), std::equal_to<int>(), m) {}
};

static std::unique_ptr<bip::managed_mapped_file> file;
static root *all;
static std::string scratch;

static void persist_open(const char *path) {
  if (strcmp(path, "-") == 0) {
    scratch = "/dev/shm/vernal-programs-boost-" + std::to_string(getpid());
    path = scratch.c_str();
    bip::file_mapping::remove(path);
  }
  file = std::make_unique<bip::managed_mapped_file>(bip::open_or_create, path, 16 << 20);
  all = file->find_or_construct<root>("root")(file->get_segment_manager());
  if (!scratch.empty()) bip::file_mapping::remove(path);
}
static uint64_t persist_steps(void) { return all->steps; }
static void persist_save(void) {
  // flush() is msync(MS_ASYNC): the step is atomic from here on. The suite wants it durable, too.
  if (!file->flush()) die("flush");
  uintptr_t page = reinterpret_cast<uintptr_t>(file->get_address()) & ~uintptr_t(4095);
  if (msync(reinterpret_cast<void *>(page), file->get_size(), MS_SYNC) != 0) die("msync");
}

static void persist_step(void) {
  uint64_t n = all->steps, x = mix(n);
  manager *m = file->get_segment_manager();
  text key(("row " + std::to_string(x % 83)).c_str(), m);
  auto at = all->index.insert(index_map::value_type(key, numbers(m))).first;
  at->second.push_back(long(n));
  if (at->second.size() > 12) at->second.erase(at->second.begin(), at->second.begin() + 5);
  if (x % 9 == 0) all->index.erase(all->index.begin());
  all->list.push_front(key);
  if (n % 4 == 0) all->list.reverse();
  while (all->list.size() > 60) all->list.pop_back();
  all->set.insert(int(x % 700));
  all->set.erase(int(x / 700 % 700));
  all->sorted[int(x % 120)] += long(n);
  if (x % 3 == 0) all->sorted.erase(int(x / 120 % 120));
  all->names.emplace(int(x % 300), text(x % 50, char('a' + x % 26), m));
  if (x % 2) all->names.erase(int(x / 300 % 300));
  std::string object = "object" + std::to_string(x % 20);
  if (!file->destroy<long>(object.c_str())) file->construct<long>(object.c_str())(long(n));
  all->steps++;
}

uint64_t program_digest(void) {
  uint64_t h = all->steps;
  for (auto &row : all->index) {
    h = digest_bytes(h, row.first.data(), row.first.size());
    for (long v : row.second) h = mix(h ^ uint64_t(v));
  }
  for (auto &t : all->list) h = digest_bytes(h, t.data(), t.size());
  for (int v : all->set) h = mix(h ^ uint64_t(v));
  for (auto &p : all->sorted) h = mix(h ^ uint64_t(p.first) ^ mix(uint64_t(p.second)));
  uint64_t unordered = 0;
  for (auto &p : all->names) unordered += digest_bytes(uint64_t(p.first), p.second.data(), p.second.size());
  for (int i = 0; i < 20; i++) {
    auto found = file->find<long>(("object" + std::to_string(i)).c_str());
    h = mix(h ^ (found.first ? uint64_t(*found.first) + 1 : 0));
  }
  if (!file->check_sanity()) die("check_sanity");
  return mix(h ^ unordered);
}
