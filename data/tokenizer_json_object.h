// A JSON object of tokenizer.json: fields of the right types, no unknown ones, and errors that say where.
#pragma once

#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace shoestring {

// A JSON object together with its place in the file ("model.vocab"), which every error starts with. Holds no copy: the
// json must outlive it. Every error is INVALID_ARGUMENT.
class JsonObject {
 public:
  static absl::StatusOr<JsonObject> At(const nlohmann::json& json, std::string path);

  // Fails on a field that is not among `known`.
  absl::Status AllowOnly(std::initializer_list<absl::string_view> known) const;
  // Null if the field is absent or null.
  const nlohmann::json* Find(absl::string_view key) const;
  // Fails unless the field is absent or null.
  absl::Status MustBeNull(absl::string_view key) const;
  // The field must be a boolean; if absent, `otherwise`.
  absl::StatusOr<bool> Bool(absl::string_view key, bool otherwise) const;
  // As Bool, but fails unless the value is `expected`.
  absl::Status MustBe(absl::string_view key, bool expected, bool otherwise) const;
  // The field must be there.
  absl::StatusOr<std::string> String(absl::string_view key) const;
  // The field must be there and an integer in [0, 2^31).
  absl::StatusOr<int32_t> Id(absl::string_view key) const;
  absl::StatusOr<JsonObject> Object(absl::string_view key) const;
  // The field must be there and a list.
  absl::StatusOr<const nlohmann::json*> List(absl::string_view key) const;

  std::string PathOf(absl::string_view key) const;
  absl::Status Error(absl::string_view key, absl::string_view what) const;
  const nlohmann::json& value() const { return *json_; }

 private:
  JsonObject(const nlohmann::json* json, std::string path) : json_(json), path_(std::move(path)) {}
  const nlohmann::json* json_;
  std::string path_;
};

// An integer in [0, 2^31), or -1 if `json` is anything else.
int32_t AsId(const nlohmann::json& json);

// `json` in short, for messages.
std::string Excerpt(const nlohmann::json& json);

}  // namespace shoestring
