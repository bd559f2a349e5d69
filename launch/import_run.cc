// Everything is compared before anything is written.
#include "launch/import_run.h"

#include <cstdio>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "configs/print.h"
#include "data/tokenizer.h"
#include "launch/exit_codes.h"
#include "launch/run_data.h"
#include "launch/run_directory.h"
#include "launch/run_header.h"
#include "trainer/export/import_hf.h"

namespace shoestring {
namespace {

absl::Status RefuseExisting(FileSystem& fs, const std::string& run_directory, const std::string& checkpoints) {
  if (HoldsRun(fs, run_directory)) {
    return absl::AlreadyExistsError(absl::StrCat(run_directory, ": holds a run already; name another --run-dir"));
  }
  return RefuseCheckpoints(fs, checkpoints);
}

// Ids mean the same tokens to the weights and to the run.
absl::Status CompareTokenizers(FileSystem& fs, const std::string& from, const config::RunConfig& config,
                               const std::string& fingerprint) {
  const std::string path = JoinPath(from, "tokenizer.json");
  if (!Exists(fs, path)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(fs, path));
  if (tokenizer.Fingerprint() == fingerprint) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      config.data().tokenizer(), ": is another tokenizer than ", path, " (fingerprint ", fingerprint, ", the weights' ",
      tokenizer.Fingerprint(), "); set data.tokenizer to that one and prepare the data with it"));
}

absl::StatusOr<RunData> OpenData(FileSystem& fs, const ImportRequest& request, const config::RunConfig& config) {
  if (request.with_data) return OpenRunData(fs, config);
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, OpenTokenizer(fs, config));
  RunData data;
  data.tokenizer_fingerprint = tokenizer.Fingerprint();
  return data;
}

absl::StatusOr<HfCheckpoint> Import(FileSystem& fs, const ImportRequest& request, const config::RunConfig& config) {
  const std::string checkpoints = CheckpointDirectory(request.run_directory, config);
  RETURN_IF_ERROR(RefuseExisting(fs, request.run_directory, checkpoints));
  ASSIGN_OR_RETURN(const RunData data, OpenData(fs, request, config));
  RETURN_IF_ERROR(CompareTokenizers(fs, request.from, config, data.tokenizer_fingerprint));
  ASSIGN_OR_RETURN(const std::unique_ptr<RunLock> lock, RunLock::Take(fs, request.run_directory, checkpoints));
  RETURN_IF_ERROR(RefuseExisting(fs, request.run_directory, checkpoints));  // another process may have been faster
  checkpoint::SnapshotHeader header = RunHeader(config, data, 0, /*instruction_set=*/"");  // nothing was computed
  ASSIGN_OR_RETURN(HfCheckpoint result,
                   ImportHfCheckpoint(fs, request.from, config, header, checkpoints, {.mtp = request.mtp}));
  RETURN_IF_ERROR(WriteFileDurably(fs, ConfigPath(request.run_directory), RunConfigText(config)));
  return result;
}

}  // namespace

int ImportRun(const ImportRequest& request, const config::LoadedConfig& loaded) {
  FileSystem& fs = PosixFileSystem();
  const absl::StatusOr<std::vector<config::Problem>> mismatches =
      FindHfMismatches(fs, request.from, loaded.config.model(), loaded.locations, request.mtp);
  if (!mismatches.ok()) return Fail(Area::kData, mismatches.status());
  if (!mismatches->empty()) return Fail(Area::kConfig, config::ProblemsToStatus(*mismatches));
  const absl::StatusOr<HfCheckpoint> result = Import(fs, request, loaded.config);
  if (!result.ok()) return Fail(Area::kData, result.status());
  std::printf("%s: %lld tensors, %lld bytes of weights; %s\n", result->saved.path.c_str(),
              static_cast<long long>(result->imported.tensors), static_cast<long long>(result->imported.weight_bytes),
              request.with_data
                  ? absl::StrCat("'shoestring resume --run-dir ", request.run_directory, "' trains on").c_str()
                  : "without data: not to be resumed");
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace shoestring
