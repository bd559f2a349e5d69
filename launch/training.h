// One start of a run, from a checked config to its exit code: what `train` and `resume` share.
#pragma once

#include <cstdint>
#include <string>

#include "configs/schema/run.pb.h"
#include "kernels/cpu/cpu_features.h"

namespace shoestring {

enum class Start {
  kFresh,     // the run directory must hold no run yet
  kEither,    // goes on with the run that is there, from its newest checkpoint if it has one; else begins one
  kContinue,  // from a checkpoint or not at all
};

struct TrainRequest {
  config::RunConfig config;  // validated
  std::string run_directory;
  Start start = Start::kFresh;
  bool go_back = false;            // pass over bad checkpoints to an older good one
  int64_t exit_after_seconds = 0;  // 0: no limit
  int64_t max_steps = 0;           // of the whole run; 0: no limit
  Isa isa = DefaultIsa();          // that computes it; one that this machine has
};

// Checks everything that the run needs before it writes anything, then trains. Prints the outcome to standard output,
// what went wrong as one line to standard error; gives the exit code.
int RunTraining(const TrainRequest& request);

}  // namespace shoestring
