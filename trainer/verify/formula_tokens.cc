// One progression a sample.
#include "trainer/verify/formula_tokens.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/rng.h"

namespace shoestring {

absl::Status FormulaTokens::Fill(int64_t first_sample, int64_t samples, int32_t* tokens) {
  constexpr int64_t kLargestStride = 7;
  const Rng rng(seed_, RngPurpose::kFormula, 0);
  for (int64_t s = 0; s < samples; ++s) {
    const uint64_t sample = static_cast<uint64_t>(first_sample + s);
    const auto start = static_cast<int64_t>(rng.Below(2 * sample, vocab_size_));
    const int64_t strides = std::min(kLargestStride, vocab_size_ - 1);
    const auto stride = static_cast<int64_t>(1 + rng.Below(2 * sample + 1, strides));
    for (int64_t t = 0; t < row_tokens_; ++t) {
      tokens[s * row_tokens_ + t] = static_cast<int32_t>((start + stride * t) % vocab_size_);
    }
  }
  return absl::OkStatus();
}

std::string FormulaTokens::Description() const {
  return absl::StrCat("formula 1, seed ", seed_, ", ", vocab_size_, " ids, rows of ", row_tokens_);
}

TrainData FormulaTokenData(const config::RunConfig& config) {
  TrainData data;
  data.training = [config](int phase) -> absl::StatusOr<std::unique_ptr<TokenSource>> {
    const int64_t row = config.train().phase(phase).sequence_length() + 1 + config.model().mtp_depth();
    return std::make_unique<FormulaTokens>(row, config.model().vocab_size(), config.train().seed());
  };
  return data;
}

}  // namespace shoestring
