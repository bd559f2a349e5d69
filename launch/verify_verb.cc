// The verb `verify`: whether a layout, its ranks as threads, gives the bits of one rank or of a golden file.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "configs/diff.h"
#include "configs/resolve.h"
#include "configs/validate.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/exit_codes.h"
#include "launch/run_backend.h"
#include "launch/run_data.h"
#include "launch/verbs.h"
#include "trainer/schedule.h"
#include "trainer/support.h"
#include "trainer/verify/formula_tokens.h"
#include "trainer/verify/shrink.h"
#include "trainer/verify/verdict.h"
#include "trainer/verify/verify.h"

namespace shoestring {
namespace {

constexpr const char* kOneRank = "one-rank";

struct Request {
  config::RunConfig config;  // of the phase alone
  int phase = 0;
  std::string against;  // kOneRank, or a file; empty: nothing, only write
  std::optional<Golden> golden;
  std::string write_golden;
  int64_t steps = 2;
  bool shrink = false;
  std::vector<std::string> shrunk;  // what that changed
  bool json = false;
  Isa isa = DefaultIsa();
  std::string gpu;  // its kind, where the config asks for one
  TrainData data;
  std::string data_name;
};

absl::Status CheckFlags(const Values& values, const Request& request) {
  if (request.steps < 1) return absl::InvalidArgumentError(absl::StrCat("--steps ", request.steps, ": at least 1"));
  if (values.count("against") > 0 && request.against.empty()) {
    return absl::InvalidArgumentError("--against is empty; say one-rank, or a file that --write-golden made");
  }
  if (request.against.empty() && request.write_golden.empty()) {
    return absl::InvalidArgumentError("'verify' needs --against one-rank, --against FILE or --write-golden FILE");
  }
  if (!request.write_golden.empty() && !request.against.empty() && request.against != kOneRank) {
    return absl::InvalidArgumentError("--write-golden writes what one rank gives; say --against one-rank, or leave it");
  }
  if (request.json && request.against.empty()) {
    return absl::InvalidArgumentError("--json is for a comparison; say --against");
  }
  return absl::OkStatus();
}

absl::Status CheckComparable(const config::RunConfig& config) {
  if (config.train().reduction() == config::TrainConfig::CANONICAL) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "train.reduction: FAST sums have the bits of their own layout, there is nothing to compare them with; set "
      "train.reduction=CANONICAL");
}

// A GPU that cannot be had is refused before anything is read.
absl::Status FindDevice(Request& request) {
  if (request.config.layout().device() == config::LayoutConfig::CPU) return absl::OkStatus();
  ASSIGN_OR_RETURN(const RunBackend device, OpenRunBackend(request.config, request.isa, 1));
  request.gpu = device.instruction_set;
  return absl::OkStatus();
}

std::string InstructionSetOf(const Request& request) {
  return request.gpu.empty() ? std::string(IsaName(request.isa)) : request.gpu;
}

// Says what it changes, at once: what follows may take its time.
absl::Status ShrinkConfig(Request& request) {
  if (!request.shrink) return absl::OkStatus();
  const config::RunConfig whole = request.config;
  request.config = Shrink(whole);
  for (const config::Difference& difference : config::Diff(whole, request.config)) {
    request.shrunk.push_back(absl::StrCat(difference.field, ": ",
                                          difference.before.empty() ? "not set" : difference.before, " -> ",
                                          difference.after.empty() ? "not set" : difference.after));
    std::fprintf(stderr, "shrunk %s\n", request.shrunk.back().c_str());
  }
  return config::Validate(request.config, config::Locations());
}

// The phase must exist and last as long as is asked.
absl::Status ChoosePhase(const config::RunConfig& config, Request& request) {
  const int phases = config.train().phase_size();
  if (request.phase < 0 || request.phase >= phases) {
    return absl::InvalidArgumentError(absl::StrCat("--phase ", request.phase, ": the config has ", phases,
                                                   phases == 1 ? " phase" : " phases", ", counted from 0"));
  }
  request.config = OnlyPhase(config, request.phase);
  const int64_t steps = Schedule(request.config).TotalSteps();
  if (request.steps <= steps) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--steps ", request.steps, ": phase ", request.phase, " has ", steps));
}

absl::Status ReadGolden(Request& request) {
  if (request.against.empty() || request.against == kOneRank) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string text, ReadFile(PosixFileSystem(), request.against));
  absl::StatusOr<Golden> golden = ParseGolden(text);
  if (!golden.ok()) return WithContext(golden.status(), request.against);
  request.golden = *std::move(golden);
  if (!request.gpu.empty()) return absl::OkStatus();  // VerifyLayout compares
  for (const Isa isa : SupportedIsas()) {
    if (IsaName(isa) != request.golden->instruction_set) continue;
    request.isa = isa;
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(request.against, ": was made with ",
                                                    request.golden->instruction_set,
                                                    ", which this machine has not; make one here"));
}

// The config's shards if they are there, else the formula; which, is said.
absl::Status OpenData(Request& request) {
  if (request.shrink) {
    request.data = FormulaTokenData(request.config);
    request.data_name = "by formula, for the shrunk vocabulary";
    return absl::OkStatus();
  }
  absl::StatusOr<RunData> data = OpenRunData(PosixFileSystem(), request.config);
  if (data.ok()) {
    request.data = std::move(data->data);
    request.data.validation = nullptr;
    request.data_name = "the config's shards";
    return absl::OkStatus();
  }
  if (!absl::IsNotFound(data.status())) return data.status();
  request.data = FormulaTokenData(request.config);
  request.data_name = "by formula, the config's shards are absent";
  return absl::OkStatus();
}

int64_t PeakMemoryBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{1024} * usage.ru_maxrss;
}

VerifyOptions OptionsOf(const Request& request) {
  const int64_t ranks = config::WorldSize(request.config.layout());
  const int64_t wanted = request.config.layout().threads_per_rank();
  const int cores = ThreadsOrCores(0);
  const int threads = wanted > 0 ? ThreadsOrCores(wanted) : std::max<int>(1, static_cast<int>(cores / ranks));
  VerifyOptions options;
  options.steps = request.steps;
  options.golden = request.golden.has_value() ? &*request.golden : nullptr;
  options.record = !request.write_golden.empty();
  options.instruction_set = InstructionSetOf(request);
  // Both worlds share the cores, or the GPUs.
  options.make_backend = [&request, threads,
                          cores](std::optional<Rank> rank) -> absl::StatusOr<std::unique_ptr<Backend>> {
    if (request.gpu.empty()) {
      return MakeCpuBackend({.threads = rank.has_value() ? threads : cores, .isa = request.isa, .spin = 0});
    }
    ASSIGN_OR_RETURN(RunBackend device, OpenRunBackend(request.config, request.isa, 1, rank.value_or(Rank(0)).value));
    return std::move(device.backend);
  };
  return options;
}

int WriteGolden(const Request& request, const Golden& golden) {
  const absl::Status written = WriteFileDurably(PosixFileSystem(), request.write_golden, ToText(golden));
  if (!written.ok()) return Fail(Area::kRun, written);
  std::fprintf(stderr, "wrote %s: %zu steps of %zu tensors\n", request.write_golden.c_str(), golden.steps.size(),
               golden.steps[0].size());
  return static_cast<int>(ExitCode::kDone);
}

int Record(const Request& request) {
  const absl::StatusOr<Golden> golden = RecordGolden(request.config, request.data, RealClock(), OptionsOf(request));
  return golden.ok() ? WriteGolden(request, *golden) : Fail(Area::kRun, golden.status());
}

int Compare(const Request& request) {
  const absl::StatusOr<Mesh> mesh = Mesh::Create(request.config.layout());
  if (!mesh.ok()) return Fail(Area::kConfig, mesh.status());
  const absl::StatusOr<VerifyReport> report =
      VerifyLayout(request.config, request.data, RealClock(), OptionsOf(request));
  if (!report.ok()) {
    const bool golden = request.golden.has_value() && absl::IsDataLoss(report.status());
    return Fail(Area::kRun, golden ? WithContext(report.status(), request.against) : report.status());
  }
  const VerdictFacts facts{request.against == kOneRank ? "one rank" : request.against, request.data_name,
                           InstructionSetOf(request), PeakMemoryBytes(), request.shrunk};
  std::fputs((request.json ? VerdictJson(*report, *mesh, facts) : VerdictText(*report, *mesh, facts)).c_str(), stdout);
  if (!report->equal()) return static_cast<int>(ExitCode::kCheckFailed);
  return report->recorded.has_value() ? WriteGolden(request, *report->recorded) : static_cast<int>(ExitCode::kDone);
}

int Run(const Values& values) {
  Request request;
  request.phase = values["phase"].as<int>();
  request.against = ValueOr<std::string>(values, "against", "");
  request.write_golden = ValueOr<std::string>(values, "write-golden", "");
  request.steps = values["steps"].as<int64_t>();
  request.shrink = values.count("shrink") > 0;
  request.json = values.count("json") > 0;
  const absl::Status flags = CheckFlags(values, request);
  if (!flags.ok()) return Fail(Area::kUsage, flags);
  const absl::StatusOr<config::LoadedConfig> loaded = LoadValidConfig(values);
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  const absl::Status phase = ChoosePhase(loaded->config, request);
  if (!phase.ok()) return Fail(Area::kUsage, phase);
  absl::Status supported = ShrinkConfig(request);
  if (supported.ok()) supported = CheckComparable(request.config);
  if (supported.ok()) supported = CheckSupported(request.config);
  if (supported.ok()) supported = FindDevice(request);
  if (!supported.ok()) return Fail(Area::kConfig, supported);
  const absl::Status golden = ReadGolden(request);
  if (!golden.ok()) return Fail(Area::kData, golden);
  const absl::Status data = OpenData(request);
  if (!data.ok()) return Fail(Area::kData, data);
  return request.against.empty() ? Record(request) : Compare(request);
}

void Declare(po::options_description& flags) {
  DeclareConfigFlags(flags);
  auto add = flags.add_options();
  add("against", po::value<std::string>()->value_name("one-rank|FILE"),
      "one rank that computes the same beside the layout, or a golden file of what it computed");
  add("shrink", "make the model small and leave mesh, program, lanes and micro-batches as they are");
  add("steps", po::value<int64_t>()->default_value(2)->value_name("N"), "optimizer steps to compare");
  add("phase", po::value<int>()->default_value(0)->value_name("I"),
      "of the config, counted from 0; the others are left out");
  add("write-golden", po::value<std::string>()->value_name("FILE"),
      "write the digests of what one rank gives; without --against it runs alone");
  add("json", "the verdict as JSON");
}

}  // namespace

Verb VerifyVerb() {
  return {
      "verify",
      "whether a layout gives the bits of one rank",
      "--config FILE... --against one-rank|FILE [--shrink] [--steps N] [--phase I] [--write-golden FILE] [--json]",
      "Trains some steps on the config's layout, its ranks as threads, and compares losses, every gradient, every\n"
      "weight, moment, average and bias, and the data position with those of one rank. Names the first tensor, step\n"
      "and rank that differ; exit code 1 then. See docs/verify.md.\n\nExample:\n"
      "  shoestring verify --config run.textproto --against one-rank\n"
      "  shoestring verify --config run.textproto --write-golden run.golden\n"
      "  shoestring verify --config run.textproto --set layout.data_ranks=4 --against run.golden",
      Declare,
      "",
      Run};
}

}  // namespace shoestring
