// A handler of JSON events that builds the value and stops at the first thing that strictness forbids.
#include "base/strict_json.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace shoestring {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;
constexpr size_t kExcerptBytes = 80;

// The parser repeats the whole token that it stopped in, which may be the rest of the file; its end says where.
std::string Shorten(absl::string_view message, const std::string& token) {
  if (const size_t tag = message.find("] "); tag != absl::string_view::npos) {
    message.remove_prefix(tag + 2);  // "[json.exception.parse_error.101] parse error at line 1, ..."
  }
  const std::string quoted = absl::StrCat("'", token, "'");
  const size_t at = message.find(quoted);
  if (at == absl::string_view::npos) return std::string(message);
  const bool is_long = token.size() > kExcerptBytes;
  const absl::string_view shown = absl::string_view(token).substr(is_long ? token.size() - kExcerptBytes : 0);
  return absl::StrCat(message.substr(0, at), "'", is_long ? "..." : "", absl::CHexEscape(shown), "'",
                      message.substr(at + quoted.size()));
}

// nlohmann's own callback parser looks through all of an object or list again whenever something in it ends, and cannot
// be stopped. The names are fixed by nlohmann; each returns false to stop, after having said why.
// NOLINTBEGIN(readability-identifier-naming)
class Builder final : public nlohmann::json_sax<json> {
 public:
  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(int64_t value) override { return Add(value); }
  bool number_unsigned(uint64_t value) override { return Add(value); }
  bool number_float(double value, const std::string&) override { return Add(value); }
  bool string(std::string& value) override { return Add(std::move(value)); }
  bool binary(json::binary_t&) override { return Fail("binary data is no JSON"); }

  bool start_object(size_t) override { return Open(json::object()); }
  bool key(std::string& name) override {
    const auto [member, is_new] = open_.back()->get_ref<json::object_t&>().try_emplace(std::move(name));
    if (!is_new) {
      const bool is_long = member->first.size() > kExcerptBytes;
      return Fail(absl::StrCat("the key \"", absl::CHexEscape(member->first.substr(0, kExcerptBytes)),
                               is_long ? "..." : "", "\" appears twice"));
    }
    member_ = &member->second;
    return true;
  }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_array() override { return Close(); }

  bool parse_error(size_t, const std::string& last_token, const json::exception& error) override {
    return Fail(Shorten(error.what(), last_token));
  }

  const std::string& fault() const { return fault_; }
  json Take() { return std::move(root_); }

 private:
  bool Fail(std::string fault) {
    fault_ = std::move(fault);
    return false;
  }
  // Where the value is now: the root, the end of the list, or the member whose key was read last.
  json* Place(json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (!open_.back()->is_array()) return &(*member_ = std::move(value));
    return &open_.back()->get_ref<json::array_t&>().emplace_back(std::move(value));
  }
  bool Add(json value) {
    Place(std::move(value));
    return true;
  }
  bool Open(json empty) {
    if (open_.size() == kMaxDepth) return Fail(absl::StrCat("nested deeper than ", kMaxDepth));
    open_.push_back(Place(std::move(empty)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  json root_;
  std::vector<json*> open_;  // objects and lists that have not ended, outermost first
  json* member_ = nullptr;   // of the innermost of them, if it is an object
  std::string fault_;
};
// NOLINTEND(readability-identifier-naming)

}  // namespace

absl::StatusOr<json> ParseStrictJson(absl::string_view text) {
  // The parser takes a zero byte for the end of the text, and passes over a mark: neither must go unseen.
  if (absl::StartsWith(text, "\xEF\xBB\xBF")) {
    return absl::InvalidArgumentError("begins with a byte-order mark; save it as UTF-8 without one");
  }
  if (const size_t zero = text.find('\0'); zero != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("byte ", zero, " is zero"));
  }
  Builder builder;
  if (!json::sax_parse(text.begin(), text.end(), &builder)) return absl::InvalidArgumentError(builder.fault());
  return builder.Take();
}

}  // namespace shoestring
