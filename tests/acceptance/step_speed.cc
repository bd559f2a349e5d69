// Measures whole training steps against the peak of the matrix products, in one run, and says where the rest goes.
//
// Tokens are random, so no data is needed. Steps alternate with rounds in which one large product runs for as long as a
// step does: the peak is what the machine holds for that long, not what it reaches for a moment. The ratio is that of
// the best step to the best round; the median of both is printed beside it.
#include <time.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/rng.h"
#include "base/status_macros.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gemm_peak.h"
#include "kernels/timing_backend.h"
#include "tests/acceptance/step_report.h"
#include "trainer/train_loop.h"

namespace shoestring {
namespace {

namespace po = boost::program_options;

struct Options {
  std::vector<std::string> configs;
  std::string fp8_config = "configs/presets/fp8_v3.textproto";
  std::vector<std::string> overrides;
  int steps = 8;
  int threads = 2;
  bool cpu_time = false;
};

// The processor time of the whole process, shared among its threads: what a step would take with the machine to itself
// and its threads always busy together. Leaves out what other programs take, and with it the time that threads sleep.
class CpuTimeClock final : public Clock {
 public:
  explicit CpuTimeClock(int threads) : threads_(threads) {}
  int64_t MonotonicNanos() override {
    timespec time = {};
    CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time), 0);
    return (int64_t{1000000000} * time.tv_sec + time.tv_nsec) / threads_;
  }
  int64_t WallNanos() override { return RealClock().WallNanos(); }
  void SleepNanos(int64_t nanos) override { RealClock().SleepNanos(nanos); }

 private:
  const int threads_;
};

// Uniform over the vocabulary: routing is then near its average from the first step on.
class RandomTokens final : public TokenSource {
 public:
  RandomTokens(int64_t row_tokens, int64_t vocab) : row_tokens_(row_tokens), vocab_(vocab) {}
  int64_t row_tokens() const override { return row_tokens_; }
  absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) override {
    const Rng rng(1, RngPurpose::kTest, 0);
    for (int64_t i = 0; i < samples * row_tokens_; ++i) {
      tokens[i] = static_cast<int32_t>(rng.Below(first_sample * row_tokens_ + i, vocab_));
    }
    return absl::OkStatus();
  }
  std::string Description() const override { return "random tokens"; }

 private:
  const int64_t row_tokens_;
  const int64_t vocab_;
};

// Seconds of the best step and of the median one.
struct StepTime {
  double best_s = 0, median_s = 0;
};

StepTime Report(const std::string& name, const std::string& mode, std::vector<double> peaks,
                const std::vector<MeasuredStep>& steps) {
  const auto rate = [](const MeasuredStep& step) { return CountedFlops(step.work) * 1e-9 / step.seconds; };
  std::sort(peaks.begin(), peaks.end());
  const MeasuredStep best = BestOf(steps), median = MedianOf(steps);
  const double peak = peaks.back(), median_peak = peaks[peaks.size() / 2];
  std::printf("%s %s: %.1f %% of the GEMM peak (%.1f of %.1f GFLOP/s, step %.1f ms); median %.1f %% (%.1f of %.1f)\n",
              name.c_str(), mode.c_str(), 100 * rate(best) / peak, rate(best), peak, 1e3 * best.seconds,
              100 * rate(median) / median_peak, rate(median), median_peak);
  PrintBreakdown("of best step", best, peak);
  return {best.seconds, median.seconds};
}

absl::StatusOr<config::RunConfig> Load(const Options& options, const std::string& mode) {
  std::vector<std::string> configs = options.configs, overrides = options.overrides;
  if (mode == "FP8") configs.push_back(options.fp8_config);
  overrides.push_back(absl::StrCat("precision.mode=", mode));
  if (mode == "FP32") overrides.push_back("precision.moments=MOMENTS_FP32");
  ASSIGN_OR_RETURN(config::LoadedConfig loaded, config::LoadConfig(PosixFileSystem(), configs, overrides));
  RETURN_IF_ERROR(config::Validate(loaded.config, loaded.locations));
  loaded.config.mutable_train()->clear_validation();
  return loaded.config;
}

absl::StatusOr<StepTime> Measure(const Options& options, const std::string& mode) {
  ASSIGN_OR_RETURN(const config::RunConfig config, Load(options, mode));
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = options.threads});
  CpuTimeClock cpu_clock(options.threads);
  Clock& clock = options.cpu_time ? static_cast<Clock&>(cpu_clock) : RealClock();
  TimingBackend backend(*cpu, clock);
  TrainData data;
  data.training = [&config](int phase) -> absl::StatusOr<std::unique_ptr<TokenSource>> {
    const int64_t row = config.train().phase(phase).sequence_length() + 1 + config.model().mtp_depth();
    return std::make_unique<RandomTokens>(row, config.model().vocab_size());
  };
  ASSIGN_OR_RETURN(std::unique_ptr<Trainer> trainer,
                   Trainer::Create(config, data, backend, clock, {.threads = options.threads}));
  RETURN_IF_ERROR(trainer->Step().status());  // touches the memory
  ThreadPool pool(options.threads);
  CpuGemm gemm(&pool, DefaultIsa());
  std::vector<double> peaks;
  std::vector<MeasuredStep> steps;
  const DType dtype = mode == "FP32" ? DType::kF32 : DType::kBF16;
  for (int i = 0; i < options.steps; ++i) {
    const TimeBreakdown before = backend.times();
    ASSIGN_OR_RETURN(const StepResult* result, trainer->Step());
    steps.push_back({result->times.total_s, result->work, backend.times().Since(before)});
    peaks.push_back(SustainedGemmRate(gemm, dtype, result->times.total_s, clock));
  }
  return Report(config.name(), mode, peaks, steps);
}

absl::Status MeasureAll(const Options& options, const std::vector<std::string>& modes) {
  std::map<std::string, StepTime> times;
  for (const std::string& mode : modes) {
    ASSIGN_OR_RETURN(times[mode], Measure(options, mode));
  }
  if (times.count("FP8") > 0 && times.count("BF16") > 0) {
    const StepTime &fp8 = times["FP8"], &bf16 = times["BF16"];
    std::printf("an FP8 step takes %.2f times a BF16 step (best), %.2f times (median)\n", fp8.best_s / bf16.best_s,
                fp8.median_s / bf16.median_s);
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  std::vector<std::string> modes = {"FP32", "BF16"};
  po::options_description flags("step_speed: whole training steps against the peak of the matrix products");
  flags.add_options()("config", po::value(&options.configs)->composing(), "config file; several are merged");
  flags.add_options()("set", po::value(&options.overrides)->composing(), "path=value");
  flags.add_options()("mode", po::value(&modes)->composing(), "FP32, BF16, FP8; the first two unless given");
  flags.add_options()("fp8-config", po::value(&options.fp8_config),
                      "merged for FP8 (configs/presets/fp8_v3.textproto)");
  flags.add_options()("steps", po::value(&options.steps), "measured steps, after one that warms up (8)");
  flags.add_options()("threads", po::value(&options.threads), "threads (2)");
  flags.add_options()("cpu-time", po::bool_switch(&options.cpu_time),
                      "count processor time instead of time, for a machine that is busy with other things");
  const absl::StatusOr<po::variables_map> values = ParseWords(flags, argc, argv);
  if (!values.ok()) {
    std::fprintf(stderr, "step_speed: %s\n", std::string(values.status().message()).c_str());
    return 64;
  }
  if (values->count("help") > 0 || options.configs.empty() || options.steps < 1 || options.threads < 1) {
    std::cout << flags;
    return values->count("help") > 0 ? 0 : 64;
  }
  const absl::Status status = MeasureAll(options, modes);
  if (!status.ok()) std::fprintf(stderr, "step_speed: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) { return shoestring::Main(argc, argv); }
