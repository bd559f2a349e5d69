// The verbs `checkpoint ...`: list, check, prune, export and import.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "launch/checkpoint_place.h"
#include "launch/exit_codes.h"
#include "launch/import_run.h"
#include "launch/run_directory.h"
#include "launch/verbs.h"
#include "trainer/checkpoint/check.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/export/export_hf.h"

namespace shoestring {
namespace {

constexpr int kDone = static_cast<int>(ExitCode::kDone);

int RunList(const Values& values) {
  const std::string place = values["place"].as<std::string>();
  absl::StatusOr<std::string> directory = CheckpointsAt(PosixFileSystem(), place);
  if (!directory.ok()) return Fail(Area::kData, directory.status());
  // Of a run it gave another directory.
  const std::optional<int64_t> only = *directory == place ? StepOfName(BaseName(place)) : std::nullopt;
  if (only.has_value()) directory = DirName(place);
  const absl::StatusOr<std::vector<CheckpointSummary>> list = ListCheckpoints(PosixFileSystem(), *directory);
  if (!list.ok()) return Fail(Area::kData, list.status());
  for (const CheckpointSummary& summary : *list) {
    if (only.value_or(summary.step) == summary.step) std::printf("%s\n", summary.ToString().c_str());
  }
  if (list->empty()) std::printf("%s: no checkpoint\n", directory->c_str());
  return kDone;
}

int RunCheck(const Values& values) {
  const absl::StatusOr<std::string> path = CheckpointAt(PosixFileSystem(), values["place"].as<std::string>());
  if (!path.ok()) return Fail(Area::kData, path.status());
  const CheckReport report = CheckCheckpoint(PosixFileSystem(), *path);
  std::fputs(report.ToString().c_str(), stdout);
  if (report.ok()) return kDone;
  return Fail(Area::kData,
              absl::DataLossError(absl::StrCat(*path, ": ", report.problems.front(),
                                               "; take another checkpoint ('shoestring checkpoint list')")));
}

int RunPrune(const Values& values) {
  const int keep = values["keep"].as<int>();
  if (keep < 1) {
    return Fail(Area::kUsage, absl::InvalidArgumentError(absl::StrCat("--keep ", keep, ": keep at least 1")));
  }
  const std::string place = values["place"].as<std::string>();
  const absl::StatusOr<std::string> directory = CheckpointsAt(PosixFileSystem(), place);
  if (!directory.ok()) return Fail(Area::kData, directory.status());
  if (!HoldsRun(PosixFileSystem(), place)) {
    return Fail(Area::kData, absl::NotFoundError(absl::StrCat(place, ": holds no run; name a run directory")));
  }
  // A trainer that saves at this moment must not find its directory changed.
  const absl::StatusOr<std::unique_ptr<RunLock>> lock = RunLock::Take(PosixFileSystem(), place, *directory);
  if (!lock.ok()) return Fail(Area::kData, lock.status());
  const absl::StatusOr<std::vector<int64_t>> removed = PruneCheckpoints(PosixFileSystem(), *directory, keep);
  if (!removed.ok()) return Fail(Area::kData, removed.status());
  for (const int64_t step : *removed) std::printf("removed %s\n", StepName(step).c_str());
  return kDone;
}

// "5GB", "500MB", "64KB", "4096".
absl::StatusOr<int64_t> ParseBytes(const std::string& flag, absl::string_view text) {
  const std::string whole(text);
  int64_t unit = 1, number = 0;
  for (const auto& [suffix, bytes] :
       {std::pair<absl::string_view, int64_t>{"GB", 1'000'000'000}, {"MB", 1'000'000}, {"KB", 1'000}}) {
    if (absl::ConsumeSuffix(&text, suffix)) {
      unit = bytes;
      break;
    }
  }
  constexpr int64_t kMost = int64_t{1} << 50;
  if (absl::SimpleAtoi(text, &number) && number > 0 && number <= kMost / unit) return number * unit;
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " ", whole, ": is no size; say 5GB, 500MB or a number of bytes"));
}

absl::StatusOr<HfExport> ExportOptions(const Values& values) {
  HfExport options;
  const std::string dtype = values["dtype"].as<std::string>();
  if (dtype == "f32") {
    options.dtype = DType::kF32;
  } else if (dtype == "fp8") {
    options.dtype = DType::kE4M3;
  } else if (dtype != "bf16") {
    return absl::InvalidArgumentError(absl::StrCat("--dtype ", dtype, ": is none of f32, bf16 and fp8"));
  }
  ASSIGN_OR_RETURN(options.max_shard_bytes, ParseBytes("--max-shard-size", values["max-shard-size"].as<std::string>()));
  options.power_of_two_scales = values.count("power-of-two-scales") > 0;
  if (options.power_of_two_scales && options.dtype != DType::kE4M3) {
    return absl::InvalidArgumentError("--power-of-two-scales needs --dtype fp8");
  }
  options.mtp = values.count("skip-mtp") == 0;
  options.tokenizer_json = ValueOr<std::string>(values, "tokenizer", "");
  return options;
}

int RunExport(const Values& values) {
  const absl::StatusOr<HfExport> options = ExportOptions(values);
  if (!options.ok()) return Fail(Area::kUsage, options.status());
  const absl::StatusOr<std::string> path = CheckpointAt(PosixFileSystem(), values["place"].as<std::string>());
  if (!path.ok()) return Fail(Area::kData, path.status());
  const StateKind kind = values.count("ema") > 0 ? StateKind::kEma : StateKind::kWeights;
  const std::string output = values["output"].as<std::string>();
  const absl::StatusOr<HfExported> exported = ExportCheckpointHf(PosixFileSystem(), *path, kind, output, *options);
  if (!exported.ok()) return Fail(Area::kData, exported.status());
  std::printf("%s: %lld tensors, %lld bytes of weights in %d files%s\n", output.c_str(),
              static_cast<long long>(exported->tensors), static_cast<long long>(exported->weight_bytes),
              exported->files, exported->tokenizer ? "" : "; no tokenizer (name one with --tokenizer)");
  return kDone;
}

void DeclareExport(po::options_description& flags) {
  auto add = flags.add_options();
  add("place", po::value<std::string>()->required()->value_name("DIR"), "a checkpoint, or a run: its newest one");
  add("output", po::value<std::string>()->required()->value_name("DIR"), "directory to write; must not exist");
  add("dtype", po::value<std::string>()->default_value("bf16")->value_name("f32|bf16|fp8"),
      "of the weights; fp8: linear layers in E4M3 with a scale a block, the rest in BF16");
  add("power-of-two-scales", "of fp8, rounded up; always where the run's FP8 recipe has them");
  add("max-shard-size", po::value<std::string>()->default_value("5GB")->value_name("SIZE"), "of one weight file");
  add("ema", "the moving average of the weights");
  add("skip-mtp", "leave the MTP modules out");
  add("tokenizer", po::value<std::string>()->value_name("FILE"),
      "tokenizer.json to put beside the weights; absent: the run's, if it is still there");
}

void DeclarePlace(po::options_description& flags) {
  flags.add_options()("place", po::value<std::string>()->required()->value_name("DIR"),
                      "a run directory, a directory of checkpoints, or one checkpoint");
}

void DeclarePrune(po::options_description& flags) {
  auto add = flags.add_options();
  add("place", po::value<std::string>()->required()->value_name("RUN_DIR"), "a run directory");
  add("keep", po::value<int>()->required()->value_name("N"), "newest checkpoints to keep");
}

void DeclareImport(po::options_description& flags) {
  auto add = flags.add_options();
  add("from", po::value<std::string>()->required()->value_name("DIR"), "a Hugging Face directory");
  DeclareConfigFlags(flags);
  add("run-dir", po::value<std::string>()->required()->value_name("DIR"), "run directory to begin; must hold no run");
  add("skip-mtp", "leave the directory's MTP modules out; needs model.mtp_depth=0");
  add("without-data", "do not open the config's shards; the run can be used, but not resumed");
}

int RunImport(const Values& values) {
  ImportRequest request;
  request.from = values["from"].as<std::string>();
  request.run_directory = values["run-dir"].as<std::string>();
  request.mtp = values.count("skip-mtp") == 0;
  request.with_data = values.count("without-data") == 0;
  if (request.run_directory.empty()) {
    return Fail(Area::kUsage, absl::InvalidArgumentError("--run-dir is empty; name a directory"));
  }
  if (CanonicalPath(request.from) == CanonicalPath(request.run_directory)) {
    return Fail(Area::kUsage, absl::InvalidArgumentError(absl::StrCat(
                                  "--run-dir ", request.run_directory,
                                  ": is the directory of the model, which must stay as it is; name another one")));
  }
  const absl::StatusOr<config::LoadedConfig> loaded = LoadValidConfig(values);
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  return ImportRun(request, *loaded);
}

}  // namespace

std::vector<Verb> CheckpointVerbs() {
  return {
      {"checkpoint list", "list the checkpoints of a run", "DIR",
       "Reads manifests and sizes, not the tensors.\n\nExample:\n  shoestring checkpoint list runs/first", DeclarePlace,
       "place", RunList},
      {"checkpoint check", "verify every byte of a checkpoint", "DIR",
       "Prints the SHA-256 of the state: two runs are equal to the bit when theirs are. Of a run, the newest\n"
       "checkpoint is checked.\n\n"
       "Example:\n  shoestring checkpoint check runs/first/checkpoints/step_0000100",
       DeclarePlace, "place", RunCheck},
      {"checkpoint prune", "remove old checkpoints of a run", "RUN_DIR --keep N",
       "Example:\n  shoestring checkpoint prune runs/first --keep 1", DeclarePrune, "place", RunPrune},
      {"checkpoint export-hf", "write a model as a Hugging Face directory", "DIR --output DIR [--dtype f32|bf16|fp8]",
       "Example:\n  shoestring checkpoint export-hf runs/first --output first-hf --tokenizer data/tokenizer.json",
       DeclareExport, "place", RunExport},
      {"checkpoint import-hf", "begin a run with the weights of a Hugging Face directory",
       "--from DIR --config FILE... [--set PATH=VALUE]... --run-dir DIR",
       "The run's first checkpoint is step 0: weights in F32, BF16 or FP8 as they are in the directory, moments 0.\n"
       "'resume' trains on from it. The directory must hold the config's model: every field that differs is named,\n"
       "and the exit code is 78.\n\n"
       "Example:\n  shoestring checkpoint import-hf --from first-hf --config configs/recipes/tiny_cpu.textproto \\\n"
       "      --run-dir runs/second",
       DeclareImport, "", RunImport},
  };
}

}  // namespace shoestring
