// Lines of words, strictly in order.
#include "trainer/verify/golden.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

constexpr absl::string_view kTitle = "shoestring golden 1";
constexpr absl::string_view kEnd = "end";

bool IsSha256(absl::string_view word) {
  if (word.size() != 64) return false;
  for (const char c : word) {
    if (!absl::ascii_isdigit(c) && (c < 'a' || c > 'f')) return false;
  }
  return true;
}

class Parser {
 public:
  explicit Parser(absl::string_view text) : lines_(absl::StrSplit(text, '\n')) {}

  absl::StatusOr<Golden> Parse() {
    if (Take() != kTitle) return Wrong(absl::StrCat("not '", kTitle, "'"));
    Golden golden;
    RETURN_IF_ERROR(Header("numerics", /*digest=*/true, golden.numerics));
    RETURN_IF_ERROR(Header("instruction_set", /*digest=*/false, golden.instruction_set));
    RETURN_IF_ERROR(Header("data", /*digest=*/true, golden.data));
    for (absl::string_view line = Take(); line != kEnd; line = Take()) RETURN_IF_ERROR(TensorLine(line, golden));
    if (next_ + 1 != lines_.size() || !lines_.back().empty()) return Wrong("the file goes on behind its end");
    if (golden.steps.empty()) return Wrong("no step");
    return golden;
  }

 private:
  // An empty line stands for those beyond the file.
  absl::string_view Take() {
    ++next_;
    return next_ <= lines_.size() ? lines_[next_ - 1] : absl::string_view();
  }
  absl::Status Wrong(absl::string_view what) const {
    return absl::DataLossError(absl::StrCat("line ", next_, ": ", what));
  }
  absl::Status Header(absl::string_view key, bool digest, std::string& value) {
    const std::vector<std::string> words = absl::StrSplit(Take(), ' ');
    if (words.size() != 2 || words[0] != key) return Wrong(absl::StrCat("not '", key, " VALUE'"));
    if (digest && !IsSha256(words[1])) return Wrong("no SHA-256");
    value = words[1];
    return absl::OkStatus();
  }
  absl::Status TensorLine(absl::string_view line, Golden& golden) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    int64_t step = 0;
    if (words.size() != 3 || !absl::SimpleAtoi(words[0], &step)) return Wrong("not 'STEP SHA-256 TENSOR', nor 'end'");
    if (!IsSha256(words[1])) return Wrong("no SHA-256");
    const auto steps = static_cast<int64_t>(golden.steps.size());
    if (step < 1 || step < steps || step > steps + 1) return Wrong(absl::StrCat("step ", step, " after step ", steps));
    if (step > steps) golden.steps.emplace_back();
    golden.steps.back().push_back({std::string(words[2]), std::string(words[1])});
    return absl::OkStatus();
  }

  const std::vector<absl::string_view> lines_;
  size_t next_ = 0;
};

}  // namespace

std::string ToText(const Golden& golden) {
  std::string text = absl::StrCat(kTitle, "\nnumerics ", golden.numerics, "\ninstruction_set ", golden.instruction_set,
                                  "\ndata ", golden.data, "\n");
  for (size_t step = 0; step < golden.steps.size(); ++step) {
    for (const Golden::Tensor& tensor : golden.steps[step]) {
      absl::StrAppend(&text, step + 1, " ", tensor.sha256, " ", tensor.name, "\n");
    }
  }
  return absl::StrCat(text, kEnd, "\n");
}

absl::StatusOr<Golden> ParseGolden(absl::string_view text) { return Parser(text).Parse(); }

}  // namespace shoestring
