// The document store of src/cooldb over protobuf's messages: the same index, the same folds.
#pragma once
#include "bench.pb.h"
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace store {

using bench::Value;

inline const Value *field(const Value &of, std::string_view name) {
  if (of.kind_case() != Value::kObject) return nullptr;
  for (const auto &f : of.object().fields())
    if (f.name() == name) return &f.value();
  return nullptr;
}

inline bool integer(const Value *value, int64_t &out) {
  if (!value || value->kind_case() != Value::kWhole) return false;
  out = value->whole();
  return true;
}

inline uint64_t mix(uint64_t sum, uint64_t word) {
  uint64_t x = (sum ^ word) * 0x9e3779b97f4a7c15ull;
  return (x << 29) | (x >> 35);
}

inline uint64_t word(const char *at, size_t size) {
  uint64_t word = 0;
  memcpy(&word, at, size < 8 ? size : 8);
  return word;
}

inline uint64_t text(uint64_t sum, const std::string &text) {
  sum = mix(sum, text.size());
  for (size_t i = 0; i < text.size(); i += 8) sum = mix(sum, word(text.data() + i, text.size() - i));
  return sum;
}

inline uint64_t some_fields(const Value &document) {
  int64_t num = -1, nested = -1;
  integer(field(document, "num"), num);
  if (const Value *object = field(document, "nested_obj")) integer(field(*object, "num"), nested);
  uint64_t head = 0;
  const Value *str1 = field(document, "str1");
  if (str1 && str1->kind_case() == Value::kText) head = word(str1->text().data(), str1->text().size());
  return mix(mix(uint64_t(num), uint64_t(nested)), head);
}

inline uint64_t whole(const Value &value, uint64_t sum) {
  switch (value.kind_case()) {
  case Value::KIND_NOT_SET: return mix(sum, 0);
  case Value::kFlag: return mix(sum, 1 + value.flag());
  case Value::kWhole: return mix(mix(sum, 3), uint64_t(value.whole()));
  case Value::kReal: {
    double real = value.real();
    uint64_t bits;
    memcpy(&bits, &real, 8);
    return mix(mix(sum, 4), bits);
  }
  case Value::kText: return text(mix(sum, 5), value.text());
  case Value::kArray:
    sum = mix(sum, 6);
    for (const auto &item : value.array().items()) sum = whole(item, sum);
    return sum;
  case Value::kObject:
    sum = mix(sum, 7);
    for (const auto &f : value.object().fields()) sum = whole(f.value(), text(sum, f.name()));
    return sum;
  }
  return sum;
}

// Builds a message from an encoded document: src/cooldb/source.rs draws the encoding.
class Reader {
  std::string_view rest;

  template <class T> T number() {
    T value;
    memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view take(size_t count) {
    if (rest.size() < count) throw std::runtime_error("a document ends early");
    std::string_view taken = rest.substr(0, count);
    rest.remove_prefix(count);
    return taken;
  }
  std::string_view string() { return take(number<uint32_t>()); }

public:
  explicit Reader(std::string_view bytes) : rest(bytes) {}

  void read(Value &into) {
    switch (take(1)[0]) {
    case 0: break;
    case 1: into.set_flag(false); break;
    case 2: into.set_flag(true); break;
    case 3: into.set_whole(number<int64_t>()); break;
    case 4: into.set_real(number<double>()); break;
    case 5: {
      std::string_view s = string();
      into.set_text(s.data(), s.size());
      break;
    }
    case 6: {
      auto *array = into.mutable_array();
      for (uint32_t n = number<uint32_t>(); n; n--) read(*array->add_items());
      break;
    }
    case 7: {
      auto *object = into.mutable_object();
      for (uint32_t n = number<uint32_t>(); n; n--) {
        auto *f = object->add_fields();
        std::string_view s = string();
        f->set_name(s.data(), s.size());
        read(*f->mutable_value());
      }
      break;
    }
    default: throw std::runtime_error("no kind of value");
    }
  }
};

class Store {
  static constexpr std::array<const char *, 3> indexed = {"per10", "per100", "per1000"};
  std::vector<std::unique_ptr<Value>> documents;
  std::array<std::unordered_map<int64_t, std::vector<uint32_t>>, 3> index;

public:
  uint64_t insert(const Value &document) {
    uint32_t id = documents.size();
    documents.push_back(std::make_unique<Value>(document));
    for (size_t i = 0; i < indexed.size(); i++) {
      int64_t value;
      if (integer(field(document, indexed[i]), value)) index[i][value].push_back(id);
    }
    return documents.size();
  }

  template <class Each> void search(const std::string &name, int64_t value, Each each) const {
    for (size_t i = 0; i < indexed.size(); i++) {
      if (name != indexed[i]) continue;
      auto found = index[i].find(value);
      if (found == index[i].end()) return;
      for (uint32_t id : found->second) each(*documents[id]);
    }
  }
};

} // namespace store
