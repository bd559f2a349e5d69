// Opening, verifying and choosing checkpoints.
#include "trainer/checkpoint/load.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "trainer/checkpoint/digest.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/manifest.h"

namespace shoestring {
namespace {

constexpr absl::string_view kFallbackHint = "ask for the one before it (--go-back), or restore it from a copy";

absl::Status CheckFileSizes(FileSystem& fs, const OpenedCheckpoint& checkpoint) {
  std::vector<std::string> problems;
  for (const checkpoint::File& file : checkpoint.manifest.files()) {
    const std::string path = JoinPath(checkpoint.path, file.name());
    const absl::StatusOr<FileInfo> info = fs.Stat(path);
    if (absl::IsNotFound(info.status())) {
      problems.push_back(absl::StrCat(path, ": is missing"));
    } else if (!info.ok()) {
      return info.status();
    } else if (info->is_directory || info->size_bytes != file.size_bytes()) {
      problems.push_back(
          absl::StrCat(path, ": has ", info->size_bytes, " bytes, the manifest says ", file.size_bytes()));
    }
  }
  return problems.empty() ? absl::OkStatus() : absl::DataLossError(absl::StrJoin(problems, "; "));
}

// Steps to try, best first.
struct Candidates {
  std::vector<int64_t> steps;
  absl::Status complaint;  // about LATEST
};

absl::StatusOr<Candidates> FindCandidates(FileSystem& fs, const std::string& directory) {
  Candidates candidates;
  ASSIGN_OR_RETURN(DirectoryListing listing, ListDirectory(fs, directory));
  candidates.steps.assign(listing.steps.rbegin(), listing.steps.rend());
  const absl::StatusOr<std::optional<int64_t>> latest = ReadLatest(fs, directory);
  if (absl::IsDataLoss(latest.status())) {
    candidates.complaint = latest.status();
    return candidates;
  }
  RETURN_IF_ERROR(latest.status());
  if (!latest->has_value()) return candidates;
  const int64_t newest = **latest;
  candidates.steps.erase(
      std::remove_if(candidates.steps.begin(), candidates.steps.end(), [&](int64_t step) { return step > newest; }),
      candidates.steps.end());
  if (candidates.steps.empty() || candidates.steps.front() != newest) {
    candidates.complaint = absl::DataLossError(
        absl::StrCat(JoinPath(directory, kLatestName), ": names ", StepName(newest), ", which is not there"));
  }
  return candidates;
}

absl::StatusOr<OpenedCheckpoint> OpenAndVerify(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(OpenedCheckpoint checkpoint, OpenCheckpoint(fs, path));
  RETURN_IF_ERROR(VerifyFiles(fs, checkpoint));
  return checkpoint;
}

absl::Status NoCheckpoint(const std::string& directory) {
  return absl::NotFoundError(absl::StrCat(
      directory, ": holds no checkpoint; 'train' with the run's config and --on-existing resume begins it anew"));
}

}  // namespace

absl::StatusOr<OpenedCheckpoint> OpenCheckpoint(FileSystem& fs, const std::string& path) {
  const absl::StatusOr<FileInfo> directory = fs.Stat(path);
  RETURN_IF_ERROR(directory.status());
  const std::string manifest_path = JoinPath(path, kManifestName);
  const absl::StatusOr<FileInfo> info = fs.Stat(manifest_path);
  if (!directory->is_directory || absl::IsNotFound(info.status())) {
    return absl::DataLossError(absl::StrCat(path, ": is no checkpoint: ", kManifestName, " is missing"));
  }
  RETURN_IF_ERROR(info.status());
  if (info->is_directory || info->size_bytes > kMaxManifestBytes) {
    return absl::DataLossError(absl::StrCat(manifest_path, ": is no file of at most ", kMaxManifestBytes, " bytes"));
  }
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(fs, manifest_path));
  absl::StatusOr<checkpoint::Manifest> manifest = DecodeManifest(bytes);
  if (!manifest.ok()) return WithContext(manifest.status(), manifest_path);
  OpenedCheckpoint checkpoint{path, *std::move(manifest), Sha256::Of(bytes)};
  // A copy may have any name, but not that of another step.
  const std::optional<int64_t> named = StepOfName(BaseName(path));
  if (named.has_value() && *named != checkpoint.header().step()) {
    return absl::DataLossError(absl::StrCat(manifest_path, ": belongs to step ", checkpoint.header().step()));
  }
  RETURN_IF_ERROR(CheckFileSizes(fs, checkpoint));
  return checkpoint;
}

absl::Status ForEachVerifiedBlock(FileSystem& fs, const OpenedCheckpoint& checkpoint, int file,
                                  absl::FunctionRef<void(int64_t, absl::string_view)> use) {
  const checkpoint::File& expected = checkpoint.manifest.files(file);
  const int64_t block_bytes = checkpoint.manifest.block_bytes();
  const std::string path = JoinPath(checkpoint.path, expected.name());
  ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> readable, fs.OpenForRead(path));
  std::string buffer(static_cast<size_t>(std::min(block_bytes, expected.size_bytes())), '\0');
  const int64_t blocks = BlockCount(expected.size_bytes(), block_bytes);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t offset = block * block_bytes;
    const int64_t size = std::min(block_bytes, expected.size_bytes() - offset);
    const absl::Status read = readable->ReadAt(offset, size, buffer.data());
    const absl::string_view bytes(buffer.data(), static_cast<size_t>(size));
    const absl::string_view sum(expected.block_sums().data() + block * kBlockSumBytes, kBlockSumBytes);
    if (absl::IsOutOfRange(read) || (read.ok() && BlockSum(bytes) != sum)) {
      return absl::DataLossError(absl::StrCat(path, ": block ", block, " of ", blocks, " (bytes ", offset, " to ",
                                              offset + size - 1, ") does not match its checksum"));
    }
    RETURN_IF_ERROR(read);
    use(offset, bytes);
  }
  return absl::OkStatus();
}

absl::Status VerifyFiles(FileSystem& fs, const OpenedCheckpoint& checkpoint) {
  for (int file = 0; file < checkpoint.manifest.files_size(); ++file) {
    RETURN_IF_ERROR(ForEachVerifiedBlock(fs, checkpoint, file, [](int64_t, absl::string_view) {}));
  }
  return absl::OkStatus();
}

absl::StatusOr<OpenedCheckpoint> FindNewest(FileSystem& fs, const std::string& directory) {
  ASSIGN_OR_RETURN(const Candidates candidates, FindCandidates(fs, directory));
  absl::Status problem = candidates.complaint;
  if (problem.ok()) {
    if (candidates.steps.empty()) return NoCheckpoint(directory);
    absl::StatusOr<OpenedCheckpoint> checkpoint = OpenAndVerify(fs, StepPath(directory, candidates.steps.front()));
    if (checkpoint.ok() || !absl::IsDataLoss(checkpoint.status())) return checkpoint;
    problem = checkpoint.status();
  }
  return absl::DataLossError(absl::StrCat(problem.message(), "; ", kFallbackHint));
}

absl::StatusOr<OpenedCheckpoint> FindNewestGood(FileSystem& fs, const std::string& directory,
                                                std::vector<std::string>& passed_over) {
  ASSIGN_OR_RETURN(const Candidates candidates, FindCandidates(fs, directory));
  const auto pass_over = [&](const absl::Status& problem) {
    passed_over.emplace_back(problem.message());
    LogError(absl::StrCat("passing over a bad checkpoint: ", problem.message()));
  };
  if (!candidates.complaint.ok()) pass_over(candidates.complaint);
  for (const int64_t step : candidates.steps) {
    absl::StatusOr<OpenedCheckpoint> checkpoint = OpenAndVerify(fs, StepPath(directory, step));
    if (checkpoint.ok() || absl::IsFailedPrecondition(checkpoint.status())) return checkpoint;
    pass_over(checkpoint.status());
  }
  if (passed_over.empty()) return NoCheckpoint(directory);
  return absl::DataLossError(
      absl::StrCat(directory, ": no good checkpoint is left: ", absl::StrJoin(passed_over, "; ")));
}

}  // namespace shoestring
