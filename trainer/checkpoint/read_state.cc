// Copies slices out of verified blocks.
#include "trainer/checkpoint/read_state.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "configs/diff.h"
#include "configs/load.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/stored_tensors.h"

namespace shoestring {
namespace {

using TensorsByName = std::map<std::string, const StateTensor*>;

std::string Describe(const std::string& dtype, const std::vector<int64_t>& shape) {
  return absl::StrCat(dtype, " [", absl::StrJoin(shape, ", "), "]");
}

std::vector<int64_t> ToVector(const google::protobuf::RepeatedField<int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

// Copies bytes of a slice, from its byte `begin` on, to their places in the whole tensor.
void CopyOut(const checkpoint::Slice& slice, const StateTensor& to, int64_t begin, absl::string_view bytes) {
  const int last = slice.shape_size() - 1;
  const int64_t element = SizeOf(to.view.dtype);
  const int64_t row_bytes = slice.shape(last) * element;
  char* const base = reinterpret_cast<char*>(to.view.data);
  if (std::equal(slice.shape().begin(), slice.shape().end(), to.shape.begin(), to.shape.end())) {
    std::memcpy(base + begin, bytes.data(), bytes.size());
    return;
  }
  while (!bytes.empty()) {
    const int64_t column = begin % row_bytes;
    const auto count = std::min(bytes.size(), static_cast<size_t>(row_bytes - column));
    int64_t row = begin / row_bytes, target_row = 0, rows_below = 1;
    for (int d = last - 1; d >= 0; --d) {
      target_row += (row % slice.shape(d) + slice.offset(d)) * rows_below;
      row /= slice.shape(d);
      rows_below *= to.shape[static_cast<size_t>(d)];
    }
    const int64_t target = (target_row * to.shape.back() + slice.offset(last)) * element + column;
    std::memcpy(base + target, bytes.data(), count);
    begin += static_cast<int64_t>(count);
    bytes.remove_prefix(count);
  }
}

absl::Status ReadFileInto(FileSystem& fs, const OpenedCheckpoint& checkpoint, int file, const TensorsByName& wanted) {
  const std::string path = JoinPath(checkpoint.path, checkpoint.manifest.files(file).name());
  ASSIGN_OR_RETURN(const SafetensorsFile shard, SafetensorsFile::Open(fs, path));
  ASSIGN_OR_RETURN(const std::vector<StoredSlice> slices, LocateSlices(checkpoint, file, shard));
  size_t first = 0;  // of the slices that may still have bytes to come
  return ForEachVerifiedBlock(fs, checkpoint, file, [&](int64_t offset, absl::string_view bytes) {
    const int64_t end = offset + static_cast<int64_t>(bytes.size());
    while (first < slices.size() && slices[first].end <= offset) ++first;
    for (size_t i = first; i < slices.size() && slices[i].begin < end; ++i) {
      const checkpoint::Tensor& tensor = checkpoint.manifest.tensors(slices[i].tensor);
      const auto target = wanted.find(StoredName(tensor));
      if (target == wanted.end()) continue;
      const int64_t from = std::max(offset, slices[i].begin), to = std::min(end, slices[i].end);
      CopyOut(tensor.slices(slices[i].slice), *target->second, from - slices[i].begin,
              bytes.substr(static_cast<size_t>(from - offset), static_cast<size_t>(to - from)));
    }
  });
}

absl::StatusOr<config::RunConfig> ParseSaved(const std::string& text, const std::string& whose) {
  ASSIGN_OR_RETURN(config::LoadedConfig loaded, config::ParseConfig(text, whose));
  return std::move(loaded.config);
}

}  // namespace

absl::Status CheckTensors(const checkpoint::Manifest& manifest, const std::vector<StateTensor>& tensors,
                          Coverage coverage) {
  std::map<std::string, const checkpoint::Tensor*> stored;
  for (const checkpoint::Tensor& tensor : manifest.tensors()) stored[StoredName(tensor)] = &tensor;
  std::vector<std::string> problems;
  for (const StateTensor& tensor : tensors) {
    const std::string name = StoredName(tensor);
    const std::string wanted = Describe(SafetensorsName(tensor.view.dtype), tensor.shape);
    const auto found = stored.find(name);
    if (found == stored.end()) {
      problems.push_back(absl::StrCat(name, " ", wanted, " is missing"));
      continue;
    }
    const std::string have = Describe(found->second->dtype(), ToVector(found->second->shape()));
    if (have != wanted) problems.push_back(absl::StrCat(name, " is ", have, ", not ", wanted));
    stored.erase(found);
  }
  if (coverage == Coverage::kWholeState) {
    for (const auto& [name, tensor] : stored) problems.push_back(absl::StrCat(name, " is not known to this model"));
  }
  if (problems.empty()) return absl::OkStatus();
  constexpr size_t kNamed = 8;  // of hundreds the first ones say enough
  if (problems.size() > kNamed) {
    const std::string more = absl::StrCat("and ", problems.size() - kNamed, " more");
    problems.resize(kNamed);
    problems.push_back(more);
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the checkpoint does not fit the model: ", absl::StrJoin(problems, "; ")));
}

absl::Status ReadState(FileSystem& fs, const OpenedCheckpoint& checkpoint, const std::vector<StateTensor>& tensors,
                       Coverage coverage) {
  if (const absl::Status fit = CheckTensors(checkpoint.manifest, tensors, coverage); !fit.ok()) {
    return WithContext(fit, checkpoint.path);
  }
  RETURN_IF_ERROR(VerifyFiles(fs, checkpoint));
  TensorsByName wanted;
  for (const StateTensor& tensor : tensors) {
    CHECK_EQ(static_cast<int64_t>(BytesOf(tensor).size()), tensor.view.bytes());
    CHECK(wanted.emplace(StoredName(tensor), &tensor).second);
  }
  for (int file = 0; file < checkpoint.manifest.files_size(); ++file) {
    RETURN_IF_ERROR(ReadFileInto(fs, checkpoint, file, wanted));
  }
  if (coverage == Coverage::kPart) return absl::OkStatus();
  const std::string digest = StateDigest({checkpoint.header(), tensors});
  if (digest == absl::BytesToHexString(checkpoint.manifest.state_sha256())) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(checkpoint.path, ": the state that was read has digest ", digest,
                                          ", the manifest says ",
                                          absl::BytesToHexString(checkpoint.manifest.state_sha256())));
}

absl::StatusOr<std::vector<std::string>> CompareRuns(const checkpoint::SnapshotHeader& saved,
                                                     const checkpoint::SnapshotHeader& current) {
  std::vector<std::string> harmless, refused;
  if (saved.run_hash() != current.run_hash() || saved.numerics_hash() != current.numerics_hash()) {
    ASSIGN_OR_RETURN(const config::RunConfig before, ParseSaved(saved.config_textproto(), "the checkpoint's config"));
    ASSIGN_OR_RETURN(const config::RunConfig after, ParseSaved(current.config_textproto(), "this run's config"));
    for (const config::Difference& difference : config::Diff(before, after)) {
      (difference.numerics ? refused : harmless)
          .push_back(absl::StrCat(difference.field, ": ", difference.before.empty() ? "unset" : difference.before,
                                  " -> ", difference.after.empty() ? "unset" : difference.after));
    }
    if (saved.numerics_hash() != current.numerics_hash() && refused.empty()) {
      refused.push_back(absl::StrCat("numerics hash: ", saved.numerics_hash(), " -> ", current.numerics_hash()));
    }
  }
  if (saved.data_hash() != current.data_hash()) {
    refused.push_back(absl::StrCat("data: ", saved.data_hash(), " -> ", current.data_hash()));
  }
  if (saved.tokenizer_fingerprint() != current.tokenizer_fingerprint()) {
    refused.push_back(
        absl::StrCat("tokenizer: ", saved.tokenizer_fingerprint(), " -> ", current.tokenizer_fingerprint()));
  }
  if (saved.layout() != current.layout()) {
    // The header's text names the order of sums where a layout decides it.
    const bool fast = absl::StrContains(saved.layout(), kFastSums);
    harmless.push_back(absl::StrCat("layout: ", saved.layout(), " -> ", current.layout(),
                                    fast ? "; from here on the bits are those of the new layout" : ""));
  }
  if (refused.empty()) return harmless;
  return absl::FailedPreconditionError(absl::StrCat(
      "the run cannot go on from this checkpoint, because what it computes has changed: ", absl::StrJoin(refused, "; "),
      "; undo the change or start a new run from exported weights"));
}

}  // namespace shoestring
