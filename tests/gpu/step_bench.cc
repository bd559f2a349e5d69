// Whole training steps on the device that a config names, beside the rate of its BF16 products in the same run (MFU).
//
//   step_bench --config FILE... [--set path=value]... [--steps N] [--warm-up N] [--threads N]
//   step_bench --config FILE... [--set path=value]... --memory
//
// --memory: only says what the run takes of a GPU's memory, but for what cuDNN asks for its plan; needs no GPU.
// Tokens are made by a formula, so no data is needed. A step ends when the device has done it. After the steps that are
// timed comes one in which each operation is waited for, so that its time is known; nothing overlaps there, and it
// takes longer. Exit codes: 0 done; 64 usage; 69 no such device, or too little memory; 78 the config is wrong.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "configs/resolve.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/attention_config.h"
#include "kernels/timing_backend.h"
#include "launch/exit_codes.h"
#include "launch/flags.h"
#include "launch/run_backend.h"
#include "tests/acceptance/step_report.h"
#include "trainer/train_loop.h"
#include "trainer/verify/formula_tokens.h"

namespace shoestring {
namespace {

struct Options {
  int steps = 3;
  int warm_up = 1;
  int threads = 0;
  bool memory = false;
};

// A backend with a GPU's attention, as far as its memory is known without one.
class GpuShapes final : public TimingBackend {
 public:
  explicit GpuShapes(Backend& any) : TimingBackend(any, RealClock()) {}
  int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) const override {
    return std::max(cuda::CudnnParts(shape, backward, 0).total_bytes(),
                    cuda::OwnWorkspace(shape, backward).total_bytes());
  }
};

void PrintMemory(const config::RunConfig& config) {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({});
  GpuShapes shapes(*cpu);
  const MemoryNeed need = MeasureMemory(config, shapes);
  std::printf("%s\n%s: %.1f GiB\n", need.table.c_str(), config.name().c_str(),
              static_cast<double>(need.bytes) / (int64_t{1} << 30));
}

struct Measurement {
  std::vector<MeasuredStep> steps;
  MeasuredStep serialised;  // each operation waited for
  double peak_gflops = 0;   // of BF16 products, the best of before and after
  int64_t tokens = 0;       // of a step
  double load = 0;          // largest over mean, of the experts of the last step
};

double Peak(Backend& device) { return MeasureDevicePeak(device, device.memory_is_hosts() ? 1024 : 8192); }

absl::StatusOr<MeasuredStep> TimeStep(Trainer& trainer, TimingBackend& backend, Measurement& all) {
  if (trainer.schedule().Done(trainer.state().position)) {
    return absl::InvalidArgumentError("train.phase: the run ends before all steps are measured; give it more");
  }
  const TimeBreakdown before = backend.times();
  const double start = RealClock().MonotonicSeconds();
  ASSIGN_OR_RETURN(const StepResult* result, trainer.Step());
  backend.Synchronize(trainer.stream());
  const double seconds = RealClock().MonotonicSeconds() - start;
  all.tokens = result->plan.tokens;
  all.load = result->mean_max_over_mean_load;
  return MeasuredStep{seconds, result->work, backend.times().Since(before)};
}

absl::StatusOr<Measurement> Measure(const config::RunConfig& config, Backend& device, const Options& options) {
  if (config::WorldSize(config.layout()) > 1) {
    return absl::InvalidArgumentError("layout: one rank is measured here; set its pipeline_ranks and data_ranks to 1");
  }
  Measurement all;
  all.peak_gflops = Peak(device);
  const double start = RealClock().MonotonicSeconds();
  TimingBackend backend(device, RealClock());
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer, Trainer::Create(config, FormulaTokenData(config), backend,
                                                                           RealClock(), {.threads = options.threads}));
  std::printf("%s on %s: %.1f GiB of memory, set up in %.1f s\n\n", config.name().c_str(), device.name(),
              static_cast<double>(trainer->arena_bytes()) / (1 << 30), RealClock().MonotonicSeconds() - start);
  std::fflush(stdout);
  for (int i = 0; i < options.warm_up + options.steps; ++i) {
    ASSIGN_OR_RETURN(const MeasuredStep step, TimeStep(*trainer, backend, all));
    // At once: what is cut off by a limit of time has said something.
    std::printf("%s %.4g s\n", i < options.warm_up ? "warm-up" : "step", step.seconds);
    std::fflush(stdout);
    if (i >= options.warm_up) all.steps.push_back(step);
  }
  backend.set_waits(true);
  ASSIGN_OR_RETURN(all.serialised, TimeStep(*trainer, backend, all));
  all.peak_gflops = std::max(all.peak_gflops, Peak(device));  // warm, as the steps were
  return all;
}

void Report(const std::string& name, const Measurement& all) {
  const MeasuredStep step = MedianOf(all.steps);
  const double flops = CountedFlops(step.work), rate = flops / step.seconds;
  std::printf(
      "\n| step | s | best s | tokens/s | TFLOP | in FP8 | TFLOP/s | of BF16 peak | share, causal |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
      "| %s | %.4g | %.4g | %.0f | %.4g | %.1f %% | %.4g | %.4g | MFU %.2f %% |\n\n",
      name.c_str(), step.seconds, BestOf(all.steps).seconds, static_cast<double>(all.tokens) / step.seconds,
      flops * 1e-12, 100 * static_cast<double>(step.work.fp8_gemm_flops) / flops, rate * 1e-12, all.peak_gflops * 1e-3,
      100 * rate * 1e-9 / all.peak_gflops);
  std::printf("Each operation waited for, so that nothing overlaps: %.4g s; fullest expert %.2f of the mean.\n\n",
              all.serialised.seconds, all.load);
  PrintBreakdown("serialised", all.serialised, all.peak_gflops);
}

int Run(const Values& values, Options options) {
  const absl::StatusOr<config::LoadedConfig> loaded = LoadValidConfig(values);
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  config::RunConfig config = loaded->config;
  config.mutable_train()->clear_validation();
  if (options.memory) {
    PrintMemory(config);
    return static_cast<int>(ExitCode::kDone);
  }
  options.threads = ThreadsOrCores(options.threads);
  const absl::StatusOr<RunBackend> device = OpenRunBackend(config, DefaultIsa(), options.threads);
  absl::Status status = device.status();
  if (status.ok()) {
    const absl::StatusOr<Measurement> all = Measure(config, *device->backend, options);
    const std::string mode = config::PrecisionConfig::Mode_Name(config.precision().mode());
    if (all.ok()) Report(absl::StrCat(config.name(), " ", mode), *all);
    status = all.status();
  }
  if (status.ok()) return static_cast<int>(ExitCode::kDone);
  const int code = Fail(Area::kConfig, status);
  return absl::IsInvalidArgument(status) ? code : static_cast<int>(ExitCode::kNodeGone);
}

int Main(int argc, char** argv) {
  Options options;
  po::options_description flags("step_bench: whole training steps on the device that a config names", 100);
  DeclareConfigFlags(flags);
  flags.add_options()("steps", po::value(&options.steps), "measured steps (3)");
  flags.add_options()("warm-up", po::value(&options.warm_up), "steps before them (1)");
  flags.add_options()("threads", po::value(&options.threads), "threads of the host; 0: one a core (0)");
  flags.add_options()("memory", po::bool_switch(&options.memory), "say what it takes of a GPU's memory, and no more");
  const absl::StatusOr<Values> values = ParseWords(flags, argc, argv);
  if (!values.ok()) return Fail(Area::kUsage, values.status());
  if (values->count("help") > 0 || values->count("config") == 0 || options.steps < 1 || options.warm_up < 0) {
    std::cout << flags;
    return values->count("help") > 0 ? 0 : 64;
  }
  return Run(*values, options);
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) { return shoestring::Main(argc, argv); }
