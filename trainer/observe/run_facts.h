// What is known about a run before its first step, and the block of text that says so at the start.
#pragma once

#include <cstdint>
#include <string>

#include "configs/schema/run.pb.h"
#include "trainer/schedule.h"

namespace shoestring {

struct RunFacts {
  std::string name;
  std::string device = "CPU";
  std::string instruction_set;            // that computes the run, as kernels/cpu/cpu_features.h names it; may be empty
  int64_t generation = 0;                 // 0 for the first start, plus 1 a resume
  int64_t resumed_step = 0;               // steps done before this start
  int64_t total_steps = 0;                // of the whole run
  int64_t stop_step = 0;                  // TrainOptions::max_steps; 0: none
  int64_t validation_interval_steps = 0;  // 0: no validation
  int64_t log_interval_steps = 1;
  bool fast_sums = false;  // in the order of this layout
  int ranks = 1;
  int threads_per_rank = 1;
  double peak_gflops_per_rank = 0;  // of the matrix products, measured at the start; 0: unknown

  std::string config_text;  // canonical
  std::string numerics_hash;
  std::string run_hash;
  std::string parameters;    // text; counts of parameters
  std::string memory_table;  // text; Trainer::memory_table()
  std::string data_table;    // text; what it is trained on, may be empty
};

// The step this start will end with, if nothing stops it.
int64_t LastStep(const RunFacts& facts);

// All that follows from the config and its schedule; the caller adds generation, resumed_step, stop_step, threads,
// instruction_set, peak, memory_table and data_table.
RunFacts FactsOf(const config::RunConfig& config, const Schedule& schedule);

// "1234567" as "1.235 M".
std::string HumanCount(double count);
// "1:02:03", "4:05", "7.2 s".
std::string HumanSeconds(double seconds);

// Name, hashes, parameter counts, length, memory and data, ready to be printed; ends with a newline.
std::string StartBlock(const RunFacts& facts);

}  // namespace shoestring
