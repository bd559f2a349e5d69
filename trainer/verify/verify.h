// Does a layout compute what one rank computes? Trains both a few steps and compares all that each step leaves, by bits
// (docs/verify.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "configs/schema/run.pb.h"
#include "kernels/backend.h"
#include "trainer/train_loop.h"
#include "trainer/verify/compare.h"
#include "trainer/verify/golden.h"
#include "trainer/verify/step_tensors.h"

namespace shoestring {

// The config with one phase alone, its layout and lanes said by the run; steps and tokens count from its start.
config::RunConfig OnlyPhase(const config::RunConfig& config, int phase);
// The same numerics on one rank of the same device.
config::RunConfig OnOneRank(const config::RunConfig& config);

struct VerifyOptions {
  int64_t steps = 2;
  const Golden* golden = nullptr;  // what to compare with; null: one rank
  bool record = false;             // digests of what one rank leaves
  std::string instruction_set;     // of the backends, for the record
  // Of one rank of the layout, or of the one rank that is the reference (none); called on its thread.
  std::function<absl::StatusOr<std::unique_ptr<Backend>>(std::optional<Rank> rank)> make_backend;
};

struct VerifyReport {
  int ranks = 0;
  int64_t steps = 0;         // compared
  std::string program_hash;  // SHA-256 of the text of the program that the ranks executed in the last step
  int64_t tensors = 0;       // of a step
  int64_t bytes = 0;         // compared, those of every rank counted
  int64_t arena_bytes = 0;   // of all ranks
  int64_t reference_arena_bytes = 0;
  double seconds = 0;            // of everything
  double step_seconds = 0;       // of the layout's steps, waiting included
  double reference_seconds = 0;  // of those of one rank
  std::vector<StepTensor> list;
  // In the step that differs first: the first element of each tensor that differs, on the first rank where it does; in
  // order. Empty: equal.
  std::vector<Difference> differences;
  std::optional<Golden> recorded;

  bool equal() const { return differences.empty(); }
};

// Ranks of the layout are threads of this process, beside the one rank; after each step all stop and compare. `config`
// has one phase, with at least so many steps. Errors: those of training; DATA_LOSS for a golden that is another
// config's or has other tensors; INTERNAL where ranks ran other actions than the checked program has.
absl::StatusOr<VerifyReport> VerifyLayout(const config::RunConfig& config, const TrainData& data, Clock& clock,
                                          const VerifyOptions& options);

// One rank alone: what VerifyLayout would compare with.
absl::StatusOr<Golden> RecordGolden(const config::RunConfig& config, const TrainData& data, Clock& clock,
                                    const VerifyOptions& options);

}  // namespace shoestring
