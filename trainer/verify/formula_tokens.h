// Tokens by a formula, for a run whose shards are not at hand.
#pragma once

#include <cstdint>
#include <string>

#include "configs/schema/run.pb.h"
#include "data/token_source.h"
#include "trainer/train_loop.h"

namespace shoestring {

// Sample s is an arithmetic progression: its t-th token is (a + b t) mod V, where a is uniform below V and b uniform in
// 1 .. min(7, V - 1), both drawn from Rng(seed, kFormula, 0) at 2 s and 2 s + 1. Every id comes up, those of begin and
// end of a document included, and there is something to learn.
class FormulaTokens final : public TokenSource {
 public:
  FormulaTokens(int64_t row_tokens, int64_t vocab_size, uint64_t seed)
      : row_tokens_(row_tokens), vocab_size_(vocab_size), seed_(seed) {}
  int64_t row_tokens() const override { return row_tokens_; }
  absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) override;
  std::string Description() const override;

 private:
  const int64_t row_tokens_;
  const int64_t vocab_size_;
  const uint64_t seed_;
};

// For every phase of the config, with its seed; no validation.
TrainData FormulaTokenData(const config::RunConfig& config);

}  // namespace shoestring
