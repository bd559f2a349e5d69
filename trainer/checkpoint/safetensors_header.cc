// A handler of JSON events that accepts exactly the form of a safetensors header.
#include "trainer/checkpoint/safetensors_header.h"

#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace shoestring::safetensors_internal {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDimensions = 64;

// nlohmann's callbacks have fixed names; each returns false to stop, after having said why.
// NOLINTBEGIN(readability-identifier-naming)
class HeaderHandler final : public nlohmann::json_sax<Json> {
 public:
  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart: return Enter(Place::kTop);
      case Place::kTopValue: return Enter(in_metadata_ ? Place::kMetadata : Place::kEntry);
      default: return Unexpected("an object");
    }
  }

  bool end_object() override {
    if (place_ == Place::kEntry && !EndEntry()) return false;
    in_metadata_ = false;
    return Enter(place_ == Place::kTop ? Place::kEnd : Place::kTop);
  }

  bool key(std::string& name) override {
    switch (place_) {
      case Place::kTop:
        if (!names_.insert(name).second) return Fail(absl::StrCat("'", Shown(name), "' is there twice"));
        in_metadata_ = name == "__metadata__";
        if (!in_metadata_) header_.entries.push_back({name, "", {}, {}});
        fields_seen_ = 0;
        return Enter(Place::kTopValue);
      case Place::kMetadata:
        if (header_.metadata.contains(name)) {
          return Fail(absl::StrCat("metadata '", Shown(name), "' is there twice"));
        }
        metadata_key_ = name;
        return Enter(Place::kMetadataValue);
      default: return Field(name);
    }
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadataValue) {
      header_.metadata[metadata_key_] = std::move(value);
      return Enter(Place::kMetadata);
    }
    if (place_ != Place::kDtype) return Unexpected("a string");
    header_.entries.back().dtype = std::move(value);
    return Enter(Place::kEntry);
  }

  bool start_array(size_t) override {
    if (place_ == Place::kShape) return Enter(Place::kShapeItems);
    if (place_ == Place::kOffsets) return Enter(Place::kOffsetItems);
    return Unexpected("a list");
  }
  bool end_array() override { return Enter(Place::kEntry); }

  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::kShapeItems && place_ != Place::kOffsetItems) return Unexpected("a number");
    std::vector<uint64_t>& list =
        place_ == Place::kShapeItems ? header_.entries.back().shape : header_.entries.back().data_offsets;
    if (list.size() == kMaxDimensions) return Unexpected("a list of more than 64 numbers");
    list.push_back(value);
    return true;
  }
  bool number_integer(int64_t) override { return Unexpected("a negative number"); }
  bool number_float(double, const std::string&) override { return Unexpected("a number that is not whole"); }
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("true or false"); }
  bool binary(Json::binary_t&) override { return Unexpected("binary data"); }

  bool parse_error(size_t position, const std::string&, const Json::exception&) override {
    return Fail(absl::StrCat("the header is no JSON: byte ", position, " of it is out of place"));
  }

  const std::string& problem() const { return problem_; }
  RawHeader Take() { return std::move(header_); }

 private:
  enum class Place {
    kStart,
    kTop,
    kTopValue,
    kMetadata,
    kMetadataValue,
    kEntry,
    kDtype,
    kShape,
    kShapeItems,
    kOffsets,
    kOffsetItems,
    kEnd
  };

  static std::string Shown(absl::string_view name) { return absl::CHexEscape(name.substr(0, 200)); }

  bool Enter(Place place) {
    place_ = place;
    return true;
  }
  bool Fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }
  bool Unexpected(absl::string_view what) {
    const bool in_entry = place_ != Place::kStart && place_ != Place::kTop && !header_.entries.empty() && !in_metadata_;
    return Fail(absl::StrCat(in_metadata_ ? "__metadata__"
                             : in_entry   ? Shown(header_.entries.back().name)
                                          : "header",
                             ": ", what, " is out of place"));
  }
  bool Field(absl::string_view name) {
    const Place next = name == "dtype"          ? Place::kDtype
                       : name == "shape"        ? Place::kShape
                       : name == "data_offsets" ? Place::kOffsets
                                                : Place::kEnd;
    if (next == Place::kEnd) return Unexpected(absl::StrCat("field '", Shown(name), "'"));
    const unsigned bit = 1u << static_cast<unsigned>(next);
    if ((fields_seen_ & bit) != 0) return Unexpected(absl::StrCat("a second field '", name, "'"));
    fields_seen_ |= bit;
    return Enter(next);
  }
  bool EndEntry() {
    constexpr unsigned kAll = 1u << static_cast<unsigned>(Place::kDtype) | 1u << static_cast<unsigned>(Place::kShape) |
                              1u << static_cast<unsigned>(Place::kOffsets);
    const RawEntry& entry = header_.entries.back();
    if (fields_seen_ != kAll) return Fail(absl::StrCat(Shown(entry.name), ": needs dtype, shape and data_offsets"));
    if (entry.data_offsets.size() != 2) {
      return Fail(absl::StrCat(Shown(entry.name), ": data_offsets has ", entry.data_offsets.size(), " numbers, not 2"));
    }
    return true;
  }

  Place place_ = Place::kStart;
  bool in_metadata_ = false;
  unsigned fields_seen_ = 0;
  std::string metadata_key_;
  absl::flat_hash_set<std::string> names_;
  RawHeader header_;
  std::string problem_;
};
// NOLINTEND(readability-identifier-naming)

}  // namespace

absl::StatusOr<RawHeader> ParseHeaderJson(absl::string_view json) {
  if (!absl::StartsWith(json, "{")) return absl::DataLossError("the header does not begin with '{'");
  // The parser takes a zero byte for the end of the text; what comes after it must not go unseen.
  if (const size_t zero = json.find('\0'); zero != absl::string_view::npos) {
    return absl::DataLossError(absl::StrCat("the header is no JSON: byte ", zero, " of it is zero"));
  }
  HeaderHandler handler;
  if (!Json::sax_parse(json.begin(), json.end(), &handler)) return absl::DataLossError(handler.problem());
  return handler.Take();
}

}  // namespace shoestring::safetensors_internal
