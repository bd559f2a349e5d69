// Sorting, printing, parsing.
#include "tests/acceptance/step_report.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/check.h"

namespace shoestring {
namespace {

namespace po = boost::program_options;

bool Faster(const MeasuredStep& a, const MeasuredStep& b) { return a.seconds < b.seconds; }

}  // namespace

double CountedFlops(const WorkCounters& work) { return static_cast<double>(work.gemm_flops + work.attention_flops); }

MeasuredStep BestOf(const std::vector<MeasuredStep>& steps) {
  CHECK(!steps.empty());
  return *std::min_element(steps.begin(), steps.end(), Faster);
}

MeasuredStep MedianOf(std::vector<MeasuredStep> steps) {
  CHECK(!steps.empty());
  std::sort(steps.begin(), steps.end(), Faster);
  return steps[steps.size() / 2];
}

void PrintBreakdown(const char* title, const MeasuredStep& step, double peak_gflops) {
  const auto row = [&](const char* name, double seconds) {
    std::printf("| %-16s | %9.2f | %6.1f |", name, 1e3 * seconds, 100 * seconds / step.seconds);
  };
  std::printf("| %-16s | %9s | %6s | calls |\n| --- | --- | --- | --- |\n", title, "ms", "%");
  for (int i = 0; i < kTimeCategories; ++i) {
    row(Name(static_cast<TimeCategory>(i)), step.times.seconds[i]);
    std::printf(" %lld |\n", static_cast<long long>(step.times.calls[i]));
  }
  row("outside", step.seconds - step.times.total_s());
  std::printf(" |\n");
  row("at peak speed", CountedFlops(step.work) / peak_gflops * 1e-9);
  std::printf(" %.2f GFLOP of products, %.2f of attention |\n", static_cast<double>(step.work.gemm_flops) * 1e-9,
              static_cast<double>(step.work.attention_flops) * 1e-9);
}

absl::StatusOr<po::variables_map> ParseWords(po::options_description& flags, int argc, char** argv) {
  flags.add_options()("help", "this text");
  po::variables_map values;
  try {
    po::store(po::parse_command_line(argc, argv, flags), values);
    if (values.count("help") == 0) po::notify(values);
  } catch (const po::error& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return values;
}

}  // namespace shoestring
