// Verification of a whole checkpoint, all problems instead of the first.
#include "trainer/checkpoint/check.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "trainer/checkpoint/digest.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/stored_tensors.h"

namespace shoestring {
namespace {

constexpr double kMiB = 1 << 20;

// Every bad block of a file, not only the first.
void CheckBlocks(FileSystem& fs, const OpenedCheckpoint& checkpoint, const checkpoint::File& file,
                 CheckReport& report) {
  const std::string path = JoinPath(checkpoint.path, file.name());
  const absl::StatusOr<std::unique_ptr<ReadableFile>> readable = fs.OpenForRead(path);
  if (!readable.ok()) {
    report.problems.emplace_back(readable.status().message());
    return;
  }
  const int64_t block_bytes = checkpoint.manifest.block_bytes();
  const int64_t blocks = BlockCount(file.size_bytes(), block_bytes);
  std::string buffer;
  for (int64_t block = 0; block < blocks; ++block) {
    buffer.resize(static_cast<size_t>(std::min(block_bytes, file.size_bytes() - block * block_bytes)));
    const absl::Status read =
        (*readable)->ReadAt(block * block_bytes, static_cast<int64_t>(buffer.size()), buffer.data());
    if (!read.ok()) {
      report.problems.emplace_back(read.message());
    } else if (BlockSum(buffer) !=
               file.block_sums().substr(static_cast<size_t>(block) * kBlockSumBytes, kBlockSumBytes)) {
      report.problems.push_back(absl::StrCat(path, ": block ", block, " of ", blocks, " does not match its checksum"));
    } else {
      ++report.blocks;
    }
  }
  report.size_bytes += file.size_bytes();
}

std::string DescribeParent(FileSystem& fs, const OpenedCheckpoint& checkpoint) {
  if (!checkpoint.manifest.has_parent()) return "none";
  const std::string name = StepName(checkpoint.manifest.parent().step());
  const std::string path = JoinPath(JoinPath(DirName(checkpoint.path), name), kManifestName);
  const absl::StatusOr<std::string> bytes = ReadFile(fs, path);
  if (!bytes.ok()) return absl::StrCat(name, ": is not here any more");
  if (Sha256::Of(*bytes) == checkpoint.manifest.parent().manifest_sha256()) return absl::StrCat(name, ": matches");
  return absl::StrCat(name, ": is not the one that this checkpoint followed");
}

}  // namespace

std::string CheckpointSummary::ToString() const {
  std::string line = absl::StrCat(StepName(step), is_latest ? "  LATEST" : beyond_latest ? "  beyond LATEST" : "");
  if (!problem.empty()) return absl::StrCat(line, "  BAD: ", problem);
  return absl::StrCat(line, absl::StrFormat("  %.1f MiB  ", static_cast<double>(size_bytes) / kMiB), consumed_tokens,
                      " tokens  state ", state_digest);
}

absl::StatusOr<std::vector<CheckpointSummary>> ListCheckpoints(FileSystem& fs, const std::string& directory) {
  ASSIGN_OR_RETURN(const DirectoryListing listing, ListDirectory(fs, directory));
  const absl::StatusOr<std::optional<int64_t>> latest = ReadLatest(fs, directory);
  std::vector<CheckpointSummary> summaries;
  for (const int64_t step : listing.steps) {
    CheckpointSummary summary;
    summary.step = step;
    summary.path = StepPath(directory, step);
    if (latest.ok() && latest->has_value()) {
      summary.is_latest = **latest == step;
      summary.beyond_latest = step > **latest;
    }
    const absl::StatusOr<OpenedCheckpoint> checkpoint = OpenCheckpoint(fs, summary.path);
    if (checkpoint.ok()) {
      for (const checkpoint::File& file : checkpoint->manifest.files()) summary.size_bytes += file.size_bytes();
      summary.consumed_tokens = checkpoint->header().consumed_tokens();
      summary.state_digest = absl::BytesToHexString(checkpoint->manifest.state_sha256());
    } else {
      summary.problem = std::string(checkpoint.status().message());
    }
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

std::string CheckReport::ToString() const {
  const checkpoint::SnapshotHeader& header = manifest.header();
  std::string text = absl::StrCat("checkpoint ", path, "\n");
  if (manifest.has_header()) {
    absl::StrAppend(&text, "  step ", header.step(), ", ", header.consumed_tokens(), " tokens, phase ", header.phase(),
                    " sequence ", header.phase_sequences(), ", generation ", header.generation(), "\n  layout ",
                    header.layout(), "\n  instruction set ", header.instruction_set(), "\n  numerics ",
                    header.numerics_hash(), "\n  run ", header.run_hash(), "\n  parent ", parent, "\n  ",
                    manifest.files_size(), " files, ", manifest.tensors_size(), " tensors, ",
                    absl::StrFormat("%.1f MiB, ", static_cast<double>(size_bytes) / kMiB), blocks,
                    " blocks verified\n");
  }
  if (!state_digest.empty()) absl::StrAppend(&text, "  state sha256 ", state_digest, "\n");
  for (const std::string& problem : problems) absl::StrAppend(&text, "  problem: ", problem, "\n");
  return absl::StrCat(text, ok() ? "good\n" : "BAD\n");
}

CheckReport CheckCheckpoint(FileSystem& fs, const std::string& path) {
  CheckReport report;
  report.path = path;
  absl::StatusOr<OpenedCheckpoint> checkpoint = OpenCheckpoint(fs, path);
  if (!checkpoint.ok()) {
    report.problems.emplace_back(checkpoint.status().message());
    return report;
  }
  report.manifest = checkpoint->manifest;
  report.parent = DescribeParent(fs, *checkpoint);
  for (const checkpoint::File& file : checkpoint->manifest.files()) CheckBlocks(fs, *checkpoint, file, report);
  if (!report.ok()) return report;
  const absl::StatusOr<std::string> digest = DigestOfFiles(fs, *checkpoint);
  if (!digest.ok()) {
    report.problems.emplace_back(digest.status().message());
    return report;
  }
  report.state_digest = absl::BytesToHexString(*digest);
  if (*digest != checkpoint->manifest.state_sha256()) {
    report.problems.push_back(absl::StrCat(path, ": its state has digest ", report.state_digest, ", the manifest says ",
                                           absl::BytesToHexString(checkpoint->manifest.state_sha256())));
  }
  return report;
}

}  // namespace shoestring
