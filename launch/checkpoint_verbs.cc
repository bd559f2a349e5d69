// The verbs `checkpoint ...`: list, check, prune, export.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "launch/checkpoint_place.h"
#include "launch/exit_codes.h"
#include "launch/run_directory.h"
#include "launch/verbs.h"
#include "trainer/checkpoint/check.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/export/export_hf.h"

namespace shoestring {
namespace {

constexpr int kDone = static_cast<int>(ExitCode::kDone);

int RunList(const Values& values) {
  const absl::StatusOr<std::string> directory = CheckpointsAt(PosixFileSystem(), values["place"].as<std::string>());
  if (!directory.ok()) return Fail(Area::kData, directory.status());
  const absl::StatusOr<std::vector<CheckpointSummary>> list = ListCheckpoints(PosixFileSystem(), *directory);
  if (!list.ok()) return Fail(Area::kData, list.status());
  for (const CheckpointSummary& summary : *list) std::printf("%s\n", summary.ToString().c_str());
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
  // A trainer that saves at this moment must not find its directory changed.
  const absl::StatusOr<std::unique_ptr<RunLock>> lock = RunLock::Take(place);
  if (!lock.ok()) return Fail(Area::kData, lock.status());
  const absl::StatusOr<std::vector<int64_t>> removed = PruneCheckpoints(PosixFileSystem(), *directory, keep);
  if (!removed.ok()) return Fail(Area::kData, removed.status());
  for (const int64_t step : *removed) std::printf("removed %s\n", StepName(step).c_str());
  return kDone;
}

int RunExport(const Values& values) {
  const std::string dtype = values["dtype"].as<std::string>();
  if (dtype != "f32" && dtype != "bf16") {
    return Fail(Area::kUsage, absl::InvalidArgumentError(absl::StrCat("--dtype ", dtype, ": is neither f32 nor bf16")));
  }
  const absl::StatusOr<std::string> path = CheckpointAt(PosixFileSystem(), values["place"].as<std::string>());
  if (!path.ok()) return Fail(Area::kData, path.status());
  HfExport options;
  options.dtype = dtype == "f32" ? DType::kF32 : DType::kBF16;
  options.mtp = values.count("skip-mtp") == 0;
  options.tokenizer_json = ValueOr<std::string>(values, "tokenizer", "");
  const StateKind kind = values.count("ema") > 0 ? StateKind::kEma : StateKind::kWeights;
  const std::string output = values["output"].as<std::string>();
  const absl::StatusOr<HfExported> exported = ExportCheckpointHf(PosixFileSystem(), *path, kind, output, options);
  if (!exported.ok()) return Fail(Area::kData, exported.status());
  std::printf("%s: %lld tensors, %lld bytes of weights in %d files\n", output.c_str(),
              static_cast<long long>(exported->tensors), static_cast<long long>(exported->weight_bytes),
              exported->files);
  return kDone;
}

void DeclareExport(po::options_description& flags) {
  auto add = flags.add_options();
  add("place", po::value<std::string>()->required()->value_name("DIR"), "a checkpoint, or a run: its newest one");
  add("output", po::value<std::string>()->required()->value_name("DIR"), "directory to write; must not exist");
  add("dtype", po::value<std::string>()->default_value("bf16")->value_name("f32|bf16"), "of the weights");
  add("ema", "the moving average of the weights");
  add("skip-mtp", "leave the MTP modules out");
  add("tokenizer", po::value<std::string>()->value_name("FILE"), "tokenizer.json to put beside the weights");
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
      {"checkpoint export-hf", "write a model as a Hugging Face directory", "DIR --output DIR [--dtype f32|bf16]",
       "Example:\n  shoestring checkpoint export-hf runs/first --output first-hf --tokenizer data/tokenizer.json",
       DeclareExport, "place", RunExport},
  };
}

}  // namespace shoestring
