// The order of file operations that makes a checkpoint durable (docs/formats/checkpoint.md, "Save").
#include "trainer/checkpoint/save.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/digest.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/safetensors.h"

namespace shoestring {
namespace {

constexpr absl::string_view kShardName = "shard_00000.safetensors";

std::map<std::string, std::string> ShardMetadata(const Snapshot& snapshot) {
  std::string slices;
  for (const StateTensor& tensor : snapshot.tensors) {
    const std::vector<int64_t> offset(tensor.shape.size(), 0);
    absl::StrAppend(&slices, slices.empty() ? "{" : ",", nlohmann::json(StoredName(tensor)).dump(),
                    ":{\"saved_offsets\":[", absl::StrJoin(offset, ","), "],\"global_shape\":[",
                    absl::StrJoin(tensor.shape, ","), "]}");
  }
  return {{"format", "pt"},
          {"DCP_VERSION", "1.0"},
          {"DCP_SHARDING_INFO", slices.empty() ? "{}" : absl::StrCat(slices, "}")},
          {"shoestring.step", absl::StrCat(snapshot.header.step())}};
}

// A file whose bytes are summed block by block as they are written.
class SummedFile {
 public:
  SummedFile(std::unique_ptr<WritableFile> file, int64_t block_bytes)
      : file_(std::move(file)), block_bytes_(block_bytes), summer_(block_bytes) {}

  absl::Status Append(absl::string_view bytes) {
    while (!bytes.empty()) {
      const absl::string_view piece = bytes.substr(0, static_cast<size_t>(block_bytes_));
      RETURN_IF_ERROR(file_->Append(piece));
      summer_.Update(piece);
      size_bytes_ += static_cast<int64_t>(piece.size());
      bytes.remove_prefix(piece.size());
    }
    return absl::OkStatus();
  }
  absl::Status Finish(checkpoint::File& record) {
    RETURN_IF_ERROR(file_->Sync());
    RETURN_IF_ERROR(file_->Close());
    record.set_size_bytes(size_bytes_);
    record.set_block_sums(summer_.Finish());
    return absl::OkStatus();
  }

 private:
  std::unique_ptr<WritableFile> file_;
  const int64_t block_bytes_;
  BlockSummer summer_;
  int64_t size_bytes_ = 0;
};

// What is saved: tensors in memory, or behind a reader.
struct StateSource {
  const Snapshot& snapshot;
  const TensorReader& read;
  const int64_t block_bytes;
};

// Hands a tensor's bytes to `use`, in order.
absl::Status ForEachPiece(const StateTensor& tensor, const StateSource& source,
                          absl::FunctionRef<absl::Status(absl::string_view)> use) {
  if (!source.read) return use(BytesOf(tensor));
  int64_t size = SizeOf(tensor.view.dtype);
  for (const int64_t dimension : tensor.shape) size *= dimension;
  std::string buffer;
  for (int64_t begin = 0; begin < size; begin += source.block_bytes) {
    RETURN_IF_ERROR(source.read(tensor, begin, std::min(source.block_bytes, size - begin), buffer));
    RETURN_IF_ERROR(use(buffer));
  }
  return absl::OkStatus();
}

// What StateDigest gives, of tensors that may have to be read.
absl::StatusOr<std::string> DigestOf(const StateSource& source) {
  const Snapshot& snapshot = source.snapshot;
  StateDigester state;
  for (const size_t i : CanonicalOrder(snapshot.tensors)) {
    const StateTensor& tensor = snapshot.tensors[i];
    TensorDigester digester(SizeOf(tensor.view.dtype));
    RETURN_IF_ERROR(ForEachPiece(tensor, source, [&](absl::string_view bytes) {
      digester.Update(bytes);
      return absl::OkStatus();
    }));
    state.AddTensor(tensor.kind, tensor.name, SafetensorsName(tensor.view.dtype), absl::StrJoin(tensor.shape, ","),
                    digester.Finish());
  }
  return absl::BytesToHexString(state.Finish(snapshot.header));
}

// Streams the state into the shard; fills in the manifest's file, tensors and digest.
absl::Status WriteShard(FileSystem& fs, const std::string& directory, const StateSource& source,
                        checkpoint::Manifest& manifest) {
  const Snapshot& snapshot = source.snapshot;
  std::vector<SafetensorsPlanEntry> entries;
  for (const StateTensor& tensor : snapshot.tensors) {
    entries.push_back({StoredName(tensor), tensor.view.dtype, tensor.shape});
  }
  const SafetensorsPlan plan = PlanSafetensors(entries, ShardMetadata(snapshot));
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> created, fs.Create(JoinPath(directory, kShardName)));
  SummedFile file(std::move(created), source.block_bytes);
  RETURN_IF_ERROR(file.Append(plan.prefix));
  std::vector<std::string> sums(entries.size());
  for (const size_t i : plan.order) {
    TensorDigester digester(SizeOf(entries[i].dtype));
    RETURN_IF_ERROR(ForEachPiece(snapshot.tensors[i], source, [&](absl::string_view bytes) {
      digester.Update(bytes);
      return file.Append(bytes);
    }));
    sums[i] = digester.Finish();
  }
  checkpoint::File& record = *manifest.add_files();
  record.set_name(std::string(kShardName));
  RETURN_IF_ERROR(file.Finish(record));
  StateDigester state;
  for (const size_t i : CanonicalOrder(snapshot.tensors)) {
    const StateTensor& tensor = snapshot.tensors[i];
    checkpoint::Tensor& row = *manifest.add_tensors();
    row.set_kind(static_cast<checkpoint::Tensor::Kind>(tensor.kind));
    row.set_name(tensor.name);
    row.set_dtype(SafetensorsName(tensor.view.dtype));
    checkpoint::Slice& slice = *row.add_slices();
    slice.set_file(0);
    for (const int64_t dimension : tensor.shape) {
      row.add_shape(dimension);
      slice.add_offset(0);
      slice.add_shape(dimension);
    }
    state.AddTensor(tensor.kind, tensor.name, row.dtype(), absl::StrJoin(tensor.shape, ","), sums[i]);
  }
  manifest.set_state_sha256(state.Finish(snapshot.header));
  return absl::OkStatus();
}

// The checkpoint that this one follows: the last one below its step and not beyond LATEST. Without a readable LATEST,
// or without a manifest there, it has none: a save must not fail for an old checkpoint's sake.
absl::Status SetParent(FileSystem& fs, const std::string& directory, checkpoint::Manifest& manifest) {
  const absl::StatusOr<std::optional<int64_t>> latest = ReadLatest(fs, directory);
  if (absl::IsDataLoss(latest.status())) return absl::OkStatus();
  RETURN_IF_ERROR(latest.status());
  ASSIGN_OR_RETURN(const DirectoryListing listing, ListDirectory(fs, directory));
  std::optional<int64_t> parent;
  for (const int64_t step : listing.steps) {
    if (step < manifest.header().step() && *latest >= step) parent = step;
  }
  if (!parent.has_value()) return absl::OkStatus();
  const absl::StatusOr<std::string> bytes = ReadFile(fs, JoinPath(StepPath(directory, *parent), kManifestName));
  if (absl::IsNotFound(bytes.status())) return absl::OkStatus();
  RETURN_IF_ERROR(bytes.status());
  manifest.mutable_parent()->set_step(*parent);
  manifest.mutable_parent()->set_manifest_sha256(Sha256::Of(*bytes));
  return absl::OkStatus();
}

// Everything up to a whole, durable directory that does not have its name yet.
absl::Status WriteTemporary(FileSystem& fs, const std::string& directory, const std::string& temporary,
                            const StateSource& source, SavedCheckpoint& saved) {
  RETURN_IF_ERROR(fs.CreateDirectories(temporary));
  checkpoint::Manifest manifest;
  manifest.set_format_version(kCheckpointFormatVersion);
  *manifest.mutable_header() = source.snapshot.header;
  manifest.set_block_bytes(source.block_bytes);
  RETURN_IF_ERROR(WriteShard(fs, temporary, source, manifest));
  RETURN_IF_ERROR(SetParent(fs, directory, manifest));
  const std::string bytes = EncodeManifest(manifest);
  RETURN_IF_ERROR(WriteSynced(fs, JoinPath(temporary, kManifestName), bytes));
  saved.size_bytes = manifest.files(0).size_bytes() + static_cast<int64_t>(bytes.size());
  saved.state_digest = absl::BytesToHexString(manifest.state_sha256());
  return fs.SyncDirectory(temporary);
}

// True when the checkpoint at `path` is good and holds this state of this run.
absl::StatusOr<bool> HoldsAlready(FileSystem& fs, const std::string& path, const StateSource& source,
                                  SavedCheckpoint& saved) {
  const absl::StatusOr<OpenedCheckpoint> there = OpenCheckpoint(fs, path);
  if (absl::IsDataLoss(there.status())) return false;
  RETURN_IF_ERROR(there.status());
  if (there->header().run_hash() != source.snapshot.header.run_hash()) return false;
  ASSIGN_OR_RETURN(saved.state_digest, DigestOf(source));
  if (absl::BytesToHexString(there->manifest.state_sha256()) != saved.state_digest) return false;
  const absl::Status verified = VerifyFiles(fs, *there);
  if (absl::IsDataLoss(verified)) return false;
  RETURN_IF_ERROR(verified);
  for (const checkpoint::File& file : there->manifest.files()) saved.size_bytes += file.size_bytes();
  saved.was_there = true;
  return true;
}

}  // namespace

absl::StatusOr<SavedCheckpoint> SaveCheckpoint(FileSystem& fs, const std::string& directory, const Snapshot& snapshot,
                                               const SaveOptions& options, const TensorReader& read) {
  const StateSource source = {snapshot, read, options.block_bytes};
  const int64_t step = snapshot.header.step();
  CHECK_GE(step, 0);
  SavedCheckpoint saved;
  saved.path = StepPath(directory, step);
  RETURN_IF_ERROR(CreateDirectoriesDurably(fs, directory));
  ASSIGN_OR_RETURN(const DirectoryListing listing, ListDirectory(fs, directory));
  const bool exists = std::binary_search(listing.steps.begin(), listing.steps.end(), step);
  if (exists) {
    ASSIGN_OR_RETURN(const bool same, HoldsAlready(fs, saved.path, source, saved));
    if (same) {
      // A save that died between its last two operations may have left the name not durable and LATEST behind.
      RETURN_IF_ERROR(fs.SyncDirectory(directory));
      RETURN_IF_ERROR(WriteLatest(fs, directory, step));
      return saved;
    }
  }
  ASSIGN_OR_RETURN(const std::string temporary, FreeName(fs, saved.path, "tmp"));
  absl::Status status = WriteTemporary(fs, directory, temporary, source, saved);
  if (status.ok() && exists) status = SetAside(fs, directory, step);
  if (status.ok()) status = fs.Rename(temporary, saved.path);
  if (!status.ok()) {
    RemoveRecursively(fs, temporary).IgnoreError();  // the first failure is the one to tell
    return status;
  }
  RETURN_IF_ERROR(fs.SyncDirectory(directory));
  RETURN_IF_ERROR(WriteLatest(fs, directory, step));
  return saved;
}

}  // namespace shoestring
