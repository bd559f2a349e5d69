// What the programs share that measure whole steps: a step that was measured, and where its time went.
#pragma once

#include <boost/program_options.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/timing_backend.h"

namespace shoestring {

struct MeasuredStep {
  double seconds = 0;
  WorkCounters work;    // forward and backward
  TimeBreakdown times;  // of the backend's operations
};

// Products and attention's causal half, forward and backward.
double CountedFlops(const WorkCounters& work);
// By seconds; there is at least one.
MeasuredStep BestOf(const std::vector<MeasuredStep>& steps);
MeasuredStep MedianOf(std::vector<MeasuredStep> steps);

// A Markdown table: milliseconds, share of the step and calls of each kind of operation; what is outside of them; and
// what the counted FLOPs alone take at `peak_gflops`. `title` heads the first column.
void PrintBreakdown(const char* title, const MeasuredStep& step, double peak_gflops);

// INVALID_ARGUMENT, in the parser's words. --help is declared here.
absl::StatusOr<boost::program_options::variables_map> ParseWords(boost::program_options::options_description& flags,
                                                                 int argc, char** argv);

}  // namespace shoestring
