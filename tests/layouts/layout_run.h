// Runs a layout on threads, and keeps what each rank did in the last step: its work, memory, messages, program,
// choices.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "configs/schema/run.pb.h"
#include "kernels/arena.h"
#include "kernels/timing_backend.h"
#include "parallel/communicator_call.h"
#include "parallel/pipeline/program.h"
#include "tests/trainer/layout_bench.h"

namespace shoestring {

// The experts that the tokens of one micro-batch chose in one layer: [T * K], ascending for each token.
using Choices = std::vector<int32_t>;

// Bytes and messages that a rank received over each of its communicators.
struct Received {
  int64_t messages = 0;
  int64_t bytes = 0;
  friend bool operator==(const Received&, const Received&) = default;
};

struct RankRecord {
  WorkCounters work;
  std::array<int64_t, kPurposeCount> arena{};  // bytes, by purpose
  std::map<std::string, Received> received;    // by communicator: "world", "forward", ...
  std::vector<Action> program;                 // what it was given
  std::vector<Action> executed;                // what it did
  std::vector<Choices> choices;                // of each dispatch, in order
};

struct LayoutRun {
  LayoutResult result;
  std::vector<RankRecord> ranks;
  std::vector<std::vector<int64_t>> expert_counts;  // of the last step, as all ranks know them
};

absl::StatusOr<LayoutRun> RunLayout(const config::RunConfig& config, int steps);

}  // namespace shoestring
