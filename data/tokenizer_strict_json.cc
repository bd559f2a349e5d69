// Strict JSON access over nlohmann-json; the only place where its exceptions are caught.
#include "data/tokenizer_strict_json.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/utf8.h"

namespace shoestring {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;
constexpr size_t kExcerptBytes = 80;

// Watches the parser: remembers the first repeated key or excessive depth.
class Watcher {
 public:
  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    if (!fault_.empty()) return false;  // the parser goes on through what is discarded, and tells of its keys
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) {
      if (depth >= kMaxDepth) return Fail(absl::StrCat("nested deeper than ", kMaxDepth));
      if (keys_.size() < depth + 1) keys_.resize(depth + 1);
      keys_[depth].clear();
    } else if (event == json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys_[depth - 1].insert(key).second)
        return Fail(absl::StrCat("the key ", Excerpt(parsed), " appears twice"));
    }
    return true;
  }
  const std::string& fault() const { return fault_; }

 private:
  bool Fail(std::string fault) {
    if (fault_.empty()) fault_ = std::move(fault);
    return false;
  }
  std::vector<absl::flat_hash_set<std::string>> keys_;  // of the open object at each depth
  std::string fault_;
};

}  // namespace

absl::StatusOr<json> ParseStrictJson(absl::string_view text) {
  RETURN_IF_ERROR(CheckUtf8(text));
  Watcher watcher;
  try {
    json parsed = json::parse(text.begin(), text.end(), [&watcher](int depth, json::parse_event_t event, json& value) {
      return watcher(depth, event, value);
    });
    if (!watcher.fault().empty()) return absl::InvalidArgumentError(watcher.fault());
    return parsed;
  } catch (const json::exception& error) {
    const absl::string_view what = error.what();
    const size_t tag = what.find("] ");  // "[json.exception.parse_error.101] parse error at line 1, ..."
    return absl::InvalidArgumentError(tag == absl::string_view::npos ? what : what.substr(tag + 2));
  }
}

absl::StatusOr<JsonObject> JsonObject::At(const json& value, std::string path) {
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.empty() ? "the file" : path, ": must be an object, is ", Excerpt(value)));
  }
  return JsonObject(&value, std::move(path));
}

std::string JsonObject::PathOf(absl::string_view key) const {
  return path_.empty() ? std::string(key) : absl::StrCat(path_, ".", key);
}

absl::Status JsonObject::Error(absl::string_view key, absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(PathOf(key), ": ", what));
}

absl::Status JsonObject::AllowOnly(std::initializer_list<absl::string_view> known) const {
  for (const auto& item : json_->items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      return absl::InvalidArgumentError(absl::StrCat(path_.empty() ? "the file" : path_, ": unknown field ",
                                                     Excerpt(item.key()), "; what it would do is not known"));
    }
  }
  return absl::OkStatus();
}

const json* JsonObject::Find(absl::string_view key) const {
  const auto found = json_->find(std::string(key));
  return found == json_->end() || found->is_null() ? nullptr : &*found;
}

absl::Status JsonObject::MustBeNull(absl::string_view key) const {
  const json* value = Find(key);
  return value == nullptr ? absl::OkStatus()
                          : Error(key, absl::StrCat("not supported, must be null; is ", Excerpt(*value)));
}

absl::StatusOr<bool> JsonObject::Bool(absl::string_view key, bool otherwise) const {
  const auto found = json_->find(std::string(key));
  if (found == json_->end()) return otherwise;
  if (!found->is_boolean()) return Error(key, absl::StrCat("must be true or false, is ", Excerpt(*found)));
  return found->get<bool>();
}

absl::Status JsonObject::MustBe(absl::string_view key, bool expected, bool otherwise) const {
  ASSIGN_OR_RETURN(const bool value, Bool(key, otherwise));
  if (value == expected) return absl::OkStatus();
  return Error(key, absl::StrCat("only ", expected ? "true" : "false", " is supported"));
}

absl::StatusOr<std::string> JsonObject::String(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(key, "is missing");
  if (!value->is_string()) return Error(key, absl::StrCat("must be a string, is ", Excerpt(*value)));
  return value->get<std::string>();
}

absl::StatusOr<int32_t> JsonObject::Id(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(key, "is missing");
  const int32_t id = AsId(*value);
  if (id < 0) return Error(key, absl::StrCat("must be an integer from 0 to 2147483647, is ", Excerpt(*value)));
  return id;
}

absl::StatusOr<JsonObject> JsonObject::Object(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(key, "is missing");
  return At(*value, PathOf(key));
}

absl::StatusOr<const json*> JsonObject::List(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(key, "is missing");
  if (!value->is_array()) return Error(key, absl::StrCat("must be a list, is ", Excerpt(*value)));
  return value;
}

int32_t AsId(const json& value) {
  if (!value.is_number_unsigned()) return -1;
  const uint64_t number = value.get<uint64_t>();
  return number <= std::numeric_limits<int32_t>::max() ? static_cast<int32_t>(number) : -1;
}

std::string Excerpt(const json& value) {
  if (value.is_object())
    return value.contains("type") && value["type"].is_string() ? value["type"].dump() : "an object";
  if (value.is_array()) return "a list";
  const std::string text = value.dump();
  size_t end = std::min(text.size(), kExcerptBytes);
  while (end < text.size() && (text[end] & 0xC0) == 0x80) --end;  // not within a character
  return end == text.size() ? text : absl::StrCat(text.substr(0, end), "...");
}

}  // namespace shoestring
