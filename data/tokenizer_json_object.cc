// Each type is asked for before it is taken, so that nlohmann-json never throws.
#include "data/tokenizer_json_object.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

using nlohmann::json;

constexpr size_t kExcerptBytes = 80;

}  // namespace

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
