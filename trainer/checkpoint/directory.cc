// Names in a checkpoint directory, and the order in which they change so that no crash leaves half a checkpoint.
#include "trainer/checkpoint/directory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "trainer/checkpoint/load.h"

namespace shoestring {
namespace {

constexpr absl::string_view kStepPrefix = "step_";
constexpr int64_t kMaxLatestBytes = 64;

// For "step_0000100.tmp-3" and suffix "tmp" the step 100.
std::optional<int64_t> StepOfSuffixedName(absl::string_view name, absl::string_view suffix) {
  const size_t dot = name.find('.');
  if (dot == absl::string_view::npos) return std::nullopt;
  absl::string_view rest = name.substr(dot + 1);
  int64_t number = 0;
  if (!absl::ConsumePrefix(&rest, suffix) || !absl::ConsumePrefix(&rest, "-") || !absl::SimpleAtoi(rest, &number)) {
    return std::nullopt;
  }
  return StepOfName(name.substr(0, dot));
}

absl::Status RemoveSteps(FileSystem& fs, const std::string& directory, const std::vector<int64_t>& steps) {
  std::vector<std::string> removed;
  for (const int64_t step : steps) {
    ASSIGN_OR_RETURN(std::string name, FreeName(fs, StepPath(directory, step), "removed"));
    RETURN_IF_ERROR(fs.Rename(StepPath(directory, step), name));
    removed.push_back(std::move(name));
  }
  // Without this a power failure could bring back the old name with some of its files gone.
  if (!removed.empty()) RETURN_IF_ERROR(fs.SyncDirectory(directory));
  for (const std::string& name : removed) RETURN_IF_ERROR(RemoveRecursively(fs, name));
  return absl::OkStatus();
}

}  // namespace

std::string StepName(int64_t step) { return absl::StrFormat("%s%07d", kStepPrefix, step); }

std::optional<int64_t> StepOfName(absl::string_view name) {
  absl::string_view digits = name;
  int64_t step = 0;
  if (!absl::ConsumePrefix(&digits, kStepPrefix) || !absl::SimpleAtoi(digits, &step) || step < 0 ||
      StepName(step) != name) {
    return std::nullopt;
  }
  return step;
}

std::string StepPath(const std::string& directory, int64_t step) { return JoinPath(directory, StepName(step)); }

absl::StatusOr<DirectoryListing> ListDirectory(FileSystem& fs, const std::string& directory) {
  DirectoryListing listing;
  const absl::StatusOr<std::vector<std::string>> names = fs.List(directory);
  if (absl::IsNotFound(names.status())) return listing;
  RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    if (const std::optional<int64_t> step = StepOfName(name)) listing.steps.push_back(*step);
    if (StepOfSuffixedName(name, "replaced").has_value()) listing.replaced.push_back(name);
    if (StepOfSuffixedName(name, "tmp").has_value() || StepOfSuffixedName(name, "removed").has_value() ||
        name == absl::StrCat(kLatestName, ".tmp")) {
      listing.leftovers.push_back(name);
    }
  }
  std::sort(listing.steps.begin(), listing.steps.end());
  return listing;
}

absl::StatusOr<std::optional<int64_t>> ReadLatest(FileSystem& fs, const std::string& directory) {
  const std::string path = JoinPath(directory, kLatestName);
  const absl::StatusOr<FileInfo> info = fs.Stat(path);
  if (absl::IsNotFound(info.status())) return std::optional<int64_t>();
  RETURN_IF_ERROR(info.status());
  if (info->is_directory || info->size_bytes > kMaxLatestBytes) {
    return absl::DataLossError(absl::StrCat(path, ": is not the name of a checkpoint"));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path));
  const std::optional<int64_t> step = StepOfName(absl::StripSuffix(text, "\n"));
  if (step.has_value()) return step;
  return absl::DataLossError(
      absl::StrCat(path, ": says '", absl::CHexEscape(text), "', which is not the name of a checkpoint"));
}

absl::Status WriteLatest(FileSystem& fs, const std::string& directory, int64_t step) {
  return WriteFileDurably(fs, JoinPath(directory, kLatestName), absl::StrCat(StepName(step), "\n"));
}

absl::StatusOr<std::string> FreeName(FileSystem& fs, const std::string& path, absl::string_view suffix) {
  for (int64_t n = 0;; ++n) {
    std::string name = absl::StrCat(path, ".", suffix, "-", n);
    const absl::Status status = fs.Stat(name).status();
    if (absl::IsNotFound(status)) return name;
    RETURN_IF_ERROR(status);
  }
}

absl::Status RemoveLeftovers(FileSystem& fs, const std::string& directory) {
  ASSIGN_OR_RETURN(const DirectoryListing listing, ListDirectory(fs, directory));
  for (const std::string& name : listing.leftovers) RETURN_IF_ERROR(RemoveRecursively(fs, JoinPath(directory, name)));
  return absl::OkStatus();
}

absl::Status SetAside(FileSystem& fs, const std::string& directory, int64_t step) {
  const absl::StatusOr<std::optional<int64_t>> latest = ReadLatest(fs, directory);
  if (!latest.ok() && !absl::IsDataLoss(latest.status())) return latest.status();
  if (!latest.ok() || *latest == step) {
    ASSIGN_OR_RETURN(const DirectoryListing listing, ListDirectory(fs, directory));
    const auto after = std::lower_bound(listing.steps.begin(), listing.steps.end(), step);
    if (after != listing.steps.begin()) {
      RETURN_IF_ERROR(WriteLatest(fs, directory, *std::prev(after)));
    } else {
      RETURN_IF_ERROR(fs.Remove(JoinPath(directory, kLatestName)));
      RETURN_IF_ERROR(fs.SyncDirectory(directory));
    }
  }
  ASSIGN_OR_RETURN(const std::string name, FreeName(fs, StepPath(directory, step), "replaced"));
  RETURN_IF_ERROR(fs.Rename(StepPath(directory, step), name));
  return fs.SyncDirectory(directory);
}

absl::StatusOr<std::vector<int64_t>> PruneCheckpoints(FileSystem& fs, const std::string& directory, int keep) {
  std::vector<int64_t> removed;
  if (keep <= 0) return removed;
  ASSIGN_OR_RETURN(const std::optional<int64_t> latest, ReadLatest(fs, directory));
  if (!latest.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(directory, ": has no LATEST; nothing was removed"));
  }
  if (const absl::Status opened = OpenCheckpoint(fs, StepPath(directory, *latest)).status(); !opened.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("nothing was removed, because the newest checkpoint is not good: ", opened.message()));
  }
  ASSIGN_OR_RETURN(const DirectoryListing listing, ListDirectory(fs, directory));
  const auto end = std::upper_bound(listing.steps.begin(), listing.steps.end(), *latest);
  const auto kept = end - std::min<int64_t>(keep, end - listing.steps.begin());
  removed.assign(listing.steps.begin(), kept);
  RETURN_IF_ERROR(RemoveSteps(fs, directory, removed));
  for (const std::string& name : listing.replaced) {
    if (*StepOfSuffixedName(name, "replaced") < *kept)
      RETURN_IF_ERROR(RemoveRecursively(fs, JoinPath(directory, name)));
  }
  return removed;
}

}  // namespace shoestring
